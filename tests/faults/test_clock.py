"""A wall clock that jumps, forwards or back, while the relay runs: nothing is lost, refused or held up for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import CaughtUp, Deliver, KeyClass
from tests.relay_clients import Client, Mailbox

if TYPE_CHECKING:
    from tests.sottovoce_relay.conftest import ServedRelay, StartRelay

YEAR = 365 * limits.DAY
JUMPS = [10 * YEAR, -10 * YEAR, 40 * limits.DAY, -limits.HOUR]


async def waiting(relay: ServedRelay, box: Mailbox) -> list[bytes]:
    """What an owner is given who connects now; nothing is acknowledged."""
    async with relay.connect() as owner:
        await owner.open(box)
        await owner.receive(box)
        first = await owner.hear()
        assert isinstance(first, Deliver | CaughtUp), "nobody is told of a loss"
        return [item.body for item in first.items] if isinstance(first, Deliver) else []


async def send(client: Client, box: Mailbox, body: bytes, kind: KeyClass) -> None:
    assert await client.send([box.item(body, kind)]) == [Code.ACCEPTED]


@pytest.mark.parametrize("jump", JUMPS)
async def test_whatever_the_clock_does_envelopes_go_in_and_out(
    start_relay: StartRelay, box: Mailbox, jump: int
) -> None:
    async with start_relay() as relay, relay.owner(box) as owner, relay.connect() as sender:
        await owner.receive(box)
        await owner.expect(CaughtUp)
        for number, now in enumerate([0, jump, 0, -jump, 0]):
            relay.clock.now = 1_800_000_000 + now
            for kind in (KeyClass.STRANGER, KeyClass.INVITE):
                await send(sender, box, b"%d" % number, kind)
                delivered = await owner.hear_until(Deliver)
                assert [item.body for item in delivered.items] == [b"%d" % number]
                await owner.ack(box, delivered.items[-1].number)


@pytest.mark.parametrize("jump", JUMPS)
async def test_what_waits_is_still_there_when_the_clock_is_set_right(
    start_relay: StartRelay, box: Mailbox, jump: int
) -> None:
    async with start_relay() as relay, relay.owner(box), relay.connect() as sender:
        await send(sender, box, b"waits", KeyClass.CONTACT)
        relay.clock.now += jump
        assert await waiting(relay, box) == ([] if jump > limits.DAY else [b"waits"])
        relay.clock.now -= jump
        assert await waiting(relay, box) == [b"waits"]


@pytest.mark.parametrize("jump", JUMPS)
async def test_what_was_sent_while_the_clock_was_wrong_is_delivered_while_it_is_and_a_queue_can_be_made(
    start_relay: StartRelay, box: Mailbox, jump: int
) -> None:
    async with start_relay() as relay:
        relay.clock.now += jump
        async with relay.owner(box), relay.connect() as sender:
            await send(sender, box, b"sent meanwhile", KeyClass.CONTACT)
        assert await waiting(relay, box) == [b"sent meanwhile"]
