"""Receipts as rules: what is owed, what goes out and how long it is, what is believed, and what asks for a repeat."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from sottovoce.protocol import contacts, healing, receipts, sessions
from sottovoce.protocol.content import MAX_RECEIPT, Receipt, ReceiptKind
from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.state import ContactQueue, Outgoing, Own
from sottovoce.store.database import Tables
from sottovoce.store.sent import Progress, Repeats, SentMessage
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import MessageId
from tests.sottovoce.people import Person

NOW = 1_800_000_000
SENT, READ = Progress(None, None, None), Progress(NOW * 1000, NOW * 1000, None)
DELIVERED = Progress(NOW * 1000, None, None)


@pytest.fixture
def talking(alice: Person, bob: Person) -> tuple[Person, Person]:
    """Contacts of each other on one confirmed session, who owe each other nothing."""
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "hello back", NOW), NOW) is Outcome.NEW
    for person, other in ((alice, bob), (bob, alice)):
        with person.store.transaction() as tables:
            tables.receipts.forget(other.own.account_id)
    return alice, bob


def send(one: Person, other: Person, text: str, *, ttl: Ttl = Ttl.MONTH, now: int = NOW) -> Outgoing:
    """Write, and remember what was written."""
    envelope = one.write(other, text, now)
    device = other.own.device.device_id
    message = SentMessage(envelope.message_id, other.own.account_id, (device,), text, ttl, now * 1000)
    with one.store.transaction() as tables:
        tables.sent.add(message)
    return envelope


def give(one: Person, other: Person, own: Own | None = None) -> list[Outgoing]:
    with one.store.transaction() as tables:
        return receipts.give(tables, own or one.own, other.own.account_id, NOW)


def owed(person: Person) -> int:
    with person.store.transaction() as tables:
        return tables.receipts.size()


def progress(person: Person, envelope: Outgoing) -> Progress | None:
    with person.store.transaction() as tables:
        return tables.sent.progress(envelope.message_id)


def handle(person: Person) -> None:
    """The application is done with all that was shown."""
    with person.store.transaction() as tables:
        for unhandled in tables.inbox.unhandled(1_000):
            tables.inbox.mark_handled(unhandled.position)
            tables.receipts.owe_read(unhandled.position, NOW)


# --- What is owed and what is said ---


def test_a_message_that_came_is_told_and_told_again_when_it_is_handled(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    sent = send(alice, bob, "news")
    bob.read(sent, NOW)
    (receipt,) = give(bob, alice)
    assert owed(bob) == 0
    assert alice.read(receipt, NOW) is Outcome.CONTROL
    assert progress(alice, sent) == DELIVERED
    handle(bob)
    (receipt,) = give(bob, alice)
    alice.read(receipt, NOW)
    assert progress(alice, sent) == READ


def test_a_message_that_was_handled_at_once_is_told_of_once(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    handle(bob)
    give(bob, alice)
    sent = send(alice, bob, "news")
    bob.read(sent, NOW)
    handle(bob)
    assert owed(bob) == 1
    (receipt,) = give(bob, alice)
    alice.read(receipt, NOW)
    assert progress(alice, sent) == READ


def test_a_message_that_comes_once_more_is_told_of_once_more(talking: tuple[Person, Person]) -> None:
    """Its sender has not had the receipt, or would not have sent it."""
    alice, bob = talking
    bob.read(send(alice, bob, "news"), NOW)
    handle(bob)
    give(bob, alice)
    alice.sent -= 1
    assert bob.read(alice.write(bob, "news", NOW), NOW) is Outcome.REPEAT
    with bob.store.transaction() as tables:
        assert len(tables.receipts.owed(alice.own.account_id, ReceiptKind.READ, 9)) == 1


def test_nothing_is_owed_where_receipts_are_off(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    with bob.store.transaction() as tables:
        receipts.owe(
            tables, replace(bob.own, sends_receipts=False), alice.own.account_id, MessageId(bytes(15) + b"\1"), 0
        )
    assert owed(bob) == 0


@pytest.mark.parametrize("kind", ReceiptKind)
def test_a_receipt_is_believed_from_the_recipient_alone(
    talking: tuple[Person, Person], person: Callable[[str], Person], kind: ReceiptKind
) -> None:
    alice, bob = talking
    carol = person("carol")
    carol.meet(alice, NOW)
    carol.write(alice, "hello", NOW)
    sent = send(alice, bob, "news")
    with carol.store.transaction() as tables:
        (lie,) = sessions.tell(tables, carol.own, alice.own.account_id, Receipt(kind, [sent.message_id]), NOW)
    assert alice.read(lie, NOW) is Outcome.CONTROL
    assert progress(alice, sent) == SENT


def test_a_receipt_for_what_nobody_sent_changes_nothing(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    sent = send(alice, bob, "news")
    unknown = Receipt(ReceiptKind.READ, [MessageId(bytes(16)), MessageId(b"x" * 16)])
    with bob.store.transaction() as tables:
        (receipt,) = sessions.tell(tables, bob.own, alice.own.account_id, unknown, NOW)
    assert alice.read(receipt, NOW) is Outcome.CONTROL
    assert progress(alice, sent) == SENT


def test_what_was_read_does_not_become_unread(talking: tuple[Person, Person]) -> None:
    """A relay can bring the receipts the other way round."""
    alice, bob = talking
    sent = send(alice, bob, "news")
    bob.read(sent, NOW)
    delivered = give(bob, alice)
    handle(bob)
    for receipt in [*give(bob, alice), *delivered]:
        alice.read(receipt, NOW)
    assert progress(alice, sent) == READ


def test_a_receipt_asks_for_no_answer_and_is_one(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    bob.read(alice.write(bob, "news", NOW), NOW)
    assert bob.sending(alice).owed > 0
    owed_before = alice.sending(bob).owed
    (receipt,) = give(bob, alice)
    assert (bob.sending(alice).owed, bob.sending(alice).answer_by) == (0, None)
    alice.read(receipt, NOW)
    assert alice.sending(bob).owed == owed_before
    assert alice.sending(bob).silent == 0


def test_receipts_are_due_after_one_to_ten_seconds() -> None:
    waits = {receipts.due_at(5) - 5 for _ in range(200)}
    assert 1_000 <= min(waits) < 3_000
    assert 8_000 < max(waits) < 10_000


# --- How long it is ---


def flood(alice: Person, bob: Person, count: int) -> None:
    for number in range(count):
        bob.read(alice.write(bob, str(number), NOW), NOW)


def test_a_receipt_has_the_size_of_a_short_text(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    flood(alice, bob, 2 * MAX_RECEIPT + 1)
    sizes = [len(envelope.body) for _ in range(3) for envelope in give(bob, alice)]
    assert owed(bob) == 0
    assert sizes == [len(bob.write(alice, "yes", NOW).body)] * 3


def test_it_names_fewer_where_the_own_address_goes_along(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    with bob.store.transaction() as tables:
        tables.sessions.put(replace(bob.sending(alice), address_confirmed=False))
    flood(alice, bob, MAX_RECEIPT)
    with bob.store.transaction() as tables:
        tables.sessions.put(replace(bob.sending(alice), address_confirmed=False))
    (receipt,) = give(bob, alice)
    assert 0 < owed(bob) < MAX_RECEIPT
    assert len(receipt.body) == len(bob.write(alice, "yes", NOW).body)


def test_it_names_one_however_long_the_own_address_is(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    flood(alice, bob, 2)
    with bob.store.transaction() as tables:
        tables.sessions.put(replace(bob.sending(alice), address_confirmed=False))
    contact = ContactQueue(f"https://{'a' * 200}.example", bob.own.contact.queue)
    assert len(give(bob, alice, replace(bob.own, contact=contact))) == 1
    assert owed(bob) == 1


def test_without_a_session_a_receipt_stays_owed(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    flood(alice, bob, 1)
    with bob.store.transaction() as tables:
        for session in tables.sessions.of_account(alice.own.account_id):
            sessions.wipe(tables, session)
    assert give(bob, alice) == []
    assert owed(bob) == 1


# --- Once more ---


def repeats(person: Person, now: int) -> list[Repeats]:
    with person.store.transaction() as tables:
        return tables.sent.repeats_due(now)


def lost(person: Person, now: int) -> list[str]:
    """What is due once more, until nothing is."""
    found = []
    with person.store.transaction() as tables:
        while due := tables.sent.repeats_due(now):
            found += [message.text for message in tables.sent.take_lost(due[0], now * 1000)]
    return found


def test_nothing_is_repeated_while_the_session_stays(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    send(alice, bob, "news")
    assert repeats(alice, NOW + healing.SILENT_FOR) == []


def test_what_a_device_lost_is_due_when_it_begins_anew(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    bob.read(send(alice, bob, "seen"), NOW)
    (receipt,) = give(bob, alice)
    alice.read(receipt, NOW)
    send(alice, bob, "lost")
    bob.lose_sessions()
    bob.meet(alice, NOW)
    alice.read(bob.write(alice, "anew", NOW), NOW)
    alice.mend(bob, NOW)  # should the new session be the lesser one
    assert lost(alice, NOW) == ["lost"]
    assert repeats(alice, NOW) == []


def test_on_a_handshake_of_ones_own_the_other_is_heard_first(talking: tuple[Person, Person]) -> None:
    """Whoever is only away reads all of it on the old session, and says so."""
    alice, bob = talking
    send(alice, bob, "waits at the relay")
    alice.meet(bob, NOW)
    assert repeats(alice, NOW + healing.SILENT_FOR) == []
    with alice.store.transaction() as tables:
        first = sessions.acknowledge(tables, alice.own, bob.own.account_id, bob.own.device.device_id, NOW)
    assert first is not None
    bob.read(first, NOW)
    alice.read(bob.write(alice, "here", NOW), NOW)
    assert repeats(alice, NOW + healing.REPEAT_AFTER - 1) == []
    assert lost(alice, NOW + healing.REPEAT_AFTER) == ["waits at the relay"]


def test_what_was_sent_on_the_new_session_is_not_repeated(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    send(alice, bob, "old")
    alice.meet(bob, NOW)
    answer = send(alice, bob, "new")
    bob.read(answer, NOW)
    alice.read(bob.write(alice, "here", NOW), NOW)
    assert lost(alice, NOW + healing.REPEAT_AFTER) == ["old"]


def test_a_blocked_or_forked_account_gets_nothing_once_more(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    who = bob.own.account_id
    send(alice, bob, "lost")
    with alice.store.transaction() as tables:
        tables.sent.want_repeats(who, bob.own.device.device_id, NOW)
        tables.peers.set_forked_list(who, bob.own.device_list)
    assert repeats(alice, NOW) == []
    with alice.store.transaction() as tables:
        tables.peers.set_forked_list(who, None)
        contacts.block(tables, who)
    assert repeats(alice, NOW) == []


# --- Addresses that are no more ---


def refused(person: Person, other: Person, now: int) -> bool:
    with person.store.transaction() as tables:
        return healing.refused(tables, other.own.account_id, other.own.device.device_id, now)


def test_a_refused_address_asks_for_one_handshake_a_day(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    assert refused(alice, bob, NOW)
    assert refused(alice, bob, NOW)
    alice.meet(bob, NOW)
    assert not refused(alice, bob, NOW + 24 * 3600 - 1)
    assert refused(alice, bob, NOW + 24 * 3600)


def test_nothing_is_written_to_a_refused_address_and_the_handshake_brings_another(
    talking: tuple[Person, Person],
) -> None:
    alice, bob = talking
    device = bob.own.account_id, bob.own.device.device_id

    def address(tables: Tables) -> object:
        return tables.peers.address(*device)

    with alice.store.transaction() as tables:
        before = address(tables)
        assert healing.refused(tables, *device, NOW)
        assert sessions.sending_session(tables, *device, NOW) is None
    bundle = bob.bundle(NOW)
    with alice.store.transaction() as tables:
        sessions.start(tables, alice.own, bundle, NOW)
        assert before != address(tables) == bundle.address


def test_a_stranger_s_refused_address_asks_for_nothing(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    bob.read(alice.write(bob, "hello", NOW), NOW)
    assert not refused(bob, alice, NOW)
