"""Who may create a queue: the policy, a rate for each address block, and whether there is space for more.

Whether a queue is there already is the database's to say. No I/O.
"""

import hmac
from collections.abc import Callable, Hashable
from typing import Literal, TypeAlias

from sottovoce_hosting.rates import Rates
from sottovoce_wire.errors import Code

Policy: TypeAlias = Literal["open", "invite", "closed"]


class Registration:
    """Decides. `has_space` says whether new queues are taken at all now: they are refused before envelopes are."""

    def __init__(self, policy: Policy, code: str | None, rates: Rates, has_space: Callable[[], bool]) -> None:
        self._policy = policy
        self._code = (code or "").encode()
        self._rates = rates
        self._has_space = has_space

    def may_create(self, code: str, peer: Hashable) -> Code:
        """ACCEPTED, or what to answer for a queue that is not there. `peer` is an address block, or None."""
        if self._policy == "closed":
            return Code.REGISTRATION_CLOSED
        if not self._has_space() or (peer is not None and self._rates.take(peer)):
            return Code.TRY_AGAIN
        if self._policy == "invite" and not hmac.compare_digest(code.encode(), self._code):
            return Code.REGISTRATION_CLOSED
        return Code.ACCEPTED
