"""The command: `scripts/bench relay [--quick] [--only NAME] [--repeats N] [--json FILE] [--peers]`.

Chooses scenarios, repeats them, prints. Whatever ends it, the processes and folders that it made go with it.
`scripts/bench crypto` is `crypto`'s, and `scripts/bench sdk` is `sdk`'s.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import crypto, peers, relay, report, sdk
from .ending import run_until_signal
from .outcome import Outcome
from .servers import is_in_memory
from .wire import BenchError


@dataclass
class Run:
    """What was measured so far."""

    sizes: relay.Sizes
    scenarios: Mapping[str, relay.Scenario]
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    async def repeat(self, number: int, repeats: int) -> None:
        """Every scenario once more: repeats lie apart, so that a noisy moment spoils one of them."""
        for name, scenario in self.scenarios.items():
            _progress(f"{name} ({number} of {repeats})")
            try:
                outcome = await scenario(self.sizes)
            except (BenchError, OSError, TimeoutError, ExceptionGroup) as error:
                self.failures.append(f"{name}: {_reason(error)}")
                _progress(f"FAILED: {self.failures[-1]}")
            else:
                self.outcomes.setdefault(name, []).append(outcome)

    def of(self, names: Iterable[str]) -> list[Outcome]:
        """Every repeat of these scenarios."""
        return [outcome for name in names for outcome in self.outcomes.get(name, ())]


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    return f"{type(error).__name__}: {error}{cause}"


def _progress(text: str) -> None:
    sys.stderr.write(f"… {text}\n")
    sys.stderr.flush()


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure a server as its users would. scripts/bench crypto --help: the cryptographic core;"
        " scripts/bench sdk --help: the whole path.",
    )
    parser.add_argument("server", choices=["relay"])
    parser.add_argument("--only", action="append", metavar="NAME", help=f"of {', '.join(relay.SCENARIOS)}; or a figure")
    parser.add_argument("--quick", action="store_true", help="less of everything, once")
    parser.add_argument("--repeats", type=int, metavar="N", help="the median of so many (3, quick: 1)")
    parser.add_argument("--peers", action="store_true", help="other servers too, where they are installed")
    parser.add_argument("--json", metavar="FILE", help="write the figures there; - for standard output")
    asked = parser.parse_args(given)
    unknown = set(asked.only or ()) - relay.SCENARIOS.keys() - relay.FIGURES.keys()
    if unknown:
        parser.error(f"no such scenario or figure: {', '.join(sorted(unknown))}")
    return asked


def _chosen(asked: argparse.Namespace) -> dict[str, relay.Scenario]:
    wanted = {relay.FIGURES.get(name, name) for name in asked.only or relay.SCENARIOS}
    chosen = {name: scenario for name, scenario in relay.SCENARIOS.items() if name in wanted}
    if asked.peers:
        chosen |= {peer.name: partial(_measure_peer, peer) for peer in peers.PEERS if peer.is_installed}
    return chosen


async def _measure_peer(peer: peers.Peer, sizes: relay.Sizes) -> Outcome:
    return await peers.measure(peer, sizes.peer, sizes.peer_turns)


def _print_report(run: Run, keys: Sequence[str], asked: argparse.Namespace) -> None:
    write = sys.stderr.write if asked.json == "-" else sys.stdout.write
    figures = report.medians(run.of(relay.SCENARIOS))
    tables = [
        report.goal_lines(figures, keys),
        report.other_lines(figures),
        *(_peer_table(run, peer, figures) for peer in peers.PEERS if asked.peers),
        report.spent_lines(report.medians_spent(run.of(run.scenarios))),
        [f"FAILED: {failure}" for failure in run.failures],
    ]
    write("\n\n".join("\n".join(table) for table in tables if table) + "\n")


def _peer_table(run: Run, peer: peers.Peer, figures: Mapping[str, float]) -> list[str]:
    if not peer.is_installed:
        return [f"{peer.name}: not installed"]
    return report.peer_lines(peer.name, report.medians(run.of([peer.name])), figures)


def _write_json(run: Run, keys: Sequence[str], asked: argparse.Namespace) -> None:
    figures = report.medians(run.of(relay.SCENARIOS))
    shown: dict[str, object] = {key: figures.get(key) for key in keys}
    if asked.peers:
        shown["peers"] = {peer.name: report.medians(run.of([peer.name])) for peer in peers.PEERS if peer.is_installed}
    text = json.dumps(shown, indent=2) + "\n"
    if asked.json == "-":
        sys.stdout.write(text)
    else:
        Path(asked.json).write_text(text, "utf-8")


async def _measure(run: Run, repeats: int) -> None:
    for number in range(1, repeats + 1):
        await run.repeat(number, repeats)


def _allow_many_files() -> None:
    """As many as the system lets us: a connection is a file here and one in the server."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _warn_of_load() -> None:
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load > processors / 4:
        _progress(f"WARNING: others use this machine (load {load:.1f} on {processors} processors)")


def _look_around() -> None:
    """Say what would spoil the figures."""
    _warn_of_load()
    if is_in_memory(tempfile.gettempdir()):
        _progress(f"WARNING: {tempfile.gettempdir()} is in memory; set TMPDIR to a folder on a disk")


def main(given: Sequence[str], sizes: relay.Sizes | None = None) -> int:
    """Run the command. 0 if everything could be measured, 1 if not, 128 + signal if one ended it."""
    if given[:1] == ["crypto"]:
        _warn_of_load()
        return crypto.main(given[1:])
    if given[:1] == ["sdk"]:
        _look_around()
        return sdk.main(given[1:])
    asked = _arguments(given)
    _allow_many_files()
    _look_around()
    run = Run(sizes or (relay.QUICK if asked.quick else relay.FULL), _chosen(asked))
    if number := run_until_signal(partial(_measure, run, asked.repeats or (1 if asked.quick else 3))):
        return 128 + number
    keys = [key for key in report.KEYS if relay.FIGURES[key] in run.scenarios]
    _print_report(run, keys, asked)
    if asked.json:
        _write_json(run, keys, asked)
    return int(bool(run.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
