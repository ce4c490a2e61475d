"""A relay in memory: the protocol's queues, send keys, delivery and expiry, as one machine without I/O (spec: relay).

It answers as `sottovoce_relay` does; a test puts the same conversations to both. No rates, no time limits, no
registration policy, and nothing outlives the process.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from sottovoce_wire import frames, ids, limits
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import GapReason, KeyClass, SendResult, Ttl
from sottovoce_wire.ids import QueueId, SendKeyHash
from sottovoce_wire.records import owner_challenge

from ..crypto import primitives
from ..crypto.errors import CryptoRefusal

ACCEPTED: Final = SendResult(Code.ACCEPTED, 0)
QUEUE_FULL: Final = SendResult(Code.QUEUE_FULL, 60_000)
#: An expired envelope is deleted, and its owner told, so much later: an acknowledgement under way still counts.
GRACE: Final = 120
#: A queue whose owner has not proven it for so many days is deleted.
IDLE_DAYS: Final = 90
SWEEP_EVERY: Final = 30.0
#: Bodies in one Deliver frame, so that it stays far below a message's limit.
MAX_PUSH: Final = 512 * limits.KIB
_MAY_PASS: Final = (Code.QUEUE_FULL, Code.TRY_AGAIN)
_KNOWN_PEOPLE: Final = (KeyClass.CONTACT, KeyClass.GROUP)


@dataclass(slots=True)
class SendKey:
    """What a queue knows of one send key. `dies_at` (unix seconds) is set when it was demoted."""

    key_class: KeyClass
    dies_at: int | None = None

    @property
    def is_limited(self) -> bool:
        """Whether what comes under it counts against the stranger quota."""
        return self.dies_at is not None or self.key_class is KeyClass.STRANGER


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope that was accepted. `name` (16 bytes) recognises its repeats; `sender` is who the network says."""

    queue: QueueId
    name: bytes
    key_hash: SendKeyHash
    key_class: KeyClass
    is_limited: bool
    expires_at: int
    body: bytes = field(repr=False)
    sender: str = ""


@dataclass(slots=True)
class Queue:
    """One mailbox. `waiting` is in the order of acceptance, by a number that never travels."""

    id: QueueId
    owner_key: bytes
    seen_day: int
    keys: dict[SendKeyHash, SendKey] = field(default_factory=dict)
    waiting: dict[int, Envelope] = field(default_factory=dict)
    names: dict[bytes, Envelope] = field(default_factory=dict)
    next_number: int = 1
    size: int = 0
    limited: int = 0
    limited_size: int = 0
    refused: int = 0  # answered QUEUE_FULL since the owner was told
    expired: int = 0  # ever
    told: int = 0  # of these
    reader: "Connection | None" = None

    def put(self, envelope: Envelope) -> None:
        """Let it wait, behind all others."""
        self.waiting[self.next_number] = envelope
        self.next_number += 1
        self.names.setdefault(envelope.name, envelope)
        self._count(envelope, 1)

    def drop(self, number: int) -> bool:
        """Forget it. False if it is gone already."""
        envelope = self.waiting.pop(number, None)
        if envelope is None:
            return False
        if self.names.get(envelope.name) is envelope:
            del self.names[envelope.name]
        self._count(envelope, -1)
        return True

    def _count(self, envelope: Envelope, sign: int) -> None:
        self.size += sign * len(envelope.body)
        self.limited += sign * envelope.is_limited
        self.limited_size += sign * envelope.is_limited * len(envelope.body)

    def has_room(self, envelope: Envelope) -> bool:
        """Whether the quotas leave room for it."""
        size = len(envelope.body)
        if len(self.waiting) >= limits.QUEUE_ENVELOPES or self.size + size > limits.QUEUE_BYTES:
            return False
        if envelope.key_class is KeyClass.INVITE:
            under = sum(other.key_hash == envelope.key_hash for other in self.waiting.values())
            if under >= limits.INVITE_ENVELOPES:
                return False
        if not envelope.is_limited:
            return True
        return self.limited < limits.STRANGER_ENVELOPES and self.limited_size + size <= limits.STRANGER_BYTES

    def add_keys(self, keys: Iterable[frames.NewSendKey]) -> bool:
        """Add those that are missing, or none if they are too many."""
        missing = {
            key.key_hash: SendKey(key.key_class) for key in reversed(list(keys)) if key.key_hash not in self.keys
        }
        if len(self.keys) + len(missing) > limits.MAX_SEND_KEYS:
            return False
        self.keys.update(missing)
        return True


