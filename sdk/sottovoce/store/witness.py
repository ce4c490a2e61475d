"""The witness: a small file outside the store's folder that remembers how far the store's counter had come.

Whoever puts a store back from a copy puts back its whole folder; a witness that lay there would go back with it.
Nothing of what a store holds stands here. Spec: store.
"""

import os
import struct
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Final

from .. import errors
from ..crypto import primitives
from . import keyfile, lock

MAGIC: Final = b"Sottovoce witness 1\n"
_COUNT: Final = struct.Struct(">Q")
_CHECK: Final = 8
_LENGTH: Final = len(MAGIC) + _COUNT.size + _CHECK
#: A count that no store reaches; a greater one is no count.
MAX_COUNT: Final = 2**48


class Witness:
    """An open witness, locked: two copies of a store are not open at once. `count` is None for a new one."""

    def __init__(self, path: Path, file: BinaryIO, held: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._lock = held
        self.count = _parse(file.read(_LENGTH + 1))

    def write(self, count: int, *, is_synced: bool = False) -> bool:
        """Remember `count`, and whether that worked. Unsynced it survives this program: a power cut may leave the
        witness behind the store, which accuses nobody."""
        head = MAGIC + _COUNT.pack(count)
        try:
            self._file.seek(0)
            self._file.write(head + primitives.sha256(head)[:_CHECK])
            self._file.truncate()
            if is_synced:
                os.fsync(self._file.fileno())
                keyfile.sync_folder(self._path.parent)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let it go. Closing twice does nothing."""
        self._file.close()
        self._lock.close()


def state_folder() -> Path | None:
    """Where this system wants programs to keep their state: not with the documents that people copy. None without a
    home."""
    try:
        return _state_folder()
    except RuntimeError:
        return None


def _state_folder() -> Path:
    if chosen := os.environ.get("XDG_STATE_HOME"):
        return Path(chosen) / "sottovoce"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sottovoce"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "sottovoce"
    return Path.home() / ".local" / "state" / "sottovoce"


def open_witness(folder: Path, store_id: bytes) -> Witness | None:
    """The witness of a store, made if missing; None if it cannot be written. Raises StoreInUse if a copy of the store
    is open."""
    path = folder / store_id.hex()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = lock.take_lock(path)
    except OSError:
        return None
    except errors.StoreInUse:
        raise errors.StoreInUse("another program is using a copy of this store") from None
    try:
        with ExitStack() as closing:
            closing.enter_context(held)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
            closing.enter_context(file)
            found = Witness(path, file, held)
            closing.pop_all()
            return found
    except OSError:
        return None


def read_count(folder: Path | None, store_id: bytes) -> int | None:
    """What a witness that cannot be written remembers, or None."""
    if folder is None:
        return None
    with suppress(OSError), (folder / store_id.hex()).open("rb") as file:
        return _parse(file.read(_LENGTH + 1))
    return None


def _parse(content: bytes | None) -> int | None:
    """The count; None of anything that is not whole, as of none."""
    head, check = (content or b"")[: len(MAGIC) + _COUNT.size], (content or b"")[len(MAGIC) + _COUNT.size :]
    if not head.startswith(MAGIC) or check != primitives.sha256(head)[:_CHECK]:
        return None
    (count,) = _COUNT.unpack(head[len(MAGIC) :])
    return count if count <= MAX_COUNT else None
