"""The outbox: what may still be taken back, and what waits for another address."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sottovoce.protocol.state import Address, Outgoing, Want
from sottovoce.store.database import Store, Tables, open_store
from sottovoce.store.outbox import OutboxTable
from sottovoce_wire.frames import KeyClass, Ttl
from sottovoce_wire.ids import AccountId, DeviceId, EnvelopeId, MessageId, QueueId, SendKey

NOW = 1_800_000_000
RELAY = "https://relay.example"
WHO, DEVICE, SECOND = AccountId(b"w" * 32), DeviceId(b"d" * 16), DeviceId(b"s" * 16)
ONE, TWO = MessageId(b"1" * 16), MessageId(b"2" * 16)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "store.db")
    with store.transaction() as tables:
        tables.outbox._execute(
            "INSERT INTO peers (account_id, root_public, device_list, is_contact) VALUES (?, ?, ?, 1)", (WHO, b"", b"")
        )
    yield store
    store.close()


def add(
    tables: Tables, message_id: MessageId, device: DeviceId = DEVICE, ttl: Ttl = Ttl.MONTH, queue: bytes = b"q"
) -> None:
    address = Address(RELAY, QueueId(queue * 16), SendKey(bytes(32)), KeyClass.CONTACT)
    tables.outbox.add(Outgoing(message_id, WHO, device, EnvelopeId(bytes(16)), address, ttl, b"body"), NOW)


def batch(tables: Tables) -> list[MessageId]:
    return [waiting.outgoing.message_id for waiting in tables.outbox.batch(RELAY, set())]


def refuse(tables: Tables) -> None:
    for waiting in tables.outbox.batch(RELAY, set()):
        tables.outbox.refuse(waiting.position)


def hopeless(tables: Tables, now: int = NOW) -> list[MessageId]:
    return [waiting.outgoing.message_id for waiting in tables.outbox.hopeless(now)]


# --- Taking back ---


def test_what_no_connection_was_given_is_untouched(store: Store) -> None:
    with store.transaction() as tables:
        for device in (DEVICE, SECOND):
            add(tables, ONE, device)
        assert tables.outbox.untouched(ONE) == 2
        tables.outbox.offer(tables.outbox.batch(RELAY, set())[:1])
        assert tables.outbox.untouched(ONE) == 1


def test_what_an_earlier_process_has_left_counts_as_touched(store: Store) -> None:
    """Nobody remembers whether it was under way when that ended."""
    with store.transaction() as tables:
        add(tables, ONE)
        assert OutboxTable(store._connection).untouched(ONE) == 0


def test_the_envelopes_of_a_message_are_taken_back_for_all_devices_or_one(store: Store) -> None:
    with store.transaction() as tables:
        for message_id in (ONE, TWO):
            for device in (DEVICE, SECOND):
                add(tables, message_id, device)
        tables.outbox.take_back(ONE)
        assert batch(tables) == [TWO, TWO]
        tables.outbox.take_back(TWO, SECOND)
        assert batch(tables) == [TWO]
        assert len(tables.outbox._untouched) == 1


def test_what_was_taken_back_meanwhile_is_not_removed_twice(store: Store) -> None:
    with store.transaction() as tables:
        add(tables, ONE)
        (waiting,) = tables.outbox.batch(RELAY, set())
        assert tables.outbox.remove(waiting.position)
        assert not tables.outbox.remove(waiting.position)
        assert not tables.outbox.refuse(waiting.position)


# --- Addresses that are no more ---


def test_what_was_refused_goes_to_no_connection_and_still_waits(store: Store) -> None:
    with store.transaction() as tables:
        add(tables, ONE)
        refuse(tables)
        add(tables, TWO)
        assert batch(tables) == [TWO]
        assert (tables.outbox.size(), tables.outbox.waiting(ONE)) == (1, 1)
        assert tables.outbox.sizes() == {WHO: 1}


def test_what_was_refused_is_hopeless_once_nothing_is_wanted(store: Store) -> None:
    with store.transaction() as tables:
        tables.wants.add(WHO, DEVICE, Want.REFUSED)
        tables.wants.add(WHO, SECOND, Want.FAILURES)
        add(tables, ONE)
        add(tables, TWO, SECOND)
        refuse(tables)
        assert hopeless(tables) == [TWO]
        tables.wants.done(WHO, DEVICE, NOW)
        assert hopeless(tables) == [ONE, TWO]


def test_it_has_hope_while_it_is_to_be_sent_once_more_until_it_is_too_late(store: Store) -> None:
    with store.transaction() as tables:
        add(tables, ONE, ttl=Ttl.HOUR)
        refuse(tables)
        tables.outbox._execute("INSERT INTO wanted_repeats VALUES (?, ?, 0, 1, NULL)", (WHO, DEVICE))
        assert hopeless(tables, NOW + 3599) == []
        assert hopeless(tables, NOW + 3600) == [ONE]


def test_what_was_refused_for_a_blocked_account_is_hopeless(store: Store) -> None:
    with store.transaction() as tables:
        tables.wants.add(WHO, DEVICE, Want.REFUSED)
        add(tables, ONE)
        refuse(tables)
        tables.peers.block(WHO)
        assert hopeless(tables) == [ONE]


# --- The order of a conversation ---


def test_nothing_goes_to_a_devices_new_address_before_all_for_its_old_one_is_accepted(store: Store) -> None:
    """Two queues of one device know no order between them."""
    with store.transaction() as tables:
        add(tables, ONE, queue=b"o")
        add(tables, TWO, queue=b"n")
        add(tables, TWO, SECOND, queue=b"n")
        assert [(each.outgoing.device_id, each.outgoing.message_id) for each in tables.outbox.batch(RELAY, set())] == [
            (DEVICE, ONE),
            (SECOND, TWO),
        ]
        held_back = {QueueId(b"o" * 16)}
        assert [each.outgoing.device_id for each in tables.outbox.batch(RELAY, held_back)] == [SECOND]
        first = tables.outbox.batch(RELAY, set())[0]
        tables.outbox.remove(first.position)
        assert len(batch(tables)) == 2
