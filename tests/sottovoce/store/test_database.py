"""The store as a file: encrypted, durable, for one program at a time, and left alone when it cannot be opened."""

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from sottovoce import errors
from sottovoce.crypto import primitives
from sottovoce.store import database, schema
from sottovoce.store.database import COMMITS_IN_LOG, Tables, open_store
from sottovoce.store.unlock import Passphrase, unlock_by
from sottovoce_wire.ids import AccountId

NAME = "conspicuous-name"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def make(path: Path, passphrase: str | None = None) -> None:
    store = open_store(path, unlock_by(passphrase))
    with store.transaction() as tables:
        tables.peers.pin_name(NAME, AccountId(bytes(32)))
    store.close()


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    store = open_store(path)
    assert store.pragma("synchronous") == 2  # FULL
    assert store.pragma("journal_mode") == "wal"
    assert store.pragma("secure_delete") == 1
    store.close()


def test_what_was_stored_is_there_after_reopening(path: Path) -> None:
    make(path)
    store = open_store(path)
    with store.transaction() as tables:
        assert tables.peers.named(NAME) == bytes(32)
    store.close()


def test_no_file_shows_what_is_stored_and_the_scan_would_see_it(path: Path) -> None:
    store = open_store(path)
    with store.transaction() as tables:
        tables.peers.pin_name(NAME, AccountId(bytes(32)))
    planted = path.with_name("planted")
    planted.write_text(f"… {NAME} …")
    shown = {file.name for file in path.parent.iterdir() if NAME.encode() in file.read_bytes()}
    assert shown == {"planted"}
    assert not path.read_bytes().startswith(b"SQLite format 3")
    store.close()


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_every_file_is_readable_by_its_owner_alone(path: Path) -> None:
    store = open_store(path)
    with store.transaction() as tables:
        tables.peers.pin_name(NAME, AccountId(bytes(32)))
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == {
        "store.db": "0o600",
        "store.db-wal": "0o600",
        "store.db.key": "0o600",
        "store.db.lock": "0o600",
    }
    store.close()


