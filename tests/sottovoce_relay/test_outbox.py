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
    outbox.post(Pong(4))
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


async def test_waiting_until_all_is_sent_counts_what_was_posted_by_then(autojump_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    outbox.post(Pong(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.wait_sent)
        await trio.testing.wait_all_tasks_blocked()
        outbox.post(Pong(2))
        outbox.sent((await outbox.take())[0])
    with trio.move_on_after(1) as scope:
        await outbox.wait_sent()
    assert scope.cancelled_caught