#: What becomes of an envelope that the rules accept: the answer, and what is put into queues in its place.
Tamper: TypeAlias = Callable[[Envelope], tuple[SendResult, Sequence[Envelope]]]


def honest(envelope: Envelope) -> tuple[SendResult, Sequence[Envelope]]:
    """What a relay ought to do."""
    return ACCEPTED, (envelope,)


class MemoryRelay:
    """All queues of one relay at `origin`. `now` gives unix seconds; `tamper` may deal otherwise with what comes in."""

    def __init__(self, origin: str, now: Callable[[], float], tamper: Tamper = honest) -> None:
        self.origin = origin
        self.queues: dict[QueueId, Queue] = {}
        self._now = now
        self._tamper = tamper
        self._swept = now()

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self._now())

    def connect(self, who: str, say: Callable[[bytes | None], None]) -> "Connection":
        """A new connection. `say` is given each message for the client, and None after the last."""
        self.tend()
        return Connection(self, who, say)

    def keep(self, envelopes: Iterable[Envelope]) -> None:
        """Put envelopes into their queues, as far as these still exist, and deliver them where somebody receives."""
        readers: dict[QueueId, Connection] = {}
        for envelope in envelopes:
            queue = self.queues.get(envelope.queue)
            if queue is not None:
                queue.put(envelope)
                if queue.reader is not None:
                    readers[queue.id] = queue.reader
        for queue_id, reader in readers.items():
            reader.push(queue_id)

    def tend(self) -> None:
        """Sweep, if it is time."""
        if abs(self._now() - self._swept) >= SWEEP_EVERY:
            self.sweep()

    def sweep(self) -> None:
        """Delete what time has run out for, and tell the owners who are connected."""
        self._swept = self._now()
        for queue in list(self.queues.values()):
            for key_hash in [kept for kept, key in queue.keys.items() if key.dies_at and key.dies_at <= self.now]:
                del queue.keys[key_hash]
            late = [number for number, held in queue.waiting.items() if held.expires_at <= self.now - GRACE]
            queue.expired += sum([queue.drop(number) for number in late])
            if queue.reader is not None:
                queue.seen_day = self.now // limits.DAY
                queue.reader.tell_expired(queue)
            elif queue.seen_day < self.now // limits.DAY - IDLE_DAYS:
                del self.queues[queue.id]

    def has(self, queue: Queue) -> bool:
        """Whether the queue was not deleted."""
        return self.queues.get(queue.id) is queue

    def take(self, envelopes: Sequence["Arrival"], who: str) -> list[SendResult]:
        """Take in what one Send carries, in order; a result for each."""
        stopped: dict[QueueId, SendResult] = {}
        return [self._take(arrival, who, stopped) for arrival in envelopes]

    def _take(self, arrival: "Arrival", who: str, stopped: dict[QueueId, SendResult]) -> SendResult:
        """After a failure that may pass, the later ones for this queue get the same: nothing overtakes."""
        if len(arrival.body) > limits.MAX_ENVELOPE:
            return SendResult(Code.ENVELOPE_TOO_LARGE, 0)
        queue = self.queues.get(arrival.queue)
        key = None if queue is None else queue.keys.get(arrival.key_hash)
        if queue is None or key is None or (key.dies_at is not None and key.dies_at <= self.now):
            return SendResult(Code.REFUSED, 0)
        if arrival.ttl is Ttl.NOW:
            return self._pass_on(queue, key, arrival, stopped)
        envelope = _envelope(arrival, key, self.now, who)
        known = queue.names.get(envelope.name)
        if known is not None:
            return ACCEPTED if known.body == envelope.body else SendResult(Code.ID_CONFLICT, 0)
        if queue.id in stopped or not queue.has_room(envelope):
            result = stopped.setdefault(queue.id, QUEUE_FULL)
            queue.refused += result.code is Code.QUEUE_FULL
            return result
        result, kept = self._tamper(envelope)
        if not kept and result.code in _MAY_PASS:
            stopped[queue.id] = result
        self.keep(kept)
        return result

    def _pass_on(
        self, queue: Queue, key: SendKey, arrival: "Arrival", stopped: dict[QueueId, SendResult]
    ) -> SendResult:
        if queue.reader is not None and queue.id not in stopped:
            queue.reader.post(frames.DeliverNow(queue.id, [frames.Passing(key.key_class, arrival.body)]))
        return stopped.get(queue.id, ACCEPTED)


