"""The state of a connection to a relay, and when it changes. Nothing here connects."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .errors import SottovoceError

#: What a connection is for: the owner's, which receives, or a sender's.
Purpose: TypeAlias = Literal["receive", "send"]


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection to a relay as it stands: up, or not and why. Closed because there is nothing to say: no trouble."""

    origin: str
    purpose: Purpose
    is_up: bool
    trouble: SottovoceError | None = None


class Watched:
    """A connection whose every change is told to `changed`. Failing again in the same words is no change."""

    def __init__(self, origin: str, purpose: Purpose, changed: Callable[[Connection], None]) -> None:
        self._changed = changed
        self._state = Connection(origin, purpose, is_up=False)

    @property
    def trouble(self) -> SottovoceError | None:
        """Why there is no connection now."""
        return self._state.trouble

    def up(self) -> None:
        """It works."""
        self._become(is_up=True, trouble=None)

    def down(self, trouble: SottovoceError | None = None) -> None:
        """It has ended."""
        self._become(is_up=False, trouble=trouble)

    def _become(self, *, is_up: bool, trouble: SottovoceError | None) -> None:
        before = self._state
        self._state = Connection(before.origin, before.purpose, is_up, trouble)
        if before.is_up != is_up or _words(before.trouble) != _words(trouble):
            self._changed(self._state)


def _words(trouble: SottovoceError | None) -> tuple[str, str]:
    return ("", "") if trouble is None else (trouble.code, str(trouble))
