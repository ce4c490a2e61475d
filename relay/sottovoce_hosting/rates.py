"""How fast somebody may do something: token buckets for many keys, in bounded memory.

What a key stands for, and what is refused, is decided elsewhere. No address, queue id or send key belongs in a log.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

_NANOSECONDS: Final = 10**9
#: Keys in one table: about 20 MB when it is full.
_CAPACITY: Final = 100_000


class Rates:
    """A bucket for each key: `burst` units when full, refilled at `rate` units a second. O(1).

    A bucket is one number, the time at which it will be full again (the generic cell rate algorithm), in integer
    nanoseconds, so that a burst is exactly a burst. At most `capacity` keys are kept; the one that was quiet for the
    longest gives way and would find a full bucket. That helps nobody: to push a key out takes `capacity` others, each
    of which has a burst of its own, and by then most buckets are full again anyway. `clock` gives seconds and never
    goes back.
    """

    def __init__(
        self, rate: float, burst: int, capacity: int = _CAPACITY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._unit = round(_NANOSECONDS / rate)
        self._depth = burst * self._unit
        self._capacity = capacity
        self._clock = clock
        self._full_at: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        """How many keys are kept."""
        return len(self._full_at)

    def take(self, key: Hashable, cost: float = 1) -> float:
        """Take `cost` units. 0.0 if they were there; else nothing is taken, and it is the seconds until they would be.

        More than a burst can be had once the bucket is full, and leaves it in debt: everything may pass sometime.
        """
        now = int(self._clock() * _NANOSECONDS)
        full_at = self._full_at.get(key, now)
        if full_at < now:
            full_at = now
        need = round(cost * self._unit)
        wait = full_at + min(need, self._depth) - now - self._depth
        self._keep(key, full_at if wait > 0 else full_at + need)
        return max(wait, 0) / _NANOSECONDS

    def _keep(self, key: Hashable, full_at: int) -> None:
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._capacity:
            self._full_at.popitem(last=False)