@dataclass(frozen=True, slots=True)
class Arrival:
    """An item of a Send, or a target of a SendMany with the body."""

    queue: QueueId
    key_hash: SendKeyHash
    envelope_id: bytes
    ttl: Ttl
    body: bytes = field(repr=False)


def _arrival(target: frames.SendItem | frames.Target, ttl: Ttl, body: bytes) -> Arrival:
    return Arrival(target.queue, ids.send_key_hash(target.send_key), target.envelope_id, ttl, body)


def _envelope(arrival: Arrival, key: SendKey, now: int, who: str) -> Envelope:
    """Its name is of the body too under a key that strangers may have: ID_CONFLICT would tell them what waits."""
    name = _sha256(arrival.queue + arrival.key_hash + arrival.envelope_id)[:16]
    if key.is_limited or key.key_class not in _KNOWN_PEOPLE:
        name = _sha256(name + _sha256(arrival.body))[:16]
    expires_at = now + arrival.ttl.seconds
    return Envelope(arrival.queue, name, arrival.key_hash, key.key_class, key.is_limited, expires_at, arrival.body, who)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass(slots=True)
class _Delivery:
    """One queue's delivery on one connection."""

    queue: Queue
    count: int
    size: int
    backlog_end: int  # the queue's head when it started
    cursor: int = 0
    pushed: int = 0  # the highest delivery number given out
    unacknowledged: dict[int, tuple[int, int]] = field(default_factory=dict)  # by it: the queue's number, bytes
    caught_up: bool = False
    told: int = 0  # of how many expired ones ever this connection was told

    def next_page(self, now: int) -> list[frames.Delivery]:
        """What to push now, as far as the credit goes, at most MAX_PUSH bytes of bodies."""
        items: list[frames.Delivery] = []
        room = min(self.size - sum(size for _, size in self.unacknowledged.values()), MAX_PUSH)
        for number in range(self.cursor + 1, self.queue.next_number):
            envelope = self.queue.waiting.get(number)
            if envelope is not None and envelope.expires_at > now:
                room -= len(envelope.body)
                if room < 0 or len(self.unacknowledged) >= self.count:
                    break
                self.pushed += 1
                self.unacknowledged[self.pushed] = number, len(envelope.body)
                items.append(frames.Delivery(self.pushed, envelope.key_class, envelope.body))
            self.cursor = number
        return items

    def acknowledge(self, upto: int, singles: Sequence[int]) -> None:
        """Raises WireError beyond what was pushed."""
        if max([upto, *singles]) > self.pushed:
            raise WireError(Code.BAD_ACK, "an acknowledgement names what this connection has not been given")
        for number in [*(known for known in self.unacknowledged if known <= upto), *singles]:
            if (kept := self.unacknowledged.pop(number, None)) is not None:
                self.queue.drop(kept[0])

    def take_caught_up(self) -> bool:
        """Whether all that waited at the start is acknowledged. True once."""
        left = any(number <= self.backlog_end for number, _ in self.unacknowledged.values())
        ready = self.cursor >= self.backlog_end and not left and not self.caught_up
        self.caught_up |= ready
        return ready


