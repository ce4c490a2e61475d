"""Room on the disk: what is refused when, and the ballast that deletions live on."""

from __future__ import annotations

import shutil
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio

from sottovoce_relay.space import BALLAST_BYTES, RESERVE_BYTES, Space

if TYPE_CHECKING:
    from pathlib import Path

FOR_QUEUES = 10 * RESERVE_BYTES


class Usage(NamedTuple):
    """What `shutil.disk_usage` says."""

    total: int
    used: int
    free: int


class Disk:
    """A disk that has as much room as the test says: none that a test could fill is small enough."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 100 * RESERVE_BYTES
        self.is_gone = False
        monkeypatch.setattr(shutil, "disk_usage", self._usage)

    def _usage(self, _folder: Path) -> Usage:
        if self.is_gone:
            raise OSError
        return Usage(2**40, 0, self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def looked(folder: Path) -> Space:
    space = Space(folder, FOR_QUEUES)
    space.look()
    return space


@pytest.mark.parametrize(
    ("free", "takes_queues", "is_short"),
    [
        (FOR_QUEUES, True, False),
        (FOR_QUEUES - 1, False, False),
        (RESERVE_BYTES, False, False),
        (RESERVE_BYTES - 1, False, True),
    ],
)
def test_new_queues_are_refused_before_envelopes_are(
    tmp_path: Path, disk: Disk, free: int, takes_queues: bool, is_short: bool
) -> None:
    disk.free = free
    space = looked(tmp_path)
    assert (space.takes_queues, space.is_short, space.free) == (takes_queues, is_short, free)


def test_a_ballast_is_taken_really_and_for_its_owner_alone(tmp_path: Path, disk: Disk) -> None:
    looked(tmp_path)
    ballast = (tmp_path / "relay.ballast").stat()
    assert ballast.st_size == BALLAST_BYTES
    assert ballast.st_blocks * 512 >= BALLAST_BYTES  # a file with a hole would keep nothing free
    assert stat.S_IMODE(ballast.st_mode) == 0o600


def test_the_ballast_is_let_go_of_and_taken_again_when_there_is_room_for_it(tmp_path: Path, disk: Disk) -> None:
    space, ballast = looked(tmp_path), tmp_path / "relay.ballast"
    for _ in range(2):
        space.drop_ballast()
        assert not ballast.exists()
    disk.free = RESERVE_BYTES + BALLAST_BYTES - 1
    space.look()
    assert not ballast.exists()
    disk.free += 1
    space.look()
    assert ballast.exists()


def test_a_ballast_that_stands_is_left_alone(tmp_path: Path, disk: Disk) -> None:
    space, ballast = looked(tmp_path), tmp_path / "relay.ballast"
    before = ballast.stat().st_mtime_ns
    space.look()
    assert ballast.stat().st_mtime_ns == before


def test_a_disk_that_has_no_room_for_the_ballast_keeps_none_of_it(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr("os.posix_fallocate", full)
        space = looked(tmp_path)
        assert not (tmp_path / "relay.ballast").exists()
    space.look()
    assert (tmp_path / "relay.ballast").exists()


def test_a_link_in_the_place_of_the_ballast_is_not_followed(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "relay.ballast").symlink_to(tmp_path / "other")
    looked(tmp_path)
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_a_disk_that_cannot_be_asked_is_as_it_was(tmp_path: Path, disk: Disk) -> None:
    space = looked(tmp_path)
    disk.is_gone = True
    space.look()
    assert (space.takes_queues, space.is_short) == (True, False)


def test_a_disk_that_fills_is_said_once(tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    space = looked(tmp_path)
    disk.free = RESERVE_BYTES - 1
    for _ in range(3):
        space.look()
    said = capsys.readouterr()
    assert (said.out + said.err).count("nearly full") == 1


class Watched(Space):
    """Says when it has looked. Raises where it is looked at by who must not wait for a disk."""

    has_looked: trio.Event

    def look(self) -> None:
        super().look()
        trio.from_thread.run_sync(self.has_looked.set)


async def test_the_disk_is_looked_at_now_and_then_and_only_a_thread_waits_for_it(
    tmp_path: Path, disk: Disk, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    space = Watched(tmp_path, FOR_QUEUES)
    nursery.start_soon(space.watch_for_ever)
    for free in (5, 10 * RESERVE_BYTES):
        disk.free, space.has_looked = free, trio.Event()
        await space.has_looked.wait()
        assert space.free == free
