"""The relay's promise from end to end, over real sockets: accepted, delivered, acknowledged, gone."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio

from sottovoce_relay import app, sweeper
from sottovoce_relay.settings import SWEEP_GRACE_SECONDS
from sottovoce_wire import ids, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import (
    Acked,
    AddSendKey,
    CaughtUp,
    CreateQueue,
    Deliver,
    Delivery,
    Done,
    Failed,
    Gap,
    GapReason,
    KeyClass,
    NewSendKey,
    OpenQueue,
    Ping,
    Pong,
    Receive,
    RevokeSendKey,
    Send,
    SendItem,
    SendResults,
    Ttl,
    encode,
)
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey
from tests.relay_clients import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sottovoce_relay.conftest import Client, Mailbox, ServedRelay, StartRelay

ACCEPTED = Code.ACCEPTED


async def bodies(owner: Client, count: int) -> list[bytes]:
    """The next `count` bodies that are delivered."""
    got: list[bytes] = []
    while len(got) < count:
        got += [item.body for item in (await owner.hear_until(Deliver)).items]
    return got


@pytest.fixture
def _held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written because time is up: what a slow machine takes long for is still held."""
    terms_of = app.terms_of
    monkeypatch.setattr(app, "terms_of", lambda settings: replace(terms_of(settings), hold_seconds=10_000))


# --- Stored, delivered, acknowledged ------------------------------------------------------------------------------


async def test_an_envelope_for_an_absent_owner_waits_and_is_gone_once_acknowledged(
    relay: ServedRelay, box: Mailbox
) -> None:
    async with relay.owner(box), relay.connect() as sender:
        assert await sender.send([box.item(b"one"), box.item(b"two", KeyClass.STRANGER)]) == [ACCEPTED, ACCEPTED]
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


@pytest.mark.parametrize("hold_ms", [0, 5])
async def test_an_envelope_for_a_present_owner_is_accepted_once_it_is_stored_if_it_is_not_acknowledged(
    start_relay: StartRelay, box: Mailbox, hold_ms: int
) -> None:
    async with start_relay(hold_ms=hold_ms) as relay, relay.owner(box) as owner, relay.connect() as sender:
        await owner.receive(box)
        await owner.expect(CaughtUp)
        for number in range(1, 6):
            assert await sender.send([box.item(b"%d" % number)]) == [ACCEPTED]
            pushed = Deliver(box.queue, [Delivery(number, KeyClass.CONTACT, b"%d" % number)])
            assert await owner.expect(Deliver) == pushed
        await owner.ack(box, 5)
        await owner.expect(Acked)


@pytest.mark.usefixtures("_held_for_long")
async def test_what_is_acknowledged_at_once_is_accepted_then_and_never_reaches_the_disk(
    start_relay: StartRelay, box: Mailbox
) -> None:
    secrets = [os.urandom(32) for _ in range(5)]
    async with start_relay() as relay, relay.owner(box) as owner, relay.connect() as sender:
        await owner.receive(box)
        await owner.expect(CaughtUp)
        for number, secret in enumerate(secrets, start=1):
            await sender.say(Send(number, [box.item(secret)]))
            assert await bodies(owner, 1) == [secret]
            await owner.ack(box, number)
            assert await owner.hear_until(Acked) == Acked(box.queue, number, [])
            assert (await sender.expect(SendResults)).results[0].code is ACCEPTED
        assert [holders(relay.data, secret) for secret in secrets] == [set()] * 5


