"""What a connection still has to say, and who waits for whom."""

import trio
import trio.testing

from sottovoce_relay.outbox import ROOM, Outbox
from sottovoce_wire.frames import Pong, encode


async def test_frames_come_out_in_order_and_none_after_the_end() -> None:
    outbox = Outbox()
    outbox.post(Pong(1))
    outbox.post(Pong(2))
    assert await outbox.take() == [encode(Pong(1)), encode(Pong(2))]
    outbox.post(Pong(3))
    outbox.end()
    assert not outbox.post(Pong(4))
    assert await outbox.take() == [encode(Pong(3))]
    assert await outbox.take() == []


async def test_who_waits_for_room_goes_on_when_enough_was_sent(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
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
    outbox = Outbox()
    assert outbox.post(Pong(1))
    assert outbox.post(Pong(2))
    outbox.sent((await outbox.take())[0])
    assert (outbox.posted, outbox.handed_over) == (2, 1)
    outbox.end()
    assert not outbox.post(Pong(3))
    assert outbox.posted == 2
