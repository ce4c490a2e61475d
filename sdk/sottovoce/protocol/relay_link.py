"""The client's side of a relay connection, sans-IO: one class for a queue owner's link, one for a sender's.

A link turns received frames into events and says what to send; whoever owns the socket moves the bytes. `_EXPECTED` is
the whole state machine: which frames a link in a state may receive. Anything else is the relay's fault (RelayFault).
Spec: relay.
"""

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, TypeAlias

from sottovoce_wire import frames, limits
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import GapReason, KeyClass, SendItem, SendResult
from sottovoce_wire.ids import QueueId, SendKeyHash

from ..crypto.identity import OwnerKey

#: With more unacknowledged, an envelope may be too large for what is left.
_ALMOST_FULL: Final = limits.MAX_UNACKNOWLEDGED_BYTES - limits.MAX_ENVELOPE


class RelayFault(Exception):  # noqa: N818 - names whose fault it is
    """The relay broke the protocol, or closed the connection with a code. The connection is over.

    `str` is the code's name. `detail` may be the relay's own words: they are not for a terminal."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(code.name.lower())
        self.code = code
        self.detail = detail


class Overtaken(Exception):  # noqa: N818 - what it may be
    """What came may be newer than what waits in the queue before it. A new connection reads them in their order."""


class State(enum.Enum):
    """Where a link stands."""

    GREETING = enum.auto()  # Hello sent, Welcome awaited
    PROVING = enum.auto()  # queues created or opened, answers awaited
    RECEIVING = enum.auto()  # an owner's link at work
    READY = enum.auto()  # a sender's link with nothing under way
    WAITING = enum.auto()  # a sender's link with one Send unanswered


_TO_OWNERS: Final = (
    frames.Done,
    frames.Failed,
    frames.Deliver,
    frames.Acked,
    frames.CaughtUp,
    frames.Gap,
    frames.DeliverNow,
    frames.Pong,
)
_EXPECTED: Final[dict[State, tuple[type, ...]]] = {
    State.GREETING: (frames.Welcome,),
    State.PROVING: _TO_OWNERS,
    State.RECEIVING: _TO_OWNERS,
    State.READY: (frames.Pong,),
    State.WAITING: (frames.SendResults, frames.Pong),
}


@dataclass(frozen=True, slots=True)
class Ready:
    """Every queue is proven, has its send keys and delivers (owner), or items can be sent (sender)."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """Envelopes of one queue, in order. Acknowledge `upto` when they are safely stored.

    `sealed_only`: the queue is open to strangers, so that its bytes are only ever opened as sealed. That is a fact of
    the queue; the class that the relay names is its word, and nothing depends on it.
    """

    queue: QueueId
    upto: int
    sealed_only: bool
    envelopes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All that had waited in this queue is here."""

    queue: QueueId


@dataclass(frozen=True, slots=True)
class Gap:
    """So many envelopes of this queue will not be delivered, and why."""

    queue: QueueId
    count: int
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Answered:
    """The results of the Send under way, in its order."""

    results: tuple[SendResult, ...]


Event: TypeAlias = Ready | Arrived | CaughtUp | Gap | Answered


@dataclass(frozen=True, slots=True)
class OwnQueue:
    """A queue to prove: its owner key, the send keys it must have, and those of them to be demoted."""

    owner: OwnerKey
    send_keys: tuple[tuple[SendKeyHash, KeyClass], ...]
    demoted: tuple[SendKeyHash, ...] = ()


def hello() -> bytes:
    """The first message of every connection."""
    return frames.message(frames.Hello([limits.PROTOCOL_VERSION]))


def ping() -> bytes:
    """A heartbeat."""
    return frames.message(frames.Ping(0))


def _parse(data: bytes) -> list[frames.RelayFrame]:
    """The frames of a message. Raises RelayFault."""
    try:
        return frames.decode_relay_message(data)
    except WireError as error:
        raise RelayFault(error.code, error.detail) from None


def _check(state: State, frame: frames.RelayFrame) -> None:
    """See whether this frame may come in this state. Raises RelayFault."""
    if isinstance(frame, frames.Goodbye):
        raise RelayFault(frame.code, frame.detail)
    if not isinstance(frame, _EXPECTED[state]):
        raise RelayFault(Code.UNEXPECTED_FRAME, f"{type(frame).__name__} while {state.name.lower()}")
    if isinstance(frame, frames.Welcome) and frame.version != limits.PROTOCOL_VERSION:
        raise RelayFault(Code.UNSUPPORTED_VERSION, "the relay chose a version that was not offered")


