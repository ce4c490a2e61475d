"""What the relay offers beyond an envelope's plain way, over real sockets: many targets, ephemeral ones, keys and
queues that go, limits, and the way past the disk."""

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import trio

from sottovoce_relay import app, sweeper
from sottovoce_relay.intake import Terms
from sottovoce_relay.settings import RelaySettings
from sottovoce_wire import ids, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import (
    Acked,
    CaughtUp,
    CreateQueue,
    DeleteQueue,
    Deliver,
    DeliverNow,
    Delivery,
    DemoteSendKey,
    Done,
    Failed,
    Gap,
    GapReason,
    Goodbye,
    KeyClass,
    OpenQueue,
    Passing,
    Ping,
    Pong,
    Receive,
    RevokeSendKey,
    Send,
    SendItem,
    SendMany,
    SendResult,
    SendResults,
    Target,
    Ttl,
)
from sottovoce_wire.ids import EnvelopeId, SendKey
from tests.sottovoce_relay.conftest import PATIENCE, Client, Mailbox, ServedRelay, StartRelay

ACCEPTED, REFUSED = Code.ACCEPTED, Code.REFUSED
CODE = "a code of sixteen characters"


# --- What the tests share -----------------------------------------------------------------------------------------


@pytest.fixture
def hold_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Envelopes are held until something lets them go: no test depends on how fast it runs."""
    terms_of = app.terms_of

    def terms(settings: RelaySettings) -> Terms:
        return replace(terms_of(settings), hold_seconds=limits.HOUR)

    monkeypatch.setattr(app, "terms_of", terms)


@pytest.fixture
def sweep_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps follow each other, and believe every clock."""
    monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(sweeper, "JUMP_SECONDS", math.inf)


def look(relay: ServedRelay, query: str) -> list[Any]:
    """What the database's file says, read from outside."""
    with closing(sqlite3.connect(relay.data / "relay.db")) as database:
        return database.execute(query).fetchall()


def rows(relay: ServedRelay, table: str = "envelopes") -> int:
    """How many rows a table has."""
    return len(look(relay, f"SELECT 1 FROM {table}"))  # noqa: S608 - a test's own name


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the relay does by itself."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it happens in a database
            await trio.sleep(0.01)


def target(box: Mailbox, kind: KeyClass = KeyClass.GROUP, key: bytes | None = None) -> Target:
    return Target(box.queue, SendKey(key or box.keys[kind]), EnvelopeId(b"i" * 16))


async def results(sender: Client, frame: Send | SendMany) -> list[Code]:
    await sender.say(frame)
    return [result.code for result in (await sender.expect(SendResults)).results]


async def receive_all(owner: Client, box: Mailbox) -> list[Delivery]:
    """Receive what waits, and acknowledge it."""
    await owner.receive(box)
    got: list[Delivery] = []
    while True:
        match await owner.hear():
            case Deliver(items=items):
                got += items
                await owner.ack(box, items[-1].number)
            case CaughtUp():
                return got


async def live(owner: Client, box: Mailbox) -> None:
    """Receive a queue that is empty."""
    await owner.receive(box)
    assert await owner.expect(CaughtUp) == CaughtUp(box.queue)


async def failed(client: Client, request: int) -> Code:
    answer = await client.expect(Failed)
    assert answer.request == request
    return answer.code


# --- One body for many queues -------------------------------------------------------------------------------------


async def test_one_body_for_many_queues_is_stored_once_and_freed_with_its_last_pointer(
    relay: ServedRelay, box: Mailbox, other_box: Mailbox
) -> None:
    nobody = Mailbox()
    targets = [target(box), target(other_box, key=b"?" * 32), target(nobody), target(other_box, KeyClass.STRANGER)]
    async with relay.owner(box) as owner, relay.owner(other_box) as other, relay.connect() as sender:
        sent = await results(sender, SendMany(1, Ttl.DAY, b"to all", targets))
        assert sent == [ACCEPTED, REFUSED, REFUSED, ACCEPTED]
        assert (rows(relay), rows(relay, "bodies")) == (2, 1)
        assert await receive_all(owner, box) == [Delivery(1, KeyClass.GROUP, b"to all")]
        assert (rows(relay), rows(relay, "bodies")) == (1, 1)
        assert await receive_all(other, other_box) == [Delivery(1, KeyClass.STRANGER, b"to all")]
        assert (rows(relay), rows(relay, "bodies")) == (0, 0)


