"""The command `scripts/bench crypto [--quick] [--json FILE]`: the cryptographic core beside its goals and its peers.

Chooses nothing: all of them do all the work, in turn within each round, so that a noisy moment falls on all. Prints.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import crypto_floors, crypto_peers, crypto_report, crypto_work
from .crypto_floors import FLOORS
from .crypto_ours import OURS
from .crypto_work import Contestant, Counts, Figures

_ROUNDS: Final = 15
_QUICK_ROUNDS: Final = 5


@dataclass
class Run:
    """What was measured so far: the figures of each round by contestant."""

    contestants: Sequence[Contestant]
    counts: Counts
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def round(self) -> None:
        """Every piece of work once more, by one contestant after the other."""
        for work in dict.fromkeys(work for contestant in self.contestants for work in contestant.works):
            for contestant in self.contestants:
                if work in contestant.works:
                    self._measure(contestant, work)

    def _measure(self, contestant: Contestant, work: str) -> None:
        task = f"{contestant.name}: {work}"
        if task in self.failures:
            return
        try:
            figures = contestant.works[work](self.counts)
        except Exception as error:  # every peer has exceptions of its own, and one that fails does not end the others
            self.failures[task] = f"{type(error).__name__}: {error}"
        else:
            self.rounds.setdefault(contestant.name, []).append(figures)

    def figures(self, name: str) -> Figures:
        """The medians of a contestant."""
        return crypto_report.medians(self.rounds.get(name, ()))

    def peers(self) -> dict[str, Figures]:
        """The medians of everybody else who could be measured."""
        return {name: self.figures(name) for name in self.rounds if name not in {OURS.name, FLOORS.name}}


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench crypto", description="Measure the cryptographic core beside its goals and its peers."
    )
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for standard output")
    return parser.parse_args(given)


def _print_report(run: Run, missing: Sequence[str], asked: argparse.Namespace) -> None:
    ours, peers, primitives = run.figures(OURS.name), run.peers(), run.figures(FLOORS.name)
    tables = [
        crypto_report.table(ours, peers, crypto_floors.bounds(primitives)),
        crypto_report.race_lines(ours, peers),
        crypto_report.primitive_lines(primitives),
        missing,
        [f"FAILED: {task}: {reason}" for task, reason in run.failures.items()],
    ]
    write = sys.stderr.write if asked.json == "-" else sys.stdout.write
    write("\n\n".join("\n".join(lines) for lines in tables if lines) + "\n")


def _write_json(run: Run, file: str) -> None:
    ours = run.figures(OURS.name)
    shown = {"ours": {key: ours.get(key) for key in crypto_report.KEYS}, "peers": run.peers()}
    text = json.dumps(shown, indent=2) + "\n"
    if file == "-":
        sys.stdout.write(text)
    else:
        Path(file).write_text(text, "utf-8")


def main(given: Sequence[str], counts: Counts | None = None) -> int:
    """Run the command. 0 if everything could be measured, 1 if not, 130 if Ctrl-C ended it."""
    asked = _arguments(given)
    found, missing = crypto_peers.installed()
    run = Run([OURS, *found, FLOORS], counts or (crypto_work.QUICK if asked.quick else crypto_work.FULL))
    rounds = _QUICK_ROUNDS if asked.quick else _ROUNDS
    try:
        for number in range(1, rounds + 1):
            sys.stderr.write(f"… round {number} of {rounds}\n")
            run.round()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    _print_report(run, missing, asked)
    if asked.json:
        _write_json(run, asked.json)
    return int(bool(run.failures))
