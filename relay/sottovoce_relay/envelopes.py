"""What the relay's parts hand to each other: envelopes on their way in and out, ranges of numbers, pages, quotas.

Frozen values and the arithmetic of quotas. No I/O, no SQL, no frames.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, SendResult
from sottovoce_wire.ids import EnvelopeId, QueueId

#: What a sender is told to wait when a queue is full, and when the database could not be written.
QUEUE_FULL_RETRY_MS = 60_000
TRY_AGAIN_RETRY_MS = 1_000

ACCEPTED = SendResult(Code.ACCEPTED, 0)
REFUSED = SendResult(Code.REFUSED, 0)
ID_CONFLICT = SendResult(Code.ID_CONFLICT, 0)
ENVELOPE_TOO_LARGE = SendResult(Code.ENVELOPE_TOO_LARGE, 0)
QUEUE_FULL = SendResult(Code.QUEUE_FULL, QUEUE_FULL_RETRY_MS)
TRY_AGAIN = SendResult(Code.TRY_AGAIN, TRY_AGAIN_RETRY_MS)


class Arrival(NamedTuple):
    """An envelope as a sender gave it; the send key is already hashed."""

    queue: QueueId
    door: bytes  # queue id ‖ send key hash (48): what it was sent to, and under which key
    name: bytes  # see `name_of`: what recognises a repeat
    expires_at: int  # unix seconds
    body: bytes


def name_of(door: bytes, envelope_id: EnvelopeId) -> bytes:
    """SHA-256(door ‖ envelope id): a repeat is one under the same key, so that nobody learns of others' ids. Without
    the id, which is not kept, it does not say under which key the envelope came."""
    return sha256(door + envelope_id).digest()


class Stored(NamedTuple):
    """An envelope that is committed. `seq` counts the queue's envelopes, for ever, and never travels."""

    queue: QueueId
    seq: int
    key_class: KeyClass
    expires_at: int  # unix seconds
    body: bytes


class Range(NamedTuple):
    """The envelopes of a queue with `after < seq <= upto`. Both bounds, so that a deletion walks nothing twice."""

    queue: QueueId
    after: int
    upto: int


class Loss(NamedTuple):
    """A queue whose envelopes expired unacknowledged: how many ever, and how many of them its owner was told of."""

    queue: QueueId
    expired: int
    told: int


def ranges_of(queue: QueueId, seqs: Iterable[int]) -> tuple[Range, ...]:
    """The fewest ranges that cover exactly `seqs`."""
    return tuple(merged(Range(queue, seq - 1, seq) for seq in seqs))


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The fewest ranges that cover the same envelopes, none of them twice."""
    result: list[Range] = []
    for gone in sorted(ranges):
        last = result[-1] if result else None
        if last is not None and last.queue == gone.queue and gone.after <= last.upto:
            result[-1] = last._replace(upto=max(last.upto, gone.upto))
        else:
            result.append(gone)
    return result


@dataclass(frozen=True, slots=True)
class Page:
    """What a queue holds behind a cursor, in order, as far as the credit went; envelopes past their time left out."""

    envelopes: tuple[Stored, ...]
    cursor: int  # the highest number looked at; the old cursor where nothing was
    head: int  # the queue's highest committed number
    more: bool  # envelopes follow the cursor
    expired: int  # how many of the queue's envelopes ever expired unacknowledged
    told: int  # how many of these its owner was told of


@dataclass(frozen=True, slots=True)
class Quotas:
    """What one queue may hold; at most the protocol's limits."""

    max_envelope: int = limits.MAX_ENVELOPE
    envelopes: int = limits.QUEUE_ENVELOPES
    size: int = limits.QUEUE_BYTES
    stranger_envelopes: int = limits.STRANGER_ENVELOPES
    stranger_size: int = limits.STRANGER_BYTES
    invite_envelopes: int = limits.INVITE_ENVELOPES


@dataclass(slots=True)
class Fill:
    """How full one queue is, and the number its next envelope gets; counted on while a batch is decided."""

    next_seq: int
    envelopes: int
    size: int
    stranger_envelopes: int
    stranger_size: int

    def has_room(self, key_class: KeyClass, length: int, quotas: Quotas) -> bool:
        """Whether an envelope of `length` bytes fits the queue's quotas. An invite key's own is counted elsewhere."""
        if self.envelopes >= quotas.envelopes or self.size + length > quotas.size:
            return False
        if key_class is not KeyClass.STRANGER:
            return True
        return (
            self.stranger_envelopes < quotas.stranger_envelopes and self.stranger_size + length <= quotas.stranger_size
        )

    def add(self, key_class: KeyClass, length: int) -> int:
        """Count an envelope in. Returns its number."""
        seq = self.next_seq
        self.next_seq += 1
        self.envelopes += 1
        self.size += length
        if key_class is KeyClass.STRANGER:
            self.stranger_envelopes += 1
            self.stranger_size += length
        return seq
