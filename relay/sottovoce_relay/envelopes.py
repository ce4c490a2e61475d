"""What the relay's parts hand to each other: envelopes on their way in and out, answers owed, pages, quotas.

Values and the arithmetic of quotas. No I/O, no SQL, no frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, SendResult, Ttl
from sottovoce_wire.ids import EnvelopeId, QueueId

from .states import ENVELOPE, EnvelopeEvent, EnvelopeState

#: What a sender is told to wait when a queue is full, and when the database could not be written.
QUEUE_FULL_RETRY_MS = 60_000
TRY_AGAIN_RETRY_MS = 1_000

ACCEPTED = SendResult(Code.ACCEPTED, 0)
REFUSED = SendResult(Code.REFUSED, 0)
ID_CONFLICT = SendResult(Code.ID_CONFLICT, 0)
ENVELOPE_TOO_LARGE = SendResult(Code.ENVELOPE_TOO_LARGE, 0)
QUEUE_FULL = SendResult(Code.QUEUE_FULL, QUEUE_FULL_RETRY_MS)
TRY_AGAIN = SendResult(Code.TRY_AGAIN, TRY_AGAIN_RETRY_MS)


#: What an envelope counts for in memory beside its body, where it shares that.
OVERHEAD = 256


def try_again_in(seconds: float) -> SendResult:
    """TRY_AGAIN, with the time of an overload that is known."""
    return SendResult(Code.TRY_AGAIN, min(2**32 - 1, max(1, round(seconds * 1000))))


# --- In ---------------------------------------------------------------------------------------------------------


class Shared:
    """A body that `pointers` envelopes of one upload point to; stored once. `id` is its number in the database."""

    __slots__ = ("body", "id", "pointers")

    def __init__(self, number: int, body: bytes, pointers: int = 1) -> None:
        self.id = number
        self.body = body
        self.pointers = pointers

    @property
    def weight(self) -> int:
        """Bytes of memory that each of the envelopes counts for."""
        return len(self.body) // self.pointers + OVERHEAD


class Arrival(NamedTuple):
    """An envelope as a sender gave it; the send key is already hashed."""

    queue: QueueId
    door: bytes  # queue id ‖ send key hash (48): what it was sent to, and under which key
    name: bytes  # see `name_of`: what recognises a repeat
    ttl: Ttl
    body: bytes
    shared: Shared | None = None

    @property
    def weight(self) -> int:
        """Bytes of memory that it counts for."""
        return len(self.body) if self.shared is None else self.shared.weight


def name_of(door: bytes, envelope_id: EnvelopeId) -> bytes:
    """SHA-256(door ‖ envelope id)[:16]: a repeat is one under the same key, so that nobody learns of others' ids.
    Without the id, which is not kept, it does not say under which key the envelope came."""
    return sha256(door + envelope_id).digest()[:16]


def closed_name(name: bytes, body: bytes) -> bytes:
    """The name under a key that strangers may have: of the body as well. Otherwise ID_CONFLICT would tell them that
    an envelope of theirs still waits."""
    return sha256(name + sha256(body).digest()).digest()[:16]


def queue_of(door: bytes) -> QueueId:
    """The queue that a door belongs to."""
    return QueueId(door[:16])


class Ticket:
    """The answer to one Send that is owed. Results come in any order; `answer` is called when all are there."""

    __slots__ = ("_answer", "_left", "_results", "arrived", "stopped")

    def __init__(self, count: int, arrived: float, answer: Callable[[Sequence[SendResult]], None]) -> None:
        self._results = [TRY_AGAIN] * count
        self._left = count
        self._answer = answer
        self.arrived = arrived  # monotonic seconds
        #: Queues in which something of this Send failed in a way that may pass: nothing of it may overtake.
        self.stopped: dict[QueueId, SendResult] = {}

    def settle(self, place: int, result: SendResult) -> None:
        """The result of one item. Each item is settled once."""
        self._results[place] = result
        self._left -= 1
        if not self._left:
            self._answer(self._results)


# --- Inside -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Envelope:
    """One envelope while the relay has it in memory: until it is written, and while it is pushed and unacknowledged."""

    queue: QueueId
    number: int  # the queue's, in the database
    seq: int  # counts all envelopes of this relay; a queue's own are in its order. It never travels
    name: bytes
    key_class: KeyClass
    is_limited: bool  # it counts against the stranger quota
    invite: bytes | None  # the door of an invite key, whose quota is its own
    expires_at: int  # unix seconds
    size: int
    body: bytes  # dropped once it is stored and pushed
    shared: Shared | None = None
    state: EnvelopeState = EnvelopeState.NEW
    is_pushed: bool = False  # to the connection that receives the queue now
    owed: list[tuple[Ticket, int]] = field(default_factory=list)  # who is to be told, and the place in its Send
    arrived: float = 0  # monotonic seconds; 0 if it came from the database

    @property
    def weight(self) -> int:
        """Bytes of memory that it counts for until it is written."""
        return self.size if self.shared is None else self.shared.weight

    @property
    def is_gone(self) -> bool:
        """Whether the relay is done with it."""
        return self.state is EnvelopeState.GONE

    def step(self, event: EnvelopeEvent) -> None:
        """Move, as the table says."""
        self.state = ENVELOPE[self.state, event]

    def pushed(self) -> None:
        """Its owner was given it: the body is kept only until it is written."""
        self.is_pushed = True
        self._drop_body()

    def committed(self) -> None:
        """It is in the database."""
        self.step(EnvelopeEvent.COMMITTED)
        if self.is_pushed:
            self._drop_body()

    def _drop_body(self) -> None:
        if self.state is EnvelopeState.STORED:
            self.body = b""
            self.shared = self.shared and Shared(self.shared.id, b"")

    def settle(self, result: SendResult) -> None:
        """Tell whoever sent it. Once: nobody is owed anything afterwards."""
        if self.owed:
            owed, self.owed = self.owed, []
            for ticket, place in owed:
                ticket.settle(place, result)


# --- Out --------------------------------------------------------------------------------------------------------


class Loss(NamedTuple):
    """A queue whose envelopes expired unacknowledged: how many ever, and how many of them its owner was told of."""

    queue: QueueId
    expired: int
    told: int


@dataclass(frozen=True, slots=True)
class Page:
    """What a queue holds behind a cursor, in order, as far as the credit went; envelopes past their time left out."""

    number: int  # the queue's
    envelopes: tuple[Envelope, ...]
    cursor: int  # the highest number looked at; the old cursor where nothing was
    head: int  # the queue's highest committed number
    more: bool  # envelopes follow the cursor
    expired: int  # how many of the queue's envelopes ever expired unacknowledged
    told: int  # how many of these its owner was told of


# --- Quotas -----------------------------------------------------------------------------------------------------


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
    """How full one queue is: all that was accepted and is not gone, written or not."""

    envelopes: int = 0
    size: int = 0
    stranger_envelopes: int = 0
    stranger_size: int = 0

    def has_room(self, is_limited: bool, size: int, quotas: Quotas) -> bool:
        """Whether an envelope of `size` bytes fits the queue's quotas. An invite key's own is counted elsewhere."""
        if self.envelopes >= quotas.envelopes or self.size + size > quotas.size:
            return False
        if not is_limited:
            return True
        return self.stranger_envelopes < quotas.stranger_envelopes and self.stranger_size + size <= quotas.stranger_size

    def add(self, is_limited: bool, size: int, sign: int = 1) -> None:
        """Count an envelope in, or with `sign` -1 out."""
        self.envelopes += sign
        self.size += sign * size
        if is_limited:
            self.stranger_envelopes += sign
            self.stranger_size += sign * size
