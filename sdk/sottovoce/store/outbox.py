"""The outbox: envelopes in their final bytes, from their encryption until the relay has accepted them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import apsw

from sottovoce_wire import limits
from sottovoce_wire.frames import KeyClass, Ttl
from sottovoce_wire.ids import AccountId, DeviceId, EnvelopeId, MessageId, QueueId, SendKey

from ..protocol.state import Address, Outgoing

#: Envelopes in one Send frame: with bodies of the usual size far below the frame limit.
BATCH: Final = 64
BATCH_BYTES: Final = limits.MAX_MESSAGE // 2
#: Reasons of failed deliveries that are kept.
FAILURES: Final = 1_000

_COLUMNS: Final = (
    "position, message_id, account_id, device_id, envelope_id, origin, queue, send_key, key_class, ttl, body"
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An envelope that waits for the relay's answer, and its place in the order of sending."""

    position: int
    outgoing: Outgoing


class OutboxTable:
    """Table `outbox`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute

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

    def fail(self, waiting: Waiting, code: int) -> None:
        """The relay will never accept this envelope: keep the reason, drop the envelope."""
        lost = waiting.outgoing
        self._execute(
            "INSERT INTO failed_deliveries (message_id, account_id, device_id, code) VALUES (?, ?, ?, ?)",
            (lost.message_id, lost.account_id, lost.device_id, code),
        )
        self._execute("DELETE FROM failed_deliveries WHERE position <= last_insert_rowid() - ?", (FAILURES,))
        self.remove(waiting.position)

    def expire(self, origin: str, now: int, code: int) -> list[MessageId]:
        """Fail what has waited for a relay longer than its time to live; returns the messages."""
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE origin = ? AND expires <= ? LIMIT ?",  # noqa: S608 - fixed names
            (origin, now, BATCH),
        )
        expired = [_waiting(*row) for row in rows]
        for waiting in expired:
            self.fail(waiting, code)
        return [waiting.outgoing.message_id for waiting in expired]

    def failures(self, message_id: MessageId) -> list[int]:
        """The relays' reasons why devices will not get this message."""
        rows = self._execute("SELECT code FROM failed_deliveries WHERE message_id = ? ORDER BY position", (message_id,))
        return [code for (code,) in rows]

    def origins(self) -> list[str]:
        """The relays for which something waits."""
        return [origin for (origin,) in self._execute("SELECT DISTINCT origin FROM outbox")]

    def batch(self, origin: str, held_back: Collection[QueueId]) -> list[Waiting]:
        """The next envelopes for a relay in the order of sending, without those for queues in `held_back`: at most 64
        and half a frame, at least one if there is one."""
        holes = ",".join("?" * len(held_back))
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE origin = ? AND queue NOT IN ({holes})"  # noqa: S608 - names and "?"s
            " ORDER BY position LIMIT ?",
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

    def remove(self, position: int) -> None:
        """The relay has accepted the envelope, or never will."""
        self._execute("DELETE FROM outbox WHERE position = ?", (position,))

    def rename(self, position: int, envelope_id: EnvelopeId) -> None:
        """Give an envelope another relay id: somebody else's bytes have the old one. The body stays."""
        self._execute("UPDATE outbox SET envelope_id = ? WHERE position = ?", (envelope_id, position))

    def waiting(self, message_id: MessageId) -> int:
        """How many envelopes of a message wait."""
        count: int = self._execute("SELECT count(*) FROM outbox WHERE message_id = ?", (message_id,)).get
        return count

    def size(self) -> int:
        """How many envelopes wait in all."""
        count: int = self._execute("SELECT count(*) FROM outbox").get
        return count


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
