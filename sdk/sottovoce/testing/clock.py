"""The wall clock of a world: what its clients and servers take for the time of day. Never the machine's own."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import trio
from trio.testing import MockClock

#: Every world begins here, so that a test sees the same times on each run: 15 January 2027, 8:00 UTC.
START: Final = 1_800_000_000.0


class Clock:
    """Goes on with trio's clock, and by leaps when the test says so. Only inside `trio.run`.

    `moved` is called after each leap.
    """

    def __init__(self, moved: Callable[[], None] = lambda: None) -> None:
        self._offset = START - trio.current_time()
        self._moved = moved

    def now(self) -> float:
        """Unix seconds."""
        return trio.current_time() + self._offset

    def utc(self) -> datetime:
        """The same as a datetime, as messages carry it."""
        return datetime.fromtimestamp(self.now(), UTC)

    def milliseconds(self, ahead: timedelta = timedelta()) -> Callable[[], int]:
        """A client's clock, in milliseconds since 1970, which is wrong by `ahead`."""
        return lambda: int((self.now() + ahead.total_seconds()) * 1000)

    def advance(
        self, *, weeks: float = 0, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """It is so much later, at once, for clients and servers.

        Under trio's MockClock every deadline and `trio.sleep` that lies between is due then, as after a machine has
        slept. Under the real clock timers stay as they are. Raises ValueError for going back.
        """
        leap = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
        if leap < 0:
            raise ValueError("a world's clock does not go back; give a person a clock of its own")
        running = trio.lowlevel.current_clock()
        if isinstance(running, MockClock):
            running.jump(leap)
        else:
            self._offset += leap
        self._moved()