class Connection:
    """One client's connection: messages in by `hear`, out by `say`. Nothing is said after its end."""

    def __init__(self, relay: MemoryRelay, who: str, say: Callable[[bytes | None], None]) -> None:
        self._relay = relay
        self._who = who
        self._say = say
        self._nonce = primitives.random_bytes(32)
        self._greeted = False
        self._over = False
        self._proven: dict[QueueId, Queue] = {}
        self._deliveries: dict[QueueId, _Delivery] = {}
        self._gaps: dict[QueueId, int] = {}  # losses that were told, and not yet heard

    def hear(self, data: bytes) -> None:
        """Take in one message. What breaks a rule ends the connection."""
        self._relay.tend()
        self._confirm_gaps()
        try:
            if not data:
                raise WireError(Code.MALFORMED, "a message is binary and has at least one byte")
            for frame in frames.decode_client_message(data):
                if self._over:
                    return
                if (type(frame) is frames.Hello) is self._greeted:
                    raise WireError(Code.UNEXPECTED_FRAME, "Hello comes first, and once")
                _ANSWERS[type(frame)](self, frame)
        except WireError as error:
            self.leave(error.code, error.detail)

    def leave(self, code: Code, detail: str) -> None:
        """Say Goodbye and close."""
        self.post(frames.Goodbye(code, detail))
        self.close()

    def close(self) -> None:
        """The connection is over; what was not acknowledged waits for the next."""
        if not self._over:
            self._over = True
            for queue_id in list(self._deliveries):
                self._stop(queue_id)
            self._say(None)

    def post(self, frame: frames.RelayFrame) -> None:
        """Say this."""
        if not self._over:
            self._say(frames.message(frame))

    def _stop(self, queue_id: QueueId) -> None:
        queue = self._deliveries.pop(queue_id).queue
        if queue.reader is self:
            queue.reader = None

    # --- Delivery ------------------------------------------------------------------------------------------------

    def push(self, queue_id: QueueId) -> None:
        """Deliver what waits, as far as the credit goes."""
        delivery = self._deliveries[queue_id]
        while items := delivery.next_page(self._relay.now):
            self.post(frames.Deliver(queue_id, items))
        if delivery.take_caught_up():
            self.post(frames.CaughtUp(queue_id))

    def tell_expired(self, queue: Queue) -> None:
        """Say how many envelopes were lost, if that is news here."""
        delivery = self._deliveries[queue.id]
        news = queue.expired - max(queue.told, delivery.told)
        delivery.told = max(queue.expired, delivery.told)
        if news > 0:
            self.post(frames.Gap(queue.id, news, GapReason.EXPIRED))
            self._gaps[queue.id] = queue.expired

    def _confirm_gaps(self) -> None:
        """The client speaks, so it has heard them."""
        for queue_id, total in self._gaps.items():
            if queue_id in self._proven:
                self._proven[queue_id].told = max(self._proven[queue_id].told, total)
        self._gaps.clear()

    # --- One method for each frame -------------------------------------------------------------------------------

    def _hello(self, frame: frames.Hello) -> None:
        if limits.PROTOCOL_VERSION not in frame.versions:
            raise WireError(Code.UNSUPPORTED_VERSION, f"this relay speaks version {limits.PROTOCOL_VERSION}")
        self._greeted = True
        self.post(
            frames.Welcome(
                limits.PROTOCOL_VERSION, self._nonce, limits.MAX_ENVELOPE, limits.MAX_MESSAGE, limits.MAX_SEND_ITEMS
            )
        )

    def _create_queue(self, frame: frames.CreateQueue) -> None:
        if (queue_id := self._check_proof(frame)) is None:
            return
        queue = self._relay.queues.get(queue_id) or Queue(queue_id, frame.owner_key, 0)
        if not queue.add_keys(frame.send_keys):
            self._fail(frame.request, Code.TOO_MANY_SEND_KEYS)
            return
        self._relay.queues[queue_id] = queue
        self._prove(frame.request, queue)

    def _open_queue(self, frame: frames.OpenQueue) -> None:
        if (queue_id := self._check_proof(frame)) is None:
            return
        if queue := self._relay.queues.get(queue_id):
            self._prove(frame.request, queue)
        else:
            self._fail(frame.request, Code.UNKNOWN_QUEUE)

    def _check_proof(self, frame: frames.CreateQueue | frames.OpenQueue) -> QueueId | None:
        """The queue, if its key has signed; otherwise the client is told why not."""
        queue_id = ids.queue_id_of(frame.owner_key)
        if queue_id not in self._proven and len(self._proven) >= limits.MAX_QUEUES_PER_CONNECTION:
            self._fail(frame.request, Code.TOO_MANY_QUEUES)
            return None
        try:
            challenge = owner_challenge(self._relay.origin, self._nonce, queue_id)
            primitives.verify(frame.owner_key, challenge, frame.signature)
        except CryptoRefusal:
            self._fail(frame.request, Code.BAD_SIGNATURE)
            return None
        return queue_id

    def _prove(self, request: int, queue: Queue) -> None:
        queue.seen_day = self._relay.now // limits.DAY
        self._proven[queue.id] = queue
        self.post(frames.Done(request))

    def _find(self, request: int, queue_id: QueueId) -> Queue | None:
        """A proven queue, which another connection may have deleted since; otherwise the client is told."""
        queue = self._proven.get(queue_id)
        if queue is None:
            self._fail(request, Code.QUEUE_NOT_PROVEN)
        return queue

    def _add_send_key(self, frame: frames.AddSendKey) -> None:
        if queue := self._find(frame.request, frame.queue):
            if not self._relay.has(queue):
                self._fail(frame.request, Code.UNKNOWN_QUEUE)
            elif queue.add_keys([frame.key]):
                self.post(frames.Done(frame.request))
            else:
                self._fail(frame.request, Code.TOO_MANY_SEND_KEYS)

    def _revoke_send_key(self, frame: frames.RevokeSendKey) -> None:
        if queue := self._find(frame.request, frame.queue):
            queue.keys.pop(frame.key_hash, None)
            self.post(frames.Done(frame.request))

    def _demote_send_key(self, frame: frames.DemoteSendKey) -> None:
        if queue := self._find(frame.request, frame.queue):
            key = queue.keys.get(frame.key_hash)
            if key is not None and key.dies_at is None:
                key.dies_at = self._relay.now + limits.DEMOTED_LIFETIME
            self.post(frames.Done(frame.request))

    def _delete_queue(self, frame: frames.DeleteQueue) -> None:
        if queue := self._find(frame.request, frame.queue):
            if self._relay.has(queue):
                del self._relay.queues[queue.id]
            if queue.reader is self:
                self._stop(queue.id)
            elif queue.reader is not None:
                queue.reader.leave(Code.UNKNOWN_QUEUE, "the queue was deleted")
            del self._proven[queue.id]
            self.post(frames.Done(frame.request))

    def _receive(self, frame: frames.Receive) -> None:
        if frame.queue in self._deliveries:
            raise WireError(Code.UNEXPECTED_FRAME, "Receive comes once for each queue")
        if queue := self._find(frame.request, frame.queue):
            self.post(frames.Done(frame.request))
            if self._relay.has(queue):
                self._start(queue, frame.count, frame.size)
            else:
                self.leave(Code.UNKNOWN_QUEUE, "the queue was deleted")

    def _start(self, queue: Queue, count: int, size: int) -> None:
        if queue.reader is not None:
            queue.reader.leave(Code.DISPLACED, "another connection receives this queue now")
        queue.reader = self
        self._deliveries[queue.id] = _Delivery(queue, count, size, backlog_end=max(queue.waiting, default=0))
        refused, queue.refused = queue.refused, 0
        if refused:
            self.post(frames.Gap(queue.id, refused, GapReason.QUOTA))
        self.tell_expired(queue)
        self.push(queue.id)

    def _ack(self, frame: frames.Ack) -> None:
        if frame.queue not in self._proven:
            raise WireError(Code.QUEUE_NOT_PROVEN, "prove the queue first (CreateQueue or OpenQueue)")
        delivery = self._deliveries.get(frame.queue)
        if delivery is None:
            raise WireError(Code.BAD_ACK, "an acknowledgement before anything was given")
        delivery.acknowledge(frame.upto, frame.singles)
        self.post(frames.Acked(frame.queue, frame.upto, frame.singles))
        self.push(frame.queue)

    def _send(self, frame: frames.Send) -> None:
        arrivals = [_arrival(item, item.ttl, item.body) for item in frame.items]
        self.post(frames.SendResults(frame.request, self._relay.take(arrivals, self._who)))

    def _send_many(self, frame: frames.SendMany) -> None:
        arrivals = [_arrival(target, frame.ttl, frame.body) for target in frame.targets]
        self.post(frames.SendResults(frame.request, self._relay.take(arrivals, self._who)))

    def _ping(self, frame: frames.Ping) -> None:
        self.post(frames.Pong(frame.number))

    def _fail(self, request: int, code: Code) -> None:
        self.post(frames.Failed(request, code, code.name.lower().replace("_", " ")))


_ANSWERS: Final[dict[type[frames.ClientFrame], Callable[[Connection, Any], None]]] = {
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
