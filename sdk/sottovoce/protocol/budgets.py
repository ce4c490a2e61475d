"""What opening messages may cost: steps along chains, by the hour and the account, and searches, by the second.

Counted in memory alone: a client that is started again begins with full budgets. Spec: sessions.
"""

from typing import Final

from sottovoce_wire import limits
from sottovoce_wire.ids import AccountId

#: Steps along the chains of an account's sessions in one hour. A message from far ahead costs its walk again with every
#: flipped bit.
STEPS_PER_HOUR: Final = 100_000
#: The same for an account that the person has never written to, and for all of these together: accounts cost nothing.
STRANGERS_STEPS: Final = 2_000
ALL_STRANGERS_STEPS: Final = 20_000
#: Walks up to this length are not counted: they cost little beside the rest of an envelope.
FREE_STEPS: Final = 32
#: Searches by header key, for messages whose tag nobody expects: so many a second, and so many at once.
SEARCHES_PER_SECOND: Final = 20
SEARCH_BURST: Final = 100


class StepBudget:
    """How far each account's sessions have walked in this hour. One that has spent its steps is refused more."""

    def __init__(self) -> None:
        self._hour = 0
        self._spent: dict[AccountId, int] = {}  # of contacts, and of at most ALL_STRANGERS_STEPS others
        self._by_strangers = 0

    def spend(self, account_id: AccountId, steps: int, now: int, *, is_contact: bool) -> bool:
        """Take `steps` off the account's budget; False, and nothing is taken, if it has fewer left."""
        if self._hour != now // limits.HOUR:
            self._hour, self._by_strangers = now // limits.HOUR, 0
            self._spent.clear()
        spent = self._spent.get(account_id, 0) + steps
        by_strangers = self._by_strangers + (0 if is_contact else steps)
        if spent > (STEPS_PER_HOUR if is_contact else STRANGERS_STEPS) or by_strangers > ALL_STRANGERS_STEPS:
            return False
        self._spent[account_id], self._by_strangers = spent, by_strangers
        return True


class SearchBudget:
    """How many searches may be made now. A clock that goes back gives none, and takes none away."""

    def __init__(self) -> None:
        self._left = float(SEARCH_BURST)
        self._at: int | None = None

    def take(self, now_ms: int) -> bool:
        """Take one search, if there is one. `now_ms` is in milliseconds."""
        if self._at is not None:
            gained = max(now_ms - self._at, 0) * SEARCHES_PER_SECOND / 1000
            self._left = min(self._left + gained, float(SEARCH_BURST))
        self._at = now_ms
        if self._left < 1:
            return False
        self._left -= 1
        return True
