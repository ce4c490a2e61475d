"""Events that the application has not seen yet, oldest first."""

from typing import Final

import apsw
import msgspec

from ..events import (
    DevicesChanged,
    Event,
    MessagesExpired,
    MessagesUnreadable,
    SessionReplaced,
    pack,
    subject_of,
    unpack,
)

#: Events of one kind kept for an application that does not ask for them. The oldest of the kind go first: others can
#: cause as many of most kinds as they like, and must not push out an alarm.
KEPT: Final = 1_000
#: No count grows beyond this: a relay may say any number, any number of times.
MOST: Final = 2**53 - 1


class EventTable:
    """Table `events`. Satisfies `protocol.state.Events`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute

    def add(self, event: Event) -> None:
        """Keep an event. It takes the place of one that says the same of the same and was not told yet, and says what
        that one said too, so that nobody can hide something by repeating it. The oldest of its kind goes when there are
        too many, but for the one that the application has in hand."""
        kind, subject = type(event).__name__, subject_of(event)
        known = self._execute(
            "SELECT event FROM events WHERE kind = ? AND subject = ? AND is_told = 0", (kind, subject)
        ).get
        event = _together(None if known is None else unpack(known), event)
        self._execute(
            "INSERT OR REPLACE INTO events (kind, subject, event) VALUES (?, ?, ?)", (kind, subject, pack(event))
        )
        self._execute(
            "DELETE FROM events WHERE kind = ? AND position <= (SELECT position FROM events"
            " WHERE kind = ? ORDER BY position DESC LIMIT 1 OFFSET ?) AND is_told = 0",
            (kind, kind, KEPT),
        )

    def withdraw(self, kind: type[Event], subject: str) -> None:
        """What an event of this kind says of this is true no longer."""
        self._execute("DELETE FROM events WHERE kind = ? AND subject = ?", (kind.__name__, subject))

    def first(self) -> tuple[int, Event] | None:
        """The oldest event, and its place."""
        row = self._execute("SELECT position, event FROM events ORDER BY position LIMIT 1").get
        return None if row is None else (row[0], unpack(row[1]))

    def mark_told(self, position: int) -> None:
        """The application has an event in hand. What comes now is an event of its own, so that nothing is counted in
        two; a program that dies before `remove` is told this one again, as it was."""
        self._execute("UPDATE events SET is_told = 1 WHERE position = ?", (position,))

    def remove(self, position: int) -> None:
        """The application has seen an event."""
        self._execute("DELETE FROM events WHERE position = ?", (position,))


def _together(before: Event | None, event: Event) -> Event:
    """The event with what the one before it counted: two changes of a list are not to look like the second alone."""
    match before, event:
        case ((MessagesUnreadable() | MessagesExpired()), (MessagesUnreadable() | MessagesExpired())):
            return msgspec.structs.replace(event, count=min(before.count + event.count, MOST))
        case _, (MessagesUnreadable() | MessagesExpired()):
            return msgspec.structs.replace(event, count=min(event.count, MOST))
        case DevicesChanged(), DevicesChanged():
            added, removed = min(before.added + event.added, MOST), min(before.removed + event.removed, MOST)
            is_recovery = before.is_recovery or event.is_recovery
            return msgspec.structs.replace(event, added=added, removed=removed, is_recovery=is_recovery)
        case SessionReplaced(), SessionReplaced():
            last_heard, count = min(before.last_heard, event.last_heard), min(before.count + event.count, MOST)
            return msgspec.structs.replace(event, last_heard=last_heard, count=count)
    return event
