"""The whole relay but its sockets, walked at random beside a model of what it promised.

Real gateway, intake, writer, deliveries and sweeper over a real SQLite file, whose disk stalls, fails, fills up, or
says no when it did; the process is killed and started again. Nothing waits for real time: a walk moves the clock.
"""

import enum
import random
import shutil
import sqlite3
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import pytest
import structlog.testing
import trio
from hypothesis import HealthCheck, Phase, given, note
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event, exc, func, select
from sqlalchemy.pool import StaticPool
from trio.testing import MockClock, wait_all_tasks_blocked

from sottovoce_hosting.database import Database, DatabaseError, open_database
from sottovoce_hosting.guard import RECEIVE_READY
from sottovoce_hosting.rates import Rates
from sottovoce_hosting.service import Origins
from sottovoce_relay import storage
from sottovoce_relay.app import MIGRATIONS
from sottovoce_relay.bus import Bus
from sottovoce_relay.envelopes import Envelope, Quotas, Ticket
from sottovoce_relay.gateway import Gateway, Relay
from sottovoce_relay.inbox import Inbox
from sottovoce_relay.intake import Intake, Terms
from sottovoce_relay.mailboxes import Mailbox, Mailboxes
from sottovoce_relay.metrics import Metrics
from sottovoce_relay.registration import Registration
from sottovoce_relay.space import Space
from sottovoce_relay.states import ENVELOPE, EnvelopeEvent, EnvelopeState
from sottovoce_relay.sweeper import SteadyClock, Sweeper
from sottovoce_relay.writer import ATTEMPTS, PAUSE_SECONDS, Writer
from sottovoce_wire import frames, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import ClientFrame, GapReason, KeyClass, RelayFrame, SendItem, SendResult, Target, Ttl
from sottovoce_wire.ids import EnvelopeId
from sottovoce_wire.records import owner_challenge
from tests.random_input import examples
from tests.relay_clients import Mailbox as Box

T = TypeVar("T")

WALKS: Final = 200
STEPS: Final = 70
ORIGIN: Final = "http://127.0.0.1:1"
BEGINNING: Final = 1_800_000_000
HOLD_SECONDS: Final = 0.025
#: How long every envelope is kept here, and a step of time that no idle connection minds.
LIFETIME: Final = 60
LONG: Final = 100
#: Small, so that walks reach them.
QUOTAS: Final = Quotas(envelopes=14, stranger_envelopes=5, invite_envelopes=3)


# --- A disk that misbehaves ---------------------------------------------------------------------------------------


class Fate(enum.Enum):
    """What becomes of a write instead of working."""

    FAILS = "fails before it begins"
    LOST = "fails at its commit, and did not take"
    TOOK = "fails at its commit, and took"


class Point(enum.Enum):
    """Where a stalled disk stops."""

    WRITE = "before a write"
    COMMITTED = "after a commit, which nobody knows of yet"
    READ = "after a read, whose result is getting old"


class Disk(Database):
    """A database over one connection in the test's own thread: what it does next is said beforehand."""

    def __init__(self, path: Path) -> None:
        self.fates: deque[Fate] = deque()
        self.stalls: set[Point] = set()
        self._lot = trio.lowlevel.ParkingLot()
        self._reads = 0
        self._driver = sqlite3.connect(path, isolation_level=None)
        self._driver.execute("PRAGMA synchronous = OFF")  # the power stays on here
        engine = create_engine("sqlite://", creator=lambda: self._driver, poolclass=StaticPool)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self._connection = engine.connect()

    @property
    def is_stalled(self) -> bool:
        """Whether anybody waits for it."""
        return len(self._lot) > 0

    @property
    def is_reading(self) -> bool:
        """Whether a read waits, or one that comes will."""
        return self._reads > 0 or Point.READ in self.stalls

    async def read(self, work: Callable[[Connection], T]) -> T:
        await trio.lowlevel.checkpoint()  # others have a turn while a thread works
        result = self.look(work)
        self._reads += 1
        try:
            await self._stall(Point.READ)
        finally:
            self._reads -= 1
        return result

    async def write(
        self, work: Callable[[Connection], T], *, within: float = inf, meanwhile: Callable[[], None] = lambda: None
    ) -> T:
        await self._stall(Point.WRITE)
        fate = self.fates.popleft() if self.fates else None
        if fate is Fate.FAILS:
            raise DatabaseError("the disk went away")
        meanwhile()
        try:
            with self._connection.begin() as transaction:
                result = work(self._connection)
                if fate is Fate.LOST:
                    transaction.rollback()
        except (exc.DBAPIError, sqlite3.Error):
            raise DatabaseError("the disk is full") from None
        await self._stall(Point.COMMITTED)
        if fate is not None:
            raise DatabaseError("the disk went away")
        return result

    def look(self, work: Callable[[Connection], T]) -> T:
        """What is committed."""
        with self._connection.begin():
            return work(self._connection)

    def move(self) -> None:
        """Let whoever was stalled go on."""
        self._lot.unpark_all()

    def fill_up(self, *, full: bool) -> None:
        """The file may not grow any more, or may again."""
        (pages,) = self._driver.execute("PRAGMA page_count").fetchone()
        self._driver.execute(f"PRAGMA max_page_count = {pages if full else 2**30}").fetchone()

    def close(self) -> None:
        self._connection.close()
        self._driver.close()

    async def _stall(self, point: Point) -> None:
        await trio.lowlevel.checkpoint()
        if point in self.stalls:
            self.stalls.discard(point)
            await self._lot.park()


