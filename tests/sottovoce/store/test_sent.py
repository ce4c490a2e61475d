"""What was sent: what became of it, what is kept of it and how long, and what is due once more."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sottovoce.protocol.content import ReceiptKind
from sottovoce.store import sent
from sottovoce.store.database import Store, Tables, open_store
from sottovoce.store.sent import Progress, Repeats, SentMessage, SentTable
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import AccountId, DeviceId, MessageId

NOW = 1_800_000_000
DAY = 24 * 3600
WHO, OTHER = AccountId(b"w" * 32), AccountId(b"o" * 32)
DEVICE, SECOND = DeviceId(b"d" * 16), DeviceId(b"s" * 16)
UNKNOWN = MessageId(b"?" * 16)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "store.db")
    with store.transaction() as tables:
        for who in (WHO, OTHER):
            tables.sent._execute(
                "INSERT INTO peers (account_id, root_public, device_list, is_contact) VALUES (?, ?, ?, 1)",
                (who, b"", b""),
            )
    yield store
    store.close()


def message(
    number: int, *, ttl: Ttl = Ttl.MONTH, at: int = NOW, devices: tuple[DeviceId, ...] = (DEVICE,)
) -> SentMessage:
    return SentMessage(MessageId(number.to_bytes(16, "big")), WHO, devices, str(number), ttl, at * 1000)


def add(store: Store, *messages: SentMessage) -> None:
    with store.transaction() as tables:
        for each in messages:
            tables.sent.add(each)


def texts(tables: Tables) -> list[str]:
    return [text for (text,) in tables.sent._execute("SELECT text FROM sent_messages WHERE text IS NOT NULL")]


def take(table: SentTable, now: int = NOW) -> list[list[str]]:
    """What is due once more, part by part."""
    found = []
    while due := table.repeats_due(now):
        found.append([lost.text for lost in table.take_lost(due[0], now * 1000)])
    return found


def test_a_receipt_is_written_down_once_and_wipes_the_text(store: Store) -> None:
    add(store, message(1), message(2))
    ids = [message(1).message_id, UNKNOWN]
    with store.transaction() as tables:
        tables.sent.receipted(WHO, ids, ReceiptKind.DELIVERED, 5)
        tables.sent.receipted(WHO, ids, ReceiptKind.DELIVERED, 6)
        assert tables.sent.take_news() == {ids[0]}
        assert tables.sent.take_news() == set()
        assert tables.sent.progress(ids[0]) == Progress(5, None, None)
        tables.sent.receipted(WHO, ids, ReceiptKind.READ, 7)
        assert tables.sent.progress(ids[0]) == Progress(5, 7, None)
        assert texts(tables) == ["2"]
        assert tables.sent.progress(UNKNOWN) is None


def test_others_say_nothing_of_it(store: Store) -> None:
    add(store, message(1))
    with store.transaction() as tables:
        tables.sent.receipted(OTHER, [message(1).message_id], ReceiptKind.READ, 5)
        assert tables.sent.take_news() == set()
        assert tables.sent.progress(message(1).message_id) == Progress(None, None, None)


def test_the_first_failure_stays(store: Store) -> None:
    add(store, message(1))
    with store.transaction() as tables:
        assert tables.sent.fail(message(1).message_id, "expired")
        assert not tables.sent.fail(message(1).message_id, "refused")
        assert not tables.sent.fail(UNKNOWN, "refused")
        assert tables.sent.progress(message(1).message_id) == Progress(None, None, "expired")
        assert texts(tables) == []


def test_the_newest_are_known_and_of_fewer_the_text(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "KEPT", 6)
    monkeypatch.setattr(sent, "TEXTS", 3)
    add(store, *map(message, range(20)))
    with store.transaction() as tables:
        assert [tables.sent.progress(message(number).message_id) is not None for number in range(12, 20)] == [
            False,
            False,
            *[True] * 6,
        ]
        assert texts(tables) == ["17", "18", "19"]


def test_texts_go_after_a_week_and_the_rest_after_a_month(store: Store) -> None:
    add(store, message(1, at=NOW - 31 * DAY), message(2, at=NOW - 7 * DAY), message(3, at=NOW - 7 * DAY + 1))
    with store.transaction() as tables:
        tables.sent.expire(NOW * 1000 + 1)
        assert [tables.sent.progress(message(number).message_id) is not None for number in (1, 2, 3)] == [
            False,
            True,
            True,
        ]
        assert texts(tables) == ["3"]


# --- Once more ---


def test_what_is_lost_is_taken_in_order_part_by_part_and_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "REPEATED_AT_ONCE", 2)
    add(store, *map(message, range(5)))
    with store.transaction() as tables:
        tables.sent.want_repeats(WHO, DEVICE, NOW)
        tables.sent.add(message(5))
        tables.sent.receipted(WHO, [message(1).message_id], ReceiptKind.DELIVERED, NOW)
        assert take(tables.sent) == [["0", "2"], ["3", "4"]]


def test_nothing_is_sent_more_than_twice_again(store: Store) -> None:
    add(store, message(1))
    with store.transaction() as tables:
        found = []
        for _ in range(4):
            tables.sent.want_repeats(WHO, DEVICE, NOW)
            found += take(tables.sent)
    assert found == [["1"], ["1"], [], []]


def test_only_a_device_that_it_was_sent_to_gets_it_again(store: Store) -> None:
    add(store, message(1), message(2, devices=(SECOND, DEVICE)), message(3, devices=(SECOND,)))
    with store.transaction() as tables:
        tables.sent.want_repeats(WHO, DEVICE, NOW)
        assert take(tables.sent) == [["1", "2"]]


@pytest.mark.parametrize(("ttl", "lives"), [(Ttl.HOUR, 3600), (Ttl.WEEK, 7 * DAY), (Ttl.MONTH, 7 * DAY)])
def test_nothing_is_sent_again_that_is_out_of_date(store: Store, ttl: Ttl, lives: int) -> None:
    add(store, message(1, ttl=ttl, at=NOW - lives), message(2, ttl=ttl, at=NOW - lives + 1))
    with store.transaction() as tables:
        tables.sent.want_repeats(WHO, DEVICE, NOW)
        assert take(tables.sent) == [["2"]]


def test_what_waits_for_a_device_is_due_after_that_is_heard(store: Store) -> None:
    add(store, message(1))
    with store.transaction() as tables:
        tables.sent.device_heard(WHO, DEVICE, NOW)
        tables.sent.want_repeats(WHO, DEVICE, None)
        assert not tables.sent.are_repeats_due(NOW + DAY)
        tables.sent.device_heard(WHO, DEVICE, NOW + 60)
        tables.sent.device_heard(WHO, DEVICE, NOW + 600)
        assert not tables.sent.are_repeats_due(NOW + 59)
        assert tables.sent.repeats_due(NOW + 60) == [Repeats(WHO, DEVICE, 0, 1)]


def test_where_nothing_was_sent_nothing_is_wanted(store: Store) -> None:
    with store.transaction() as tables:
        tables.sent.want_repeats(WHO, DEVICE, NOW)
        assert tables.sent.repeats_due(NOW) == []
