"""The figures of the whole path, their goals (the design's), floors, and the table. Nothing here measures."""

from typing import Final

from .crypto_report import Row, goal_text, verdict
from .report import Figures, Floor, shown
from .sdk_floors import PAGE

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
NOTE: Final = "Other systems are not measured here: a homeserver with clients of its own is out of this bench's scope."


def table(figures: Figures, floors: Figures) -> list[str]:
    """A line for each figure: measured, goal, met or missed. Under a missed one stands what it is up against."""
    lines = [f"{'figure':18} {'measured':>9} {'goal':>9}"]
    for row in ROWS:
        value = figures.get(row.key)
        measured = "–" if value is None else shown(value)
        lines.append(f"{row.key:18} {measured:>9} {goal_text(row):>9}  {verdict(row, value):12}   {row.what}")
        if value is not None and not row.is_met(value) and row.key in FLOORS and floors:
            lines.append(_what_stops(row, FLOORS[row.key], floors))
    return lines


def _what_stops(row: Row, floor: Floor, floors: Figures) -> str:
    bound = floor.bound(floors)
    words = "allows the goal: the rest is ours" if row.is_met(bound) else "is what stops it"
    return f"{'':18} {shown(bound):>9} {'floor':>9}  {words} ({floor.reason})"


def other_lines(figures: Figures) -> list[str]:
    """A line for each figure that has no goal, and for each floor."""
    return [f"{key:28} {shown(value):>9}" for key, value in figures.items() if key not in KEYS]
