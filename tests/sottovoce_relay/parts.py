"""The relay's inner parts put together, for the tests of each: a database with two queues, arrivals, somebody who
receives. No sockets and no frames stand here, and no assertions."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final, TypeVar

import trio
from sqlalchemy import Connection

from sottovoce_hosting.database import Database, DatabaseError, open_database
from sottovoce_hosting.rates import Rates
from sottovoce_relay import storage
from sottovoce_relay.app import MIGRATIONS
from sottovoce_relay.bus import Bus
from sottovoce_relay.delivery import Delivery
from sottovoce_relay.envelopes import Arrival, Envelope, Fill, Loss, Page, Quotas, Shared, Ticket, name_of
from sottovoce_relay.inbox import Inbox
from sottovoce_relay.intake import Intake, Terms
from sottovoce_relay.mailboxes import Mailbox, Mailboxes
from sottovoce_relay.metrics import Metrics
from sottovoce_relay.space import Space
from sottovoce_relay.states import EnvelopeState
from sottovoce_relay.storage import Door
from sottovoce_relay.writer import Writer
from sottovoce_wire.frames import KeyClass, NewSendKey, SendResult, Ttl
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKeyHash

T = TypeVar("T")

NOW: Final = 1_800_000_000
DAY: Final = 20_000
QUEUE, OTHER = QueueId(b"q" * 16), QueueId(b"o" * 16)
#: The queues' numbers, in the database and out of it.
NUMBERS: Final = {QUEUE: 1, OTHER: 2}
OWNERS: Final = {QUEUE: b"1" * 32, OTHER: b"2" * 32}
KEYS: Final = {kind: SendKeyHash(bytes([kind]) * 32) for kind in KeyClass}
SECOND_INVITE: Final = SendKeyHash(b"i" * 32)
PATIENCE: Final = 20.0


def door_of(kind: KeyClass = KeyClass.CONTACT, queue: QueueId = QUEUE) -> bytes:
    """What the queue's key of this class opens."""
    return queue + KEYS[kind]


def arrival(
    body: bytes = b"body",
    kind: KeyClass = KeyClass.CONTACT,
    *,
    queue: QueueId = QUEUE,
    key_hash: SendKeyHash | None = None,
    name: bytes | None = None,
    ttl: Ttl = Ttl.DAY,
    shared: Shared | None = None,
) -> Arrival:
    """An envelope as a sender gives it."""
    door = queue + (key_hash or KEYS[kind])
    return Arrival(queue, door, name_of(door, EnvelopeId(name or os.urandom(16))), ttl, body, shared)


def envelope(
    seq: int,
    body: bytes = b"body",
    kind: KeyClass = KeyClass.CONTACT,
    *,
    queue: QueueId = QUEUE,
    name: bytes | None = None,
    is_limited: bool | None = None,
    invite: bytes | None = None,
    expires_at: int = NOW + 3600,
    shared: Shared | None = None,
    state: EnvelopeState = EnvelopeState.NEW,
) -> Envelope:
    """An envelope as the relay has it. `name` is any text that tells it from others."""
    return Envelope(
        queue,
        NUMBERS[queue],
        seq,
        name.ljust(16, b"\0") if name else b"%016d" % seq,
        kind,
        kind is KeyClass.STRANGER if is_limited is None else is_limited,
        invite or (door_of(kind, queue) if kind is KeyClass.INVITE else None),
        expires_at,
        len(body),
        body,
        shared,
        state,
    )


@asynccontextmanager
async def two_queues(folder: Path) -> AsyncIterator[Database]:
    """A database with QUEUE and OTHER, which have one key of each class, and a second invite key in QUEUE."""
    async with open_database(folder / "relay.db", MIGRATIONS) as opened:
        keys = [NewSendKey(key_hash, kind) for kind, key_hash in KEYS.items()]
        invite = NewSendKey(SECOND_INVITE, KeyClass.INVITE)
        await opened.write(lambda c: storage.create_queue(c, QUEUE, OWNERS[QUEUE], [*keys, invite], DAY))
        await opened.write(lambda c: storage.create_queue(c, OTHER, OWNERS[OTHER], keys, DAY))
        yield opened


async def stored_bodies(database: Database, queue: QueueId = QUEUE) -> list[bytes]:
    """What the database holds of this queue, in its order."""
    page = await database.read(lambda c: storage.read_page(c, queue, 0, (10_000, 2**30), 0))
    return [] if page is None else [envelope.body for envelope in page.envelopes]


