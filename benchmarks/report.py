"""The figures, their goals (the design's) and floors, and the tables that show them. Nothing here measures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeAlias

from .outcome import Outcome
from .servers import Spent

Figures: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class Floor:
    """What bounds a figure on this machine whatever the relay does: a sentence, and the bound from the floors."""

    reason: str
    bound: Callable[[Figures], float]


@dataclass(frozen=True)
class Goal:
    """One figure of the report. Of those with a unit per second, and of shares, more is better."""

    key: str
    what: str
    goal: float
    more_is_better: bool = True
    floor: Floor | None = None

    def is_met(self, value: float) -> bool:
        """Whether the value is as good as the goal."""
        return value >= self.goal if self.more_is_better else value <= self.goal


def _floor(reason: str, key: str) -> Floor:
    return Floor(reason, lambda figures: figures[key])


#: In the order of the report and of the JSON.
GOALS: Final = (
    Goal(
        "ingest_single_s",
        "ingest to offline queues, one envelope a frame",
        15_000,
        floor=Floor(
            "a bare echo on this stack, or bare commits of 256 rows", lambda f: min(f["echo_s"], f["commit_rows_s"])
        ),
    ),
    Goal(
        "ingest_batched_s",
        "the same, 32 a frame",
        30_000,
        floor=_floor("bare commits of 256 rows", "commit_rows_s"),
    ),
    Goal(
        "drain_s",
        "those queues drained and acknowledged",
        60_000,
        floor=_floor("bare SQLite, one thread that reads pages and one that deletes them", "backlog_rows_s"),
    ),
    Goal(
        "online_single_s",
        "four pairs online, one envelope a frame",
        8_000,
        floor=_floor("a bare echo on this stack", "echo_s"),
    ),
    Goal("online_batched_s", "the same, 32 a frame", 50_000),
    Goal(
        "latency_p50_ms",
        "write to read, the owner commits for 4 ms before its ack",
        0.6,
        more_is_better=False,
        floor=_floor("a bare echo there and back", "echo_p50_ms"),
    ),
    Goal(
        "latency_p99_ms",
        "the same, 99th percentile",
        2.0,
        more_is_better=False,
        floor=_floor("a bare echo there and back", "echo_p99_ms"),
    ),
    Goal(
        "fanout256_ms",
        "one upload to 256 connected queues, until the last has it",
        50,
        more_is_better=False,
    ),
    Goal(
        "idle_kib",
        "memory of an idle owner connection, KiB",
        40,
        more_is_better=False,
        floor=_floor("an idle connection of a bare echo", "echo_idle_kib"),
    ),
    Goal("flatness", "ingest: the slowest of 10 … 10,000 queues by the fastest", 0.7),
    Goal("never_on_disk_50", "share never written, 50 a second", 0.85),
    Goal("never_on_disk_1000", "share never written, 1,000 a second", 0.85),
)
#: Seconds of processor time that the system's clock cannot tell from none.
_NOISE: Final = 0.05
KEYS: Final = tuple(goal.key for goal in GOALS)


def medians(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """The median of each figure over the repeats, and what follows from the medians."""
    values: dict[str, list[float]] = {}
    for outcome in outcomes:
        for key, value in outcome.figures.items():
            values.setdefault(key, []).append(value)
    figures = {key: median(each) for key, each in values.items()}
    rates = [rate for key, rate in figures.items() if key.endswith("_queues_s")]
    # Of the medians, not a median itself: the worst of several noisy rates is always bad.
    return {**figures, "flatness": min(rates) / max(rates)} if rates else figures


def medians_spent(outcomes: Iterable[Outcome]) -> dict[str, Spent]:
    """The same for what the work took."""
    values: dict[str, list[Spent]] = {}
    for outcome in outcomes:
        for work, spent in outcome.spent.items():
            values.setdefault(work, []).append(spent)
    return {
        work: Spent(*(median(getattr(spent, name) for spent in each) for name in ("elapsed", "server", "generator")))
        for work, each in values.items()
    }


def shown(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def goal_lines(figures: Figures, keys: Sequence[str]) -> list[str]:
    """A line for each of these goals: what, measured, goal, met or missed; and what a missed one is up against."""
    lines = [f"{'figure':20} {'measured':>10} {'goal':>10}"] if keys else []
    for goal in (goal for goal in GOALS if goal.key in keys):
        sign = "≥" if goal.more_is_better else "≤"
        value = figures.get(goal.key)
        verdict = "not measured" if value is None else "met" if goal.is_met(value) else "MISSED"
        measured = "–" if value is None else shown(value)
        lines.append(f"{goal.key:20} {measured:>10} {sign + ' ' + shown(goal.goal):>10}  {verdict:12}  {goal.what}")
        if verdict == "MISSED":
            lines += _what_stops(goal, figures)
    return lines


def _what_stops(goal: Goal, figures: Figures) -> list[str]:
    if goal.floor is None or "echo_s" not in figures:
        return []
    bound = goal.floor.bound(figures)
    verdict = "allows the goal: the rest is the relay's own" if goal.is_met(bound) else "is what stops it"
    return [f"{'':20} {shown(bound):>10} {'floor':>10}  {verdict} ({goal.floor.reason})"]


def other_lines(figures: Figures) -> list[str]:
    """A line for each figure that has no goal."""
    return [f"{key:32} {shown(value):>10}" for key, value in figures.items() if key not in KEYS]


def peer_lines(name: str, theirs: Figures, ours: Figures) -> list[str]:
    """A line for each figure of a peer, and how many times better the relay is at the same."""
    lines = [name]
    for key, value in theirs.items():
        line = f"    {key:28} {shown(value):>10}"
        if key in ours:
            better = value / ours[key] if key.endswith("_ms") else ours[key] / value
            line += f"   relay {shown(ours[key]):>10}   {shown(better):>7} times"
        lines.append(line)
    return lines


def spent_lines(spent: Mapping[str, Spent]) -> list[str]:
    """What each piece of work took, and a warning where the generator may be what was measured."""
    lines = [f"{'work':40} {'seconds':>8} {'server CPU':>11} {'generator CPU':>14}"]
    for work, each in spent.items():
        is_doubtful = each.generator > max(each.server, _NOISE)
        warning = "  WARNING: the generator used more than the server" if is_doubtful else ""
        lines.append(f"{work:40} {each.elapsed:8.2f} {each.server:11.2f} {each.generator:14.2f}{warning}")
    return lines