async def test_one_body_for_many_queues_comes_to_those_who_are_there_at_once(
    relay: ServedRelay, box: Mailbox, other_box: Mailbox
) -> None:
    async with relay.owner(box) as owner, relay.owner(other_box), relay.connect() as sender:
        await live(owner, box)
        await sender.say(SendMany(1, Ttl.DAY, b"to all", [target(box), target(other_box)]))
        assert (await owner.expect(Deliver)).items == [Delivery(1, KeyClass.GROUP, b"to all")]
        await owner.ack(box, 1)
        assert await sender.expect(SendResults) == SendResults(1, [SendResult(ACCEPTED, 0)] * 2)


async def test_the_same_shared_body_sent_again_is_one_envelope_and_another_is_a_conflict(
    relay: ServedRelay, box: Mailbox, other_box: Mailbox
) -> None:
    both = [target(box), target(other_box)]
    async with relay.owner(box), relay.owner(other_box), relay.connect() as sender:
        assert await results(sender, SendMany(1, Ttl.DAY, b"to all", both)) == [ACCEPTED, ACCEPTED]
        assert await results(sender, SendMany(2, Ttl.DAY, b"to all", both)) == [ACCEPTED, ACCEPTED]
        assert await results(sender, SendMany(3, Ttl.DAY, b"to ALL", both)) == [Code.ID_CONFLICT] * 2
    assert (rows(relay), rows(relay, "bodies")) == (2, 1)


# --- Ephemeral ----------------------------------------------------------------------------------------------------


async def test_an_ephemeral_envelope_comes_to_a_live_connection_and_is_never_in_the_database(
    relay: ServedRelay, box: Mailbox
) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await live(owner, box)
        assert await sender.send([box.item(b"typing", ttl=Ttl.NOW)]) == [ACCEPTED]
        assert await owner.expect(DeliverNow) == DeliverNow(box.queue, [Passing(KeyClass.CONTACT, b"typing")])
        assert relay.counted("envelopes_total", outcome="stored") == 0


async def test_an_ephemeral_envelope_for_nobody_is_dropped_and_its_sender_is_not_told(
    relay: ServedRelay, box: Mailbox
) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        assert await sender.send([box.item(b"typing", ttl=Ttl.NOW)]) == [ACCEPTED]
        assert await receive_all(owner, box) == []
        assert relay.counted("envelopes_total", outcome="stored") == 0


async def test_an_ephemeral_envelope_under_a_wrong_key_is_refused(relay: ServedRelay, box: Mailbox) -> None:
    wrong = SendItem(box.queue, SendKey(b"?" * 32), EnvelopeId(b"i" * 16), Ttl.NOW, b"typing")
    async with relay.owner(box) as owner, relay.connect() as sender:
        await live(owner, box)
        assert await sender.send([wrong]) == [REFUSED]
        await owner.say(Ping(1))
        assert await owner.hear() == Pong(1)


# --- Keys and queues that go --------------------------------------------------------------------------------------


async def demote(owner: Client, box: Mailbox, kind: KeyClass) -> None:
    await owner.say(DemoteSendKey(7, box.queue, ids.send_key_hash(box.keys[kind])))
    assert await owner.expect(Done) == Done(7)


async def test_what_comes_under_a_demoted_key_is_counted_as_a_strangers_and_delivered_as_before(
    start_relay: StartRelay, box: Mailbox
) -> None:
    count = limits.STRANGER_ENVELOPES // 250
    async with start_relay(stranger_rate=1e6) as relay, relay.owner(box) as owner, relay.connect() as sender:
        await demote(owner, box, KeyClass.CONTACT)
        for _ in range(count):
            assert await sender.send([box.item(b"demoted") for _ in range(250)]) == [ACCEPTED] * 250
        sent = [box.item(b"too many"), box.item(b"stranger", KeyClass.STRANGER), box.item(b"group", KeyClass.GROUP)]
        assert await sender.send(sent[:1]) == [Code.QUEUE_FULL]
        assert await sender.send(sent[1:2]) == [Code.QUEUE_FULL]
        assert await sender.send(sent[2:]) == [ACCEPTED]
        await owner.receive(box)
        assert await owner.expect(Gap) == Gap(box.queue, 2, GapReason.QUOTA)
        assert (await owner.expect(Deliver)).items[0] == Delivery(1, KeyClass.CONTACT, b"demoted")