@pytest.mark.usefixtures("_held_for_long")
async def test_what_is_held_when_its_owner_goes_is_stored_and_accepted(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay() as relay, relay.connect() as sender:
        async with relay.owner(box) as owner:
            await owner.receive(box)
            await owner.expect(CaughtUp)
            await sender.say(Send(1, [box.item(b"held")]))
            await bodies(owner, 1)
        assert (await sender.expect(SendResults)).results[0].code is ACCEPTED
        async with relay.owner(box) as owner:
            await owner.receive(box)
            assert await bodies(owner, 1) == [b"held"]


@pytest.mark.usefixtures("_held_for_long")
async def test_what_is_held_when_the_relay_stops_is_there_after_the_restart(
    start_relay: StartRelay, box: Mailbox
) -> None:
    async with start_relay() as relay, relay.owner(box) as owner, relay.connect() as sender:
        await owner.receive(box)
        await owner.expect(CaughtUp)
        await sender.say(Send(1, [box.item(b"held")]))
        await bodies(owner, 1)
        relay.server.stop.set()
        assert (await owner.goodbye()).code is Code.SHUTTING_DOWN
    async with start_relay() as relay, relay.owner(box) as owner:
        await owner.receive(box)
        assert await bodies(owner, 1) == [b"held"]


async def test_what_was_accepted_is_there_after_a_restart(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay() as relay, relay.owner(box), relay.connect() as sender:
        assert await sender.send([box.item(b"kept")]) == [ACCEPTED]
    async with start_relay() as relay, relay.connect() as owner:
        await owner.open(box)
        await owner.receive(box)
        assert await bodies(owner, 1) == [b"kept"]


async def test_each_queue_is_delivered_in_the_order_accepted_while_senders_and_owner_race(
    relay: ServedRelay, box: Mailbox, other_box: Mailbox
) -> None:
    """Paging and live at once: 600 envelopes from two senders, while the owner reads with little credit."""
    sent = {target.queue: [b"%d" % number for number in range(300)] for target in (box, other_box)}

    async def send_all(target: Mailbox) -> None:
        async with relay.connect() as sender:
            for start in range(0, 300, 3):
                items = [target.item(body) for body in sent[target.queue][start : start + 3]]
                assert await sender.send(items) == [ACCEPTED] * 3

    async with relay.owner(box) as owner, trio.open_nursery() as nursery:
        await owner.create(other_box)
        nursery.start_soon(send_all, box)
        nursery.start_soon(send_all, other_box)
        await owner.receive(box, count=5)
        await owner.say(Receive(9, other_box.queue, 100, limits.MAX_ENVELOPE))
        got: dict[QueueId, list[bytes]] = {box.queue: [], other_box.queue: []}
        numbers: dict[QueueId, list[int]] = {box.queue: [], other_box.queue: []}
        while got != sent:
            frame = await owner.hear_until(Deliver)
            got[frame.queue] += [item.body for item in frame.items]
            numbers[frame.queue] += [item.number for item in frame.items]
            await owner.ack(box if frame.queue == box.queue else other_box, frame.items[-1].number)
        assert list(numbers.values()) == [list(range(1, 301))] * 2


async def test_singles_are_deleted_and_what_lies_between_them_is_delivered_again(
    relay: ServedRelay, box: Mailbox
) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await sender.send([box.item(b"%d" % number) for number in range(1, 7)])
        await owner.receive(box)
        await bodies(owner, 6)
        await owner.ack(box, 1, 3, 6)
        assert await owner.expect(Acked) == Acked(box.queue, 1, [3, 6])
    async with relay.owner(box) as owner:
        await owner.receive(box)
        assert await bodies(owner, 3) == [b"2", b"4", b"5"]


async def test_an_unacknowledged_envelope_is_delivered_again_on_the_next_connection(
    relay: ServedRelay, box: Mailbox
) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await sender.send([box.item(b"again")])
        await owner.receive(box)
        await bodies(owner, 1)
    async with relay.owner(box) as owner:
        await owner.receive(box)
        assert await bodies(owner, 1) == [b"again"]


async def test_an_acknowledgement_counts_on_its_own_connection_only(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await sender.send([box.item(b"unseen")])
        await owner.ack(box, 1)
        assert (await owner.goodbye()).code is Code.BAD_ACK
    async with relay.owner(box) as owner:
        await owner.receive(box)
        assert await bodies(owner, 1) == [b"unseen"]
        await owner.ack(box, 2)
        assert (await owner.goodbye()).code is Code.BAD_ACK
    async with relay.owner(box) as owner:
        await owner.receive(box)
        assert await bodies(owner, 1) == [b"unseen"]


async def test_numbers_that_a_restored_database_uses_again_destroy_nothing(
    start_relay: StartRelay, box: Mailbox
) -> None:
    async with start_relay() as relay, relay.owner(box), relay.connect() as sender:
        await sender.send([box.item(b"1")])
    files = {path: path.read_bytes() for path in relay.data.iterdir()}
    async with start_relay() as relay, relay.owner(box) as owner, relay.connect() as sender:
        await sender.send([box.item(b"2")])
        await owner.receive(box)
        await bodies(owner, 2)
    for path in relay.data.iterdir():
        path.unlink()
    for path, content in files.items():
        path.write_bytes(content)
    async with start_relay() as relay, relay.owner(box) as owner, relay.connect() as sender:
        await sender.send([box.item(b"another 2")])  # the queue number that the lost envelope had
        await owner.ack(box, 2)  # what the owner of the lost one would still say
        assert (await owner.goodbye()).code is Code.BAD_ACK
    async with start_relay() as relay, relay.owner(box) as owner:
        await owner.receive(box)
        assert await bodies(owner, 2) == [b"1", b"another 2"]


async def test_credit_stops_delivery_at_256_and_an_acknowledgement_frees_it(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        for _ in range(2):
            assert await sender.send([box.item(b"x") for _ in range(150)]) == [ACCEPTED] * 150
        await owner.receive(box)
        assert len(await bodies(owner, 256)) == 256
        await owner.say(Ping(1))  # anything more would come before the answer
        assert await owner.expect(Pong) == Pong(1)
        await owner.ack(box, 10)
        assert len(await bodies(owner, 10)) == 10
        await owner.say(Ping(2))
        while not isinstance(frame := await owner.hear(), Pong):
            assert isinstance(frame, Acked)


async def test_credit_in_bytes_stops_delivery_as_well(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await sender.send([box.item(bytes(limits.MAX_ENVELOPE)), box.item(bytes(1))])
        await owner.receive(box, size=limits.MAX_ENVELOPE)
        assert len((await owner.expect(Deliver)).items) == 1
        await owner.say(Ping(1))
        await owner.expect(Pong)
        await owner.ack(box, 1)
        assert len((await owner.hear_until(Deliver)).items) == 1


async def test_a_large_backlog_comes_in_frames_within_the_limit(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        for _ in range(3):
            await sender.send([box.item(bytes(60_000)) for _ in range(16)])
        await owner.receive(box)
        assert [len(body) for body in await bodies(owner, 48)] == [60_000] * 48


async def test_a_new_live_connection_displaces_the_old_one_and_gets_what_it_had_not_acknowledged(
    relay: ServedRelay, box: Mailbox
) -> None:
    async with relay.owner(box) as old, relay.connect() as sender:
        await old.receive(box)
        await old.expect(CaughtUp)
        await sender.send([box.item(b"1")])
        await bodies(old, 1)
        async with relay.owner(box) as new:
            await new.receive(box)
            assert (await old.goodbye()).code is Code.DISPLACED
            assert await bodies(new, 1) == [b"1"]
            await sender.send([box.item(b"2")])
            assert await bodies(new, 1) == [b"2"]


async def test_acknowledgements_of_the_displaced_and_the_new_connection_are_counted_once(
    relay: ServedRelay, box: Mailbox
) -> None:
    quota = 3
    async with relay.owner(box) as old, relay.connect() as sender:
        await sender.send([box.item(b"%d" % number) for number in range(quota)])
        await old.receive(box)
        await bodies(old, quota)
        async with relay.owner(box) as new:
            await old.ack(box, quota)
            await new.receive(box)
            # Whether the first acknowledgement came before or after, both may name the same envelopes.
            while not isinstance(frame := await new.hear(), CaughtUp):
                if isinstance(frame, Deliver):
                    await new.ack(box, frame.items[-1].number)
            await sender.send([box.item(b"after")])
            assert await bodies(new, 1) == [b"after"]


# --- Senders ------------------------------------------------------------------------------------------------------


async def test_unknown_queue_wrong_key_and_revoked_key_get_the_same_bytes(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as stranger:
        await owner.say(RevokeSendKey(1, box.queue, ids.send_key_hash(box.keys[KeyClass.CONTACT])))
        await owner.expect(Done)
        unknown = SendItem(QueueId(os.urandom(16)), SendKey(bytes(32)), EnvelopeId(os.urandom(16)), Ttl.DAY, b"x")
        wrong = SendItem(box.queue, SendKey(bytes(32)), EnvelopeId(os.urandom(16)), Ttl.DAY, b"x")
        answers = []
        for item in (unknown, wrong, box.item(b"x")):
            await stranger.say(Send(1, [item]))
            answers.append(encode(await stranger.expect(SendResults)))
        assert len(set(answers)) == 1
        assert await stranger.send([unknown, wrong, box.item(b"x")]) == [Code.REFUSED] * 3


async def test_a_key_added_later_opens_the_queue_and_a_revoked_one_closes_it(relay: ServedRelay, box: Mailbox) -> None:
    key = SendKey(os.urandom(32))
    item = SendItem(box.queue, key, EnvelopeId(os.urandom(16)), Ttl.DAY, b"x")
    async with relay.owner(box) as owner, relay.connect() as sender:
        assert await sender.send([item]) == [Code.REFUSED]
        for request in (5, 6):
            await owner.say(AddSendKey(request, box.queue, NewSendKey(ids.send_key_hash(key), KeyClass.GROUP)))
            assert await owner.expect(Done) == Done(request)
        assert await sender.send([item]) == [ACCEPTED]
        await owner.say(RevokeSendKey(7, box.queue, ids.send_key_hash(key)))
        assert await owner.expect(Done) == Done(7)
        assert await sender.send([item]) == [Code.REFUSED]


async def test_a_repeat_is_accepted_and_delivered_once_and_another_body_is_a_conflict(
    relay: ServedRelay, box: Mailbox
) -> None:
    name = os.urandom(16)
    async with relay.owner(box) as owner, relay.connect() as sender:
        assert await sender.send([box.item(b"x", envelope_id=name)]) == [ACCEPTED]
        again = [box.item(b"x", envelope_id=name), box.item(b"y", envelope_id=name), box.item(b"z")]
        assert await sender.send(again) == [ACCEPTED, Code.ID_CONFLICT, ACCEPTED]
        await owner.receive(box)
        assert await bodies(owner, 2) == [b"x", b"z"]


async def test_an_envelope_sent_again_after_its_acknowledgement_is_delivered_again(
    relay: ServedRelay, box: Mailbox
) -> None:
    name = os.urandom(16)
    async with relay.owner(box) as owner, relay.connect() as sender:
        await owner.receive(box)
        for number in (1, 2):
            assert await sender.send([box.item(b"x", envelope_id=name)]) == [ACCEPTED]
            assert await bodies(owner, 1) == [b"x"]
            await owner.ack(box, number)
            await owner.hear_until(Acked)


async def test_a_full_queue_has_room_again_after_acknowledgements(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay(queue_envelopes=3) as relay, relay.owner(box) as owner, relay.connect() as sender:
        assert await sender.send([box.item(b"x") for _ in range(4)]) == [ACCEPTED] * 3 + [Code.QUEUE_FULL]
        await owner.receive(box)
        await bodies(owner, 3)
        await owner.ack(box, 2)
        await owner.hear_until(Acked)
        assert await sender.send([box.item(b"x") for _ in range(3)]) == [ACCEPTED] * 2 + [Code.QUEUE_FULL]


async def test_strangers_fill_their_share_and_contacts_still_get_in(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay(stranger_rate=1e6) as relay, relay.owner(box), relay.connect() as sender:
        codes = []
        for _ in range(9):
            codes += await sender.send([box.item(b"x", KeyClass.STRANGER) for _ in range(250)])
        assert codes == [ACCEPTED] * 2000 + [Code.QUEUE_FULL] * 250
        assert await sender.send([box.item(b"x", KeyClass.CONTACT)]) == [ACCEPTED]


async def test_an_envelope_above_the_relays_limit_is_refused_by_itself(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay(max_envelope=2000) as relay, relay.owner(box), relay.connect() as sender:
        assert await sender.send([box.item(bytes(2001)), box.item(bytes(2000))]) == [Code.ENVELOPE_TOO_LARGE, ACCEPTED]


async def test_many_sends_without_waiting_are_all_answered_in_order(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box), relay.connect() as sender, trio.open_nursery() as nursery:

        async def say_all() -> None:
            for request in range(500):
                await sender.say(Send(request, [box.item(bytes(3000))]))

        nursery.start_soon(say_all)
        for request in range(500):
            answer = await sender.expect(SendResults)
            assert (answer.request, answer.results[0].code) == (request, ACCEPTED)


# --- Owners -------------------------------------------------------------------------------------------------------


async def test_only_the_owners_signature_for_this_relay_and_this_connection_opens_a_queue(
    relay: ServedRelay, box: Mailbox, other_box: Mailbox
) -> None:
    async with relay.owner(box) as owner, relay.connect() as other:
        for signature in (owner.signature(box), other.signature(other_box), bytes(64)):
            await other.say(OpenQueue(1, box.owner_key, signature))
            assert (await other.expect(Failed)).code is Code.BAD_SIGNATURE
        other.origin = "https://another.example"
        await other.say(OpenQueue(1, box.owner_key, other.signature(box)))
        assert (await other.expect(Failed)).code is Code.BAD_SIGNATURE
        await other.say(Receive(2, box.queue, 1, limits.MAX_ENVELOPE))
        assert (await other.expect(Failed)).code is Code.QUEUE_NOT_PROVEN


async def test_a_queue_that_was_never_created_is_unknown_to_its_owner(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.connect() as owner:
        await owner.say(OpenQueue(1, box.owner_key, owner.signature(box)))
        assert (await owner.expect(Failed)).code is Code.UNKNOWN_QUEUE


async def test_creating_a_queue_again_proves_it_and_adds_keys(relay: ServedRelay, box: Mailbox) -> None:
    key = SendKey(os.urandom(32))
    async with relay.owner(box):
        pass
    async with relay.connect() as owner:
        new = [NewSendKey(ids.send_key_hash(key), KeyClass.INVITE)]
        await owner.say(CreateQueue(1, box.owner_key, owner.signature(box), new, ""))
        await owner.expect(Done)
        item = SendItem(box.queue, key, EnvelopeId(bytes(16)), Ttl.DAY, b"new key")
        assert await owner.send([item, box.item(b"old key")]) == [ACCEPTED, ACCEPTED]
        await owner.receive(box)
        delivered = (await owner.hear_until(Deliver)).items
        assert [(item.key_class, item.body) for item in delivered] == [
            (KeyClass.INVITE, b"new key"),
            (KeyClass.CONTACT, b"old key"),
        ]


async def test_a_queue_with_all_its_keys_takes_no_more(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner:
        more = [NewSendKey(ids.send_key_hash(SendKey(os.urandom(32))), KeyClass.GROUP) for _ in range(253)]
        await owner.say(CreateQueue(1, box.owner_key, owner.signature(box), more, ""))
        assert (await owner.expect(Failed)).code is Code.TOO_MANY_SEND_KEYS
        await owner.say(CreateQueue(2, box.owner_key, owner.signature(box), more[1:], ""))
        await owner.expect(Done)
        await owner.say(AddSendKey(3, box.queue, more[0]))
        assert (await owner.expect(Failed)).code is Code.TOO_MANY_SEND_KEYS


async def test_on_a_full_disk_nothing_is_taken_in_and_everything_can_be_taken_out(
    start_relay: StartRelay, box: Mailbox, other_box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_relay() as relay, relay.owner(box), relay.connect() as sender:
        assert await sender.send([box.item(b"before")]) == [ACCEPTED]
        assert b" 200 " in await relay.server.exchange(b"GET /readyz HTTP/1.0\r\n\r\n")
    usage = shutil.disk_usage(relay.data)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1))
    async with start_relay() as relay, relay.owner(box) as owner, relay.connect() as sender:
        assert b"disk is nearly full" in await relay.server.exchange(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert await sender.send([box.item(b"now")]) == [Code.TRY_AGAIN]
        await sender.say(CreateQueue(1, other_box.owner_key, sender.signature(other_box), [], ""))
        assert (await sender.expect(Failed)).code is Code.TRY_AGAIN
        await owner.receive(box)
        assert await bodies(owner, 1) == [b"before"]
        await owner.ack(box, 1)
        assert await owner.hear_until(Acked) == Acked(box.queue, 1, [])


# --- What stays on the disk ---------------------------------------------------------------------------------------


def holders(folder: Path, secret: bytes) -> set[str]:
    """The files in which `secret` stands."""
    return {path.name for path in folder.iterdir() if secret in path.read_bytes()}


async def wait_until_gone(folder: Path, secret: bytes) -> None:
    with trio.fail_after(PATIENCE):
        while holders(folder, secret):  # noqa: ASYNC110 - only asking helps
            await trio.sleep(0.01)


async def test_nothing_of_an_acknowledged_envelope_stays_in_the_database_or_its_log(
    start_relay: StartRelay, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "LOG_SECONDS", 0.05)
    secret, kept = os.urandom(32), os.urandom(32)
    async with start_relay() as relay, relay.owner(box) as owner, relay.connect() as sender:
        await sender.send([box.item(secret), box.item(kept)])
        assert holders(relay.data, secret)
        await owner.receive(box)
        await bodies(owner, 2)
        await owner.ack(box, 1)
        await owner.hear_until(Acked)
        await wait_until_gone(relay.data, secret)
        assert holders(relay.data, kept)


async def test_nothing_of_an_expired_envelope_stays_in_the_database_or_its_log(
    start_relay: StartRelay, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "LOG_SECONDS", 0.05)
    monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(sweeper, "JUMP_SECONDS", math.inf)
    secret, kept = os.urandom(32), os.urandom(32)
    async with start_relay() as relay, relay.owner(box), relay.connect() as sender:
        await sender.send([box.item(secret, ttl=Ttl.HOUR), box.item(kept)])
        assert holders(relay.data, secret)
        relay.clock.now += limits.HOUR + SWEEP_GRACE_SECONDS
        await wait_until_gone(relay.data, secret)
        assert holders(relay.data, kept)


# --- Expiry -------------------------------------------------------------------------------------------------------


async def test_an_expired_envelope_is_never_delivered(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await sender.send([box.item(b"hour", ttl=Ttl.HOUR), box.item(b"day"), box.item(b"hour", ttl=Ttl.HOUR)])
        relay.clock.now += limits.HOUR
        await owner.receive(box)
        assert await bodies(owner, 1) == [b"day"]
        await owner.ack(box, 1)
        await owner.expect(Acked)
        await owner.expect(CaughtUp)
        await sender.send([box.item(b"live")])
        assert await bodies(owner, 1) == [b"live"]


async def test_a_sweep_tells_the_owner_once_what_was_lost(
    start_relay: StartRelay, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(sweeper, "JUMP_SECONDS", math.inf)
    async with start_relay() as relay, relay.owner(box) as owner, relay.connect() as sender:
        await sender.send([box.item(b"1", ttl=Ttl.HOUR), box.item(b"2", ttl=Ttl.HOUR), box.item(b"3")])
        relay.clock.now += limits.HOUR + SWEEP_GRACE_SECONDS
        await owner.receive(box)
        frames = [await owner.hear(), await owner.hear()]  # in either order: the sweep runs beside
        assert Gap(box.queue, 2, GapReason.EXPIRED) in frames
        assert Deliver(box.queue, [Delivery(1, KeyClass.CONTACT, b"3")]) in frames
        await owner.ack(box, 1)
        await owner.expect(Acked)
        await owner.expect(CaughtUp)
        await sender.send([box.item(b"4", ttl=Ttl.HOUR)])
        await bodies(owner, 1)
        relay.clock.now += limits.HOUR + SWEEP_GRACE_SECONDS
        assert await owner.expect(Gap) == Gap(box.queue, 1, GapReason.EXPIRED)


async def test_a_loss_that_was_told_is_not_told_again(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay() as relay, relay.owner(box), relay.connect() as sender:
        await sender.send([box.item(b"1", ttl=Ttl.HOUR)])
        relay.clock.now += limits.HOUR + SWEEP_GRACE_SECONDS
    # The sweep at the start comes before this connection's first write.
    async with start_relay() as relay, relay.owner(box) as owner:
        await owner.receive(box)
        told = Gap(box.queue, 1, GapReason.EXPIRED)
        assert {await owner.hear(), await owner.hear()} == {told, CaughtUp(box.queue)}
        with trio.fail_after(PATIENCE), sqlite3.connect(f"file:{relay.data / 'relay.db'}?mode=ro", uri=True) as reader:
            while reader.execute("SELECT expired_told FROM queues").fetchone() != (1,):
                await owner.say(Ping(1))
                await owner.expect(Pong)
        reader.close()
    async with start_relay() as relay, relay.owner(box) as owner:
        await owner.receive(box)
        await owner.expect(CaughtUp)
        await owner.say(Ping(1))
        await owner.expect(Pong)