class Roomy(Space):
    """A disk with room for everything."""

    is_short = False


# --- What was promised --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Queue:
    """A queue as the model knows it."""

    box: Box
    stands: bool = False  # it certainly exists
    is_in_doubt: bool = False  # a deletion was asked for and not answered
    era: int = 0  # deletions asked for so far
    expired: int = 0  # how many its owner was told of


@dataclass(eq=False)
class Parcel:
    """One envelope as its sender knows it: one body for one queue."""

    queue: Queue
    kind: KeyClass
    envelope_id: EnvelopeId
    body: bytes
    #: When it was sent, by attempt: those that may still cause a delivery. Attempts count over the whole walk.
    attempts: dict[int, float] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)  # and when it was answered
    pending: dict[int, int | None] = field(default_factory=dict)  # attempts without an answer; the era, if it stood
    closed: int = 0  # attempts up to here are nobody's concern: acknowledged, or deleted with their queue
    is_owed: bool = False  # it was accepted, and its owner has not acknowledged it since
    accepted: float = -inf  # when the last attempt that was accepted was sent
    has_failed: bool = False  # an attempt was answered with an error

    @property
    def item(self) -> SendItem:
        return self.queue.box.item(self.body, self.kind, self.envelope_id)

    @property
    def target(self) -> Target:
        return Target(self.queue.box.queue, self.queue.box.keys[self.kind], self.envelope_id)

    def is_kept(self, now: float) -> bool:
        """Whether neither what was accepted last can have expired, nor any attempt that it may be a repeat of."""
        live = [n for n in self.attempts if self.answered.get(n, inf) + LIFETIME > self.accepted]
        return bool(live) and int(min(self.attempts[n] for n in live)) + LIFETIME > now

    def has_expired(self, now: float) -> bool:
        """Whether all attempts of it have. Their time begins between their being sent and being answered."""
        return all(self.answered.get(attempt, inf) + LIFETIME <= now for attempt in self.attempts)

    def close(self, attempt: int) -> None:
        """Nobody needs what was sent until then."""
        self.closed = max(self.closed, attempt)
        self.is_owed = False


# --- Clients ------------------------------------------------------------------------------------------------------