class _Window:
    """How far one queue was delivered, and what of it the relay has not said to have seen acknowledged."""

    __slots__ = ("_unseen", "number", "was_full")

    def __init__(self) -> None:
        self.number = 0  # the last delivery number
        self.was_full = False  # something may have waited at the relay since the queue was caught up
        self._unseen: deque[tuple[int, int]] = deque(maxlen=limits.MAX_UNACKNOWLEDGED)  # numbers and bytes

    def take(self, items: Sequence[frames.Delivery]) -> None:
        """Count what came. Numbers must count on without a hole, or raises RelayFault: an ack one too high would
        destroy an unseen envelope."""
        expected = self.number + 1
        if [item.number for item in items] != list(range(expected, expected + len(items))):
            raise RelayFault(Code.UNEXPECTED_FRAME, "delivery numbers do not count on")
        self.number = items[-1].number
        self._unseen.extend((item.number, len(item.body)) for item in items)
        self.was_full = self.was_full or self._is_full()

    def acked(self, upto: int) -> None:
        """The relay has seen this acknowledgement."""
        while self._unseen and self._unseen[0][0] <= upto:
            self._unseen.popleft()

    def caught_up(self) -> None:
        """What waited when delivery began is here. What came since may be more than fits."""
        self.was_full = self._is_full()

    def _is_full(self) -> bool:
        return len(self._unseen) == limits.MAX_UNACKNOWLEDGED or sum(size for _, size in self._unseen) > _ALMOST_FULL


