"""How long to wait before the next attempt: 1, 2, 4 … 30 seconds, each shortened at random to spread load."""

import random
from typing import Final

import trio

FIRST: Final = 1.0
LONGEST: Final = 30.0


class Backoff:
    """Counts failures in a row."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """The last attempt succeeded."""
        self._failures = 0

    async def wait(self) -> None:
        """Wait after one more failure: half to all of 1, 2, 4 … 30 seconds."""
        longest = min(LONGEST, FIRST * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        await trio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
