"""How long to wait before the next attempt: 1, 2, 4 … 30 seconds, each shortened at random to spread load."""

import random
from typing import Final

import trio

FIRST: Final = 1.0
LONGEST: Final = 30.0


class Backoff:
    """Counts failures in a row. What held no longer than the wait before it counts as one more of them: a server that
    greets and hangs up is not dialled every second."""

    def __init__(self) -> None:
        self._failures = 0
        self._waited = 0.0
        self._succeeded_at: float | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0 and self._succeeded_at is None

    def succeed(self) -> None:
        """The attempt has come to something, and holds until the next `wait`."""
        if self._succeeded_at is None:
            self._succeeded_at = trio.current_time()

    async def wait(self) -> None:
        """Wait after one more failure: half to all of 1, 2, 4 … 30 seconds."""
        if self._succeeded_at is not None and trio.current_time() - self._succeeded_at >= self._waited:
            self._failures = 0
        self._succeeded_at = None
        longest = min(LONGEST, FIRST * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._waited = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        await trio.sleep(self._waited)
