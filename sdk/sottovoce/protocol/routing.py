"""The table of routing tags: which session an arriving message belongs to, found without trying a key.

In memory and derived from the store: built at opening, changed after each message, thrown away with a transaction that
failed. Never the place of anything that cannot be derived again. Spec: sessions.
"""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from ..crypto.message import Expected, Window
from ..crypto.ratchet import Decrypted


class Found(NamedTuple):
    """What a tag announces, and of which session."""

    session_id: bytes
    expected: Expected


class Routing:
    """Tags of all sessions, and the sessions in the order in which something came on them.

    `changes` counts, so that whoever takes rows back knows whether the table went along.
    """

    __slots__ = ("_contacts", "_strangers", "_tags", "changes")

    def __init__(self) -> None:
        self._tags: dict[bytes, tuple[bytes, Window]] = {}
        self._contacts: dict[bytes, None] = {}
        self._strangers: dict[bytes, None] = {}
        self.changes = 0

    def find(self, tag: bytes) -> Found | None:
        """What the tag announces."""
        held = self._tags.get(tag)
        return None if held is None else Found(held[0], held[1].find(tag))

    def newest(self, contacts: int, strangers: int) -> list[bytes]:
        """The ids of so many sessions of contacts and of others, each those heard from last, the last one first."""
        return [*islice(reversed(self._contacts), contacts), *islice(reversed(self._strangers), strangers)]

    def befriend(self, session_id: bytes) -> None:
        """The session is a contact's: nobody else can push it out of a search."""
        self.changes += 1
        self._strangers.pop(session_id, None)
        self._contacts.pop(session_id, None)
        self._contacts[session_id] = None

    def estrange(self, session_id: bytes) -> None:
        """The session is a contact's no longer."""
        self.changes += 1
        if session_id in self._contacts:
            del self._contacts[session_id]
            self._strangers[session_id] = None

    def announce(self, session_id: bytes, windows: Iterable[Window]) -> None:
        """Add tags of a session, which counts as the one heard from last."""
        order = self._contacts if session_id in self._contacts else self._strangers
        order.pop(session_id, None)
        order[session_id] = None
        self.admit(session_id, windows)

    def admit(self, session_id: bytes, windows: Iterable[Window]) -> None:
        """Add tags of a session; those that another has stay its own."""
        self.changes += 1
        for window in windows:
            held = session_id, window
            for tag in window.tags:
                self._tags.setdefault(tag, held)

    def withdraw(self, session_id: bytes, tags: Iterable[bytes]) -> None:
        """Remove tags of a session; those that are another's stay."""
        self.changes += 1
        for tag in tags:
            held = self._tags.get(tag)
            if held is not None and held[0] == session_id:
                del self._tags[tag]

    def apply(self, session_id: bytes, opened: Decrypted) -> None:
        """What opening a message has changed."""
        self.withdraw(session_id, opened.vanished)
        self.announce(session_id, opened.appeared)

    def forget(self, session_id: bytes, tags: Iterable[bytes]) -> None:
        """Remove a session that was wiped, and its tags."""
        self.withdraw(session_id, tags)
        self._contacts.pop(session_id, None)
        self._strangers.pop(session_id, None)

    def __len__(self) -> int:
        return len(self._tags)
