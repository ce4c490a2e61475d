"""The command `scripts/bench sdk [--quick] [--repeats N] [--json FILE]`: the whole path, from `send` to the iterator.

Two programs with stores of their own, and a server, are processes; this one only says when. What it made goes with it.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from . import sdk_archive, sdk_floors, sdk_report
from .crypto_report import medians
from .ending import run_until_signal
from .report import Figures
from .servers import ROOT, Server, process, python_server
from .wire import BenchError

_SERVE: Final = "from sottovoce_server import main; main()"
_CLIENT: Final = "from benchmarks.sdk_client import main; main()"
_PIPE: Final = asyncio.subprocess.PIPE
#: Where the stores' witnesses lie, not among the person's own.
_STATE: Final = Path("state", "sottovoce")
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


FULL: Final = Sizes()
QUICK: Final = Sizes(latency=100, oneway=2_000, backlog=3_000, archive=20_000, floors=50)


class Program:
    """A process that runs `sdk_client`."""

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


class Pair:
    """A server, and two people who know each other: each with a program and a store of its own."""

    def __init__(self, folder: Path, server: Server, ann: Program, bob: Program) -> None:
        self.folder = folder
        self.server = server
        self.ann = ann
        self.bob = bob

    async def meet(self) -> None:
        """Register both; and a message there, one back, and one there, after which the session is confirmed."""
        for name, program in (("ann", self.ann), ("bob", self.bob)):
            await program("open")
            await program("register", name)
            await program("listen")
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

    async def archive(self, sizes: Sizes) -> Figures:
        """A program that has just started opens a store that holds a lot."""
        await self.bob("close")
        sdk_archive.fill(self.folder / "bob.db", self.folder / _STATE, sizes.archive, sizes.sessions)
        async with _program(self.folder, "bob", self.server) as fresh:
            return {"open_ms": await fresh("open") * 1000}


@asynccontextmanager
async def _program(folder: Path, name: str, server: Server) -> AsyncIterator[Program]:
    """A client's process, its store in `folder`."""
    command = [sys.executable, "-c", _CLIENT, str(folder / f"{name}.db"), server.url]
    logs = folder / f"log-{name}"
    logs.mkdir(exist_ok=True)
    state = {"XDG_STATE_HOME": str((folder / _STATE).parent)}
    async with process(command, logs, state, _PIPE, ROOT, _PIPE) as started:
        yield Program(started, logs)


@asynccontextmanager
async def _pair() -> AsyncIterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as name:
        folder = Path(name)
        arguments = ("--port", "0", "--data", str(folder / "server"))
        async with (
            python_server(_SERVE, *arguments, folder=folder) as server,
            _program(folder, "ann", server) as ann,
            _program(folder, "bob", server) as bob,
        ):
            yield Pair(folder, server, ann, bob)


@dataclass
class Run:
    """What was measured so far."""

    sizes: Sizes
    repeats: int
    rounds: list[Figures] = field(default_factory=list)
    floors: list[Figures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def measure(self) -> None:
        """Everything, so many times."""
        for number in range(1, self.repeats + 1):
            self._say(f"floors ({number} of {self.repeats})")
            self.floors.append(sdk_floors.measure(self.sizes.floors))
            async with _pair() as pair:
                await pair.meet()
                for work in (pair.latency, pair.oneway, pair.backlog, pair.archive):
                    self._say(f"{work.__name__} ({number} of {self.repeats})")
                    self.rounds.append(await work(self.sizes))

    async def measure_or_fail(self) -> None:
        """The same; what cannot be measured is a failure."""
        try:
            await self.measure()
        except (BenchError, OSError, TimeoutError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"… {text}\n")
        sys.stderr.flush()


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench sdk", description="Measure the SDK from send() to the other's iterator."
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, once")
    parser.add_argument("--repeats", type=int, metavar="N", help="the median of so many (3, quick: 1)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for standard output")
    return parser.parse_args(given)


def _print_report(figures: Figures, floors: Figures, run: Run, asked: argparse.Namespace) -> None:
    tables = [
        sdk_report.table(figures, floors),
        sdk_report.other_lines({**figures, **floors}),
        [f"FAILED: {failure}" for failure in run.failures],
        [sdk_report.NOTE],
    ]
    write = sys.stderr.write if asked.json == "-" else sys.stdout.write
    write("\n\n".join("\n".join(lines) for lines in tables if lines) + "\n")


def _write_json(figures: Figures, floors: Figures, file: str) -> None:
    shown = {"ours": {key: figures.get(key) for key in sdk_report.KEYS}, "floors": floors}
    text = json.dumps(shown, indent=2) + "\n"
    if file == "-":
        sys.stdout.write(text)
    else:
        Path(file).write_text(text, "utf-8")


def main(given: Sequence[str], sizes: Sizes | None = None) -> int:
    """Run the command. 0 if everything could be measured, 1 if not, 128 + signal if one ended it."""
    asked = _arguments(given)
    repeats = asked.repeats or (1 if asked.quick else 3)
    run = Run(sizes or (QUICK if asked.quick else FULL), repeats)
    if number := run_until_signal(run.measure_or_fail):
        return 128 + number
    figures, floors = medians(run.rounds), medians(run.floors)
    _print_report(figures, floors, run, asked)
    if asked.json:
        _write_json(figures, floors, asked.json)
    return int(bool(run.failures))
