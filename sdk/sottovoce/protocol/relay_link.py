"""The client's side of a relay connection, sans-IO: one class for a queue owner's link, one for a sender's.

A link turns received frames into events and says what to send; whoever owns the socket moves the bytes. `_EXPECTED` is
the whole state machine: which frames a link in a state may receive. Anything else is the relay's fault (RelayFault).
Spec: relay.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sottovoce_wire import frames, limits
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import GapReason, KeyClass, SendItem, SendResult
from sottovoce_wire.ids import QueueId, SendKeyHash

from ..crypto.identity import OwnerKey


class RelayFault(Exception):  # noqa: N818 - names whose fault it is
    """The relay broke the protocol, or closed the connection with a code. The connection is over.

    `str` is the code's name. `detail` may be the relay's own words: they are not for a terminal."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(code.name.lower())
        self.code = code
        self.detail = detail


class State(enum.Enum):
    """Where a link stands."""

    GREETING = enum.auto()  # Hello sent, Welcome awaited
    PROVING = enum.auto()  # queues created or opened, answers awaited
    RECEIVING = enum.auto()  # an owner's link at work
    READY = enum.auto()  # a sender's link with nothing under way
    WAITING = enum.auto()  # a sender's link with one Send unanswered


_EXPECTED: Final[dict[State, tuple[type, ...]]] = {
    State.GREETING: (frames.Welcome,),
    State.PROVING: (
        frames.Done,
        frames.Failed,
        frames.Deliver,
        frames.Acked,
        frames.CaughtUp,
        frames.Gap,
        frames.DeliverNow,
        frames.Pong,
    ),
    State.RECEIVING: (frames.Deliver, frames.Acked, frames.CaughtUp, frames.Gap, frames.DeliverNow, frames.Pong),
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


class OwnerLink:
    """A connection that proves queues and receives from them.

    Queues are created if the relay does not know them: saying CreateQueue again is harmless, and so is demoting a key
    again, so a client that died between saying and remembering it needs no other path. `invite_code` is for a relay
    that does not take everybody, else empty.
    """

    def __init__(self, origin: str, queues: Sequence[OwnQueue], invite_code: str = "") -> None:
        self._origin = origin
        self._invite_code = invite_code
        self._queues = {queue.owner.queue_id: queue for queue in queues}
        self._numbers = dict.fromkeys(self._queues, 0)
        self._unproven = sum(2 + len(queue.demoted) for queue in queues)  # CreateQueue, DemoteSendKey, Receive
        self._state = State.GREETING

    def receive(self, data: bytes) -> tuple[list[Event], list[bytes]]:
        """Take in one WebSocket message; returns what happened and the messages to send. Raises RelayFault.

        A fault in one frame takes the events of the frames before it along. That loses nothing: none of them was
        acknowledged, and the relay says them again on the next connection.
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
                return [], self._prove(frame.nonce)
            case frames.Done():
                return self._proven(), []
            case frames.Failed():
                raise RelayFault(frame.code, frame.detail)
            case frames.Deliver():
                return [self._arrived(frame)], []
            case frames.CaughtUp():
                return [CaughtUp(self._known(frame.queue))], []
            case frames.Gap():
                return [Gap(self._known(frame.queue), frame.count, frame.reason)], []
            case frames.Acked() | frames.DeliverNow():  # ephemeral envelopes say nothing to this version
                self._known(frame.queue)
        return [], []

    def ack(self, queue: QueueId, upto: int) -> bytes:
        """The message that acknowledges everything of `queue` up to `upto`."""
        return frames.message(frames.Ack(queue, upto, []))

    def _prove(self, nonce: bytes) -> list[bytes]:
        out: list[frames.ClientFrame] = []
        for queue_id, queue in self._queues.items():
            keys = [frames.NewSendKey(key_hash, key_class) for key_hash, key_class in queue.send_keys]
            signature = queue.owner.answer(self._origin, nonce)
            out.append(frames.CreateQueue(len(out), queue.owner.public, signature, keys, self._invite_code))
            for key_hash in queue.demoted:
                out.append(frames.DemoteSendKey(len(out), queue_id, key_hash))
            out.append(frames.Receive(len(out), queue_id, limits.MAX_UNACKNOWLEDGED, limits.MAX_UNACKNOWLEDGED_BYTES))
        return [frames.message(*out)]

    def _proven(self) -> list[Event]:
        self._unproven -= 1
        if self._unproven > 0:
            return []
        self._state = State.RECEIVING
        return [Ready()]

    def _known(self, queue: QueueId) -> QueueId:
        if queue not in self._queues:
            raise RelayFault(Code.UNEXPECTED_FRAME, "a frame for a queue that this connection has not proven")
        return queue

    def _arrived(self, frame: frames.Deliver) -> Arrived:
        """Numbers must count on without a hole: an ack one too high would destroy an unseen envelope."""
        queue = self._known(frame.queue)
        expected = self._numbers[queue] + 1
        if [item.number for item in frame.items] != list(range(expected, expected + len(frame.items))):
            raise RelayFault(Code.UNEXPECTED_FRAME, "delivery numbers do not count on")
        self._numbers[queue] = frame.items[-1].number
        sealed_only = any(key_class is KeyClass.STRANGER for _, key_class in self._queues[queue].send_keys)
        return Arrived(queue, frame.items[-1].number, sealed_only, tuple(item.body for item in frame.items))


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