class OwnerLink:
    """A connection that proves queues and receives from them.

    Queues are created if the relay does not know them: saying CreateQueue again is harmless, and so is demoting a key
    again, so a client that died between saying and remembering it needs no other path. `invite_code` is for a relay
    that does not take everybody, else empty.

    A queue is received once those before it are caught up: a sender that goes from one to the next waits until all was
    accepted in the first, so nothing is read before what was sent before it. `is_patient`: for the same reason, a new
    connection is asked for where the relay may have been unable to push what is older (Overtaken). Order must not cost
    delivery, so an owner is patient for one connection at a time, and for a while: see `hurry`.
    """

    def __init__(
        self, origin: str, queues: Sequence[OwnQueue], invite_code: str = "", *, is_patient: bool = True
    ) -> None:
        self._origin = origin
        self._invite_code = invite_code
        self._queues = {queue.owner.queue_id: queue for queue in queues}
        self._to_receive = deque(self._queues)
        self._windows: dict[QueueId, _Window] = {}  # of the queues that are received, in their order
        self._is_patient = is_patient
        self._requests = self._answers = 0
        self._state = State.GREETING

    def receive(self, data: bytes) -> tuple[list[Event], list[bytes]]:
        """Take in one WebSocket message; returns what happened and the messages to send. Raises RelayFault, Overtaken.

        Either takes the events of the frames before it along. That loses nothing: none of them was acknowledged, and
        the relay says them again on the next connection.
        """
        events: list[Event] = []
        out: list[bytes] = []
        for frame in _parse(data):
            _check(self._state, frame)
            happened, sent = self._hear(frame)
            events += happened
            out += sent
        return events, out

    def _hear(self, frame: frames.RelayFrame) -> tuple[list[Event], list[bytes]]:
        match frame:
            case frames.Welcome():
                self._state = State.PROVING
                return [], [frames.message(*self._prove(frame.nonce), self._receive_next())]
            case frames.Done():
                return self._done(), []
            case frames.Failed():
                raise RelayFault(frame.code, frame.detail)
            case frames.Deliver():
                return [self._arrived(frame)], []
            case frames.CaughtUp():
                return [CaughtUp(frame.queue)], self._caught_up(frame.queue)
            case frames.Gap():
                self._window(frame.queue)
                return [Gap(frame.queue, frame.count, frame.reason)], []
            case frames.Acked():
                self._window(frame.queue).acked(frame.upto)
            case frames.DeliverNow():  # ephemeral envelopes say nothing to this version
                self._window(frame.queue)
        return [], []

    def hurry(self) -> list[bytes]:
        """What to send so as to receive all queues, in whatever order: somebody may keep the first one full."""
        if self._state is not State.RECEIVING or not self._to_receive:
            return []
        self._is_patient = False
        return [frames.message(*[self._receive_next() for _ in range(len(self._to_receive))])]

    def ack(self, queue: QueueId, upto: int) -> bytes:
        """The message that acknowledges everything of `queue` up to `upto`."""
        return frames.message(frames.Ack(queue, upto, []))

    def _request(self) -> int:
        self._requests += 1
        return self._requests - 1

    def _prove(self, nonce: bytes) -> list[frames.ClientFrame]:
        out: list[frames.ClientFrame] = []
        for queue_id, queue in self._queues.items():
            keys = [frames.NewSendKey(key_hash, key_class) for key_hash, key_class in queue.send_keys]
            signature = queue.owner.answer(self._origin, nonce)
            out.append(frames.CreateQueue(self._request(), queue.owner.public, signature, keys, self._invite_code))
            out += [frames.DemoteSendKey(self._request(), queue_id, key_hash) for key_hash in queue.demoted]
        return out

    def _receive_next(self) -> frames.Receive:
        queue = self._to_receive.popleft()
        self._windows[queue] = _Window()
        return frames.Receive(self._request(), queue, limits.MAX_UNACKNOWLEDGED, limits.MAX_UNACKNOWLEDGED_BYTES)

    def _done(self) -> list[Event]:
        if self._answers == self._requests:
            raise RelayFault(Code.UNEXPECTED_FRAME, "an answer to no request")
        self._answers += 1
        if self._state is State.RECEIVING or self._answers < self._requests:
            return []
        self._state = State.RECEIVING
        return [Ready()]

    def _caught_up(self, queue: QueueId) -> list[bytes]:
        window = self._window(queue)
        window.caught_up()
        if self._to_receive and window is [*self._windows.values()][-1]:
            return [frames.message(self._receive_next())]
        return []

    def _window(self, queue: QueueId) -> _Window:
        if queue not in self._windows:
            raise RelayFault(Code.UNEXPECTED_FRAME, "a frame for a queue that this connection does not receive")
        return self._windows[queue]

    def _arrived(self, frame: frames.Deliver) -> Arrived:
        """While the window of a queue before it was full, what is newer may have come through this one."""
        window = self._window(frame.queue)
        window.take(frame.items)
        older = takewhile(lambda each: each is not window, self._windows.values())
        if self._is_patient and any(each.was_full for each in older):
            raise Overtaken
        sealed_only = any(key_class is KeyClass.STRANGER for _, key_class in self._queues[frame.queue].send_keys)
        return Arrived(frame.queue, window.number, sealed_only, tuple(item.body for item in frame.items))


class SenderLink:
    """A connection that sends, as nobody in particular. One Send at a time, so that order holds after a failure."""

    def __init__(self) -> None:
        self._state = State.GREETING
        self._under_way = 0
        self._request = 0

    def receive(self, data: bytes) -> list[Event]:
        """Take in one WebSocket message; returns what happened, at most one event. Raises RelayFault.

        A fault behind the results takes them along: the same envelopes are sent again, and recognised.
        """
        events: list[Event] = []
        for frame in _parse(data):
            _check(self._state, frame)
            events += self._hear(frame)
        return events

    def _hear(self, frame: frames.RelayFrame) -> list[Event]:
        match frame:
            case frames.Welcome():
                self._state = State.READY
                return [Ready()]
            case frames.SendResults():
                if frame.request != self._request or len(frame.results) != self._under_way:
                    raise RelayFault(Code.UNEXPECTED_FRAME, "results that answer no request")
                self._state = State.READY
                return [Answered(tuple(frame.results))]
        return []

    def send(self, items: Sequence[SendItem]) -> bytes:
        """The message that sends `items`, 1 to 256 of them. Only when ready."""
        assert self._state is State.READY, "one Send at a time"  # noqa: S101 - a fault of this program
        self._request = (self._request + 1) % 2**32
        self._under_way = len(items)
        self._state = State.WAITING
        return frames.message(frames.Send(self._request, list(items)))
