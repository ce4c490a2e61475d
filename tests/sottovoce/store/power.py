"""A disk that loses power: it stands below the cipher and keeps what was written apart from what was synced.

The files themselves hold everything, as a running program sees them; `after_power_cut` says what a cut would leave of
them. No test stands here, and nothing of what a store holds is known.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw
import pytest

#: What a disk writes whole.
SECTOR: Final = 512


@dataclass(frozen=True)
class Write:
    """Bytes that were written and not synced."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    """A file that was cut to a length, not synced."""

    length: int


Change: TypeAlias = Write | Truncate


@dataclass
class File:
    """One file: what a cut cannot take, and what it can take in part. Without a name on the disk it is gone as well."""

    durable: bytes = b""
    pending: list[Change] = field(default_factory=list)
    is_named: bool = False
    is_deleted: bool = False


class Cut(Enum):
    """What is left of what was not synced: nothing, everything, the last of each file, or some of it, torn."""

    NOTHING = "nothing"
    EVERYTHING = "everything"
    THE_LAST = "the last"
    SOME = "some"


class Disk(apsw.VFS):
    """Wraps the system's files in `folder`. `before` is called before every change and every sync of a file, and may
    raise what SQLite is to hear, or look at what a cut at this moment would leave."""

    def __init__(self, folder: Path) -> None:
        self.name = f"power-{folder}"
        super().__init__(self.name, "unix")
        self.folder = folder
        self.files: dict[str, File] = {}
        self.before: Callable[[], None] = lambda: None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        assert path is not None, "temporary files stay in memory"
        if path not in self.files or self.files[path].is_deleted:
            self.files[path] = File()
        return OpenFile(self, path, name, flags)

    def sync_folder(self) -> None:
        """The system's files do so with a new journal, and a new write-ahead log."""
        for file in self.files.values():
            file.is_named = not file.is_deleted

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 - SQLite's
        self.before()
        super().xDelete(filename, syncdir)
        self.files[filename].is_deleted = True
        if syncdir:
            self.sync_folder()

    def after_power_cut(self, cut: Cut, seed: int) -> dict[str, bytes]:
        """Name and content of each file that is left."""
        rng = random.Random(seed)  # noqa: S311 - nobody guesses here
        left = {}
        for path, file in self.files.items():
            is_there = not file.is_deleted if cut is Cut.EVERYTHING else file.is_named
            if is_there:
                content = bytearray(file.durable)
                for change in _survivors(file.pending, cut, rng):
                    _apply(content, change)
                left[Path(path).name] = bytes(content)
        return left

    def power_back(self, left: dict[str, bytes]) -> None:
        """The files are what a cut has left, all of it durable. None of them is open."""
        for path in self.files:
            Path(path).unlink(missing_ok=True)
        self.files = {str(self.folder / name): File(content, is_named=True) for name, content in left.items()}
        for path, file in self.files.items():
            Path(path).write_bytes(file.durable)


class OpenFile(apsw.VFSFile):
    """A file of the disk, opened by SQLite."""

    def __init__(self, disk: Disk, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._file = disk.files[path]
        self._is_main = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's
        self._disk.before()
        super().xWrite(data, offset)
        self._file.pending.append(Write(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's
        self._disk.before()
        super().xTruncate(newsize)
        self._file.pending.append(Truncate(newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's. The real disk need not turn: this one remembers
        self._disk.before()
        content = bytearray(self._file.durable)
        for change in self._file.pending:
            _apply(content, change)
        self._file.durable, self._file.pending = bytes(content), []
        if not self._file.is_named and not self._is_main:
            self._disk.sync_folder()


def _survivors(pending: list[Change], cut: Cut, rng: random.Random) -> list[Change]:
    match cut:
        case Cut.NOTHING:
            return []
        case Cut.EVERYTHING:
            return pending
        case Cut.THE_LAST:
            return pending[-1:]
        case Cut.SOME:
            return [_torn(change, rng) for change in pending if rng.random() < 0.5]


def _torn(change: Change, rng: random.Random) -> Change:
    """Now and then only the first sectors of it."""
    if isinstance(change, Truncate) or rng.random() < 0.7:
        return change
    return Write(change.offset, change.data[: rng.randrange(0, len(change.data) + 1, SECTOR)])


def _apply(content: bytearray, change: Change) -> None:
    if isinstance(change, Truncate):
        del content[change.length :]
        content.extend(bytes(max(0, change.length - len(content))))
    else:
        content.extend(bytes(max(0, change.offset - len(content))))
        content[change.offset : change.offset + len(change.data)] = change.data


@contextmanager
def disk_at(folder: Path, *, synchronous: str | None = None) -> Iterator[Disk]:
    """Every store in `folder` is opened on such a disk meanwhile; others as ever, but without waiting for the real one.

    `synchronous` overrides what stores on the disk ask for.
    """
    folder.mkdir()
    disk = Disk(folder)

    class Connection(apsw.Connection):
        def __init__(self, filename: str, *args: Any, **options: Any) -> None:
            self._is_on_disk = Path(filename).is_relative_to(folder)
            if self._is_on_disk:
                options["vfs"] = f"multipleciphers-{disk.name}"
            super().__init__(filename, *args, **options)

        def pragma(self, name: str, value: Any = None, **options: Any) -> Any:
            if name == "synchronous" and value is not None:
                value = synchronous or value if self._is_on_disk else "off"
            return super().pragma(name, value, **options) if value is not None else super().pragma(name, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(apsw, "Connection", Connection)
        yield disk
    disk.unregister()
