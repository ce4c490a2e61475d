"""A disk that is full, or fails, at each write in turn: one operation did not happen, all before it stands, and the
next goes on.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from sottovoce import errors
from sottovoce.store import database
from sottovoce.store.database import Store, open_store
from sottovoce_wire.ids import AccountId
from tests.sottovoce.people import make_person
from tests.sottovoce.store.power import Disk, OpenFile, disk_at
from tests.sottovoce.store.talk import Conversation, keys_used, outbox, reopen, texts


class Refusing:
    """Refuses the change of number `first`, counted from now, and all that follow until `free` is called."""

    def __init__(self, disk: Disk, first: int, error: type[apsw.Error]) -> None:
        self._disk = disk
        self._left = first
        self._error = error
        self.refused = 0
        disk.before = self

    def __call__(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self.refused += 1
            raise self._error

    def free(self) -> None:
        self._disk.before = lambda: None


def until_done(work: Callable[[], None], refusing: Refusing) -> int:
    """Try, and again when there is room; returns how often it failed."""
    try:
        work()
    except errors.StoreFailed:
        refusing.free()
        work()
        return 1
    return 0


def test_what_failed_at_the_last_may_be_found_after_a_kill_and_not_after_another_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one exception from "did not happen", as the documentation of StoreFailed has it."""

    def fail(*_: object) -> None:
        raise apsw.IOError

    def pinned(path: Path) -> list[str]:
        store = open_store(path, state=path.parent / "state")
        with store.transaction() as tables:
            found = [name for name in ("before", "failed", "after") if tables.peers.named(name) is not None]
        store.close()
        return found

    with disk_at(tmp_path / "disk") as disk:
        store = open_store(disk.folder / "store.db", state=tmp_path / "state")
        pin(store, "before")
        with monkeypatch.context() as patched:
            patched.setattr(OpenFile, "xSync", fail)
            with pytest.raises(errors.StoreFailed):
                pin(store, "failed")
        at_once = shutil.copytree(disk.folder, tmp_path / "killed at once")
        pin(store, "after")
        later = shutil.copytree(disk.folder, tmp_path / "killed later")
        store.close()
    assert pinned(at_once / "store.db") == ["before", "failed"]
    assert pinned(later / "store.db") == ["before", "after"]


def pin(store: Store, name: str) -> None:
    with store.transaction() as tables:
        tables.peers.pin_name(name, AccountId(bytes(32)))


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
def test_a_disk_that_refuses_any_write_takes_back_one_operation_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[apsw.Error]
) -> None:
    monkeypatch.setattr(database, "COMMITS_IN_LOG", 5)
    failed = 0
    with keys_used() as keys, disk_at(tmp_path / "disk") as disk:
        alice, bob = make_person(disk.folder / "alice.db"), make_person(tmp_path / "bob.db")
        talk = Conversation(alice, bob, keys)
        refusing = Refusing(disk, 1, error)
        first = 1
        while refusing.refused or first == 1:
            refusing = Refusing(disk, first, error)
            for work in (talk.write, talk.write, alice.store.tidy):
                failed += until_done(work, refusing)
            talk.answer()
            failed += until_done(talk.receive, refusing)
            refusing.free()
            assert outbox(alice) == talk.said.sent
            assert alice.texts() == texts(len(talk.coming))
            first += 1
        alice.store.close()
        alice = reopen(disk.folder / "alice.db", alice.own)
        assert talk.complaints(alice) == []
        assert len(set(talk.said.keys)) == len(talk.said.keys)
        alice.store.close()
        bob.store.close()
    assert failed > 10, "most refusals must be told"