async def test_a_demoted_key_dies_after_a_month(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await demote(owner, box, KeyClass.CONTACT)
        relay.clock.now += limits.DEMOTED_LIFETIME - 1
        assert await sender.send([box.item(b"alive")]) == [ACCEPTED]
        relay.clock.now += 1
        assert await sender.send([box.item(b"dead")]) == [REFUSED]
        assert await sender.send([box.item(b"other", KeyClass.GROUP)]) == [ACCEPTED]


async def test_a_dead_key_is_forgotten(start_relay: StartRelay, box: Mailbox, sweep_always: None) -> None:
    async with start_relay() as relay, relay.owner(box) as owner:
        await demote(owner, box, KeyClass.CONTACT)
        relay.clock.now += limits.DEMOTED_LIFETIME
        await until(lambda: rows(relay, "send_keys") == len(KeyClass) - 1)


async def test_a_key_that_was_demoted_twice_dies_at_its_first_time(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await demote(owner, box, KeyClass.CONTACT)
        relay.clock.now += limits.DAY
        await demote(owner, box, KeyClass.CONTACT)
        relay.clock.now += limits.DEMOTED_LIFETIME - limits.DAY
        assert await sender.send([box.item(b"dead")]) == [REFUSED]


async def test_nothing_is_accepted_under_a_revoked_key_and_what_was_accepted_is_delivered(
    relay: ServedRelay, box: Mailbox
) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        assert await sender.send([box.item(b"before")]) == [ACCEPTED]
        await owner.say(RevokeSendKey(7, box.queue, ids.send_key_hash(box.keys[KeyClass.CONTACT])))
        assert await owner.expect(Done) == Done(7)
        assert await sender.send([box.item(b"after"), box.item(b"group", KeyClass.GROUP)]) == [REFUSED, ACCEPTED]
        assert [item.body for item in await receive_all(owner, box)] == [b"before", b"group"]


async def test_a_deleted_queue_is_unknown_its_envelopes_go_and_it_can_be_made_anew(
    start_relay: StartRelay, box: Mailbox, other_box: Mailbox, sweep_always: None
) -> None:
    async with start_relay() as relay, relay.owner(box) as owner, relay.owner(other_box), relay.connect() as sender:
        await results(sender, SendMany(1, Ttl.DAY, b"to all", [target(box), target(other_box)]))
        await owner.receive(box)
        await owner.expect(Deliver)
        await owner.say(DeleteQueue(8, box.queue))
        assert await owner.expect(Done) == Done(8)
        assert await sender.send([box.item(b"late"), other_box.item(b"fine")]) == [REFUSED, ACCEPTED]
        await owner.say(OpenQueue(9, box.owner_key, owner.signature(box)))
        assert await failed(owner, 9) is Code.UNKNOWN_QUEUE
        await until(lambda: (rows(relay), rows(relay, "bodies"), rows(relay, "queues")) == (2, 1, 1))
        await owner.create(box)
        assert await sender.send([box.item(b"new")]) == [ACCEPTED]
        assert await receive_all(owner, box) == [Delivery(1, KeyClass.CONTACT, b"new")]


async def test_a_queue_whose_owner_was_not_seen_for_long_is_deleted_with_all_it_holds(
    start_relay: StartRelay, box: Mailbox, other_box: Mailbox, sweep_always: None
) -> None:
    async with start_relay(idle_queue_days=31) as relay, relay.owner(other_box) as there, relay.connect() as sender:
        await live(there, other_box)
        async with relay.owner(box):
            assert await sender.send([box.item(b"waits", ttl=Ttl.MONTH)]) == [ACCEPTED]
        relay.clock.now += 32 * limits.DAY
        await until(lambda: rows(relay, "queues") == 1)
        assert rows(relay) == 0
        assert await sender.send([box.item(b"late"), other_box.item(b"owner is there", KeyClass.STRANGER)]) == [
            REFUSED,
            ACCEPTED,
        ]


# --- Who may make queues ------------------------------------------------------------------------------------------


async def create(client: Client, box: Mailbox, code: str = "") -> Code:
    await client.say(CreateQueue(1, box.owner_key, client.signature(box), box.send_keys, code))
    answer = await client.hear()
    assert isinstance(answer, Done | Failed)
    return ACCEPTED if isinstance(answer, Done) else answer.code


async def test_with_invitations_a_new_queue_needs_the_code(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay(registration="invite", registration_code=CODE) as relay, relay.connect() as client:
        assert await create(client, box) is Code.REGISTRATION_CLOSED
        assert await create(client, box, CODE[:-1]) is Code.REGISTRATION_CLOSED
        assert rows(relay, "queues") == 0
        assert await create(client, box, CODE) is ACCEPTED


@pytest.mark.parametrize("policy", [{"registration": "invite", "registration_code": CODE}, {"registration": "closed"}])
async def test_a_queue_that_is_there_is_opened_without_a_code_whatever_the_policy(
    start_relay: StartRelay, box: Mailbox, other_box: Mailbox, policy: dict[str, str]
) -> None:
    async with start_relay() as relay, relay.owner(box):
        pass
    async with start_relay(**policy) as relay, relay.connect() as client:
        assert await create(client, box) is ACCEPTED
        assert await create(client, other_box) is Code.REGISTRATION_CLOSED
        assert await client.send([box.item(b"fine")]) == [ACCEPTED]


# --- Quotas and rates ---------------------------------------------------------------------------------------------


async def test_an_owner_is_told_once_how_many_envelopes_its_full_queue_refused(
    start_relay: StartRelay, box: Mailbox
) -> None:
    async with start_relay(queue_envelopes=2) as relay, relay.owner(box) as owner, relay.connect() as sender:
        sent = await sender.send([box.item(b"%d" % number) for number in range(5)])
        assert sent == [ACCEPTED] * 2 + [Code.QUEUE_FULL] * 3
        await owner.receive(box)
        assert await owner.expect(Gap) == Gap(box.queue, 3, GapReason.QUOTA)
        await owner.expect(Deliver)
        await owner.ack(box, 2)
        await owner.expect(Acked)
        async with relay.connect() as again:
            await again.open(box)
            await live(again, box)


async def test_a_connection_that_sends_too_fast_is_told_when_to_go_on(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay(connection_rate=0.1) as relay, relay.owner(box), relay.connect() as sender:
        assert await sender.send([box.item(b"1")]) == [ACCEPTED]
        await sender.say(Send(4, [box.item(b"2")]))
        (result,) = (await sender.expect(SendResults)).results
        assert result.code is Code.TRY_AGAIN
        assert 0 < result.retry_after_ms <= 10_000
        async with relay.connect() as other:
            assert await other.send([box.item(b"3")]) == [ACCEPTED]


async def test_strangers_who_send_too_fast_into_one_queue_are_told_when_to_go_on_and_contacts_are_not_in_their_way(
    start_relay: StartRelay, box: Mailbox, other_box: Mailbox
) -> None:
    burst = [box.item(b"burst", KeyClass.STRANGER) for _ in range(250)]
    async with (
        start_relay(stranger_rate=0.001) as relay,
        relay.owner(box),
        relay.owner(other_box),
        relay.connect() as sender,
    ):
        for _ in range(limits.STRANGER_ENVELOPES // len(burst)):
            assert await sender.send(burst) == [ACCEPTED] * len(burst)
        await sender.say(Send(4, [box.item(b"more", KeyClass.STRANGER)]))
        (result,) = (await sender.expect(SendResults)).results
        assert result.code is Code.TRY_AGAIN
        assert 0 < result.retry_after_ms <= 1_000_000
        assert await sender.send([box.item(b"contact")]) == [ACCEPTED]
        assert await sender.send([other_box.item(b"elsewhere", KeyClass.STRANGER)]) == [ACCEPTED]


# --- Past the disk ------------------------------------------------------------------------------------------------


async def converse(owner: Client, sender: Client, box: Mailbox, count: int) -> None:
    """So many envelopes, each acknowledged at once."""
    for number in range(1, count + 1):
        await sender.say(Send(4, [box.item(b"%d" % number)]))
        assert (await owner.hear_until(Deliver)).items[0].number == number
        await owner.ack(box, number)
        assert (await sender.expect(SendResults)).results[0].code is ACCEPTED


@pytest.mark.usefixtures("hold_for_an_hour")
async def test_between_people_who_are_online_nothing_touches_the_disk(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await live(owner, box)
        await converse(owner, sender, box, 20)
        assert relay.counted("envelopes_total", outcome="cut_through") == 20
        assert relay.counted("envelopes_total", outcome="stored") == 0
        assert relay.counted("batch_envelopes_count") == 0
        assert rows(relay) == 0


async def test_a_relay_that_holds_nothing_writes_everything(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay(hold_ms=0) as relay, relay.owner(box) as owner, relay.connect() as sender:
        await live(owner, box)
        await converse(owner, sender, box, 5)
        assert relay.counted("envelopes_total", outcome="stored") == 5
        assert relay.counted("envelopes_total", outcome="cut_through") == 0


async def test_what_an_owner_does_not_acknowledge_is_written_soon(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.owner(box) as owner, relay.connect() as sender:
        await live(owner, box)
        assert await sender.send([box.item(b"seen")]) == [ACCEPTED]
        await owner.expect(Deliver)
        assert rows(relay) == 1


@pytest.mark.usefixtures("hold_for_an_hour")
async def test_what_is_held_when_another_connection_takes_over_is_delivered_to_that_one(
    relay: ServedRelay, box: Mailbox
) -> None:
    async with relay.owner(box) as first, relay.connect() as second, relay.connect() as sender:
        await live(first, box)
        await sender.say(Send(4, [box.item(b"1"), box.item(b"2")]))
        await first.expect(Deliver)
        assert rows(relay) == 0
        await second.open(box)
        await second.receive(box)
        assert (await second.hear_until(Deliver)).items[0] == Delivery(1, KeyClass.CONTACT, b"1")
        assert await sender.expect(SendResults) == SendResults(4, [SendResult(ACCEPTED, 0)] * 2)
        assert (await first.expect(Goodbye)).code is Code.DISPLACED


@pytest.mark.usefixtures("hold_for_an_hour")
async def test_what_is_held_when_the_relay_stops_is_not_lost(start_relay: StartRelay, box: Mailbox) -> None:
    async with start_relay() as relay, relay.owner(box) as owner, relay.connect() as sender:
        await live(owner, box)
        await sender.say(Send(4, [box.item(b"%d" % number) for number in range(3)]))
        await owner.expect(Deliver)
        relay.server.stop.set()
        assert await sender.expect(SendResults) == SendResults(4, [SendResult(ACCEPTED, 0)] * 3)
        assert (await owner.expect(Goodbye)).code is Code.SHUTTING_DOWN
        await relay.server.stopped.wait()
    async with start_relay() as relay, relay.owner(box) as owner:
        assert [item.body for item in await receive_all(owner, box)] == [b"0", b"1", b"2"]


@pytest.mark.usefixtures("hold_for_an_hour")
async def test_a_strangers_answer_comes_after_a_commit_whether_the_owner_is_there_or_not(
    relay: ServedRelay, box: Mailbox, other_box: Mailbox
) -> None:
    async with relay.owner(box) as owner, relay.owner(other_box), relay.connect() as sender:
        await live(owner, box)
        for where in (box, other_box, box, other_box):
            commits = relay.counted("batch_envelopes_count")
            assert await sender.send([where.item(b"who is there?", KeyClass.STRANGER)]) == [ACCEPTED]
            assert relay.counted("batch_envelopes_count") == commits + 1
        assert rows(relay) == 4


# --- The conversation ---------------------------------------------------------------------------------------------


async def test_several_frames_in_one_message_are_all_answered(relay: ServedRelay, box: Mailbox) -> None:
    async with relay.connect() as client:
        create_it = CreateQueue(1, box.owner_key, client.signature(box), box.send_keys, "")
        receive_it = Receive(2, box.queue, 256, limits.MAX_UNACKNOWLEDGED_BYTES)
        stranger = box.item(b"to myself", KeyClass.STRANGER)
        await client.say(Ping(1), create_it, receive_it, Send(3, [stranger]), Ping(2))
        heard = [await client.hear() for _ in range(7)]
        assert [frame for frame in heard if isinstance(frame, Pong | Done)] == [Pong(1), Done(1), Done(2), Pong(2)]
        assert SendResults(3, [SendResult(ACCEPTED, 0)]) in heard
        assert Deliver(box.queue, [Delivery(1, KeyClass.STRANGER, b"to myself")]) in heard