def test_a_transaction_that_raises_leaves_nothing(path: Path) -> None:
    store = open_store(path)

    def half_done() -> None:
        with store.transaction() as tables:
            tables.peers.pin_name(NAME, AccountId(bytes(32)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_done()
    with store.transaction() as tables:
        assert tables.peers.named(NAME) is None
    store.close()


def test_a_program_killed_in_a_transaction_leaves_nothing_of_it_and_all_before(path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from sottovoce.store.database import open_store
store = open_store(Path({str(path)!r}))
with store.transaction() as tables:
    tables.peers.pin_name("kept", bytes(32))
with store.transaction() as tables:
    tables.peers.pin_name("lost", bytes(32))
    print("in flight", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stdout == "in flight\n"
    assert ended.returncode == -9
    store = open_store(path)
    with store.transaction() as tables:
        assert tables.peers.named("kept") == bytes(32)
        assert tables.peers.named("lost") is None
    store.close()


def test_a_second_client_in_the_same_program_is_refused(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(errors.StoreInUse):
        open_store(path)
    store.close()
    open_store(path).close()


def test_another_program_is_refused_even_after_this_one_has_read_the_file(path: Path) -> None:
    store = open_store(path)
    path.read_bytes()  # closing any handle of a file drops this process's POSIX locks on it
    program = f"""
from pathlib import Path
from sottovoce import errors
from sottovoce.store.database import open_store
try:
    open_store(Path({str(path)!r}))
except errors.StoreInUse as error:
    print("refused:", error)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "refused: another program is using store.db\n"
    store.close()


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    store = open_store(path)
    store._connection.pragma("user_version", schema.VERSION + 1)
    store.close()
    before = path.read_bytes()
    with pytest.raises(errors.StoreVersion):
        open_store(path)
    assert path.read_bytes() == before


def test_a_store_from_before_the_first_release_is_refused_and_says_what_to_do(path: Path) -> None:
    store = open_store(path)
    store._connection.pragma("user_version", schema.UNRELEASED)
    store.close()
    before = path.read_bytes()
    with pytest.raises(errors.StoreVersion, match="before the first release") as refused:
        open_store(path)
    assert "register again" in refused.value.diagnostics()
    assert path.read_bytes() == before


def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(path: Path) -> None:
    make(path)
    path.write_bytes(b"a letter to the editor, " * 1000)
    before = path.read_bytes()
    with pytest.raises(errors.StoreUnreadable):
        open_store(path)
    assert path.read_bytes() == before


def test_a_store_without_its_key_file_is_refused_and_gets_no_new_key(path: Path) -> None:
    make(path)
    key = path.with_name("store.db.key")
    key.rename(path.with_name("elsewhere"))
    with pytest.raises(errors.StoreUnreadable, match="missing"):
        open_store(path)
    assert not key.exists()


def test_the_key_file_of_another_store_is_refused(path: Path) -> None:
    make(path)
    other = path.with_name("other.db")
    make(other)
    path.with_name("store.db.key").write_bytes(other.with_name("other.db.key").read_bytes())
    with pytest.raises(errors.StoreUnreadable):
        open_store(path)


def test_a_key_made_before_the_store_file_was_is_used(path: Path) -> None:
    """A kill between the two leaves a key and an empty file or none."""
    make(path)
    key = path.with_name("store.db.key").read_bytes()
    path.write_bytes(b"")
    make(path)
    assert path.with_name("store.db.key").read_bytes() == key


def test_a_store_in_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StoreFailed, match="cannot open"):
        open_store(tmp_path / "file" / "store.db")


def test_beside_a_folder_or_a_file_that_is_no_store_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bot.py").write_text("import sottovoce")
    (tmp_path / "folder").mkdir()
    for folder in (".", "..", "folder"):
        with pytest.raises(errors.StoreFailed, match="is a folder"):
            open_store(Path(folder))
    with pytest.raises(errors.StoreUnreadable, match=r"bot\.py is not a store") as refused:
        open_store(Path("bot.py"))
    assert "name another file" in refused.value.diagnostics()
    assert {each.name for each in tmp_path.iterdir()} == {"bot.py", "folder"}


def test_a_path_that_no_file_can_have_is_one_clear_error() -> None:
    with pytest.raises(errors.InvalidInput):
        open_store(Path("store\0.db"))


def test_a_wrong_passphrase_is_refused_and_the_right_one_opens(path: Path) -> None:
    make(path, "correct horse")
    with pytest.raises(errors.WrongPassphrase):
        open_store(path, Passphrase("battery staple"))
    with pytest.raises(errors.PassphraseNeeded):
        open_store(path)
    open_store(path, Passphrase("correct horse")).close()


def test_a_deleted_key_leaves_no_bytes_in_the_open_database(path: Path) -> None:
    """What secure_delete is for; read inside the cipher, where the bytes would be seen."""
    store = open_store(path)
    secret = primitives.random_bytes(32)
    with store.transaction() as tables:
        tables.peers.pin_name("x" + secret.hex(), AccountId(secret))
    assert secret in store._connection.serialize("main")
    with store.transaction() as tables:
        tables.peers._execute("DELETE FROM peer_names")
    assert secret not in store._connection.serialize("main")
    store.close()


def test_wiped_keys_leave_the_write_ahead_log_too(path: Path) -> None:
    """The log holds older versions of pages; it is emptied every so many commits, when idle, and at opening."""
    store = open_store(path)
    log = path.with_name("store.db-wal")
    with store.transaction() as tables:
        tables.peers.pin_name(NAME, AccountId(bytes(32)))
    assert log.stat().st_size > 0
    store.tidy()
    assert log.stat().st_size == 0
    for number in range(COMMITS_IN_LOG):
        assert number == 0 or log.stat().st_size > 0
        with store.transaction() as tables:
            tables.peers.pin_name(f"{NAME}{number}", AccountId(bytes(32)))
    assert log.stat().st_size == 0
    store.close()


def test_an_empty_passphrase_is_refused_before_anything_is_made(path: Path) -> None:
    with pytest.raises(errors.InvalidInput):
        open_store(path, unlock_by(""))
    assert list(path.parent.iterdir()) == []


def test_a_store_that_was_closed_says_so(path: Path) -> None:
    store = open_store(path)
    store.close()
    with pytest.raises(errors.StoreFailed, match="closed"), store.transaction():
        pass


def test_what_a_savepoint_wrote_is_taken_back_alone(path: Path) -> None:
    store = open_store(path)

    def fail(tables: Tables) -> None:
        with tables.savepoint():
            tables.peers.pin_name("lost", AccountId(bytes(32)))
            raise ZeroDivisionError

    with store.transaction() as tables:
        tables.peers.pin_name("kept", AccountId(bytes(32)))
        with pytest.raises(ZeroDivisionError):
            fail(tables)
        with tables.savepoint():
            tables.peers.pin_name("kept too", AccountId(bytes(32)))
    with store.transaction() as tables:
        assert [tables.peers.named(name) for name in ("kept", "lost", "kept too")] == [bytes(32), None, bytes(32)]
    store.close()


def test_a_log_that_cannot_be_emptied_does_not_make_a_commit_look_failed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told that nothing was stored does it again: a message would go out twice."""
    store = open_store(path)
    tried = []

    def fail(_connection: object) -> None:
        tried.append(True)
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(database, "_empty_log", fail)
        while len(tried) < 2:
            assert not tried or store._commits + 1 >= COMMITS_IN_LOG
            with store.transaction() as tables:
                tables.peers.pin_name(f"{NAME}{len(tried)}", AccountId(bytes(32)))
    with store.transaction() as tables:
        assert tables.peers.named(f"{NAME}1") == bytes(32)
    assert path.with_name("store.db-wal").stat().st_size == 0
    store.close()
