"""The relay's promise from end to end, over real sockets: accepted, delivered, acknowledged, gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sottovoce_wire.errors import Code
from sottovoce_wire.frames import Acked, CaughtUp, Deliver, Delivery, KeyClass

if TYPE_CHECKING:
    from tests.sottovoce_relay.conftest import Mailbox, ServedRelay, StartRelay


async def test_an_envelope_for_an_absent_owner_waits_and_is_gone_once_acknowledged(
    relay: ServedRelay, box: Mailbox
) -> None:
    async with relay.owner(box), relay.connect() as sender:
        assert await sender.send([box.item(b"one"), box.item(b"two", KeyClass.STRANGER)]) == [Code.ACCEPTED] * 2
    async with relay.connect() as owner:
        await owner.open(box)
        await owner.receive(box)
        assert await owner.expect(Deliver) == Deliver(
            box.queue, [Delivery(1, KeyClass.CONTACT, b"one"), Delivery(2, KeyClass.STRANGER, b"two")]
        )
        await owner.ack(box, 2)
        assert await owner.expect(Acked) == Acked(box.queue, 2, [])
        await owner.expect(CaughtUp)
    async with relay.connect() as owner:
        await owner.open(box)
        await owner.receive(box)
        await owner.expect(CaughtUp)


async def test_an_envelope_for_a_present_owner_is_pushed_when_it_is_committed(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await owner.receive(box)
        await owner.expect(CaughtUp)
        for number in range(1, 6):
            assert await sender.send([box.item(b"%d" % number)]) == [Code.ACCEPTED]
            assert await owner.expect(Deliver) == Deliver(
                box.queue, [Delivery(number, KeyClass.CONTACT, b"%d" % number)]
            )
        await owner.ack(box, 5)
        await owner.expect(Acked)


async def test_what_was_accepted_is_there_after_a_restart(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay() as relay, relay.owner(box), relay.connect() as sender:
        assert await sender.send([box.item(b"kept")]) == [Code.ACCEPTED]
    async with start_relay() as relay, relay.connect() as owner:
        await owner.open(box)
        await owner.receive(box)
        assert [item.body for item in (await owner.expect(Deliver)).items] == [b"kept"]
