"""The figures of the whole path, their goals (the design's), floors, and the table. Nothing here measures."""

from collections.abc import Mapping
from typing import Final

from . import sdk_peers
from .crypto_report import Row, goal_text, verdict
from .report import Figures, Floor, shown
from .sdk_floors import PAGE
from .sdk_work import Sizes

#: In the order of the report and of the JSON.
ROWS: Final = (
    Row("p50_ms", "send() to the message in the other's iterator, one at a time", 6),
    Row("p99_ms", "the same, 99th percentile"),
    Row("oneway_s", "one way, many tasks that send, until the last was read", 1_000),
    Row("backlog_s", "a backlog in pages, from opening the client until the last was read", 2_500),
    Row("open_ms", "opening a store with 100,000 messages and 1,000 sessions", 300),
    Row("rss_mib", "memory of the receiving process after the backlog"),
)
KEYS: Final = tuple(row.key for row in ROWS)
#: Of a peer's column.
_WIDTH: Final = 26


def _full_commits(floors: Figures) -> float:
    return PAGE / floors[f"commit_{PAGE}_ms"] * 1000


#: What bounds a figure whatever the SDK does.
FLOORS: Final = {
    "p50_ms": Floor(
        "a bare commit on each side, and a bare round trip", lambda f: 2 * f["commit_ms"] + f["loopback_ms"]
    ),
    "oneway_s": Floor(f"bare commits of {PAGE} rows", _full_commits),
    "backlog_s": Floor(f"bare commits of {PAGE} rows", _full_commits),
}


def table(ours: Figures, floors: Figures, peers: Mapping[str, Figures]) -> list[str]:
    """A line for each figure: measured, goal, met or missed, and each peer's with how many times as good ours is. Under
    a missed one stands what it is up against."""
    heads = "".join(f"{name:>{_WIDTH}}" for name in peers)
    lines = [f"{'figure':18} {'measured':>9} {'goal':>9}  {'':12}{heads}"]
    for row in ROWS:
        value = ours.get(row.key)
        measured = "–" if value is None else shown(value)
        cells = "".join(f"{_beside(row, value, theirs):>{_WIDTH}}" for theirs in peers.values())
        head = f"{row.key:18} {measured:>9} {goal_text(row):>9}  {verdict(row, value):12}"
        lines.append(f"{head}{cells}   {row.what}")
        if value is not None and not row.is_met(value) and row.key in FLOORS and floors:
            lines.append(_what_stops(row, FLOORS[row.key], floors))
    return lines


def _beside(row: Row, value: float | None, theirs: Figures) -> str:
    peer = theirs.get(row.key)
    if peer is None or value is None:
        return "–" if peer is None else shown(peer)
    return f"{shown(peer)} ({shown(value / peer if row.more_is_better else peer / value)} ×)"


def _what_stops(row: Row, floor: Floor, floors: Figures) -> str:
    bound = floor.bound(floors)
    words = "allows the goal: the rest is ours" if row.is_met(bound) else "is what stops it"
    return f"{'':18} {shown(bound):>9} {'floor':>9}  {words} ({floor.reason})"


def other_lines(figures: Figures) -> list[str]:
    """A line for each figure that has no goal, and for each floor."""
    return [f"{key:28} {shown(value):>9}" for key, value in figures.items() if key not in KEYS]


def note_lines(peers: Mapping[str, Figures], sizes: Sizes) -> list[str]:
    """What the peers' figures mean, if there are any. `sizes` are ours."""
    if not peers:
        return []
    theirs = sizes.tenth
    counts = f"{theirs.oneway:,} one way, a backlog of {theirs.backlog:,}"
    return [
        "×: how many times as good ours is.",
        f"A peer is given a tenth of our messages where a rate is measured, and memory: {counts}.",
        *sdk_peers.NOTES,
    ]
