"""Room on the disk: refuses new queues before envelopes, and keeps a ballast so that deletions work on a full disk.

A deletion needs room in the database's log before it gives any back. Nothing here touches the database.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from sottovoce_hosting.logs import log

#: Let go of when the disk is full, and taken again when it is not.
BALLAST_BYTES: Final = 8 * 1024 * 1024
#: Below so much free, nothing is taken in any more: what is left is for deletions.
RESERVE_BYTES: Final = 32 * 1024 * 1024
_LOOK_SECONDS: Final = 5.0


class Space:
    """The disk under `folder`. `for_queues`: bytes that must be free for a new queue."""

    def __init__(self, folder: Path, for_queues: int) -> None:
        self._folder = folder
        self._ballast = folder / "relay.ballast"
        self._for_queues = for_queues
        self._free = 0
        self._has_ballast = False

    @property
    def takes_queues(self) -> bool:
        """Whether a queue may be created."""
        return self._free >= self._for_queues

    @property
    def is_short(self) -> bool:
        """Whether no envelope may be taken in."""
        return self._free < RESERVE_BYTES

    @property
    def free(self) -> int:
        """Bytes that were free at the last look."""
        return self._free

    def look(self) -> None:
        """See how much is free, and take or keep the ballast if there is enough."""
        was_short = self.is_short
        with suppress(OSError):
            self._free = shutil.disk_usage(self._folder).free
        if self.is_short and not was_short:
            log.warning("the disk is nearly full: nothing is taken in until some space is free", free=self._free)
        if not self._has_ballast and self._free >= RESERVE_BYTES + BALLAST_BYTES:
            self._take_ballast()

    def drop_ballast(self) -> None:
        """The disk is full: give the ballast's room to the database."""
        self._has_ballast = False
        with suppress(OSError):
            self._ballast.unlink()

    async def watch_for_ever(self) -> None:
        """Look now and then. Cancellation: between two looks."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            await trio.to_thread.run_sync(self.look)  # a disk may be stuck

    def _take_ballast(self) -> None:
        try:
            handle = os.open(self._ballast, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(handle, 0, BALLAST_BYTES)
            finally:
                os.close(handle)
        except OSError:
            self.drop_ballast()
        else:
            self._has_ballast = True
