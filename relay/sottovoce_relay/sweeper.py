"""Deletes what has expired, in small batches through the writer; empties the log; gives freed space back to the system.

What counts as expired and what is counted stands in storage/sweeping.py.
"""

import math
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio
from sqlalchemy import Connection

from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_hosting.logs import log
from sottovoce_wire.ids import QueueId

from . import storage
from .bus import Bus
from .envelopes import Loss
from .mailboxes import Mailboxes
from .metrics import Metrics
from .settings import (
    CALM_SECONDS,
    DAY,
    JUMP_SECONDS,
    LOG_SECONDS,
    SWEEP_GRACE_SECONDS,
    SWEEP_PAUSE_SECONDS,
    SWEEP_SECONDS,
)
from .writer import Writer

#: Envelopes in one batch: so that senders wait no longer for a sweep than for each other.
BATCH: Final = 256
#: Free pages that are left in the file for what comes next (16 MiB), and those given back at a time (1 MiB). Half as
#: much in a file that was made with pages of 4 KiB.
SPARE_PAGES: Final = 2048
VACUUM_PAGES: Final = 128


class SteadyClock:
    """The wall clock, except while it cannot be believed: for a while after it jumped. `clock` gives unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._offset = clock() - trio.current_time()
        self._calm_from = -math.inf  # monotonic
        self._is_calm = True

    def now(self) -> float | None:
        """Unix seconds; None while they are in doubt, which is logged once."""
        wall, monotonic = self._clock(), trio.current_time()
        moved, self._offset = wall - monotonic - self._offset, wall - monotonic
        if abs(moved) > JUMP_SECONDS:
            self._calm_from = monotonic + CALM_SECONDS
        was_calm, self._is_calm = self._is_calm, monotonic >= self._calm_from
        if was_calm and not self._is_calm:
            log.warning("the clock jumped; nothing expires for some minutes", seconds=round(moved))
        return wall if self._is_calm else None


@dataclass(slots=True)
class Sweeper:
    """What takes away what time has run out for. A database that fails is left to the writer to report."""

    writer: Writer
    mailboxes: Mailboxes
    bus: Bus
    metrics: Metrics
    clock: SteadyClock
    idle_days: int  # after which a queue whose owner was not seen is deleted
    _marked_day: int = 0  # on which those that were received were marked

    async def sweep_for_ever(self) -> None:
        """Sweep now and then. Cancellation: between two batches."""
        while True:
            for step in (self.sweep_once, self.sweep_keys_once, self.sweep_idle_once, self._sweep_remains_once):
                await _while_there_is_more(step)
            await _while_there_is_more(partial(return_space_once, self.writer))
            await trio.sleep(SWEEP_SECONDS)

    async def sweep_once(self) -> bool:
        """Delete one batch of envelopes and tell their owners who are connected. Whether there is more.

        Raises DatabaseError.
        """
        now = self.clock.now()
        if now is None:
            return False
        before = int(now) - SWEEP_GRACE_SECONDS
        # Of all attempts: one that seemed to fail may have taken, and then the next finds nothing.
        swept: dict[int, storage.Expired] = {}
        losses: dict[QueueId, Loss] = {}

        def sweep(connection: Connection) -> int:
            expired, lost = storage.sweep(connection, before, BATCH)
            swept.update((gone.seq, gone) for gone in expired)
            losses.update((loss.queue, loss) for loss in lost)
            return len(expired)

        try:
            count = await self.writer.perform(sweep)
        except DatabaseError:
            self._recount(swept.values())
            raise
        self.mailboxes.expired(swept.values())
        self.metrics.expired(len(swept))
        self.bus.lost(losses.values())
        return count == BATCH

    async def sweep_keys_once(self) -> bool:
        """Forget one batch of demoted keys whose time is up. Whether there is more. Raises DatabaseError."""
        now = self.clock.now()
        if now is None:
            return False
        doors = await self.writer.perform(partial(storage.sweep_keys, now=int(now), count=BATCH))
        self.mailboxes.forget_doors(doors)
        return len(doors) == BATCH

    async def sweep_idle_once(self) -> bool:
        """Delete one batch of queues that nobody opened for long. Whether there is more. Raises DatabaseError."""
        now = self.clock.now()
        if now is None:
            return False
        today = int(now // DAY)
        if today != self._marked_day:
            await self.writer.perform(partial(storage.seen_all, numbers=self.mailboxes.received(), day=today))
            self._marked_day = today
        before_day = today - self.idle_days
        idle: set[QueueId] = set()  # of all attempts, too

        def bury(connection: Connection) -> int:
            buried = storage.sweep_idle(connection, before_day, BATCH)
            idle.update(queue for _, queue in buried)
            return len(buried)

        try:
            return await self.writer.perform(bury) == BATCH
        finally:
            if idle:
                self.mailboxes.forget_queues(idle)

    async def _sweep_remains_once(self) -> bool:
        return await self.writer.perform(partial(storage.sweep_remains, count=BATCH))

    def _recount(self, perhaps_gone: Collection[storage.Expired]) -> None:
        self.mailboxes.expired(perhaps_gone)
        for gone in perhaps_gone:
            if mailbox := self.mailboxes.find(gone.number):
                mailbox.recount()


async def empty_log_for_ever(database: Database, writer: Writer) -> None:
    """Empty the database's log soon after anything was written: what was deleted stands there until then.

    What fails is tried again. Cancellation: between two times.
    """
    emptied = 0
    while True:
        await trio.sleep(LOG_SECONDS)
        transactions = writer.transactions
        if transactions > emptied:
            with suppress(DatabaseError):
                await database.empty_log()
                emptied = transactions


async def return_space_once(writer: Writer) -> bool:
    """Shorten the file by one step if much of it is free. Whether it did. Raises DatabaseError."""
    work = partial(storage.return_space, at_least=SPARE_PAGES + VACUUM_PAGES, pages=VACUUM_PAGES)
    return await writer.perform(work) > 0


async def _while_there_is_more(step: Callable[[], Awaitable[bool]]) -> None:
    with suppress(DatabaseError):
        while await step():  # noqa: ASYNC110 - the pause is for others; nothing is waited for
            await trio.sleep(SWEEP_PAUSE_SECONDS)
