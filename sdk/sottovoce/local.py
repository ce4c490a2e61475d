"""The store as the client's tasks use it: one transaction at a time, in a worker thread, and a clock."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import trio

from . import errors
from .store.database import Store, Tables

T = TypeVar("T")
#: Seconds. With COMMITS_IN_LOG, how long a wiped key can be read by somebody who has the files and the store's key.
TIDY_EVERY: Final = 5.0
_log: Final = logging.getLogger("sottovoce")


def unexpected(error: Exception) -> errors.Unexpected:
    """A fault of this library as an error that a task can survive. Logged by its type: its text may hold anything."""
    _log.error("a task of the client failed and goes on: %s", type(error).__name__)
    return errors.Unexpected(f"internal error ({type(error).__name__})")


def now_ms() -> int:
    """This machine's clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Local:
    """An open store shared by the tasks of one client."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = trio.Lock()

    async def transact(self, work: Callable[[Tables], T]) -> T:
        """Run `work` in a transaction of its own; it is durable when this returns. Raises StoreFailed.

        Cancellation: while waiting for its turn, nothing happened; once begun, it runs to its end.
        """
        async with self._turn:
            return await trio.to_thread.run_sync(self._run, work)

    def _run(self, work: Callable[[Tables], T]) -> T:
        with self._store.transaction() as tables:
            return work(tables)

    async def tidy_when_idle(self) -> None:
        """Keep wiped keys out of the write-ahead log, a moment after the last of a burst of transactions.

        Cancellation: stops; closing the store empties the log too."""
        while True:
            await trio.sleep(TIDY_EVERY)
            with suppress(errors.StoreError):
                async with self._turn:
                    await trio.to_thread.run_sync(self._store.tidy)