class Wire:
    """The two ends of an ASGI WebSocket. The relay's frames go to `hear` at once."""

    def __init__(self, hear: Callable[[RelayFrame], None]) -> None:
        self.is_open = True
        self._hear = hear
        self._incoming: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self._lot = trio.lowlevel.ParkingLot()
        extensions = {RECEIVE_READY: lambda: self._incoming.popleft() if self._incoming else None}
        self.scope: Any = {"extensions": extensions, "state": {"peer": None}}

    def say(self, *said: ClientFrame) -> None:
        """Say these in one message."""
        if self.is_open:
            self._put({"type": "websocket.receive", "bytes": frames.message(*said)})

    def close(self) -> None:
        """Go without a word; nothing is heard any more."""
        self.is_open = False
        self._put({"type": "websocket.disconnect"})

    async def receive(self) -> dict[str, Any]:
        while not self._incoming:
            await self._lot.park()
        await trio.lowlevel.checkpoint()
        return self._incoming.popleft()

    async def send(self, said: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if said["type"] == "websocket.close":
            self.is_open = False
        elif said["type"] == "websocket.send" and self.is_open:
            for frame in frames.decode_relay_message(said["bytes"]):
                self._hear(frame)

    def _put(self, message: dict[str, Any]) -> None:
        self._incoming.append(message)
        self._lot.unpark_all()


class Sender:
    """Sends, and what it was not answered on one connection it sends again on the next, in order, before anything."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._wire: Wire | None = None
        self._request = 0
        self._asked: dict[int, list[tuple[Parcel, int]]] = {}
        self._unanswered: list[Parcel] = []

    @property
    def owes(self) -> bool:
        """Whether anything is without an answer."""
        return bool(self._unanswered or self._asked)

    def send(self, parcels: Sequence[Parcel], *, as_one: bool = False) -> None:
        """Send these in one frame, with one body if `as_one`."""
        wire = self._connected()
        if self._unanswered:
            again, self._unanswered = self._unanswered, []
            self._say(wire, again)
        if parcels:
            self._say(wire, parcels, as_one=as_one)

    def ping(self) -> None:
        if self._wire:
            self._wire.say(frames.Ping(0))

    def leave(self) -> None:
        """The connection is lost."""
        if self._wire:
            self._wire.close()
        self._wire = None
        self._unanswered += [parcel for asked in self._asked.values() for parcel, _ in asked]
        self._asked.clear()

    def _connected(self) -> Wire:
        if self._wire is None or not self._wire.is_open:
            self.leave()
            self._wire = self._world.open(self._hear)
            self._wire.say(frames.Hello([limits.PROTOCOL_VERSION]))
        return self._wire

    def _say(self, wire: Wire, parcels: Sequence[Parcel], *, as_one: bool = False) -> None:
        self._request += 1
        self._asked[self._request] = [(parcel, self._world.attempt(parcel)) for parcel in parcels]
        if as_one:
            targets = [parcel.target for parcel in parcels]
            wire.say(frames.SendMany(self._request, Ttl.DAY, parcels[0].body, targets))
        else:
            wire.say(frames.Send(self._request, [parcel.item for parcel in parcels]))

    def _hear(self, frame: RelayFrame) -> None:
        if isinstance(frame, frames.SendResults):
            asked = self._asked.pop(frame.request)  # an answer nobody waits for is a KeyError
            for (parcel, attempt), result in zip(asked, frame.results, strict=True):
                self._world.answered(parcel, attempt, result.code)
        else:
            assert isinstance(frame, frames.Welcome | frames.Pong), frame


class Owner:
    """A connection that receives a queue, as soon as the relay lets it, or only proves it."""

    def __init__(self, world: "World", queue: Queue, *, receives: bool, count: int) -> None:
        self.queue = queue
        self.era = queue.era - queue.is_in_doubt
        self.is_caught_up = False
        self._world = world
        self.receives = receives
        self._count = count
        self._given: dict[int, tuple[Parcel, int]] = {}  # by delivery number: all that was delivered here
        self._unacknowledged: list[int] = []
        self._last = 0  # the attempt that the last delivery came from
        self._acks: list[tuple[int, tuple[int, ...]]] = []  # said and not answered
        self.is_deleting = False
        self.is_proven = False
        self.wire = world.open(self._hear)
        self.wire.say(frames.Hello([limits.PROTOCOL_VERSION]))

    @property
    def unacknowledged(self) -> list[Parcel]:
        """What this connection was given and did not acknowledge, in order."""
        return [self._given[number][0] for number in self._unacknowledged]

    @property
    def waits(self) -> bool:
        """Whether an acknowledgement is not answered."""
        return bool(self._acks)

    def acknowledge(self, upto: int, singles: Sequence[int]) -> None:
        """Of the unacknowledged ones, by place: those before `upto`, and single ones."""
        numbers = self._unacknowledged
        end = numbers[upto - 1] if upto and numbers else 0
        chosen = tuple(numbers[place] for place in singles)
        self._acks.append((end, chosen))
        self.wire.say(frames.Ack(self.queue.box.queue, end, list(chosen)))
        self._unacknowledged = [number for number in numbers if number > end and number not in chosen]
        for number in self._covered(end, chosen):
            self._given[number][0].close(self._world.attempts)

    def ping(self) -> None:
        self.wire.say(frames.Ping(0))

    def delete(self) -> None:
        """Delete the queue."""
        if self.is_proven:
            self.is_deleting = True
            self._world.deletes(self.queue)
            self.wire.say(frames.DeleteQueue(9, self.queue.box.queue))

    def _covered(self, upto: int, singles: Sequence[int]) -> Iterator[int]:
        yield from (number for number in self._given if number <= upto or number in singles)

    def _hear(self, frame: RelayFrame) -> None:
        box = self.queue.box
        match frame:
            case frames.Welcome(nonce=nonce):
                signature = box.owner.sign(owner_challenge(ORIGIN, nonce, box.queue)).signature
                self.wire.say(frames.CreateQueue(1, box.owner_key, signature, box.send_keys, ""))
            case frames.Done(request=1):
                self.is_proven = True
                self.queue.stands = not self.queue.is_in_doubt and self.era == self.queue.era
                if self.receives:
                    size = limits.MAX_UNACKNOWLEDGED_BYTES
                    self.wire.say(frames.Receive(2, box.queue, self._count, size))
            case frames.Done(request=2) | frames.Gap(reason=GapReason.QUOTA) | frames.Pong():
                pass
            case frames.Done(request=9):
                self._world.deleted(self.queue, for_sure=True)
                self.wire.close()
            case frames.Failed(request=9):
                self._world.deleted(self.queue, for_sure=False)
                self.is_deleting = False
            case frames.Failed(code=Code.TRY_AGAIN):
                self.wire.close()
            case frames.Deliver(queue=queue, items=items):
                assert queue == box.queue
                for item in items:
                    self._take(item)
            case frames.Acked(upto=upto, singles=singles):
                self._acks.remove((upto, tuple(singles)))  # one that nobody said is a ValueError
                for number in self._covered(upto, singles):
                    self._world.gone(*self._given[number])
            case frames.CaughtUp():
                assert not self.is_caught_up
                self.is_caught_up = True
            case frames.Gap(count=count, reason=GapReason.EXPIRED):
                self.queue.expired += count
            case frames.Goodbye(code=code):
                assert code in (Code.DISPLACED, Code.UNKNOWN_QUEUE), frame
                assert code is Code.DISPLACED or self.era != self.queue.era
            case _:
                raise AssertionError(frame)

    def _take(self, item: frames.Delivery) -> None:
        assert item.number == len(self._given) + 1
        parcel = self._world.parcels[self.queue, item.body]
        assert item.key_class is parcel.kind
        candidates = [attempt for attempt in parcel.attempts if attempt > self._last]
        assert candidates, "delivered out of order, or again although it was acknowledged"
        assert not parcel.has_expired(self._world.now), "delivered after its time"
        self._last = min(candidates)
        self._given[item.number] = (parcel, self._last)
        self._unacknowledged.append(item.number)


# --- The walk -----------------------------------------------------------------------------------------------------


class World:
    """A relay, its clients, and what the model knows. A step is one thing that happens, and all that follows."""

    def __init__(self, path: Path, space: Space, clock: MockClock) -> None:
        self.disk = Disk(path)
        self.queues = [Queue(Box()) for _ in range(3)]
        self.parcels: dict[tuple[Queue, bytes], Parcel] = {}
        self.attempts = 0
        self._named: dict[tuple[Queue, KeyClass, bytes], list[Parcel]] = defaultdict(list)
        self._rivalled: set[int] = set()  # attempts under whose id the relay may have had another body
        self._space = space
        self._clock = clock
        self._senders = [Sender(self), Sender(self)]
        self._owners: list[Owner] = []
        self._relay: Relay
        self._gateway: Gateway
        self._process: trio.Nursery
        self._nursery: trio.Nursery

    @property
    def now(self) -> float:
        """Unix seconds."""
        return BEGINNING + trio.current_time()

    # --- The process ---------------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery) -> None:
        """The process begins, as a task of the walk."""
        self._nursery = nursery
        await nursery.start(self._run)

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        """The relay's process, over what the disk holds."""
        self._relay = self._assemble()
        self._gateway = Gateway(self._relay)
        relay, clock = self._relay, SteadyClock(lambda: self.now)
        async with trio.open_nursery() as self._process:
            self._process.start_soon(relay.writer.run)
            self._process.start_soon(relay.intake.let_go_for_ever)
            sweeper = Sweeper(relay.writer, relay.mailboxes, relay.bus, relay.metrics, clock, 90)
            self._process.start_soon(sweeper.sweep_for_ever)
            task_status.started()

    def _assemble(self) -> Relay:
        bus, inbox, mailboxes, metrics = Bus(), Inbox(), Mailboxes(), Metrics(trio.current_time)
        plenty = Rates(1e9, 10**9)
        terms = Terms(QUOTAS, dict.fromkeys(Ttl, LIFETIME), HOLD_SECONDS, dict.fromkeys(KeyClass, plenty))
        first = 1 + self.disk.look(storage.last_seq)
        intake = Intake(mailboxes, bus, inbox, terms, metrics, self._space, lambda: self.now, first)
        return Relay(
            origins=Origins(ORIGIN, ()),
            max_envelope=limits.MAX_ENVELOPE,
            clock=lambda: self.now,
            database=self.disk,
            bus=bus,
            inbox=inbox,
            mailboxes=mailboxes,
            intake=intake,
            writer=Writer(self.disk, inbox, intake, mailboxes, bus, metrics, lambda: None, lambda: self.now),
            registration=Registration("open", None, plenty, lambda: True),
            metrics=metrics,
            connection_rates=plenty,
            block_rates=plenty,
        )

    def open(self, hear: Callable[[RelayFrame], None]) -> Wire:
        """A new connection."""
        wire = Wire(hear)
        self._process.start_soon(self._gateway.serve, wire.scope, wire.receive, wire.send)
        return wire

    # --- What clients heard --------------------------------------------------------------------------------------

    def attempt(self, parcel: Parcel) -> int:
        """It is being sent."""
        self.attempts += 1
        parcel.attempts[self.attempts] = self.now
        parcel.pending[self.attempts] = parcel.queue.era if parcel.queue.stands else None
        if self._has_rival(parcel):
            self._rivalled.add(self.attempts)
        return self.attempts

    def _has_rival(self, parcel: Parcel) -> bool:
        """Whether the relay may have another body under this one's id."""
        named = self._named[parcel.queue, parcel.kind, parcel.envelope_id]
        return any(rival.attempts for rival in named if rival is not parcel)

    def answered(self, parcel: Parcel, attempt: int, code: Code) -> None:
        """Its sender was told what became of it."""
        era, queue = parcel.pending.pop(attempt), parcel.queue
        parcel.answered[attempt] = self.now
        if code is Code.ACCEPTED:
            if attempt > parcel.closed and not queue.is_in_doubt:
                parcel.is_owed = True
                parcel.accepted = max(parcel.accepted, parcel.attempts[attempt])
            return
        parcel.has_failed = True
        if code is not Code.TRY_AGAIN:  # then nobody knows
            parcel.attempts.pop(attempt, None)
        if code is Code.ID_CONFLICT:
            assert attempt in self._rivalled or self._has_rival(parcel)
            assert parcel.kind in (KeyClass.CONTACT, KeyClass.GROUP), "a stranger learns that an envelope still waits"
        elif code is Code.REFUSED:
            assert not (queue.stands and queue.era == era)
        else:
            assert code in (Code.TRY_AGAIN, Code.QUEUE_FULL)

    def gone(self, parcel: Parcel, attempt: int) -> None:
        """Its owner was told that it is deleted: from this attempt it may not come again."""
        for earlier in [number for number in parcel.attempts if number <= attempt]:
            del parcel.attempts[earlier]

    def deletes(self, queue: Queue) -> None:
        """An owner deletes its queue."""
        queue.stands, queue.is_in_doubt = False, True
        queue.era += 1
        self._close_all(queue)

    def deleted(self, queue: Queue, *, for_sure: bool) -> None:
        """It was answered."""
        queue.is_in_doubt = False
        self._close_all(queue)
        for parcel in self._of(queue) if for_sure else ():
            for attempt in [number for number in parcel.attempts if number not in parcel.pending]:
                del parcel.attempts[attempt]

    def _of(self, queue: Queue) -> list[Parcel]:
        return [parcel for (where, _), parcel in self.parcels.items() if where is queue]

    def _close_all(self, queue: Queue) -> None:
        for parcel in self._of(queue):
            parcel.close(self.attempts)

    # --- Steps: what senders do ----------------------------------------------------------------------------------

    def _parcel(self, queue: Queue, kind: KeyClass, envelope_id: bytes | None = None, body: bytes = b"") -> Parcel:
        named = EnvelopeId(envelope_id or b"%016d" % len(self.parcels))
        parcel = Parcel(queue, kind, named, body or b"%3000d" % len(self.parcels))
        self.parcels[queue, parcel.body] = parcel
        self._named[queue, kind, named].append(parcel)
        return parcel

    def _sender(self, number: int) -> Sender:
        return self._senders[number % len(self._senders)]

    def _queue(self, number: int) -> Queue:
        return self.queues[number % len(self.queues)]

    async def send_to_a_contact(self, number: int) -> None:
        self._sender(number).send([self._parcel(self._queue(number // 2), KeyClass.CONTACT)])

    async def send_a_batch(self, number: int) -> None:
        kinds = list(KeyClass) if number % 3 else [KeyClass.CONTACT, KeyClass.GROUP]
        count = 1 + number // 16 % 6
        parcels = [
            self._parcel(self._queue(number // (1 + place)), kinds[(number + place) % len(kinds)])
            for place in range(count)
        ]
        self._sender(number).send(parcels)

    async def send_one_body_to_all(self, number: int) -> None:
        kind = KeyClass.GROUP if number % 4 else KeyClass.STRANGER
        body = b"%3000d to all" % len(self.parcels)
        parcels = [self._parcel(queue, kind, body=body) for queue in self.queues[number % 2 :]]
        self._sender(number).send(parcels, as_one=True)

    async def send_again(self, number: int) -> None:
        if sent := [parcel for parcel in self.parcels.values() if parcel.attempts or parcel.closed]:
            newest = sent[-12:]
            self._sender(number).send([newest[number % len(newest)]])

    async def send_again_what_failed(self, number: int) -> None:
        failed = [p for p in self.parcels.values() if p.has_failed and not p.pending and not p.is_owed]
        if failed:
            self._sender(number).send(failed[-8:])

    async def send_another_body_under_the_same_id(self, number: int) -> None:
        if self.parcels:
            newest = list(self.parcels.values())[-6:]
            like = newest[number % len(newest)]
            self._sender(number).send([self._parcel(like.queue, like.kind, like.envelope_id)])

    async def a_sender_loses_its_connection(self, number: int) -> None:
        self._sender(number).leave()

    # --- Steps: what owners do -----------------------------------------------------------------------------------

    def _open_ones(self) -> list[Owner]:
        return [owner for owner in self._owners if owner.wire.is_open and not owner.is_deleting]

    async def an_owner_connects(self, number: int) -> None:
        queue = self._queue(number // 8)
        count = 256 if number % 3 else 1 + number % 5
        self._owners.append(Owner(self, queue, receives=number % 8 > 0, count=count))

    async def an_owner_acknowledges_all(self, number: int) -> None:
        if waiting := [owner for owner in self._open_ones() if owner.unacknowledged]:
            owner = waiting[number % len(waiting)]
            owner.acknowledge(len(owner.unacknowledged), [])

    async def an_owner_acknowledges_some(self, number: int) -> None:
        if waiting := [owner for owner in self._open_ones() if owner.unacknowledged]:
            owner = waiting[number % len(waiting)]
            count = len(owner.unacknowledged)
            upto = number // 4 % (count + 1)
            owner.acknowledge(upto, list(range(upto, count))[number % 2 :: 2])

    async def an_owner_leaves(self, number: int) -> None:
        if open_ones := self._open_ones():
            open_ones[number % len(open_ones)].wire.close()

    async def a_queue_is_deleted(self, number: int) -> None:
        if open_ones := self._open_ones():
            open_ones[number % len(open_ones)].delete()

    # --- Steps: what befalls the relay ---------------------------------------------------------------------------

    async def a_moment_passes(self, _: int) -> None:
        self._clock.jump(HOLD_SECONDS)

    async def a_while_passes(self, _: int) -> None:
        self._clock.jump(PAUSE_SECONDS)

    async def minutes_pass(self, _: int) -> None:
        """Clients ping. Not while a page is read: nobody promises that it is younger than that takes."""
        if self.disk.is_reading:
            return
        for sender in self._senders:
            sender.ping()
        for owner in self._owners:
            owner.ping()
        await self._settle()
        self._clock.jump(LONG)

    async def the_disk_stalls(self, number: int) -> None:
        self.disk.stalls.add(list(Point)[number % len(Point)])

    async def the_disk_moves(self, _: int) -> None:
        self.disk.move()

    async def the_disk_fails(self, number: int) -> None:
        fates = list(Fate)
        count = 1 if number % 2 else ATTEMPTS
        self.disk.fates.extend([fates[number % len(fates)]] * count)

    async def the_disk_is_full(self, number: int) -> None:
        self.disk.fill_up(full=number % 3 == 0)

    async def the_process_is_killed(self, _: int) -> None:
        left = [owner for owner in self._open_ones() if owner.era == owner.queue.era]
        self._process.cancel_scope.cancel()
        for client in self._senders:
            client.leave()
        for owner in self._owners:
            owner.wire.close()
        self.disk.stalls.clear()
        await self._settle()
        rows = self.disk.look(_bodies)
        for owner in left:
            self._check_prefix(owner, rows)
        for queue in self.queues:
            queue.is_in_doubt = False
        await self.start(self._nursery)

    def _check_prefix(self, owner: Owner, rows: set[tuple[bytes, bytes]]) -> None:
        """What was pushed and is lost came after all that was pushed and is not."""
        certain = [p for p in owner.unacknowledged if not (p.has_failed or p.closed) and p.is_kept(self.now)]
        is_there = [(parcel.queue.box.queue, parcel.body) in rows for parcel in certain]
        assert is_there == sorted(is_there, reverse=True)

    # --- What must hold ------------------------------------------------------------------------------------------

    async def step(self, happens: "Step", number: int) -> None:
        """One thing happens, and everything that follows from it; then what must always hold is looked at."""
        await happens(self, number)
        await self._settle()
        self._check_held()
        if self._is_calm():
            self._check_counts()

    def _is_calm(self) -> bool:
        """Whether nothing waits for the disk or the writer."""
        return not (self.disk.is_stalled or len(self._relay.inbox))

    async def _settle(self) -> None:
        await wait_all_tasks_blocked()

    def _mailboxes(self) -> Iterator[Mailbox]:
        yield from self._relay.mailboxes._mailboxes.values()

    def _held(self) -> list[Envelope]:
        known = [envelope for mailbox in self._mailboxes() for envelope in mailbox.known.values()]
        return [envelope for envelope in known if envelope.state is EnvelopeState.HELD]

    def _check_held(self) -> None:
        """Nothing is held but for a connection that receives it."""
        held = self._held()
        assert sum(envelope.weight for envelope in held) == self._relay.intake.held_bytes
        assert all(self._relay.bus.listener(envelope.queue) for envelope in held)

    def _check_counts(self) -> None:
        """The relay's counts are those of the database and of what is held; nothing else is under way."""
        stored = self.disk.look(_rows)
        held = self._held()
        living = self.disk.look(_numbers)
        for mailbox in [mailbox for mailbox in self._mailboxes() if mailbox.number in living]:
            rows = [row for row in stored if row.queue == mailbox.number]
            rows += [_Row(e.number, e.size, e.is_limited, e.invite) for e in held if e.number == mailbox.number]
            if (fill := mailbox.fill) is not None:
                limited = [row.size for row in rows if row.is_limited]
                counted = (fill.envelopes, fill.size, fill.stranger_envelopes, fill.stranger_size)
                assert counted == (len(rows), sum(row.size for row in rows), len(limited), sum(limited))
            assert mailbox.invites == {door: sum(row.invite == door for row in rows) for door in mailbox.invites}

    async def finish(self) -> None:
        """The disk works, senders have their answers, owners take everything and acknowledge it: nothing is missing."""
        await self._repair()
        await self._take_all(self._open_ones())
        received = {owner.queue for owner in self._open_ones() if owner.receives}
        assert not any(p.queue in received and p.is_owed and p.is_kept(self.now) for p in self.parcels.values())
        final = [Owner(self, queue, receives=True, count=256) for queue in self.queues]
        self._owners += final
        await self._settle()
        self._clock.jump(PAUSE_SECONDS)
        await self._take_all(final)
        assert all(owner.is_caught_up and not owner.waits for owner in final)
        expired = self._missing()
        for _ in range(3):
            await self.minutes_pass(0)
            await self._settle()
        for queue in self.queues:
            assert queue.era or queue.expired >= expired[queue]
        assert self.disk.look(_count) == (0, 0)
        assert not any(mailbox.known for mailbox in self._mailboxes())
        self._check_held()
        self._check_counts()

    async def _take_all(self, owners: Sequence[Owner]) -> None:
        """These owners acknowledge all they are given until nothing more comes."""
        await self._settle()
        while waiting := [owner for owner in owners if owner.unacknowledged]:
            for owner in waiting:
                owner.acknowledge(len(owner.unacknowledged), [])
            await self._settle()

    async def _repair(self) -> None:
        self.disk.fates.clear()
        self.disk.stalls.clear()
        self.disk.fill_up(full=False)
        self.disk.move()
        for _ in range(2):
            await self._settle()
            self._clock.jump(PAUSE_SECONDS)
        await self._settle()
        for sender in self._senders:
            sender.send([])
            await self._settle()
        self._clock.jump(HOLD_SECONDS)
        await self._settle()
        assert not any(sender.owes for sender in self._senders)

    def _missing(self) -> Counter[Queue]:
        """What was accepted and never acknowledged can only have expired: how much, by queue."""
        owed = [parcel for parcel in self.parcels.values() if parcel.is_owed]
        assert not any(parcel.is_kept(self.now) for parcel in owed)
        return Counter(parcel.queue for parcel in owed)


class _Row(NamedTuple):
    """What an envelope counts for."""

    queue: int
    size: int
    is_limited: int
    invite: bytes | None


def _rows(connection: Connection) -> list[_Row]:
    of = storage.envelopes.c
    return [_Row(*row) for row in connection.execute(select(of.queue, of.size, of.is_limited, of.invite))]


def _numbers(connection: Connection) -> set[int]:
    """The numbers of queues that are not deleted."""
    return set(connection.execute(select(storage.queues.c.number).where(storage.queues.c.id.is_not(None))).scalars())


def _bodies(connection: Connection) -> set[tuple[bytes, bytes]]:
    """What is in the database, as (queue id, body)."""
    envelopes, bodies, queues = storage.envelopes, storage.bodies, storage.queues
    joined = envelopes.join(queues, queues.c.number == envelopes.c.queue)
    joined = joined.outerjoin(bodies, bodies.c.id == envelopes.c.shared)
    body = func.coalesce(envelopes.c.body, bodies.c.body)
    return {(queue, found) for queue, found in connection.execute(select(queues.c.id, body).select_from(joined))}


def _count(connection: Connection) -> tuple[int, int]:
    """Envelopes and shared bodies."""
    counts = [select(func.count()).select_from(table) for table in (storage.envelopes, storage.bodies)]
    return connection.execute(counts[0]).scalar_one(), connection.execute(counts[1]).scalar_one()


Step: TypeAlias = Callable[[World, int], Awaitable[None]]

#: What may happen, and how often beside the rest.
_WEIGHTS: Final[dict[Step, int]] = {
    World.send_to_a_contact: 8,
    World.send_a_batch: 6,
    World.send_one_body_to_all: 3,
    World.send_again: 4,
    World.send_again_what_failed: 2,
    World.send_another_body_under_the_same_id: 1,
    World.a_sender_loses_its_connection: 1,
    World.an_owner_connects: 6,
    World.an_owner_acknowledges_all: 6,
    World.an_owner_acknowledges_some: 6,
    World.an_owner_leaves: 1,
    World.a_queue_is_deleted: 1,
    World.a_moment_passes: 3,
    World.a_while_passes: 2,
    World.minutes_pass: 2,
    World.the_disk_stalls: 5,
    World.the_disk_moves: 6,
    World.the_disk_fails: 2,
    World.the_disk_is_full: 1,
    World.the_process_is_killed: 1,
}
#: What is too rare to wait for.
_RARE: Final[Sequence[Sequence[tuple[Step, int]]]] = (
    # Another body comes under the id of one that has expired and is not swept, and is acknowledged while it is written.
    (
        (World.an_owner_connects, 0),
        (World.send_to_a_contact, 0),
        (World.minutes_pass, 0),
        (World.an_owner_connects, 1),
        (World.send_another_body_under_the_same_id, 0),
        (World.the_disk_stalls, 0),
        (World.a_moment_passes, 0),
        (World.an_owner_acknowledges_all, 0),
        (World.the_disk_moves, 0),
    ),
    # A cumulative acknowledgement follows one whose deletion waits for the disk, and the process is killed.
    (
        (World.an_owner_connects, 8),
        (World.send_to_a_contact, 2),
        (World.an_owner_connects, 9),
        (World.send_to_a_contact, 2),
        (World.the_disk_stalls, 0),
        (World.an_owner_acknowledges_some, 0),
        (World.an_owner_acknowledges_all, 0),
        (World.the_process_is_killed, 0),
    ),
    # What was stored expires.
    (
        (World.an_owner_connects, 1),
        (World.send_a_batch, 0),
        (World.minutes_pass, 0),
        (World.minutes_pass, 0),
    ),
    # A deletion fails.
    (
        (World.an_owner_connects, 1),
        (World.the_disk_stalls, 0),
        (World.the_disk_fails, 0),
        (World.send_a_batch, 0),
        (World.a_moment_passes, 0),
        (World.an_owner_acknowledges_some, 0),
        (World.the_disk_moves, 0),
    ),
    # Nobody knows whether a deletion is on the disk.
    (
        (World.an_owner_connects, 1),
        (World.the_disk_stalls, 1),
        (World.the_disk_fails, 1),
        (World.send_a_batch, 241),
        (World.an_owner_acknowledges_all, 0),
    ),
    # What an owner has acknowledged expires before its deletion is written.
    (
        (World.an_owner_connects, 9),
        (World.send_a_batch, 0),
        (World.the_disk_stalls, 0),
        (World.an_owner_connects, 1),
        (World.an_owner_acknowledges_all, 0),
        (World.send_again_what_failed, 0),
        (World.the_disk_moves, 0),
        (World.send_one_body_to_all, 0),
        (World.minutes_pass, 0),
        (World.the_disk_stalls, 0),
        (World.an_owner_acknowledges_all, 0),
        (World.an_owner_acknowledges_some, 0),
        (World.minutes_pass, 0),
    ),
)
#: What the relay logs when it caught a fault of its own.
_FAULTS: Final = ("an answer failed", "a batch failed")
_STEPS: Final = [step for step, weight in _WEIGHTS.items() for _ in range(weight)]


class Watch:
    """Counts the steps of envelopes, and sees that nobody is answered twice."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.taken: Counter[tuple[EnvelopeState, EnvelopeEvent]] = Counter()
        self._settled: dict[Ticket, set[int]] = {}
        patch.setattr(Envelope, "step", self._watched(Envelope.step))
        patch.setattr(Ticket, "settle", self._once(Ticket.settle))

    def _watched(self, step: Callable[[Envelope, EnvelopeEvent], None]) -> Callable[[Envelope, EnvelopeEvent], None]:
        def watched(envelope: Envelope, event: EnvelopeEvent) -> None:
            self.taken[envelope.state, event] += 1
            step(envelope, event)

        return watched

    def _once(self, settle: Callable[[Ticket, int, SendResult], None]) -> Callable[[Ticket, int, SendResult], None]:
        def once(ticket: Ticket, place: int, result: SendResult) -> None:
            settled = self._settled.setdefault(ticket, set())
            assert place not in settled
            settled.add(place)
            settle(ticket, place, result)

        return once


async def walk(path: Path, space: Space, clock: MockClock, steps: Sequence[tuple[Step, int]]) -> None:
    world = World(path, space, clock)
    try:
        async with trio.open_nursery() as nursery:
            await world.start(nursery)
            for happens, number in steps:
                await world.step(happens, number)
            await world.finish()
            nursery.cancel_scope.cancel()
    finally:
        world.disk.close()


async def _at_once(work: Callable[[], None]) -> None:
    """Instead of in a thread, which nothing here could wait for."""
    await trio.lowlevel.checkpoint()
    work()


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A database without anything, with the tables as the relay makes them."""
    path = tmp_path / "empty.db"

    async def make() -> None:
        async with open_database(path, MIGRATIONS):
            pass

    trio.run(make)
    return path


def play(empty: Path, steps: Sequence[tuple[Step, int]]) -> None:
    """One walk, on a database of its own."""
    path = empty.with_name("walk.db")
    shutil.copy(empty, path)
    with structlog.testing.capture_logs() as logs:
        clock = MockClock()
        trio.run(walk, path, Roomy(empty.parent, 0), clock, steps, clock=clock)
    assert [line for line in logs if line["event"] in _FAULTS] == []


@pytest.mark.hypothesis
def test_whatever_happens_nothing_accepted_is_lost_and_nothing_acknowledged_comes_again(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch)
    monkeypatch.setattr(trio.to_thread, "run_sync", _at_once)

    @examples(WALKS, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=True))
    def walks(chance: random.Random) -> None:
        steps = [(chance.choice(_STEPS), chance.randrange(256)) for _ in range(STEPS)]
        for happens, number in steps:
            note(f"{happens.__name__} {number}")
        play(empty, steps)

    for steps in _RARE:
        play(empty, steps)
    walks()
    assert watch.taken.keys() == ENVELOPE.keys()


#: A queue is deleted and made anew under the same key, while envelopes to it are under way or the disk fails.
_ANEW: Final[Sequence[Sequence[tuple[Step, int]]]] = (
    (
        (World.an_owner_connects, 8),
        (World.an_owner_connects, 8),
        (World.a_queue_is_deleted, 0),
        (World.an_owner_connects, 8),
        (World.send_a_batch, 1),
        (World.an_owner_leaves, 1),
        (World.a_queue_is_deleted, 0),
    ),
    (
        (World.send_one_body_to_all, 0),
        (World.an_owner_connects, 212),
        (World.the_disk_fails, 2),
        (World.a_queue_is_deleted, 0),
        (World.send_again_what_failed, 0),
        (World.an_owner_connects, 184),
    ),
)


@pytest.mark.parametrize("steps", _ANEW, ids=["delivered out of order", "never forgotten"])
def test_a_queue_that_is_made_anew_has_nothing_of_the_one_before(
    empty: Path, monkeypatch: pytest.MonkeyPatch, steps: Sequence[tuple[Step, int]]
) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", _at_once)
    play(empty, steps)
