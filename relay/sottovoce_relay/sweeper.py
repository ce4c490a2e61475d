"""Deletes what has expired, in small batches through the writer, and gives freed space back to the system.

What counts as expired and what is counted stands in storage.py.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from sottovoce_hosting.database import DatabaseError

from . import storage
from .bus import Bus
from .settings import SWEEP_GRACE_SECONDS, SWEEP_PAUSE_SECONDS, SWEEP_SECONDS
from .writer import Writer

#: Envelopes in one batch: so that senders wait no longer for a sweep than for each other.
BATCH: Final = 256
#: Free pages that are left in the file for what comes next (16 MiB), and those given back at a time (1 MiB).
SPARE_PAGES: Final = 4096
VACUUM_PAGES: Final = 256


async def sweep_for_ever(writer: Writer, bus: Bus, clock: Callable[[], float]) -> None:
    """Sweep now and then. A database that fails is left to the writer to report. Cancellation: between two batches."""
    while True:
        await _while_there_is_more(partial(sweep_once, writer, bus, clock))
        await _while_there_is_more(partial(return_space_once, writer))
        await trio.sleep(SWEEP_SECONDS)


async def sweep_once(writer: Writer, bus: Bus, clock: Callable[[], float]) -> bool:
    """Delete one batch and tell its owners who are connected. Whether there is more. Raises DatabaseError."""
    before = int(clock()) - SWEEP_GRACE_SECONDS
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
