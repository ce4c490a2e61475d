"""Receipts that are owed: one for each message, bounded, to contacts alone, and due whatever the clock does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sottovoce.protocol.content import ReceiptKind
from sottovoce.protocol.state import Incoming
from sottovoce.store import receipts
from sottovoce.store.database import Store, Tables, open_store
from sottovoce_wire.ids import AccountId, DeviceId, MessageId

FRIEND, STRANGER = AccountId(b"f" * 32), AccountId(b"s" * 32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "store.db")
    with store.transaction() as tables:
        for who in (FRIEND, STRANGER):
            tables.sent._execute(
                "INSERT INTO peers (account_id, root_public, device_list, is_contact) VALUES (?, ?, ?, ?)",
                (who, b"", b"", who == FRIEND),
            )
    yield store
    store.close()


def arrive(tables: Tables, number: int, *, who: AccountId = FRIEND, due_at: int = 0) -> MessageId:
    message_id = MessageId(number.to_bytes(16, "big"))
    tables.inbox.add(Incoming(message_id, who, DeviceId(bytes(16)), "", 0, 0), is_request=who == STRANGER)
    tables.receipts.owe(who, message_id, due_at)
    return message_id


def handle(tables: Tables, number: int) -> None:
    assert tables.inbox.mark_handled(number)
    tables.receipts.owe_read(number, 0)


def test_one_is_owed_for_each_message_and_says_the_most(store: Store) -> None:
    with store.transaction() as tables:
        first, second = [arrive(tables, number) for number in (1, 2)]
        handle(tables, 1)
        assert tables.receipts.owed(FRIEND, ReceiptKind.DELIVERED, 9) == [second]
        assert tables.receipts.owed(FRIEND, ReceiptKind.READ, 9) == [first]
        arrive(tables, 1)
        assert tables.receipts.size() == 2
        tables.receipts.given(STRANGER, [first])
        tables.receipts.given(FRIEND, [second])
        assert tables.receipts.size() == 1


def test_a_message_is_handled_once(store: Store) -> None:
    with store.transaction() as tables:
        arrive(tables, 1)
        handle(tables, 1)
        assert not tables.inbox.mark_handled(1)


def test_nothing_is_owed_for_what_is_not_there(store: Store) -> None:
    with store.transaction() as tables:
        tables.receipts.owe(FRIEND, MessageId(bytes(16)), 0)
        tables.receipts.owe_read(7, 0)
        assert tables.receipts.size() == 0


def test_of_a_flood_the_newest_are_owed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also right after another table had an insert with a far greater number."""
    monkeypatch.setattr(receipts, "KEPT", 5)
    with store.transaction() as tables:
        ids = [arrive(tables, number) for number in range(1, 21)]
        assert tables.receipts.owed(FRIEND, ReceiptKind.DELIVERED, 99) == ids[-5:]
        handle(tables, 20)
        arrive(tables, 20)
        assert tables.receipts.size() == 5


def test_those_of_strangers_wait(store: Store) -> None:
    with store.transaction() as tables:
        arrive(tables, 1, who=STRANGER, due_at=5)
        assert tables.receipts.due(10, 20) == []
        assert tables.receipts.next_due(0) is None
        tables.peers.add_contact(STRANGER)
        assert tables.receipts.next_due(0) == 5
        assert tables.receipts.due(10, 20) == [STRANGER]
        tables.peers.set_forked_list(STRANGER, b"other")
        assert tables.receipts.due(10, 20) == []


def test_an_account_is_due_with_its_first(store: Store) -> None:
    with store.transaction() as tables:
        for number, due_at in ((1, 7), (2, 5), (3, 9)):
            arrive(tables, number, due_at=due_at)
        assert tables.receipts.due(4, 14) == []
        assert tables.receipts.next_due(4) == 5
        assert tables.receipts.due(5, 15) == [FRIEND]
        assert tables.receipts.next_due(5) == 7


def test_a_clock_that_was_set_back_holds_nothing_up(store: Store) -> None:
    with store.transaction() as tables:
        arrive(tables, 1, due_at=1_000_000)
        assert tables.receipts.due(5, 15) == [FRIEND]


def test_who_is_forgotten_is_owed_nothing(store: Store) -> None:
    with store.transaction() as tables:
        arrive(tables, 1)
        arrive(tables, 2, who=STRANGER)
        tables.receipts.forget(STRANGER)
        assert tables.receipts.size() == 1
