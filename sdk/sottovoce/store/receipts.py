"""Receipts that are owed to others, from the message that they are for until they are in the outbox."""

from collections.abc import Sequence
from typing import Final

import apsw

from sottovoce_wire.ids import AccountId, MessageId

from ..protocol.content import ReceiptKind

#: Receipts owed at once, some 100 bytes each. The oldest go first: of a flood, most of it gets none.
KEPT: Final = 20_000

#: One for each stored message: what it says goes with the message's own mark.
_OWE: Final = (
    "INSERT INTO receipts_due (account_id, message_id, kind, due_at)"
    " SELECT account_id, message_id, iif(handled, 2, 1), ? FROM messages WHERE {}"
    " ON CONFLICT DO UPDATE SET kind = excluded.kind"
)
_OWE_MESSAGE: Final = _OWE.format("message_id = ? AND account_id = ?")
_OWE_POSITION: Final = _OWE.format("position = ?")
_BOUND: Final = "DELETE FROM receipts_due WHERE position <= (SELECT max(position) FROM receipts_due) - ?"
#: Strangers' wait until the person accepts them; nothing is sent to an account that has forked.
_MAY_GO: Final = "account_id IN (SELECT account_id FROM peers WHERE is_contact AND forked_list IS NULL)"


class ReceiptTable:
    """Table `receipts_due`. Satisfies `protocol.state.Receipts`. Times are milliseconds since 1970."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany

    def owe(self, account_id: AccountId, message_id: MessageId, due_at: int) -> None:
        """A stored message was received, and read if it is handled; to be told at `due_at`."""
        self._execute(_OWE_MESSAGE, (due_at, message_id, account_id))
        self._execute(_BOUND, (KEPT,))

    def owe_read(self, position: int, due_at: int) -> None:
        """The message at this place was handled just now."""
        self._execute(_OWE_POSITION, (due_at, position))
        self._execute(_BOUND, (KEPT,))

    def due(self, now: int, latest: int) -> list[AccountId]:
        """The contacts that are to be told something by now; also what is due later than `latest`, which nothing is
        unless the clock was set back."""
        rows = self._execute(
            f"SELECT account_id FROM receipts_due WHERE {_MAY_GO}"  # noqa: S608 - fixed text
            " GROUP BY account_id HAVING min(due_at) <= ? OR max(due_at) > ? ORDER BY min(due_at)",
            (now, latest),
        )
        return [AccountId(account_id) for (account_id,) in rows]

    def next_due(self, now: int) -> int | None:
        """When the next is due, besides what is already."""
        found: int | None = self._execute(
            f"SELECT min(due_at) FROM receipts_due WHERE due_at > ? AND {_MAY_GO}",  # noqa: S608 - fixed text
            (now,),
        ).get
        return found

    def owed(self, account_id: AccountId, kind: ReceiptKind, limit: int) -> list[MessageId]:
        """The first messages of an account that it is to be told this of."""
        rows = self._execute(
            "SELECT message_id FROM receipts_due WHERE account_id = ? AND kind = ? ORDER BY position LIMIT ?",
            (account_id, kind, limit),
        )
        return [MessageId(message_id) for (message_id,) in rows]

    def given(self, account_id: AccountId, message_ids: Sequence[MessageId]) -> None:
        """It is told."""
        self._executemany(
            "DELETE FROM receipts_due WHERE message_id = ? AND account_id = ?",
            [(message_id, account_id) for message_id in message_ids],
        )

    def forget(self, account_id: AccountId) -> None:
        """The account is told nothing."""
        self._execute("DELETE FROM receipts_due WHERE account_id = ?", (account_id,))

    def size(self) -> int:
        """How many are owed."""
        count: int = self._execute("SELECT count(*) FROM receipts_due").get
        return count
