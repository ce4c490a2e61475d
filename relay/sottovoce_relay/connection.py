"""One connection's conversation: which frames mean what, when, and for whom. Sans-IO.

Bytes in, one action out; the gateway carries actions out and reports back. No sockets, no tasks, no SQL.
Spec: relay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sottovoce_hosting.signatures import verifies
from sottovoce_wire import frames, ids, limits
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import QueueId, SendKeyHash
from sottovoce_wire.records import owner_challenge

from .delivery import Delivery
from .envelopes import Arrival, Range, name_of
from .states import CONNECTION, ConnectionEvent, ConnectionState


@dataclass(frozen=True, slots=True)
class Reply:
    """Say this; nothing else is needed."""

    frame: frames.RelayFrame


@dataclass(frozen=True, slots=True)
class Leave:
    """Say Goodbye and close."""

    code: Code
    detail: str


@dataclass(frozen=True, slots=True)
class Prove:
    """The signature holds. Look for the queue; with `send_keys`, create it and add them. Then call `proven`."""

    request: int
    queue: QueueId
    owner_key: bytes
    send_keys: Sequence[frames.NewSendKey] | None


@dataclass(frozen=True, slots=True)
class AddKey:
    """Add a send key to a proven queue."""

    request: int
    queue: QueueId
    key: frames.NewSendKey


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """Take a send key from a proven queue."""

    request: int
    queue: QueueId
    key_hash: SendKeyHash


@dataclass(frozen=True, slots=True)
class Start:
    """Delivery of a proven queue begins."""

    request: int
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete what was acknowledged; then say `acked`."""

    delivery: Delivery
    ranges: Sequence[Range]
    acked: frames.Acked


@dataclass(frozen=True, slots=True)
class Take:
    """Take these envelopes in; then say the results."""

    request: int
    arrivals: Sequence[Arrival]


Action: TypeAlias = Reply | Leave | Prove | AddKey | RevokeKey | Start | Delete | Take

_NOT_PROVEN: Final = "prove the queue first (CreateQueue or OpenQueue)"


class Connection:
    """What one client has said and proven. `nonce` is the connection's own; `origins` are those it may sign for."""

    def __init__(self, nonce: bytes, origins: Sequence[str], max_envelope: int, clock: Callable[[], float]) -> None:
        self.state = ConnectionState.GREETING
        self.deliveries: dict[QueueId, Delivery] = {}  # of every proven queue
        self._nonce = nonce
        self._origins = origins
        self._max_envelope = max_envelope
        self._clock = clock

    def hear(self, data: bytes | None) -> Action:
        """One WebSocket message, None for one that is not binary. Never raises: what breaks a rule is a Leave."""
        try:
            if not data:
                raise WireError(Code.MALFORMED, "a frame is a binary message of at least one byte")
            frame = frames.decode_client_frame(data)
            event = ConnectionEvent.HELLO if isinstance(frame, frames.Hello) else ConnectionEvent.REQUEST
            if (self.state, event) not in CONNECTION:
                raise WireError(Code.UNEXPECTED_FRAME, "Hello comes first, and once")
            self.state = CONNECTION[self.state, event]
            return _ANSWERS[type(frame)](self, frame)
        except WireError as error:
            return Leave(error.code, error.detail)

    def leave(self, event: ConnectionEvent) -> bool:
        """The relay ends the connection. False if it is ending already."""
        if (self.state, event) not in CONNECTION:
            return False
        self.state = CONNECTION[self.state, event]
        return True

    def proven(self, queue: QueueId) -> None:
        """The queue exists and is this client's."""
        self.deliveries.setdefault(queue, Delivery(queue))

    # --- One method for each frame -------------------------------------------------------------------------------

    def _hello(self, frame: frames.Hello) -> Action:
        if limits.PROTOCOL_VERSION not in frame.versions:
            raise WireError(Code.UNSUPPORTED_VERSION, f"this relay speaks version {limits.PROTOCOL_VERSION}")
        return Reply(
            frames.Welcome(
                limits.PROTOCOL_VERSION, self._nonce, self._max_envelope, limits.MAX_FRAME, limits.MAX_SEND_ITEMS
            )
        )

    def _create_queue(self, frame: frames.CreateQueue) -> Action:
        return self._prove(frame, frame.send_keys)

    def _open_queue(self, frame: frames.OpenQueue) -> Action:
        return self._prove(frame, None)

    def _prove(
        self, frame: frames.CreateQueue | frames.OpenQueue, send_keys: Sequence[frames.NewSendKey] | None
    ) -> Action:
        queue = ids.queue_id_of(frame.owner_key)
        if queue not in self.deliveries and len(self.deliveries) >= limits.MAX_QUEUES_PER_CONNECTION:
            return _failed(frame.request, Code.TOO_MANY_QUEUES, "a connection proves at most 16 queues")
        if not self._is_signed(frame.owner_key, frame.signature, queue):
            return _failed(frame.request, Code.BAD_SIGNATURE, "sign the nonce and this relay's address as dialled")
        return Prove(frame.request, queue, frame.owner_key, send_keys)

    def _is_signed(self, owner_key: bytes, signature: bytes, queue: QueueId) -> bool:
        challenges = (owner_challenge(origin, self._nonce, queue) for origin in self._origins)
        return any(verifies(owner_key, signature, challenge) for challenge in challenges)

    def _add_send_key(self, frame: frames.AddSendKey) -> Action:
        if frame.queue not in self.deliveries:
            return _failed(frame.request, Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)
        return AddKey(frame.request, frame.queue, frame.key)

    def _revoke_send_key(self, frame: frames.RevokeSendKey) -> Action:
        if frame.queue not in self.deliveries:
            return _failed(frame.request, Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)
        return RevokeKey(frame.request, frame.queue, frame.key_hash)

    def _receive(self, frame: frames.Receive) -> Action:
        delivery = self.deliveries.get(frame.queue)
        if delivery is None:
            return _failed(frame.request, Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)
        if not delivery.start(frame.count, frame.size):
            raise WireError(Code.UNEXPECTED_FRAME, "Receive comes once for each queue")
        return Start(frame.request, delivery)

    def _ack(self, frame: frames.Ack) -> Action:
        delivery = self.deliveries.get(frame.queue)
        if delivery is None:
            raise WireError(Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)
        ranges = delivery.acknowledge(frame.upto, frame.singles)
        return Delete(delivery, ranges, frames.Acked(frame.queue, frame.upto, frame.singles))

    def _send(self, frame: frames.Send) -> Action:
        now = int(self._clock())
        return Take(frame.request, [_arrival(item, now) for item in frame.items])

    def _ping(self, frame: frames.Ping) -> Action:
        return Reply(frames.Pong(frame.number))


def _arrival(item: frames.SendItem, now: int) -> Arrival:
    door = item.queue + ids.send_key_hash(item.send_key)
    return Arrival(item.queue, door, name_of(door, item.envelope_id), now + item.ttl.seconds, item.body)


def _failed(request: int, code: Code, detail: str) -> Reply:
    return Reply(frames.Failed(request, code, detail))


_ANSWERS: Final[dict[type[frames.ClientFrame], Callable[[Connection, Any], Action]]] = {
    frames.Hello: Connection._hello,
    frames.CreateQueue: Connection._create_queue,
    frames.OpenQueue: Connection._open_queue,
    frames.AddSendKey: Connection._add_send_key,
    frames.RevokeSendKey: Connection._revoke_send_key,
    frames.Receive: Connection._receive,
    frames.Ack: Connection._ack,
    frames.Send: Connection._send,
    frames.Ping: Connection._ping,
}
