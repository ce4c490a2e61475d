"""The store as the client's tasks use it: works that wait at the same time are committed together, in a worker thread.

And the client's clock. What a work does with the tables is no matter here.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import trio

from . import errors
from .store.contract import StoreContract
from .store.database import Tables

T = TypeVar("T")
#: Seconds. With COMMITS_IN_LOG, how long a wiped key can be read by somebody who has the files and the store's key.
TIDY_EVERY: Final = 5.0
#: Works in one commit. More would save little, and keep the first of them waiting.
BATCH: Final = 64
_log: Final = logging.getLogger("sottovoce")


def unexpected(error: Exception) -> errors.Unexpected:
    """A fault of this library as an error that a task can survive. Logged by its type: its text may hold anything."""
    _log.error("a task of the client failed and goes on: %s", type(error).__name__)
    return errors.Unexpected(f"internal error ({type(error).__name__})")


def now_ms() -> int:
    """This machine's clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class _Turn(Generic[T]):
    """What a task waits for. `call` takes the tables; one that `is_alone` takes nothing, outside any transaction."""

    def __init__(self, call: Callable[..., T], *, is_alone: bool = False) -> None:
        self.task = trio.lowlevel.current_task()
        self.is_alone = is_alone
        self.error: BaseException | None = None
        self._call = call
        self._result: T

    def take(self, *tables: Tables) -> None:
        self._result = self._call(*tables)

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return self._result


class Local:
    """An open store shared by the tasks of one client, and the clock that they go by.

    `inline`: without a thread, for a store that waits for no disk. `clock` gives milliseconds since 1970.
    """

    def __init__(self, store: StoreContract, *, inline: bool = False, clock: Callable[[], int] = now_ms) -> None:
        self._store = store
        self._inline = inline
        self._clock = clock
        self._waiting: dict[_Turn[Any], None] = {}
        self._is_busy = False

    def now_ms(self) -> int:
        """The client's clock in milliseconds since 1970."""
        return self._clock()

    async def transact(self, work: Callable[[Tables], T]) -> T:
        """Run `work` in a transaction; what it wrote is durable when this returns. Raises StoreFailed, and what `work`
        raises: then nothing of it was written.

        Works run in the order of the calls. Those that wait at the same time share one commit, each in a part of its
        own, so that one that raises takes nothing of the others along.
        Cancellation: while it waits, nothing happened; once begun, it runs to its end and the result stands.
        """
        return await self._take_turn(_Turn(work))

    async def close(self) -> None:
        """Close the store. Raises StoreFailed. Cancellation: as `transact`."""
        await self._take_turn(_Turn(self._store.close, is_alone=True))

    async def tidy_when_idle(self) -> None:
        """Keep wiped keys out of the write-ahead log, a moment after the last of a burst of transactions.

        Cancellation: stops; closing the store empties the log too."""
        while not self._inline:  # where it waits for no disk, there is no log
            await trio.sleep(TIDY_EVERY)
            with suppress(errors.StoreError):
                await self._take_turn(_Turn(self._store.tidy, is_alone=True))

    async def _take_turn(self, turn: _Turn[T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._inline:
            self._run([turn])
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._wait(turn)
        try:
            return turn.outcome()
        finally:
            del turn  # its error's traceback leads back here

    @trio.lowlevel.enable_ki_protection  # a turn that waits has a task that waits
    async def _wait(self, turn: _Turn[T]) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            if turn not in self._waiting:
                return trio.lowlevel.Abort.FAILED
            del self._waiting[turn]
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiting[turn] = None
        if not self._is_busy:
            self._begin()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _begin(self) -> None:
        """Run the turns that are next in a worker thread; `_ended` goes on with what has gathered meanwhile."""
        turns = self._next()
        self._is_busy = True
        ended = partial(trio.lowlevel.current_trio_token().run_sync_soon, self._ended, turns)
        try:
            trio.lowlevel.start_thread_soon(partial(self._run, turns), lambda _: ended(), "sottovoce store")
        except RuntimeError:
            _fail(turns, errors.StoreFailed("the system gives no thread"))
            ended()

    def _next(self) -> list[_Turn[Any]]:
        turns: list[_Turn[Any]] = []
        for turn in islice(self._waiting, BATCH):
            if turn.is_alone and turns:
                break
            turns.append(turn)
            if turn.is_alone:
                break
        for turn in turns:
            del self._waiting[turn]
        return turns

    def _ended(self, turns: list[_Turn[Any]]) -> None:
        for turn in turns:
            trio.lowlevel.reschedule(turn.task)
        self._is_busy = False
        if self._waiting:
            self._begin()

    @trio.lowlevel.enable_ki_protection
    def _run(self, turns: list[_Turn[Any]]) -> None:
        """One that is alone, or several works and their commit. If that fails, none of them happened."""
        try:
            if turns[0].is_alone:
                turns[0].take()
            else:
                self._commit(turns)
        except errors.StoreError as error:
            _fail(turns, error)
        except Exception as error:
            _fail(turns, unexpected(error))

    def _commit(self, turns: list[_Turn[Any]]) -> None:
        with self._store.transaction() as tables:
            for turn in turns:
                try:
                    with tables.savepoint():
                        turn.take(tables)
                except BaseException as error:  # its task's, as it is
                    turn.error = error
                if not self._store.is_in_transaction:  # SQLite gave all of it up: what followed would stand alone
                    raise errors.StoreFailed("the disk failed or is full")


def _fail(turns: list[_Turn[Any]], error: errors.SottovoceError) -> None:
    for turn in turns:
        turn.error = copy(error)  # each is raised in a task of its own
