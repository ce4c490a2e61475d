"""One program per store: an advisory lock on a file beside it, which the system frees when the program ends."""

import os
import sys
from pathlib import Path
from typing import BinaryIO

from .. import errors


def take_lock(store: Path) -> BinaryIO:
    """Lock the store at `store` until the returned file is closed. Raises StoreInUse at once if somebody has it."""
    path = store.with_name(store.name + ".lock")
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        _lock(file)
    except OSError:
        file.close()
        raise errors.StoreInUse(f"another program is using {store.name}") from None
    return file


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
