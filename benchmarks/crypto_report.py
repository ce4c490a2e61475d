"""The figures of the cryptographic core, their goals (the design's), and the table beside the peers. Nothing measures.

Microseconds for one, less is better; but MiB/s, where more is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final

from .report import Figures, shown


@dataclass(frozen=True)
class Row:
    """One figure. Where the peers' name for the same work is another, `beside` is theirs."""

    key: str
    what: str
    goal: float | None = None
    beside: str = ""

    @property
    def more_is_better(self) -> bool:
        """Whether it is a rate."""
        return self.key.endswith("_s")

    @property
    def theirs(self) -> str:
        """The peers' figure of the same work."""
        return self.beside or self.key

    def is_met(self, value: float) -> bool:
        """Whether the value is as good as the goal."""
        return self.goal is None or (value >= self.goal if self.more_is_better else value <= self.goal)


#: In the order of the report and of the JSON.
ROWS: Final = (
    Row("encrypt_us", "256 bytes: padded, tagged, header and body encrypted", 8),
    Row("decrypt_us", "the same found by its tag and opened", 9),
    Row("handshake_us", "prekeys verified, PQXDH on both sides, first text read", 700, beside="setup_us"),
    Row("setup_us", "the same sealed, and the sender's device list verified", 1_100),
    Row("pingpong_us", "a message there and one back", 300),
    Row("group_encrypt_us", "256 bytes to a group", 30),
    Row("group_decrypt_us", "the same, by a member", 60),
    Row("reverse_us", "each of 1,000 messages, the last first", 10),
    Row("seal_us", "the envelope around a first message"),
    Row("open_us", "the same opened, and its sender verified"),
    Row("attachment_mib_s", "encrypted in pieces, digest included, MiB/s", 1_000),
    Row("serialise_us", "a session to the bytes for the store", 5),
)
KEYS: Final = tuple(row.key for row in ROWS)
#: How many times as fast as a peer the design wants to be.
RACES: Final = (
    ("encrypt_us", "vodozemac", 1.0),
    ("encrypt_us", "doubleratchet", 5.0),
    ("decrypt_us", "doubleratchet", 5.0),
)


def medians(rounds: Iterable[Figures]) -> dict[str, float]:
    """The median of each figure, to a nanosecond."""
    values: dict[str, list[float]] = {}
    for figures in rounds:
        for key, value in figures.items():
            values.setdefault(key, []).append(value)
    return {key: round(median(each), 3) for key, each in values.items()}


def table(ours: Figures, peers: Mapping[str, Figures], bounds: Figures) -> list[str]:
    """A line for each figure: measured, goal, met or missed, and each peer with how many times its time is ours. Under
    a missed one stands what the bare primitives alone take."""
    heads = "".join(f"{name:>22}" for name in peers)
    lines = [f"{'figure':18} {'measured':>9} {'goal':>9}  {'':12}{heads}"]
    for row in ROWS:
        value = ours.get(row.key)
        cells = "".join(f"{_beside(row, value, theirs):>22}" for theirs in peers.values())
        head = f"{row.key:18} {_shown(value):>9} {goal_text(row):>9}  {verdict(row, value):12}"
        lines.append(f"{head}{cells}   {row.what}")
        if value is not None and not row.is_met(value) and row.key in bounds:
            lines.append(_what_stops(row, bounds[row.key]))
    return lines


def _shown(value: float | None) -> str:
    return "–" if value is None else shown(value)


def goal_text(row: Row) -> str:
    """The goal with its sign; nothing if there is none."""
    if row.goal is None:
        return ""
    return f"{'≥' if row.more_is_better else '≤'} {row.goal:,g}"


def verdict(row: Row, value: float | None) -> str:
    """Met, MISSED, not measured; nothing where there is no goal."""
    if value is None:
        return "not measured"
    if row.goal is None:
        return ""
    return "met" if row.is_met(value) else "MISSED"


def _beside(row: Row, value: float | None, theirs: Figures) -> str:
    if row.key == "reverse_us" and "reverse_lost" in theirs:
        return f"loses {theirs['reverse_lost']:g}"
    peer = theirs.get(row.theirs)
    if peer is None or value is None:
        return _shown(peer)
    return f"{shown(peer)} ({shown(peer / value)} ×)"


def _what_stops(row: Row, bound: float) -> str:
    verdict = "allow the goal: the rest is ours" if row.is_met(bound) else "are what stops it"
    return f"{'':18} {shown(bound):>9} {'floor':>9}  the bare primitives {verdict}"


def race_lines(ours: Figures, peers: Mapping[str, Figures]) -> list[str]:
    """A line for each peer that the design wants to be so many times as fast as, of those that were measured."""
    return [
        _race(key, peer, least, peers[peer][key] / ours[key])
        for key, peer, least in RACES
        if key in ours and key in peers.get(peer, {})
    ]


def _race(key: str, peer: str, least: float, ratio: float) -> str:
    verdict = "met" if ratio >= least else "MISSED"
    return f"{key:18} {shown(ratio):>9} {f'≥ {least:g}':>9}  {verdict:12} times as fast as {peer}"


def primitive_lines(primitives: Figures) -> list[str]:
    """The bare primitives, microseconds for one call."""
    return [f"{name:28} {shown(value):>9}" for name, value in primitives.items()]
