"""What a connection still has to say, in which messages, and who waits for whom."""

import trio
import trio.testing

from sottovoce_hosting.budget import Budget
from sottovoce_relay.outbox import ALL_ROOM, ROOM, Message, Outbox
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import (
    CaughtUp,
    Deliver,
    Delivery,
    Goodbye,
    KeyClass,
    Pong,
    RelayFrame,
    decode_relay_message,
)
from tests.sottovoce_relay.parts import OTHER, QUEUE

GOODBYE = Goodbye(Code.TOO_SLOW, "why")


def new_outbox(budget: Budget | None = None) -> Outbox:
    return Outbox(budget or Budget(ALL_ROOM))


def items(*numbers: int, size: int = 10) -> list[Delivery]:
    return [Delivery(number, KeyClass.CONTACT, bytes(size)) for number in numbers]


async def taken(outbox: Outbox) -> list[RelayFrame]:
    """The frames of the next message, which is then with the socket."""
    gone = await outbox.take()
    assert gone is not None
    assert len(gone.data) <= limits.MAX_MESSAGE
    outbox.sent(gone)
    return decode_relay_message(gone.data)


async def test_frames_that_are_ready_together_leave_in_one_message_and_in_order() -> None:
    outbox = new_outbox()
    frames: list[RelayFrame] = [Pong(1), CaughtUp(QUEUE), Pong(2)]
    for frame in frames:
        assert outbox.post(frame)
    assert await taken(outbox) == frames


async def test_goodbye_leaves_alone_and_last_and_nothing_is_taken_after_it() -> None:
    outbox = new_outbox()
    outbox.post(Pong(1))
    outbox.end(GOODBYE)
    assert not outbox.post(Pong(2))
    outbox.deliver(QUEUE, items(1))
    assert await taken(outbox) == [Pong(1)]
    assert await taken(outbox) == [GOODBYE]
    assert await outbox.take() is None


async def test_who_takes_waits_until_there_is_something(autojump_clock: trio.testing.MockClock) -> None:
    outbox = new_outbox()
    got: list[Message | None] = []

    async def take() -> None:
        got.append(await outbox.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        outbox.end(GOODBYE)
    assert [decode_relay_message(gone.data) for gone in got if gone] == [[GOODBYE]]


async def test_envelopes_of_one_queue_join_the_frame_before() -> None:
    outbox = new_outbox()
    outbox.deliver(QUEUE, items(1, 2))
    outbox.deliver(QUEUE, items(3))
    outbox.deliver(OTHER, items(1))
    outbox.deliver(QUEUE, items(4))
    outbox.post(Pong(1))
    outbox.deliver(QUEUE, items(5))
    assert await taken(outbox) == [
        Deliver(QUEUE, items(1, 2, 3)),
        Deliver(OTHER, items(1)),
        Deliver(QUEUE, items(4)),
        Pong(1),
        Deliver(QUEUE, items(5)),
    ]


async def test_a_frame_takes_no_more_envelopes_than_it_may_carry() -> None:
    outbox = new_outbox()
    for number in range(1, limits.MAX_UNACKNOWLEDGED + 2):
        outbox.deliver(QUEUE, items(number))
    frames = await taken(outbox)
    assert [len(frame.items) for frame in frames if isinstance(frame, Deliver)] == [limits.MAX_UNACKNOWLEDGED, 1]


async def test_large_envelopes_are_spread_over_frames_and_messages_within_the_limit() -> None:
    outbox = new_outbox()
    for number in range(40):
        outbox.deliver(QUEUE, items(number, size=limits.MAX_ENVELOPE))
    numbers: list[int] = []
    messages = 0
    while len(numbers) < 40:
        for frame in await taken(outbox):
            assert isinstance(frame, Deliver)
            numbers += [item.number for item in frame.items]
        messages += 1
    assert numbers == list(range(40))
    assert 5 <= messages <= 10


async def test_a_message_carries_no_more_frames_than_it_may() -> None:
    outbox = new_outbox()
    for number in range(limits.MAX_FRAMES + 1):
        outbox.post(Pong(number))
    assert [len(await taken(outbox)), len(await taken(outbox))] == [limits.MAX_FRAMES, 1]


async def test_what_is_unsent_counts_until_it_is_with_the_socket() -> None:
    outbox = new_outbox()
    for number in range(ROOM // limits.MAX_ENVELOPE):
        assert outbox.has_room
        outbox.deliver(QUEUE, items(number, size=limits.MAX_ENVELOPE))
    assert not outbox.has_room
    gone = await outbox.take()
    assert gone is not None
    assert not outbox.has_room
    outbox.sent(gone)
    assert outbox.has_room


async def test_all_that_was_counted_is_given_back() -> None:
    outbox = new_outbox()
    outbox.post(Pong(1))
    outbox.deliver(QUEUE, items(1))
    outbox.deliver(QUEUE, items(2, 3))
    await taken(outbox)
    outbox.reserve(ROOM - 1)
    assert outbox.has_room
    outbox.reserve(1)
    assert not outbox.has_room


async def test_who_waits_for_room_goes_on_when_enough_was_sent(autojump_clock: trio.testing.MockClock) -> None:
    outbox = new_outbox()
    outbox.post(Pong(1))
    outbox.reserve(ROOM)
    with trio.move_on_after(1) as scope:
        await outbox.wait_for_room()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.wait_for_room)
        await trio.testing.wait_all_tasks_blocked()
        outbox.release(ROOM)
    assert outbox.has_room


async def test_frames_are_counted_when_they_are_posted_and_when_they_are_with_the_socket() -> None:
    outbox = new_outbox()
    assert outbox.post(Pong(1))
    gone = await outbox.take()
    assert gone is not None
    assert outbox.post(Pong(2))
    outbox.deliver(QUEUE, items(1))
    outbox.deliver(QUEUE, items(2))
    outbox.sent(gone)
    assert (outbox.posted, outbox.handed_over) == (3, 1)
    outbox.end(GOODBYE)
    assert not outbox.post(Pong(3))
    assert outbox.posted == 3


# --- What all connections hold together ---------------------------------------------------------------------------


async def test_while_all_together_hold_too_much_only_little_answers_get_through(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = Budget(ROOM)
    greedy, modest = new_outbox(budget), new_outbox(budget)
    greedy.reserve(ROOM - 1)
    modest.reserve(1000)
    assert (greedy.has_room, modest.has_room) == (False, True)
    modest.reserve(64 * 1024)
    assert not modest.has_room
    async with trio.open_nursery() as nursery:
        nursery.start_soon(modest.wait_for_room)
        await trio.testing.wait_all_tasks_blocked()
        greedy.release(ROOM // 2)
    assert modest.has_room


async def test_a_connection_that_is_over_holds_nothing_and_never_will() -> None:
    budget = Budget(ALL_ROOM)
    outbox = new_outbox(budget)
    outbox.post(Pong(1))
    gone = await outbox.take()
    assert gone is not None
    outbox.deliver(QUEUE, items(1))
    outbox.reserve(1000)
    outbox.close()
    assert budget.held == 0
    outbox.sent(gone)
    outbox.release(1000)
    outbox.reserve(5)
    assert not outbox.post(Pong(2))
    assert budget.held == 0
    assert await outbox.take() is None
