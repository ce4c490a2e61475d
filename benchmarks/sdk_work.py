"""The work of `scripts/bench sdk`: two programs, in processes of their own, that know each other and obey orders.

Nothing here knows whose SDK it is that they use.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, Self, TypeAlias

from .report import Figures
from .servers import ROOT, Server, process
from .wire import BenchError

_PIPE: Final = asyncio.subprocess.PIPE
_MIB: Final = 1024 * 1024
#: Seconds that one order may take.
_PATIENCE: Final = 600.0


@dataclass(frozen=True)
class Sizes:
    """How much of everything, for one repeat."""

    latency: int = 300
    oneway: int = 5_000
    backlog: int = 10_000
    tasks: int = 64
    archive: int = 100_000
    sessions: int = 1_000
    floors: int = 200

    @property
    def tenth(self) -> Self:
        """A tenth of the messages that a rate is measured with, for those who would take minutes."""
        return replace(self, oneway=max(1, self.oneway // 10), backlog=max(1, self.backlog // 10))


FULL: Final = Sizes()
QUICK: Final = Sizes(latency=100, oneway=2_000, backlog=3_000, archive=20_000, floors=50)

Work: TypeAlias = Callable[[Sizes], Awaitable[Figures]]


@dataclass(frozen=True)
class Contestant:
    """Somebody who can be measured. `started` runs its server and two programs who know each other, and gives what they
    can do, in the order of doing it."""

    name: str
    started: Callable[[], AbstractAsyncContextManager[Mapping[str, Work]]]


class Program:
    """A process that reads orders from its standard input and writes each one's answer, as lines of JSON."""

    def __init__(self, started: asyncio.subprocess.Process, folder: Path) -> None:
        self._started = started
        self._folder = folder

    @property
    def resident_mib(self) -> float:
        """Its memory."""
        return Server(self._started.pid, "").resident_bytes / _MIB

    async def __call__(self, order: str, *arguments: object) -> Any:
        """Give an order, and wait for its answer. Raises BenchError if the program has ended."""
        assert self._started.stdin is not None  # noqa: S101 - it was asked for
        assert self._started.stdout is not None  # noqa: S101
        self._started.stdin.write(json.dumps([order, *arguments]).encode() + b"\n")
        async with asyncio.timeout(_PATIENCE):
            line = await self._started.stdout.readline()
        if not line:
            raise BenchError(f"{order}: the client ended: {(self._folder / 'log').read_text().strip()[-2000:]}")
        return json.loads(line)


@asynccontextmanager
async def program(command: Sequence[str], logs: Path, environment: Mapping[str, str]) -> AsyncIterator[Program]:
    """Run a program; its errors go to the folder `logs`, which is there or is made."""
    await asyncio.to_thread(logs.mkdir, exist_ok=True)
    async with process(command, logs, environment, _PIPE, ROOT, _PIPE) as started:
        yield Program(started, logs)


@dataclass(frozen=True)
class Pair:
    """Two people who know each other, each with a program and a store of its own, and what is measured of them."""

    ann: Program
    bob: Program

    @property
    def works(self) -> dict[str, Work]:
        """In the order of doing it: the last leaves the other's client open, with all read."""
        return {work.__name__: work for work in (self.latency, self.oneway, self.backlog)}

    async def greet(self) -> None:
        """A message there, one back, and one there, after which the sessions are confirmed."""
        await asyncio.gather(self.ann("send", "bob"), self.bob("take", 1))
        await asyncio.gather(self.bob("send", "ann"), self.ann("take", 1))
        await asyncio.gather(self.ann("send", "bob"), self.bob("take", 1))

    async def latency(self, sizes: Sizes) -> Figures:
        """One message after another: from the call of `send` to the other's iterator."""
        taken: list[float] = []
        for _ in range(sizes.latency):
            _, (began, ended) = await asyncio.gather(self.ann("send", "bob"), self.bob("take", 1))
            taken.append((ended - began) * 1000)
        return {"p50_ms": median(taken), "p99_ms": quantiles(taken, n=100)[98]}

    async def oneway(self, sizes: Sizes) -> Figures:
        """Many tasks send while the other reads."""
        poured, (_, ended) = await asyncio.gather(
            self.ann("pour", "bob", sizes.oneway, sizes.tasks), self.bob("take", sizes.oneway)
        )
        return {"oneway_s": sizes.oneway / (ended - poured[0])}

    async def backlog(self, sizes: Sizes) -> Figures:
        """One sends while the other is away, who then comes back and reads it all."""
        await self.bob("close")
        filled_from, filled = await self.ann("pour", "bob", sizes.backlog, sizes.tasks)
        began = time.monotonic()
        await self.bob("open")
        ended = await self.bob("take_pages", sizes.backlog)
        return {
            "backlog_s": sizes.backlog / (ended - began),
            "fill_s": sizes.backlog / (filled - filled_from),
            "rss_mib": self.bob.resident_mib,
            "sender_rss_mib": self.ann.resident_mib,
        }