class Receiver:
    """Who receives a queue: a listener with a real delivery that is live from the start, and notes what it hears."""

    def __init__(self, mailbox: Mailbox, count: int = 256, size: int = 2**22) -> None:
        self.heard: list[bytes | str] = []
        self.lost_here: list[Loss] = []
        self.noted: list[Envelope] = []
        self.delivery = Delivery(mailbox, count, size, self.noted.extend)
        self.delivery.begin_page()
        self.delivery.take_page(Page(mailbox.number, (), 0, mailbox.last, more=False, expired=0, told=0))
        mailbox.is_received = True

    def follows(self, queue: QueueId) -> bool:
        return self.delivery.follows()

    def push(self, mailbox: Mailbox) -> None:
        while items := self.delivery.push_unwritten():
            self.heard += [item.body for item in items]

    def pass_on(self, queue: QueueId, key_class: KeyClass, body: bytes) -> None:
        self.heard.append(body)

    def committed(self, queue: QueueId, envelopes: Sequence[Envelope]) -> None:
        self.heard += [item.body for item in self.delivery.take_commit(envelopes, NOW)]

    def unsure(self, queue: QueueId) -> None:
        self.delivery.unsure()
        self.heard.append("unsure")

    def lost(self, loss: Loss) -> None:
        self.lost_here.append(loss)

    def made(self, queue: QueueId, number: int) -> None:
        self.heard.append(f"made {number}")

    def deleted(self) -> None:
        self.heard.append("deleted")

    def displaced(self) -> None:
        self.heard.append("displaced")


def generous() -> dict[KeyClass, Rates]:
    """Rates that nobody meets."""
    return dict.fromkeys(KeyClass, Rates(1e6, 10**6))


def roomy_space() -> Space:
    """A disk with much room."""
    space = Space(Path("nowhere"), 0)
    space._free = 2**40
    return space


@dataclass
class Parts:
    """What decides and remembers, put together. `now` is the wall clock."""

    quotas: Quotas = field(default_factory=Quotas)
    rates: dict[KeyClass, Rates] = field(default_factory=generous)
    hold_seconds: float = 0.025
    now: float = NOW

    def __post_init__(self) -> None:
        self.mailboxes, self.bus, self.inbox = Mailboxes(), Bus(), Inbox()
        self.metrics, self.space = Metrics(trio.current_time), roomy_space()
        terms = Terms(self.quotas, {ttl: ttl.seconds for ttl in Ttl}, self.hold_seconds, self.rates)
        self.intake = Intake(
            self.mailboxes, self.bus, self.inbox, terms, self.metrics, self.space, lambda: self.now, first_seq=1
        )

    def know(self, queue: QueueId = QUEUE) -> Mailbox:
        """Have the queue and its keys in memory, as an empty one."""
        number = NUMBERS[queue]
        self.mailboxes.learn({door_of(kind, queue): Door(number, kind, None) for kind in KeyClass})
        mailbox = self.mailboxes.at(queue, number)
        mailbox.fill = Fill()
        mailbox.invites = {door_of(KeyClass.INVITE, queue): 0}
        return mailbox

    def receive(self, queue: QueueId = QUEUE, count: int = 256, size: int = 2**22) -> Receiver:
        """Somebody receives the queue, and is live."""
        receiver = Receiver(self.mailboxes.at(queue, NUMBERS[queue]), count, size)
        self.bus.listen(queue, receiver)
        return receiver

    def send(self, *arrivals: Arrival) -> list[SendResult]:
        """Say one Send. The list is filled when all its results are there."""
        results: list[SendResult] = []
        self.intake.take(arrivals, Ticket(len(arrivals), trio.current_time(), results.extend))
        return results

    def writer(self, database: Database, make_room: Callable[[], None] = lambda: None) -> Writer:
        """The writer that carries out what is decided."""
        return Writer(
            database, self.inbox, self.intake, self.mailboxes, self.bus, self.metrics, make_room, lambda: self.now
        )


class Unreliable(Database):
    """The real database, except that some writes report a failure: before they begin, or after they were committed."""

    def __init__(self, real: Database, *outcomes: str) -> None:
        self._real = real
        self.outcomes = list(outcomes)
        self.reads: list[object] = []
        self.before_read: Callable[[], None] = lambda: None
        self.before_write: Callable[[], None] = lambda: None
        self.fault_of_next_read: Exception | None = None

    async def read(self, work: Callable[[Connection], T]) -> T:
        self.before_read()
        self.reads.append(getattr(work, "func", work))
        fault, self.fault_of_next_read = self.fault_of_next_read, None
        if fault is not None:
            raise fault
        return await self._real.read(work)

    async def write(
        self, work: Callable[[Connection], T], *, within: float = inf, meanwhile: Callable[[], None] = lambda: None
    ) -> T:
        self.before_write()
        outcome = self.outcomes.pop(0) if self.outcomes else "works"
        if outcome == "fails":
            raise DatabaseError("the disk is full")
        result = await self._real.write(work, within=within, meanwhile=meanwhile)
        if outcome == "works but seems to fail":
            raise DatabaseError("the disk went away")
        return result
