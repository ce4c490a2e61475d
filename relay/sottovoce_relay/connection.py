"""One connection's conversation: which frames mean what, when, and for whom. Sans-IO.

Bytes in, actions out; the gateway carries actions out and reports back. No sockets, no tasks, no SQL.
Spec: relay.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sottovoce_hosting.signatures import verifies
from sottovoce_wire import frames, ids, limits
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import QueueId, SendKey, SendKeyHash
from sottovoce_wire.records import owner_challenge

from .delivery import Delivery
from .envelopes import Arrival, Envelope, Shared, name_of, try_again_in
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
class Proven:
    """A queue whose key the client has."""

    queue: QueueId
    number: int  # in the database


@dataclass(frozen=True, slots=True)
class Prove:
    """The signature holds. Look for the queue; then call `proven`."""

    request: int
    queue: QueueId
    owner_key: bytes


@dataclass(frozen=True, slots=True)
class Create:
    """The signature holds. Create the queue if it is not there, and add the send keys; then call `proven`."""

    request: int
    queue: QueueId
    owner_key: bytes
    send_keys: Sequence[frames.NewSendKey]
    code: str

    def __repr__(self) -> str:
        return "Create(…)"


@dataclass(frozen=True, slots=True)
class AddKey:
    """Add a send key to a proven queue."""

    request: int
    queue: Proven
    key: frames.NewSendKey


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """Take a send key from a proven queue."""

    request: int
    queue: Proven
    key_hash: SendKeyHash


@dataclass(frozen=True, slots=True)
class DemoteKey:
    """Demote a send key of a proven queue."""

    request: int
    queue: Proven
    key_hash: SendKeyHash


@dataclass(frozen=True, slots=True)
class DeleteAll:
    """Delete a proven queue; then call `deleted`."""

    request: int
    queue: Proven


@dataclass(frozen=True, slots=True)
class Start:
    """Delivery of a proven queue begins, with this credit; call `started`."""

    request: int
    queue: Proven
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """These envelopes are with their owner; when they are gone from the database, say `acked`."""

    delivery: Delivery
    envelopes: Sequence[Envelope]
    acked: frames.Acked


@dataclass(frozen=True, slots=True)
class Take:
    """Take these envelopes in; then say the results."""

    request: int
    arrivals: Sequence[Arrival]
    size: int  # bytes of bodies


Action: TypeAlias = (
    Reply | Leave | Prove | Create | AddKey | RevokeKey | DemoteKey | DeleteAll | Start | Acknowledge | Take
)

#: What checking a signature counts for, in envelopes: it takes as long.
_SIGNATURE_COST: Final = 10
_NOT_PROVEN: Final = "prove the queue first (CreateQueue or OpenQueue)"


class Connection:
    """What one client has said and proven. `nonce` is the connection's own; `origins` are those it may sign for.

    `share` makes one body for so many envelopes of its bytes. `wait_for` says in how many seconds the client may cause
    so much work, in envelopes; it is asked before anything is computed, and 0 means now.
    """

    def __init__(
        self,
        nonce: bytes,
        origins: Sequence[str],
        max_envelope: int,
        share: Callable[[bytes, int], Shared],
        wait_for: Callable[[int], float],
    ) -> None:
        self.state = ConnectionState.GREETING
        self.proven: dict[QueueId, Proven] = {}
        self.deliveries: dict[QueueId, Delivery] = {}  # of those queues that it receives
        self._nonce = nonce
        self._origins = origins
        self._max_envelope = max_envelope
        self._share = share
        self._wait_for = wait_for

    def hear(self, data: bytes | None) -> Iterator[Action]:
        """One WebSocket message, None for one that is not binary: an action for each frame, each made when the one
        before was carried out. Never raises: what breaks a rule is a Leave, and the last."""
        try:
            if not data:
                raise WireError(Code.MALFORMED, "a message is binary and has at least one byte")
            for frame in frames.decode_client_message(data):
                if self.state is ConnectionState.CLOSING:
                    return
                yield self._hear(frame)
        except WireError as error:
            yield Leave(error.code, error.detail)

    def _hear(self, frame: frames.ClientFrame) -> Action:
        event = ConnectionEvent.HELLO if type(frame) is frames.Hello else ConnectionEvent.REQUEST
        if (self.state, event) not in CONNECTION:
            raise WireError(Code.UNEXPECTED_FRAME, "Hello comes first, and once")
        self.state = CONNECTION[self.state, event]
        return _ANSWERS[type(frame)](self, frame)

    def leave(self, event: ConnectionEvent) -> bool:
        """The relay ends the connection. False if it is ending already."""
        if (self.state, event) not in CONNECTION:
            return False
        self.state = CONNECTION[self.state, event]
        return True

    def prove(self, queue: QueueId, number: int) -> None:
        """The queue exists and is this client's."""
        self.proven[queue] = Proven(queue, number)

    def started(self, delivery: Delivery) -> None:
        """The delivery that a Start asked for."""
        self.deliveries[delivery.queue] = delivery

    def deleted(self, queue: QueueId) -> None:
        """The queue is gone."""
        self.proven.pop(queue, None)
        self.deliveries.pop(queue, None)

    # --- One method for each frame -------------------------------------------------------------------------------

    def _hello(self, frame: frames.Hello) -> Action:
        if limits.PROTOCOL_VERSION not in frame.versions:
            raise WireError(Code.UNSUPPORTED_VERSION, f"this relay speaks version {limits.PROTOCOL_VERSION}")
        return Reply(
            frames.Welcome(
                limits.PROTOCOL_VERSION, self._nonce, self._max_envelope, limits.MAX_MESSAGE, limits.MAX_SEND_ITEMS
            )
        )

    def _create_queue(self, frame: frames.CreateQueue) -> Action:
        queue = ids.queue_id_of(frame.owner_key)
        return self._fault(frame, queue) or Create(frame.request, queue, frame.owner_key, frame.send_keys, frame.code)

    def _open_queue(self, frame: frames.OpenQueue) -> Action:
        queue = ids.queue_id_of(frame.owner_key)
        return self._fault(frame, queue) or Prove(frame.request, queue, frame.owner_key)

    def _fault(self, frame: frames.CreateQueue | frames.OpenQueue, queue: QueueId) -> Action | None:
        if queue not in self.proven and len(self.proven) >= limits.MAX_QUEUES_PER_CONNECTION:
            return _failed(frame.request, Code.TOO_MANY_QUEUES, "a connection proves at most 16 queues")
        if self._wait_for(_SIGNATURE_COST * len(self._origins)):
            return _failed(frame.request, Code.TRY_AGAIN, "too many proofs in a short time; try again later")
        challenges = (owner_challenge(origin, self._nonce, queue) for origin in self._origins)
        if not any(verifies(frame.owner_key, frame.signature, challenge) for challenge in challenges):
            return _failed(frame.request, Code.BAD_SIGNATURE, "sign the nonce and this relay's address as dialled")
        return None

    def _add_send_key(self, frame: frames.AddSendKey) -> Action:
        if proven := self.proven.get(frame.queue):
            return AddKey(frame.request, proven, frame.key)
        return _failed(frame.request, Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)

    def _revoke_send_key(self, frame: frames.RevokeSendKey) -> Action:
        if proven := self.proven.get(frame.queue):
            return RevokeKey(frame.request, proven, frame.key_hash)
        return _failed(frame.request, Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)

    def _demote_send_key(self, frame: frames.DemoteSendKey) -> Action:
        if proven := self.proven.get(frame.queue):
            return DemoteKey(frame.request, proven, frame.key_hash)
        return _failed(frame.request, Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)

    def _delete_queue(self, frame: frames.DeleteQueue) -> Action:
        if proven := self.proven.get(frame.queue):
            return DeleteAll(frame.request, proven)
        return _failed(frame.request, Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)

    def _receive(self, frame: frames.Receive) -> Action:
        if frame.queue in self.deliveries:
            raise WireError(Code.UNEXPECTED_FRAME, "Receive comes once for each queue")
        if proven := self.proven.get(frame.queue):
            return Start(frame.request, proven, frame.count, frame.size)
        return _failed(frame.request, Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)

    def _ack(self, frame: frames.Ack) -> Action:
        if frame.queue not in self.proven:
            raise WireError(Code.QUEUE_NOT_PROVEN, _NOT_PROVEN)
        delivery = self.deliveries.get(frame.queue)
        if delivery is None:
            raise WireError(Code.BAD_ACK, "an acknowledgement before anything was given")
        envelopes = delivery.acknowledge(frame.upto, frame.singles)
        return Acknowledge(delivery, envelopes, frames.Acked(frame.queue, frame.upto, frame.singles))

    def _send(self, frame: frames.Send) -> Action:
        if wait := self._wait_for(len(frame.items)):
            return _postponed(frame.request, len(frame.items), wait)
        doors: dict[tuple[QueueId, SendKey], bytes] = {}  # mostly one
        arrivals = []
        for item in frame.items:
            way = (item.queue, item.send_key)
            door = doors.get(way) or doors.setdefault(way, _door(item))
            arrivals.append(Arrival(item.queue, door, name_of(door, item.envelope_id), item.ttl, item.body))
        return Take(frame.request, arrivals, sum(len(item.body) for item in frame.items))

    def _send_many(self, frame: frames.SendMany) -> Action:
        count = len(frame.targets)
        if wait := self._wait_for(count):
            return _postponed(frame.request, count, wait)
        shared = None if count == 1 else self._share(frame.body, count)
        arrivals = []
        for target in frame.targets:
            door = _door(target)
            name = name_of(door, target.envelope_id)
            arrivals.append(Arrival(target.queue, door, name, frame.ttl, frame.body, shared))
        return Take(frame.request, arrivals, len(frame.body))

    def _ping(self, frame: frames.Ping) -> Action:
        return Reply(frames.Pong(frame.number))


def _door(target: frames.SendItem | frames.Target) -> bytes:
    return target.queue + ids.send_key_hash(target.send_key)


def _postponed(request: int, count: int, seconds: float) -> Reply:
    return Reply(frames.SendResults(request, [try_again_in(seconds)] * count))


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
    frames.SendMany: Connection._send_many,
    frames.DemoteSendKey: Connection._demote_send_key,
    frames.DeleteQueue: Connection._delete_queue,
}
