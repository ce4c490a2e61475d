"""How often one-time prekeys of one account are handed out: a bounded table of recent fetches, in memory only.

Whoever drains an account's one-time prekeys takes a little forward secrecy from first messages, never reachability.
"""

from collections.abc import Callable
from typing import Final

from sottovoce_wire.ids import AccountId

FETCHES: Final = 30
PERIOD: Final = 60.0
_MAX_ACCOUNTS: Final = 10_000


class PopLimit:
    """At most FETCHES fetches with one-time prekeys per account in each PERIOD of seconds. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._period = 0
        self._fetches: dict[AccountId, int] = {}

    def allows(self, account_id: AccountId) -> bool:
        """Count one fetch of an account that exists; whether it may have one-time prekeys."""
        period = int(self._clock() // PERIOD)
        if period != self._period or len(self._fetches) >= _MAX_ACCOUNTS:
            self._period = period
            self._fetches.clear()
        count = self._fetches.get(account_id, 0) + 1
        self._fetches[account_id] = count
        return count <= FETCHES
