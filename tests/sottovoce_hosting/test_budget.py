"""How much many connections may hold together, and who is woken when some of it is given back."""

import trio
import trio.testing

from sottovoce_hosting.budget import Budget

SIZE = 100


def test_it_is_spent_beyond_its_size_until_a_quarter_is_free() -> None:
    budget = Budget(SIZE)
    seen = []
    for change in (SIZE, 1, -1, -24, -1, SIZE - 75, 1):
        budget.change(change)
        seen.append((budget.held, budget.is_spent))
    assert seen == [(100, False), (101, True), (100, True), (76, True), (75, False), (100, False), (101, True)]


async def test_who_waits_for_room_goes_on_when_there_is_some_and_not_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = Budget(SIZE)
    await budget.wait_for_room()
    budget.change(SIZE + 1)
    with trio.move_on_after(1) as scope:
        await budget.wait_for_room()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.wait_for_room)
        await trio.testing.wait_all_tasks_blocked()
        budget.change(-SIZE)


async def test_where_the_first_of_many_that_wait_takes_it_all_again_the_others_wait_on() -> None:
    budget = Budget(SIZE)
    budget.change(SIZE + 1)
    went_on = []

    async def hold(number: int) -> None:
        await budget.wait_for_room()
        went_on.append(number)
        budget.change(SIZE + 1)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(hold, number)
        for count in (0, 1, 2, 3):
            await trio.testing.wait_all_tasks_blocked()
            assert len(went_on) == count
            budget.change(-SIZE - 1)


async def test_who_waits_for_something_else_as_well_is_woken_once() -> None:
    budget, lots = Budget(SIZE), [trio.lowlevel.ParkingLot() for _ in range(2)]
    woken = []

    async def park(number: int) -> None:
        await lots[number].park()
        woken.append(number)

    for _ in range(2):
        budget.change(SIZE + 1)
        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(park, number)
            await trio.testing.wait_all_tasks_blocked()
            if not woken:
                for lot in (*lots, *lots):
                    budget.wake(lot)
            budget.change(-SIZE - 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert sorted(woken) == [0, 1]
