"""Whether two kinds of answers can be told apart by how long they take. Pure; the samples come from elsewhere.

Two conditions, so that neither a busy machine nor a large number of samples decides: the medians are further apart than
anything that shows through a network, and the ranks are not those of chance.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import median
from typing import Final

#: Seconds between medians that nobody finds behind the Internet, and standard deviations that chance does not give.
NOTICEABLE: Final = 0.001
BEYOND_CHANCE: Final = 6.0


def differ(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether these samples, taken in random turns, show that one kind takes longer."""
    return abs(median(first) - median(second)) > NOTICEABLE and abs(rank_score(first, second)) > BEYOND_CHANCE


def rank_score(first: Sequence[float], second: Sequence[float]) -> float:
    """By how many standard deviations the ranks of `first` are higher than chance would have them (Mann–Whitney)."""
    ranked = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    n, m = len(first), len(second)
    return (ranks - n * (n + m + 1) / 2) / sqrt(n * m * (n + m + 1) / 12)
