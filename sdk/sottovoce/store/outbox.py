"""The outbox: envelopes in their final bytes, from their encryption until the relay has accepted them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import apsw

from sottovoce_wire import limits
from sottovoce_wire.frames import KeyClass, Ttl
from sottovoce_wire.ids import AccountId, DeviceId, EnvelopeId, MessageId, QueueId, SendKey

from ..protocol.state import Address, Outgoing, Want

#: Envelopes in one Send frame: with bodies of the usual size far below the frame limit.
BATCH: Final = 64
BATCH_BYTES: Final = limits.MAX_MESSAGE // 2

_COLUMNS: Final = (
    "position, message_id, account_id, device_id, envelope_id, origin, queue, send_key, key_class, ttl, body"
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An envelope that waits for the relay's answer, and its place in the order of sending."""

    position: int
    outgoing: Outgoing


class OutboxTable:
    """Table `outbox`.

    What was never given to a connection is known in memory only: of what an earlier process left, nobody can say.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute
        self._changes = connection.changes
        self._last_position = connection.last_insert_rowid
        self._untouched: set[int] = set()

    def add(self, outgoing: Outgoing, now: int) -> None:
        """Store an envelope that is to be sent, for as long as its time to live from `now` (unix seconds)."""
        address = outgoing.address
        self._execute(
            "INSERT INTO outbox (message_id, account_id, device_id, envelope_id, origin, queue, send_key, key_class,"
            " ttl, expires, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                outgoing.message_id,
                outgoing.account_id,
                outgoing.device_id,
                outgoing.envelope_id,
                address.origin,
                address.queue,
                address.send_key,
                int(address.key_class),
                int(outgoing.ttl),
                now + outgoing.ttl.seconds,
                outgoing.body,
            ),
        )
        self._untouched.add(self._last_position())

    def expired(self, origin: str, now: int) -> list[Waiting]:
        """Some of what has waited for a relay longer than its time to live."""
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE origin = ? AND expires <= ? LIMIT ?",  # noqa: S608 - fixed names
            (origin, now, BATCH),
        )
        return [_waiting(*row) for row in rows]

    def to_blocked(self, origin: str) -> list[Waiting]:
        """Some of what waits for a relay, and is for accounts that were blocked meanwhile."""
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM peers CROSS JOIN outbox USING (account_id)"  # noqa: S608 - fixed names
            " WHERE is_blocked AND +origin = ? AND refused = 0 LIMIT ?",  # by account, those blocked being few
            (origin, BATCH),
        )
        return [_waiting(*row) for row in rows]

    def origins(self) -> list[str]:
        """The relays for which something waits."""
        return [origin for (origin,) in self._execute("SELECT DISTINCT origin FROM outbox")]

    def batch(self, origin: str, held_back: Collection[QueueId]) -> list[Waiting]:
        """The next envelopes for a relay in the order of sending, but for those to queues in `held_back` and those that
        wait for another address: at most 64 and half a frame, at least one if there is one.

        Nothing goes to a device's new address before all is accepted that is for its old one: two queues know no order.
        """
        holes = ",".join("?" * len(held_back))
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE origin = ? AND queue NOT IN ({holes})"  # noqa: S608 - names and "?"s
            " AND refused = 0 AND queue = (SELECT first.queue FROM outbox AS first WHERE first.refused = 0"
            " AND first.account_id = outbox.account_id AND first.device_id = outbox.device_id"
            " ORDER BY first.position LIMIT 1) ORDER BY position LIMIT ?",
            (origin, *held_back, BATCH),
        )
        found: list[Waiting] = []
        size = 0
        for waiting in [_waiting(*row) for row in rows]:
            size += len(waiting.outgoing.body)
            if found and size > BATCH_BYTES:
                break
            found.append(waiting)
        return found

    def offer(self, batch: list[Waiting]) -> None:
        """A connection is given these: from now on the relay may have them."""
        self._untouched.difference_update(waiting.position for waiting in batch)

    def untouched(self, message_id: MessageId) -> int:
        """How many envelopes of a message were never given to a connection."""
        rows = self._execute("SELECT position FROM outbox WHERE message_id = ?", (message_id,))
        return sum(position in self._untouched for (position,) in rows)

    def take_back(self, message_id: MessageId, device_id: DeviceId | None = None) -> None:
        """Remove the envelopes of a message, or those for one device."""
        rows = self._execute(
            "DELETE FROM outbox WHERE message_id = ? AND device_id = coalesce(?, device_id) RETURNING position",
            (message_id, device_id),
        ).fetchall()
        self._untouched.difference_update(position for (position,) in rows)

    def remove(self, position: int) -> bool:
        """The relay has accepted the envelope, or never will. False if it does not wait any more."""
        self._untouched.discard(position)
        self._execute("DELETE FROM outbox WHERE position = ?", (position,))
        return self._changes() > 0

    def refuse(self, position: int) -> bool:
        """The relay does not know the address: the envelope waits for another session, and goes to no connection. False
        if it does not wait any more."""
        self._execute("UPDATE outbox SET refused = 1 WHERE position = ?", (position,))
        return self._changes() > 0

    def hopeless(self, now: int) -> list[Waiting]:
        """Of what waits for another address, some for which none will come: no handshake is wanted for it any more, and
        no repeat on a new session; or it is too late."""
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE refused = 1 AND (expires <= ?"  # noqa: S608 - fixed names
            " OR account_id NOT IN (SELECT account_id FROM peers WHERE is_contact)"
            " OR (account_id, device_id) NOT IN (SELECT account_id, device_id FROM wanted_repeats"
            " UNION SELECT account_id, device_id FROM wanted_handshakes WHERE reason = ? AND wanted = 1)) LIMIT ?",
            (now, Want.REFUSED, BATCH),
        )
        return [_waiting(*row) for row in rows]

    def rename(self, position: int, envelope_id: EnvelopeId) -> None:
        """Give an envelope another relay id: somebody else's bytes have the old one. The body stays."""
        self._execute("UPDATE outbox SET envelope_id = ? WHERE position = ?", (envelope_id, position))

    def waiting(self, message_id: MessageId) -> int:
        """How many envelopes of a message wait."""
        count: int = self._execute("SELECT count(*) FROM outbox WHERE message_id = ?", (message_id,)).get
        return count

    def size(self) -> int:
        """How many envelopes wait for a relay in all."""
        count: int = self._execute(
            "SELECT (SELECT count(*) FROM outbox) - (SELECT count(*) FROM outbox WHERE refused = 1)"
        ).get
        return count

    def sizes(self) -> dict[AccountId, int]:
        """How many for each account."""
        rows = self._execute("SELECT account_id, count(*) FROM outbox WHERE refused = 0 GROUP BY account_id")
        return {AccountId(account_id): count for account_id, count in rows}


def _waiting(
    position: int,
    message_id: bytes,
    account_id: bytes,
    device_id: bytes,
    envelope_id: bytes,
    origin: str,
    queue: bytes,
    send_key: bytes,
    key_class: int,
    ttl: int,
    body: bytes,
) -> Waiting:
    address = Address(origin, QueueId(queue), SendKey(send_key), KeyClass(key_class))
    ids = MessageId(message_id), AccountId(account_id), DeviceId(device_id), EnvelopeId(envelope_id)
    return Waiting(position, Outgoing(*ids, address, Ttl(ttl), body))
