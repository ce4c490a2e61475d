"""The store as the client's tasks use it: one transaction at a time, in a worker thread, and a clock."""

import time
from collections.abc import Callable
from typing import TypeVar

import trio

from .store.database import Store, Tables

T = TypeVar("T")


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
