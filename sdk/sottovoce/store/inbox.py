"""What arrived: messages, the digests that recognise repeats, and envelopes that could not be decrypted."""

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final

import apsw

from sottovoce_wire.ids import AccountId, DeviceId, MessageId

from ..protocol.state import Incoming

#: Digests of the newest envelopes and messages: more than a relay can have unacknowledged, so every redelivery is
#: recognised.
SEEN: Final = 4_096
#: Records of undecryptable envelopes, for each reason: a stranger can cause most kinds, and must not push out an alarm.
UNDECRYPTABLE: Final = 200

_MESSAGE: Final = "message_id, account_id, device_id, text, sent_at, received_at"


@dataclass(frozen=True, slots=True)
class Unhandled:
    """A message that the application has not handled yet, its place in the order of arrival, and how often it was
    handed over before."""

    position: int
    attempts: int
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

    def add(self, message: Incoming, *, is_request: bool) -> bool:
        """Store a message; False if this account already sent one with this id. A request waits to be accepted."""
        self._execute(
            "INSERT OR IGNORE INTO messages (message_id, account_id, device_id, text, sent_at, received_at, is_request)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                message.message_id,
                message.account_id,
                message.device_id,
                message.text,
                message.sent_at,
                message.received_at,
                is_request,
            ),
        )
        stored = self._changes() > 0
        if stored and is_request:
            self._execute(
                "INSERT INTO requests VALUES (?, 1, ?, 0) ON CONFLICT (account_id)"
                " DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes",
                (message.account_id, len(message.text.encode())),
            )
        return stored

    def request(self, account_id: AccountId) -> tuple[int, int]:
        """(messages, bytes of text) of an account that wait to be accepted."""
        row = self._execute("SELECT messages, bytes FROM requests WHERE account_id = ?", (account_id,)).get
        return (0, 0) if row is None else (row[0], row[1])

    def requests(self) -> tuple[int, int]:
        """(accounts, bytes of text) that wait to be accepted."""
        accounts, size = self._execute("SELECT count(*), coalesce(sum(bytes), 0) FROM requests").get
        return accounts, size

    def drop_request(self, account_id: AccountId) -> None:
        """Count a message of an account that was not kept."""
        self._execute("UPDATE requests SET dropped = dropped + 1 WHERE account_id = ?", (account_id,))

    def waiting(self) -> list[tuple[AccountId, list[Incoming], int]]:
        """Every account with messages that wait to be accepted, these in the order of arrival, and how many more were
        not kept."""
        rows = self._execute(
            f"SELECT {_MESSAGE} FROM messages WHERE is_request = 1 ORDER BY account_id, position"  # noqa: S608 - names
        )
        messages = [_incoming(*row) for row in rows]
        dropped = dict(self._execute("SELECT account_id, dropped FROM requests"))
        grouped = groupby(messages, attrgetter("account_id"))
        return [(account_id, list(found), dropped.get(account_id, 0)) for account_id, found in grouped]

    def accept(self, account_id: AccountId) -> None:
        """What an account has written is shown to the application."""
        self._execute("UPDATE messages SET is_request = 0 WHERE account_id = ? AND is_request = 1", (account_id,))
        self._execute("DELETE FROM requests WHERE account_id = ?", (account_id,))

    def decline(self, account_id: AccountId) -> None:
        """What an account has written, and nobody accepted, is deleted."""
        self._execute("DELETE FROM messages WHERE account_id = ? AND is_request = 1", (account_id,))
        self._execute("DELETE FROM requests WHERE account_id = ?", (account_id,))

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
            f"SELECT position, attempts, {_MESSAGE} FROM messages"  # noqa: S608 - fixed names
            " WHERE handled = 0 AND is_request = 0 ORDER BY position LIMIT ?",
            (limit,),
        )
        return [Unhandled(position, attempts, _incoming(*row)) for position, attempts, *row in rows]

    def mark_shown(self, position: int) -> None:
        """A message is handed to the application, once more."""
        self._execute("UPDATE messages SET attempts = attempts + 1 WHERE position = ?", (position,))

    def mark_unseen(self, position: int) -> None:
        """The application was interrupted before it had the message that was marked as shown."""
        self._execute("UPDATE messages SET attempts = attempts - 1 WHERE position = ?", (position,))

    def mark_handled(self, position: int) -> bool:
        """The application is done with a message: it is not shown again. Whether it was not before."""
        self._execute("UPDATE messages SET handled = 1 WHERE position = ? AND handled = 0", (position,))
        return self._changes() > 0


def _incoming(
    message_id: bytes, account_id: bytes, device_id: bytes, text: str, sent_at: int, received_at: int
) -> Incoming:
    ids = MessageId(message_id), AccountId(account_id), DeviceId(device_id)
    return Incoming(*ids, text, sent_at, received_at)
