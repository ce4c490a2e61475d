"""A store on a disk that loses power between any two writes: what was reported durable is there, no key comes twice.

At each moment the files are looked at as a cut would leave them, in several ways, and opened as a store.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sottovoce import errors
from sottovoce.store import database
from sottovoce.store.database import open_store
from sottovoce.store.keyfile import key_path
from sottovoce.store.witness import state_folder
from tests.faults import scale
from tests.sottovoce.people import make_person
from tests.sottovoce.store.power import Cut, Disk, disk_at
from tests.sottovoce.store.talk import Conversation, keys_used, reopen

#: Every so many moments are looked at, in so many turns of the conversation.
STRIDE, TURNS = (1, 20) if scale.FULL else (13, 14)


@pytest.fixture(autouse=True)
def _own_witnesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


def turn(conversation: Conversation, number: int) -> None:
    conversation.write()
    if number % 4 == 1:  # in the middle of a chain, whose next key is then decided
        conversation.alice.store.tidy()
    conversation.write()
    conversation.answer()
    conversation.receive()
    conversation.mark()


def restore(disk: Disk, folder: Path, left: dict[str, bytes]) -> Path:
    """Put what a cut has left into a folder of its own, and beside it the witnesses, of which it takes nothing."""
    folder.mkdir()
    state = state_folder()
    if state is not None and state.exists():
        shutil.copytree(state, folder / "state", ignore=shutil.ignore_patterns("*.lock"))
    for name, content in left.items():
        (folder / name).write_bytes(content)
    path = folder / "alice.db"
    key = key_path(disk.folder / "alice.db")
    if key.exists():
        key_path(path).write_bytes(key.read_bytes())
        key_path(path).chmod(0o600)
    return path


@dataclass
class Watch:
    """Looks at the disk at every so many moments, in each of the ways in which power can go."""

    disk: Disk
    folder: Path
    look: Callable[[Path], list[str]]
    moments: int = 0
    looked: int = 0
    found: list[str] = field(default_factory=list)

    def __call__(self) -> None:
        self.moments += 1
        if self.moments % STRIDE:
            return
        seen: list[dict[str, bytes]] = []
        for cut in Cut:
            left = self.disk.after_power_cut(cut, self.moments)
            if left not in seen:
                seen.append(left)
                self._look(cut, left)

    def _look(self, cut: Cut, left: dict[str, bytes]) -> None:
        self.looked += 1
        try:
            complaints = self.look(restore(self.disk, self.folder / f"{self.looked}", left))
        except errors.StoreError as error:
            complaints = [f"the store cannot be opened: {error}"]
        self.found += [f"moment {self.moments}, {cut.value} is left: {complaint}" for complaint in complaints]


def look_at(conversation: Conversation, path: Path) -> list[str]:
    alice = reopen(path, conversation.alice.own, path.parent / "state")
    try:
        return conversation.complaints(alice)
    finally:
        alice.store.close()


def talk_until_the_power_goes(folder: Path, turns: int, synchronous: str | None = None) -> Watch:
    (folder / "cuts").mkdir()
    with keys_used() as keys, disk_at(folder / "disk", synchronous=synchronous) as disk:
        alice, bob = make_person(disk.folder / "alice.db"), make_person(folder / "bob.db")
        conversation = Conversation(alice, bob, keys)
        disk.before = watch = Watch(disk, folder / "cuts", lambda path: look_at(conversation, path))
        for number in range(turns):
            turn(conversation, number)
        disk.before = lambda: None
        alice.store.close()
        bob.store.close()
    return watch


def test_a_power_cut_between_any_two_writes_takes_back_nothing_that_was_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "COMMITS_IN_LOG", 7)
    watch = talk_until_the_power_goes(tmp_path, TURNS)
    assert watch.found == []
    assert watch.looked > 2 * watch.moments // STRIDE, "most moments must have several things that a cut can leave"


@pytest.mark.parametrize(
    ("synchronous", "losses"),
    [("normal", ("are there", "confirmed", "used again")), ("off", ("are there", "confirmed", "is gone"))],
)
def test_the_watch_sees_what_a_store_loses_that_does_not_wait_for_the_disk(
    tmp_path: Path, synchronous: str, losses: tuple[str, ...]
) -> None:
    watch = talk_until_the_power_goes(tmp_path, turns=3, synchronous=synchronous)
    for loss in losses:
        assert any(loss in complaint for complaint in watch.found), loss


def test_a_power_cut_while_a_store_is_made_leaves_one_that_opens(tmp_path: Path) -> None:
    (tmp_path / "cuts").mkdir()

    def look(path: Path) -> list[str]:
        store = open_store(path, state=path.parent / "state")
        complaints = [] if store.pragma("integrity_check") == "ok" else ["it is damaged"]
        complaints += ["it is taken for a copy"] if store.is_restored else []
        store.close()
        return complaints

    with disk_at(tmp_path / "disk") as disk:
        disk.before = watch = Watch(disk, tmp_path / "cuts", look)
        make_person(disk.folder / "alice.db").store.close()
        disk.before = lambda: None
    assert watch.looked
    assert watch.found == []
