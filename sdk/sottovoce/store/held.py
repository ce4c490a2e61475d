"""Messages that belong to no session yet, as they came: bounded in number, bytes and time."""

from collections.abc import Sequence
from typing import Any, Final

import apsw

from sottovoce_wire import limits

from ..protocol.state import Held

#: Whoever has the contact key can fill this much, and it pushes out what is older.
HELD: Final = 1_000
HELD_BYTES: Final = 8 * limits.MIB
#: Those that wait for one session to have steps again.
HELD_OF_SESSION: Final = 32


class HeldTable:
    """Tables `held_messages` and `held_bodies`. Satisfies `protocol.state.HeldMessages`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute

    def add(
        self,
        message: bytes,
        digest: bytes,
        tag: bytes,
        now: int,
        *,
        is_searched: bool,
        session_id: bytes | None = None,
        retry_at: int = 0,
    ) -> Sequence[bytes]:
        """Hold a message, until `retry_at` for the session if one is named; returns the digests of those that had to go
        for it, oldest first."""
        self._execute(
            "INSERT INTO held_messages (digest, size, tag, held_at, searched, session_id, retry_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (digest, len(message), tag, now, is_searched, session_id, retry_at),
        )
        self._execute("INSERT INTO held_bodies VALUES (last_insert_rowid(), ?)", (message,))
        gone = [] if session_id is None else self._crowded(session_id)
        count, size = self._execute("SELECT count(*), sum(size) FROM held_messages").get
        while count > HELD or size > HELD_BYTES:
            oldest, freed = self._delete("position = (SELECT min(position) FROM held_messages)")[0]
            gone.append(oldest)
            count, size = count - 1, size - freed
        return gone

    def _crowded(self, session_id: bytes) -> list[bytes]:
        """The digests of those that had to go because too many wait for one session."""
        oldest = "SELECT position FROM held_messages WHERE session_id = ? ORDER BY position DESC LIMIT -1 OFFSET ?"
        return [digest for digest, _ in self._delete(f"position IN ({oldest})", session_id, HELD_OF_SESSION)]

    def all(self) -> Sequence[Held]:
        """Those held, oldest first."""
        query = "SELECT position, tag, searched, session_id, retry_at FROM held_messages ORDER BY position"
        return [Held(*row) for row in self._execute(query)]

    def message(self, position: int) -> bytes | None:
        """The message itself, if it is still held."""
        message: bytes | None = self._execute("SELECT message FROM held_bodies WHERE position = ?", (position,)).get
        return message

    def mark_searched(self, position: int) -> None:
        """Every session's header keys were tried on this one."""
        self._execute("UPDATE held_messages SET searched = 1 WHERE position = ?", (position,))

    def unmark(self) -> None:
        """There are new header keys to try on all."""
        self._execute("UPDATE held_messages SET searched = 0 WHERE session_id IS NULL AND searched")

    def wait(self, position: int, session_id: bytes, retry_at: int) -> None:
        """It belongs to `session_id`, and waits until `retry_at`."""
        self._execute(
            "UPDATE held_messages SET session_id = ?, retry_at = ? WHERE position = ?", (session_id, retry_at, position)
        )

    def remove(self, position: int) -> None:
        """It was opened, or never will be."""
        self._execute("DELETE FROM held_messages WHERE position = ?", (position,))

    def expire(self, before: int) -> Sequence[bytes]:
        """Remove what was held before this time; returns the digests."""
        return [digest for digest, _ in self._delete("held_at < ?", before)]

    def _delete(self, condition: str, *values: object) -> list[tuple[Any, ...]]:
        """(digest, size) of each message removed. To the end: SQLite deletes as far as the rows are read."""
        query = f"DELETE FROM held_messages WHERE {condition} RETURNING digest, size"  # noqa: S608 - fixed conditions
        return self._execute(query, values).fetchall()
