"""What is read and not handled is bounded, for one connection and for all, and nobody waits for ever."""

from typing import Any

import pytest
import trio
import trio.testing

from sottovoce_hosting.budget import Budget
from sottovoce_hosting.unhandled import Inbox


def message(size: int) -> dict[str, Any]:
    return {"type": "websocket.receive", "bytes": bytes(size)}


async def is_stuck(nursery: trio.Nursery, function: Any, *args: Any) -> bool:
    """Start it in `nursery`; whether it waits for something."""
    ended = trio.Event()

    async def run() -> None:
        await function(*args)
        ended.set()

    nursery.start_soon(run)
    await trio.testing.wait_all_tasks_blocked()
    return not ended.is_set()


async def test_messages_come_out_as_they_went_in() -> None:
    inbox = Inbox(Budget(2**20))
    for size in range(200):
        await inbox.put(message(size))
    assert [len((await inbox.receive())["bytes"]) for _ in range(200)] == list(range(200))


async def test_taking_what_is_ready_waits_for_nothing_and_ends_in_time_for_others() -> None:
    inbox = Inbox(Budget(2**20))
    assert inbox.receive_ready() is None
    for _ in range(200):
        await inbox.put(message(1))
    await inbox.receive()
    ready = 0
    while inbox.receive_ready():
        ready += 1
    assert ready == 63


@pytest.mark.parametrize("size", [0, 1000, 2**20])
async def test_who_is_behind_is_put_no_more_than_a_bound(nursery: trio.Nursery, size: int) -> None:
    budget = Budget(2**30)
    inbox = Inbox(budget)

    async def put_too_many() -> None:
        for _ in range(2**20 // (size + 256) + 10):
            await inbox.put(message(size))

    assert await is_stuck(nursery, put_too_many)
    assert 2**20 < budget.held < 2**20 + 2 * (size + 256)
    held = budget.held
    await inbox.receive()
    await trio.testing.wait_all_tasks_blocked()
    assert budget.held == held
    nursery.cancel_scope.cancel()


async def test_a_handler_that_ended_holds_nothing_and_stops_nobody(nursery: trio.Nursery) -> None:
    budget = Budget(2**30)
    inbox = Inbox(budget)
    inbox.note_part(5)
    await inbox.put(message(100))
    assert await is_stuck(nursery, inbox.put, message(2**20))
    inbox.close()
    assert not await is_stuck(nursery, inbox.put, message(2**20))
    inbox.note_part(5)
    assert budget.held == 0


async def test_a_producer_and_a_consumer_let_others_run() -> None:
    inbox = Inbox(Budget(2**30))
    runs = [0]

    async def count() -> None:
        while True:
            runs[0] += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(640):
            await inbox.put(message(1))
        after_putting = runs[0]
        for _ in range(640):
            await inbox.receive()
        assert after_putting >= 8
        assert runs[0] - after_putting >= 8
        nursery.cancel_scope.cancel()


def test_beyond_the_budget_who_holds_much_waits_and_who_holds_little_does_not() -> None:
    budget = Budget(100_000)
    hoarder, other, light = (Inbox(budget) for _ in range(3))
    hoarder.note_part(90_000)
    assert not hoarder.has_to_wait
    other.note_part(16_384)
    light.note_part(16_383)
    assert [inbox.has_to_wait for inbox in (hoarder, other, light)] == [True, True, False]


async def test_who_waits_goes_on_once_a_quarter_is_free(nursery: trio.Nursery) -> None:
    budget = Budget(100_000)
    hoarder, other = Inbox(budget), Inbox(budget)
    await hoarder.put(message(80_000))
    other.note_part(20_000)
    went_on = trio.Event()

    async def wait() -> None:
        await budget.wait_for_room()
        went_on.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not went_on.is_set()
    await hoarder.receive()
    with trio.fail_after(20):
        await went_on.wait()


async def test_those_that_are_let_go_on_stop_again_once_the_budget_is_spent(nursery: trio.Nursery) -> None:
    budget = Budget(100_000)
    hoarder, waiting = Inbox(budget), [Inbox(budget) for _ in range(4)]
    hoarder.note_part(80_000)
    went_on = [0]

    async def read(inbox: Inbox) -> None:
        await budget.wait_for_room()
        inbox.note_part(60_000)
        went_on[0] += 1

    for inbox in waiting:
        inbox.note_part(16_384)
        nursery.start_soon(read, inbox)
    await trio.testing.wait_all_tasks_blocked()
    assert went_on == [0]
    hoarder.close()
    await trio.testing.wait_all_tasks_blocked()
    assert went_on == [1]
    nursery.cancel_scope.cancel()
