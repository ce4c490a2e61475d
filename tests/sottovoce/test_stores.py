"""What is done with a store that no client has open: another passphrase, a check, reading what is left of it."""

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from sottovoce import errors
from sottovoce.protocol.state import Incoming
from sottovoce.store import check, keyfile
from sottovoce.store.database import open_store
from sottovoce.store.unlock import KEY_FILE, Keyring, Passphrase, Unlock
from sottovoce.stores import change_passphrase, check_store, read_intact
from sottovoce_wire.ids import AccountId, DeviceId, MessageId
from tests.sottovoce.people import make_person
from tests.sottovoce.store.keyrings import InMemory, using

MESSAGES = 2_000
PAGE = 4096
NOW = 1_800_000_000


def text(number: int) -> str:
    return f"message {number} " + "x" * (number % 700)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with an account, a session, an envelope that waits, and messages over many pages."""
    alice, bob = make_person(tmp_path / "alice.db"), make_person(tmp_path / "bob.db")
    alice.meet(bob, NOW)
    envelope = alice.write(bob, "waits", NOW)
    with alice.store.transaction() as tables:
        tables.outbox.add(envelope, NOW)
        for number in range(MESSAGES):
            ids = MessageId(number.to_bytes(16, "big")), AccountId(bytes(32)), DeviceId(bytes(16))
            tables.inbox.add(Incoming(*ids, text(number), number, number), is_request=False)
    alice.store.close()
    bob.store.close()
    return tmp_path / "alice.db"


def numbers(path: Path) -> list[int]:
    """Which messages can be read; each as it was."""
    found = list(read_intact(path))
    assert all(each.text == text(each.sent_at) for each in found)
    return [each.sent_at for each in found]


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.is_file()}


def page_of(path: Path, table: str) -> int:
    """The place in the file of a page in the middle of the rows of a table."""
    store = open_store(path)
    query = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path"
    pages = [number for (number,) in store._connection.execute(query, (table,))]
    store.close()
    return int(pages[len(pages) // 2] - 1) * PAGE


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


# --- Another passphrase ---

WAYS: list[Unlock] = [KEY_FILE, Passphrase("old"), Keyring()]


def words(unlock: Unlock) -> tuple[str | None, bool]:
    return (unlock.text if isinstance(unlock, Passphrase) else None), isinstance(unlock, Keyring)


@pytest.mark.parametrize("old", WAYS, ids=repr)
@pytest.mark.parametrize("new", [*WAYS, Passphrase("new")], ids=repr)
def test_a_store_is_unlocked_the_new_way_and_holds_what_it_held(tmp_path: Path, old: Unlock, new: Unlock) -> None:
    path = tmp_path / "store.db"
    with using(InMemory()):
        store = open_store(path, old)
        with store.transaction() as tables:
            tables.peers.pin_name("kept", AccountId(bytes(32)))
        store.close()
        (before, from_keyring), (after, to_keyring) = words(old), words(new)
        change_passphrase(path, before, after, from_keyring=from_keyring, to_keyring=to_keyring)
        store = open_store(path, new)
        with store.transaction() as tables:
            assert tables.peers.named("kept") == bytes(32)
        assert not store.is_restored
        store.close()


def test_an_open_store_gets_no_other_passphrase(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(errors.StoreInUse):
        change_passphrase(path, None, "new")
    store.close()


def test_with_the_wrong_passphrase_nothing_changes(path: Path) -> None:
    change_passphrase(path, None, "right")
    before = digests(path.parent)
    with pytest.raises(errors.WrongPassphrase):
        change_passphrase(path, "wrong", "new")
    with pytest.raises(errors.InvalidInput):
        change_passphrase(path, "right", "")
    with pytest.raises(errors.InvalidInput):
        change_passphrase(path, "right", "new", to_keyring=True)
    assert digests(path.parent) == before


def test_a_path_without_a_store_is_one_clear_error_and_stays_empty(tmp_path: Path) -> None:
    for call in (
        lambda: change_passphrase(tmp_path / "none.db", None, "new"),
        lambda: check_store(tmp_path / "none.db"),
        lambda: list(read_intact(tmp_path / "none.db")),
    ):
        with pytest.raises(errors.StoreUnreadable):
            call()
    assert list(tmp_path.iterdir()) == []


# --- Checks ---


def test_a_whole_store_is_intact_and_left_as_it_is(path: Path) -> None:
    before = digests(path.parent)
    steps: list[tuple[int, int]] = []
    report = check_store(path, progress=lambda done, total: steps.append((done, total)))
    assert report.is_intact
    assert {table.name: table.rows for table in report.tables}["messages"] == MESSAGES
    assert report.pages * PAGE == path.stat().st_size
    assert steps == [(done, len(report.tables)) for done in range(len(report.tables) + 1)]
    assert numbers(path) == list(range(MESSAGES))
    assert digests(path.parent) == before


def test_a_root_key_that_the_key_file_does_not_open_is_found(path: Path) -> None:
    store = open_store(path)
    with store.transaction() as tables:
        tables.account._execute("UPDATE account SET wrapped_root = ?", (bytes(60),))
    store.close()
    assert check_store(path).damaged == ("account",)


def test_what_only_the_log_holds_is_checked_and_read_too(path: Path) -> None:
    """As a kill leaves it."""
    store = open_store(path)
    with store.transaction() as tables:
        ids = MessageId(b"m" * 16), AccountId(bytes(32)), DeviceId(bytes(16))
        tables.inbox.add(Incoming(*ids, text(MESSAGES), MESSAGES, MESSAGES), is_request=False)
    killed = shutil.copytree(path.parent, path.parent / "killed") / path.name
    store.close()
    assert killed.with_name("alice.db-wal").stat().st_size
    before = digests(killed.parent)
    assert check_store(killed).is_intact
    assert numbers(killed) == list(range(MESSAGES + 1))
    assert digests(killed.parent) == before


def test_a_flipped_bit_is_found_and_costs_the_messages_of_its_page_alone(path: Path) -> None:
    flip(path, page_of(path, "messages") + 1000)
    assert check_store(path).damaged == ("messages",)
    left = numbers(path)
    assert 0 < MESSAGES - len(left) < 60
    assert left == sorted(left)
    assert (left[0], left[-1]) == (0, MESSAGES - 1)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_a_truncated_store_says_so_and_what_is_there_can_be_read(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(errors.StoreUnreadable) as refused:
        open_store(path)
    assert "read_intact" in refused.value.diagnostics()
    report = check_store(path)
    assert report.is_truncated
    assert not report.is_intact
    left = numbers(path)
    assert 0 < len(left) < MESSAGES
    assert path.read_bytes() == whole[: int(len(whole) * share)]


@pytest.mark.parametrize("keep", [0, 15, 100, PAGE, 3 * PAGE])
def test_a_store_of_which_nearly_nothing_is_left_is_one_clear_error(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    for call in (lambda: check_store(path), lambda: list(read_intact(path))):
        with pytest.raises(errors.StoreUnreadable):
            call()
    assert [file.name for file in path.parent.iterdir() if ".copy" in file.name] == []


def test_rows_that_hold_something_else_are_found(path: Path) -> None:
    store = open_store(path)
    with store.transaction() as tables:
        for statement in (
            "UPDATE sessions SET ratchet = x'00'",
            "UPDATE outbox SET queue = x'00'",
            "UPDATE prekeys SET state = x'00'",
            "UPDATE one_time_prekeys SET state = x'00' WHERE id = 1",
            "UPDATE account SET device = x'00'",
            "UPDATE own_queues SET owner_seed = x'00'",
            "UPDATE peers SET device_list = x'00'",
        ):
            tables.sessions._execute(statement)
    store.close()
    report = check_store(path)
    assert {table.name: table.unreadable for table in report.tables if table.unreadable} == {
        "account": 1,
        "one_time_prekeys": 1,
        "outbox": 1,
        "own_queues": 2,
        "peers": 1,
        "prekeys": 1,
        "sessions": 1,
    }
    assert not report.is_intact


def test_reading_can_end_early_and_lets_the_store_go(path: Path) -> None:
    reading = read_intact(path)
    assert next(reading).sent_at == 0
    with pytest.raises(errors.StoreInUse):
        open_store(path)
    reading.close()
    assert [file.name for file in path.parent.iterdir() if ".copy" in file.name] == []
    open_store(path).close()


def test_while_messages_are_read_no_key_of_the_root_key_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application may keep the iterator for as long as it likes."""
    known = keyfile.read_keys(keyfile.key_path(path), KEY_FILE)
    monkeypatch.setattr(check, "_read_keys", lambda *_: keyfile.Keys(known.database, known.root))
    before = sys.getrefcount(known.root)
    reading = read_intact(path)
    next(reading)
    now = sys.getrefcount(known.root)  # an assertion would count itself
    assert now == before
    reading.close()


def test_nothing_of_a_message_is_in_what_is_printed_of_it(path: Path) -> None:
    reading = read_intact(path)
    assert "message 0" not in repr(next(reading))
    reading.close()


def test_a_locked_store_is_checked_with_its_passphrase_alone(path: Path) -> None:
    change_passphrase(path, None, "right")
    with pytest.raises(errors.PassphraseNeeded):
        check_store(path)
    assert check_store(path, passphrase="right").is_intact
    assert len(list(read_intact(path, passphrase="right"))) == MESSAGES


@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_folder_has_no_passphrase_to_change(path: str) -> None:
    with pytest.raises(errors.StoreFailed, match="is a folder"):
        change_passphrase(path, None, "correct horse")
