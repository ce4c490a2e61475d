"""What arrived: messages, the digests that recognise repeats, and envelopes that could not be decrypted."""

from dataclasses import dataclass
from typing import Final

import apsw

from sottovoce_wire.ids import AccountId, DeviceId, MessageId

from ..protocol.state import Incoming

#: Digests of the newest envelopes and messages: more than a relay can have unacknowledged, so every redelivery is
#: recognised.
SEEN: Final = 4_096
#: Records of undecryptable envelopes, for each reason: a stranger can cause most kinds, and must not push out an alarm.
UNDECRYPTABLE: Final = 200


@dataclass(frozen=True, slots=True)
class Unhandled:
    """A message that the application has not handled yet, and its place in the order of arrival."""

    position: int
    message: Incoming


class InboxTable:
    """Tables `messages`, `envelopes_seen`, `messages_opened` and `undecryptable`. Satisfies `protocol.state.Inbox`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute
        self._changes = connection.changes

    def seen(self, *digests: bytes) -> bool:
        """Whether one of these is among the newest that were remembered."""
        holes = ",".join("?" * len(digests))
        query = (
            f"SELECT 1 FROM messages_opened WHERE digest IN ({holes})"  # noqa: S608 - "?"s
            f" UNION ALL SELECT 1 FROM envelopes_seen WHERE digest IN ({holes})"
        )
        return self._execute(query, digests * 2).get is not None

    def remember(self, digest: bytes) -> None:
        """Add to the ring of the newest digests."""
        self._execute("INSERT OR REPLACE INTO envelopes_seen (digest) VALUES (?)", (digest,))
        self._execute("DELETE FROM envelopes_seen WHERE position <= last_insert_rowid() - ?", (SEEN,))

    def remember_opened(self, digest: bytes) -> None:
        """The same for a message that was opened: what nobody can open pushes none of these out."""
        self._execute("INSERT OR REPLACE INTO messages_opened (digest) VALUES (?)", (digest,))
        self._execute("DELETE FROM messages_opened WHERE position <= last_insert_rowid() - ?", (SEEN,))

    def add(self, message: Incoming) -> bool:
        """Store a message; False if this account already sent one with this id."""
        self._execute(
            "INSERT OR IGNORE INTO messages (message_id, account_id, device_id, text, sent_at, received_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                message.message_id,
                message.account_id,
                message.device_id,
                message.text,
                message.sent_at,
                message.received_at,
            ),
        )
        return self._changes() > 0

    def add_undecryptable(self, digest: bytes, reason: str, received_at: int) -> None:
        """Record an envelope that could not be decrypted; the oldest of its reason goes when there are too many."""
        self._execute(
            "INSERT INTO undecryptable (digest, reason, received_at) VALUES (?, ?, ?)", (digest, reason, received_at)
        )
        self._execute(
            "DELETE FROM undecryptable WHERE reason = ? AND position <= (SELECT position FROM undecryptable"
            " WHERE reason = ? ORDER BY position DESC LIMIT 1 OFFSET ?)",
            (reason, reason, UNDECRYPTABLE),
        )

    def undecryptable(self) -> list[tuple[str, int]]:
        """(reason, received_at in milliseconds) of the newest undecryptable envelopes, oldest first."""
        rows = self._execute("SELECT reason, received_at FROM undecryptable ORDER BY position")
        return [(reason, received_at) for reason, received_at in rows]

    def unhandled(self, limit: int) -> list[Unhandled]:
        """The first `limit` unhandled messages, in the order of arrival."""
        rows = self._execute(
            "SELECT position, message_id, account_id, device_id, text, sent_at, received_at FROM messages"
            " WHERE handled = 0 ORDER BY position LIMIT ?",
            (limit,),
        )
        return [
            Unhandled(position, Incoming(MessageId(message_id), AccountId(account), DeviceId(device), *rest))
            for position, message_id, account, device, *rest in rows
        ]

    def mark_handled(self, position: int) -> None:
        """The application is done with a message: it is not shown again."""
        self._execute("UPDATE messages SET handled = 1 WHERE position = ?", (position,))
