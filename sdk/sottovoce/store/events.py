"""Events that the application has not seen yet, oldest first."""

from typing import Final

import apsw
import msgspec

from ..events import Event, MessagesExpired, MessagesUnreadable, pack, subject_of, unpack

#: Events kept for an application that does not ask for them. The oldest go first.
KEPT: Final = 1_000
#: No count grows beyond this: a relay may say any number, any number of times.
MOST: Final = 2**53 - 1


class EventTable:
    """Table `events`. Satisfies `protocol.state.Events`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute

    def add(self, event: Event) -> None:
        """Keep an event. It takes the place of one that says the same of the same, so that nobody can push the others
        out by repeating something; counts add up. The oldest goes when there are too many all the same."""
        kind, subject = type(event).__name__, subject_of(event)
        if isinstance(event, MessagesUnreadable | MessagesExpired):
            known = self._execute("SELECT event FROM events WHERE kind = ? AND subject = ?", (kind, subject)).get
            before = 0 if known is None else getattr(unpack(known), "count", 0)
            event = msgspec.structs.replace(event, count=min(before + event.count, MOST))
        self._execute(
            "INSERT OR REPLACE INTO events (kind, subject, event) VALUES (?, ?, ?)", (kind, subject, pack(event))
        )
        self._execute("DELETE FROM events WHERE position <= last_insert_rowid() - ?", (KEPT,))

    def withdraw(self, kind: type[Event], subject: str) -> None:
        """What an event of this kind says of this is true no longer."""
        self._execute("DELETE FROM events WHERE kind = ? AND subject = ?", (kind.__name__, subject))

    def first(self) -> tuple[int, Event] | None:
        """The oldest event, and its place."""
        row = self._execute("SELECT position, event FROM events ORDER BY position LIMIT 1").get
        return None if row is None else (row[0], unpack(row[1]))

    def remove(self, position: int) -> None:
        """The application has seen an event."""
        self._execute("DELETE FROM events WHERE position = ?", (position,))

    def newest(self) -> int:
        """The place of the newest event that was ever added; it tells whether one was added since."""
        position: int = self._execute("SELECT coalesce(max(position), 0) FROM events").get
        return position
