"""When the key of the contact queue gives way to another, so that who is blocked keeps none worth having.

A new key is handed out only once the relay knows it: until then the one before is, which opens the queue for another
month. Nothing here is sent. Spec: contacts.
"""

from typing import Final

from sottovoce_wire import limits
from sottovoce_wire.ids import SendKey

from ..crypto import primitives
from .state import State

#: Keys replaced within a month as soon as they should be, and how far apart those are beyond it. A relay keeps a
#: replaced key for that month, and 256 for a queue: twice as many as this makes, for a clock that jumps.
AT_ONCE: Final = 50
EVERY: Final = 12 * limits.HOUR
#: Contacts are given the new key with what is said to them anyway, or by a random time within this.
TOLD_WITHIN: Final = limits.DAY


def want(state: State) -> None:
    """Have the present key give way to another. One that nobody has been given yet serves for any number of wants."""
    if state.account.next_contact_key() is None:
        state.account.prepare_contact_key(SendKey(primitives.random_bytes(32)))


def want_fresh(state: State) -> None:
    """The same in a state that is a copy: the key that was prepared may have been given out, and demoted, since."""
    state.account.prepare_contact_key(SendKey(primitives.random_bytes(32)))


def due(state: State, now: int) -> SendKey | None:
    """The key that the relay is to know from now on, in the place of the present one, which it is to demote."""
    count, last = state.account.contact_keys_replaced(now - limits.DEMOTED_LIFETIME)
    if count >= AT_ONCE and last is not None and abs(now - last) < EVERY:
        return None
    return state.account.next_contact_key()


def replaced(state: State, now: int) -> None:
    """The relay knows the key that was due, and has demoted the one before: everybody is given it."""
    state.account.replace_contact_key(now)
    state.sessions.tell_address(now, TOLD_WITHIN)
