"""The counter and its witness: a copy that is put back is noticed and sends nothing under old keys; nothing else is
taken for one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sottovoce import errors
from sottovoce.events import Event, StoreRestored, WitnessUnwritable
from sottovoce.protocol import sessions
from sottovoce.protocol.opening import Opener
from sottovoce.protocol.reading import Outcome
from sottovoce.store.counter import NUMBERS, start_anew
from sottovoce.store.database import COMMITS_IN_LOG, Store, open_store
from sottovoce.store.witness import MAX_COUNT, open_witness
from sottovoce_wire.ids import AccountId
from tests.sottovoce.people import ORIGIN, Person, make_person

NOW = 1_800_000_000


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the witnesses of this test's stores are."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "sottovoce"


@pytest.fixture
def path(tmp_path: Path, state: Path) -> Path:
    """A store that was opened once, alone in its folder."""
    path = tmp_path / "data" / "store.db"
    open_store(path).close()
    return path


def copy(path: Path) -> Path:
    return shutil.copytree(path.parent, path.parent.with_name("backup"))


def put_back(backup: Path, path: Path) -> None:
    shutil.rmtree(path.parent)
    shutil.copytree(backup, path.parent)


def is_restored(path: Path) -> bool:
    store = open_store(path)
    store.close()
    return store.is_restored


def write(store: Store, times: int = 1) -> None:
    for number in range(times):
        with store.transaction() as tables:
            tables.peers.pin_name(f"name{number}", AccountId(bytes(32)))


def events(store: Store) -> list[type[Event]]:
    with store.transaction() as tables:
        found = []
        while (first := tables.events.first()) is not None:
            tables.events.remove(first[0])
            found.append(type(first[1]))
    return found


def witness_file(state: Path) -> Path:
    (file,) = (file for file in state.iterdir() if file.suffix == "")
    return file


def test_a_store_that_is_opened_again_and_again_is_no_copy(path: Path) -> None:
    assert [is_restored(path) for _ in range(5)] == [False] * 5


def test_a_copy_that_is_put_back_is_noticed_once_and_told(path: Path) -> None:
    backup = copy(path)
    write(store := open_store(path))
    store.close()
    put_back(backup, path)
    store = open_store(path)
    assert store.is_restored
    assert events(store) == [StoreRestored]
    store.close()
    assert not is_restored(path)


def test_a_copy_of_an_open_store_is_noticed_after_so_many_transactions(path: Path) -> None:
    store = open_store(path)
    backup = copy(path)
    write(store, COMMITS_IN_LOG)
    os.environ["XDG_STATE_HOME"], home = str(path.parents[1] / "as killed"), os.environ["XDG_STATE_HOME"]
    shutil.copytree(home, os.environ["XDG_STATE_HOME"], ignore=shutil.ignore_patterns("*.lock"))
    put_back(backup, path.with_name("x") if False else path.parents[1] / "elsewhere" / "store.db") if False else None
    moved = path.parents[1] / "elsewhere"
    shutil.copytree(backup, moved)
    assert is_restored(moved / "store.db")
    store.close()
