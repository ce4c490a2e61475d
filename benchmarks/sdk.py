"""The command `scripts/bench sdk [--quick] [--repeats N] [--json FILE]`: the whole path, from `send` to the iterator.

Two programs with stores of their own, and a server, are processes; this one only says when. What it made goes with it.
So it is with each peer that is installed.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from . import sdk_archive, sdk_floors, sdk_peers, sdk_report, sdk_work
from .crypto_report import medians
from .ending import run_until_signal
from .report import Figures
from .sdk_work import Contestant, Pair, Program, Sizes, Work
from .servers import Server, python_server
from .wire import BenchError

_SERVE: Final = "from sottovoce_server import main; main()"
_CLIENT: Final = "from benchmarks.sdk_client import main; main()"
#: Where the stores' witnesses lie, not among the person's own.
_STATE: Final = Path("state", "sottovoce")


def _program(folder: Path, name: str, server: Server) -> AbstractAsyncContextManager[Program]:
    """A client's process, its store in `folder`."""
    command = [sys.executable, "-c", _CLIENT, str(folder / f"{name}.db"), server.url]
    return sdk_work.program(command, folder / f"log-{name}", {"XDG_STATE_HOME": str((folder / _STATE).parent)})


@asynccontextmanager
async def _started() -> AsyncIterator[Mapping[str, Work]]:
    with tempfile.TemporaryDirectory(prefix="sottovoce-bench-") as name:
        folder = Path(name)
        arguments = ("--port", "0", "--data", str(folder / "server"))
        async with (
            python_server(_SERVE, *arguments, folder=folder) as server,
            _program(folder, "ann", server) as ann,
            _program(folder, "bob", server) as bob,
        ):
            pair = Pair(ann, bob)
            await _meet(pair)
            yield {**pair.works, "archive": partial(_archive, bob, folder, server)}


async def _meet(pair: Pair) -> None:
    """Register both."""
    for name, program in (("ann", pair.ann), ("bob", pair.bob)):
        await program("open")
        await program("register", name)
        await program("listen")
    await pair.greet()


async def _archive(bob: Program, folder: Path, server: Server, sizes: Sizes) -> Figures:
    """A program that has just started opens a store that holds a lot."""
    await bob("close")
    sdk_archive.fill(folder / "bob.db", folder / _STATE, sizes.archive, sizes.sessions)
    async with _program(folder, "bob", server) as fresh:
        return {"open_ms": await fresh("open") * 1000}


OURS: Final = Contestant("ours", _started)


@dataclass
class Run:
    """What was measured so far: the figures by contestant."""

    sizes: Sizes
    repeats: int
    peers: Sequence[Contestant]
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    floors: list[Figures] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    async def measure(self) -> None:
        """Everything, so many times: repeats lie apart, so that a noisy moment spoils one of them."""
        for number in range(1, self.repeats + 1):
            self._say(f"floors ({number} of {self.repeats})")
            self.floors.append(sdk_floors.measure(self.sizes.floors))
            await self.again([OURS], self.sizes, number)
            await self.again(self.peers, self.sizes.tenth, number)

    async def again(self, contestants: Sequence[Contestant], sizes: Sizes, number: int) -> None:
        """Once more, each of them; one who fails does not end the others, and is not asked again."""
        for contestant in contestants:
            if contestant.name in self.failures:
                continue
            try:
                await self._once(contestant, sizes, number)
            except (BenchError, OSError, TimeoutError) as error:
                self.failures[contestant.name] = f"{type(error).__name__}: {error}"

    async def _once(self, contestant: Contestant, sizes: Sizes, number: int) -> None:
        async with contestant.started() as works:
            for name, work in works.items():
                self._say(f"{contestant.name}: {name} ({number} of {self.repeats})")
                figures = await work(sizes)
                self.rounds.setdefault(contestant.name, []).append(figures)

    def figures(self, name: str) -> Figures:
        """The medians of a contestant."""
        return medians(self.rounds.get(name, ()))

    def beside(self) -> dict[str, Figures]:
        """The medians of every peer that could be measured."""
        return {peer.name: self.figures(peer.name) for peer in self.peers if peer.name in self.rounds}

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


def _print_report(run: Run, missing: Sequence[str], asked: argparse.Namespace) -> None:
    ours, floors, peers = run.figures(OURS.name), medians(run.floors), run.beside()
    tables = [
        sdk_report.table(ours, floors, peers),
        sdk_report.other_lines({**ours, **floors}),
        sdk_report.note_lines(peers, run.sizes),
        missing,
        [f"FAILED: {name}: {failure}" for name, failure in run.failures.items()],
    ]
    write = sys.stderr.write if asked.json == "-" else sys.stdout.write
    write("\n\n".join("\n".join(lines) for lines in tables if lines) + "\n")


def _write_json(run: Run, file: str) -> None:
    ours = run.figures(OURS.name)
    shown = {
        "ours": {key: ours.get(key) for key in sdk_report.KEYS},
        "peers": run.beside(),
        "floors": medians(run.floors),
    }
    text = json.dumps(shown, indent=2) + "\n"
    if file == "-":
        sys.stdout.write(text)
    else:
        Path(file).write_text(text, "utf-8")


def main(given: Sequence[str], sizes: Sizes | None = None) -> int:
    """Run the command. 0 if everything could be measured, 1 if not, 128 + signal if one ended it."""
    asked = _arguments(given)
    repeats = asked.repeats or (1 if asked.quick else 3)
    found, missing = sdk_peers.installed()
    run = Run(sizes or (sdk_work.QUICK if asked.quick else sdk_work.FULL), repeats, found)
    if number := run_until_signal(run.measure):
        return 128 + number
    _print_report(run, missing, asked)
    if asked.json:
        _write_json(run, asked.json)
    return int(bool(run.failures))
