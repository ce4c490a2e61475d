"""Deletes what has expired, in small batches through the writer; empties the log; gives freed space back to the system.

What counts as expired and what is counted stands in storage.py.
"""

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_hosting.logs import log

from . import storage
from .bus import Bus
from .settings import (
    CALM_SECONDS,
    JUMP_SECONDS,
    LOG_SECONDS,
    SWEEP_GRACE_SECONDS,
    SWEEP_PAUSE_SECONDS,
    SWEEP_SECONDS,
)
from .writer import Writer

#: Envelopes in one batch: so that senders wait no longer for a sweep than for each other.
BATCH: Final = 256
#: Free pages that are left in the file for what comes next (16 MiB), and those given back at a time (1 MiB).
SPARE_PAGES: Final = 4096
VACUUM_PAGES: Final = 256


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


async def sweep_for_ever(writer: Writer, bus: Bus, clock: Callable[[], float]) -> None:
    """Sweep now and then. A database that fails is left to the writer to report. Cancellation: between two batches."""
    steady = SteadyClock(clock)
    while True:
        await _while_there_is_more(partial(sweep_once, writer, bus, steady))
        await _while_there_is_more(partial(return_space_once, writer))
        await trio.sleep(SWEEP_SECONDS)


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


async def sweep_once(writer: Writer, bus: Bus, clock: SteadyClock) -> bool:
    """Delete one batch and tell its owners who are connected. Whether there is more. Raises DatabaseError."""
    now = clock.now()
    if now is None:
        return False
    before = int(now) - SWEEP_GRACE_SECONDS
    swept, losses = await writer.perform(partial(storage.sweep, before=before, count=BATCH))
    bus.lost(losses)
    return swept == BATCH


async def return_space_once(writer: Writer) -> bool:
    """Shorten the file by one step if much of it is free. Whether it did. Raises DatabaseError."""
    work = partial(storage.return_space, at_least=SPARE_PAGES + VACUUM_PAGES, pages=VACUUM_PAGES)
    return await writer.perform(work) > 0


async def _while_there_is_more(step: Callable[[], Awaitable[bool]]) -> None:
    with suppress(DatabaseError):
        while await step():  # noqa: ASYNC110 - the pause is for others; nothing is waited for
            await trio.sleep(SWEEP_PAUSE_SECONDS)
