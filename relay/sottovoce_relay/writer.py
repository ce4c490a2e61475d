"""The one task that writes: it gathers what arrived while the last transaction ran, commits it in one, then answers.

Nothing is answered before its commit. What is decided in a transaction stands in storage.py; who asks, in gateway.py.
Spec: relay, envelopes.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, ParamSpec, TypeVar, cast

import trio
from sqlalchemy import Connection

from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_hosting.errors import name_of, place_of
from sottovoce_hosting.logs import log
from sottovoce_wire.frames import SendResult
from sottovoce_wire.ids import QueueId

from . import storage
from .bus import Bus
from .envelopes import TRY_AGAIN, Arrival, Quotas, Range, Stored
from .states import ENVELOPE, EnvelopeEvent, EnvelopeState

P = ParamSpec("P")
T = TypeVar("T")

#: What may wait for the writer. Beyond it, connections are not read.
INBOX_JOBS: Final = 8_192
INBOX_BYTES: Final = 16 * 1024 * 1024
#: What one transaction takes: enough to make its fsync cheap, little enough to stay short.
BATCH_ENVELOPES: Final = 512
BATCH_BYTES: Final = 4 * 1024 * 1024
#: Attempts at a commit whose outcome is unknown, and the pause after one that failed.
ATTEMPTS: Final = 3
PAUSE_SECONDS: Final = 0.25


@dataclass(eq=False, slots=True)
class Send:
    """Envelopes of one Send frame, and where its results go."""

    arrivals: Sequence[Arrival]
    answer: Callable[[Sequence[SendResult]], None]
    state: EnvelopeState = EnvelopeState.QUEUED
    envelopes: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.envelopes = len(self.arrivals)
        self.size = sum(len(arrival.body) for arrival in self.arrivals)


@dataclass(eq=False, slots=True)
class Deletion:
    """What one Ack frame acknowledged, and whom to tell when it is gone."""

    ranges: Sequence[Range]
    answer: Callable[[], None]
    state: EnvelopeState = EnvelopeState.DELETING
    envelopes: int = field(init=False)
    size: int = 0

    def __post_init__(self) -> None:
        self.envelopes = sum(gone.upto - gone.after for gone in self.ranges)


@dataclass(eq=False, slots=True)
class Errand(Generic[T]):
    """Any other write, whose result somebody waits for."""

    work: Callable[[Connection], T]
    done: trio.Event = field(default_factory=trio.Event)
    result: T | None = None
    error: DatabaseError | None = None
    envelopes: int = 1
    size: int = 0


Job = Send | Deletion | Errand[object]


class Inbox:
    """What waits for the writer, in order, bounded in number and bytes."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._size = 0
        self._arrived = trio.Event()
        self._eased = trio.lowlevel.ParkingLot()

    async def put(self, job: Job) -> None:
        """Wait for room, then add a job. Cancellation: it was not added."""
        while len(self._jobs) >= INBOX_JOBS or self._size >= INBOX_BYTES:
            await self._eased.park()
        self._jobs.append(job)
        self._size += job.size
        self._arrived.set()

    def put_back(self, jobs: Sequence[Deletion]) -> None:
        """Put jobs back in front: they are owed, room or not, and count against it."""
        self._jobs.extendleft(reversed(jobs))

    async def take(self) -> list[Job]:
        """Wait for jobs and take a batch. Cancellation: nothing was taken."""
        while not self._jobs:
            self._arrived = trio.Event()
            await self._arrived.wait()
        batch: list[Job] = []
        envelopes = size = 0
        while self._jobs and envelopes < BATCH_ENVELOPES and size < BATCH_BYTES:
            job = self._jobs.popleft()
            batch.append(job)
            envelopes += job.envelopes
            size += job.size
        self._size -= size
        self._eased.unpark_all()
        return batch


@dataclass(slots=True)
class Batch:
    """One transaction's work, by kind, and what came of it."""

    errands: list[Errand[object]]
    deletions: list[Deletion]
    sends: list[Send]
    outcome: tuple[Sequence[Sequence[SendResult]], Sequence[Stored]] = ((), ())
    attempts: int = 0
    is_decided: bool = False  # every statement ran: if the commit fails now, nobody knows whether it took

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> "Batch":
        """Sort jobs by kind, each kind in its order."""
        batch = cls([], [], [])
        for job in jobs:
            if isinstance(job, Send):
                batch.sends.append(job)
            elif isinstance(job, Deletion):
                batch.deletions.append(job)
            else:
                batch.errands.append(job)
        return batch

    @property
    def queues(self) -> set[QueueId]:
        """Where its envelopes go."""
        return {arrival.queue for send in self.sends for arrival in send.arrivals}

    def step(self, event: EnvelopeEvent) -> None:
        """Move the envelopes of all Sends and Deletions that `event` means anything to."""
        jobs: list[Send | Deletion] = [*self.sends, *self.deletions]
        for job in jobs:
            job.state = ENVELOPE.get((job.state, event), job.state)

    def apply(self, connection: Connection, quotas: Quotas) -> None:
        """Everything in one transaction: errands, then deletions, which make room, then Sends."""
        self.is_decided = False
        for errand in self.errands:
            errand.result = errand.work(connection)
        storage.delete_ranges(connection, [gone for deletion in self.deletions for gone in deletion.ranges])
        if self.sends:
            insertion = storage.Insertion(connection, [send.arrivals for send in self.sends], quotas)
            self.outcome = (insertion.results, insertion.stored)
        self.is_decided = True


class Writer:
    """Takes writes from every connection. `run` is its task."""

    def __init__(self, database: Database, bus: Bus, quotas: Quotas) -> None:
        self._database = database
        self._bus = bus
        self._quotas = quotas
        self._inbox = Inbox()
        self.failure: str | None = None  # why the last transaction failed, if it did
        self.transactions = 0  # how many were begun

    async def send(self, arrivals: Sequence[Arrival], answer: Callable[[Sequence[SendResult]], None]) -> None:
        """Take envelopes in; `answer` is called with a result for each after the commit.

        Returns as soon as they wait for the writer. Cancellation before that: they were not taken in.
        """
        await self._inbox.put(Send(arrivals, answer))

    async def delete(self, ranges: Sequence[Range], answer: Callable[[], None]) -> None:
        """Delete acknowledged envelopes; `answer` is called after the commit, however long that takes.

        Cancellation: as for `send`.
        """
        await self._inbox.put(Deletion(ranges, answer))

    async def perform(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in the next transaction and wait for its commit. Raises DatabaseError: it was not done.

        `work` may run again when the outcome of a commit is unknown. Cancellation: it may or may not be done.
        """
        errand = Errand(work)
        await self._inbox.put(cast("Errand[object]", errand))
        await errand.done.wait()
        if errand.error is not None:
            raise errand.error
        return cast("T", errand.result)

    async def flush(self) -> None:
        """Wait until everything that waits now has been tried. Cancellation: nothing changes."""
        try:
            await self.perform(lambda _: None)
        except DatabaseError as error:
            log.warning("the writer could not finish", reason=str(error))

    async def run(self) -> None:
        """Write for ever. Cancellation: a transaction that has begun ends first; what waited goes unanswered."""
        while True:
            batch = Batch.of(await self._inbox.take())
            batch.step(EnvelopeEvent.TAKEN)
            error = await self._commit(batch)
            if error is None:
                self._succeed(batch)
            else:
                self._fail(batch, error)
                await trio.sleep(PAUSE_SECONDS)

    async def _commit(self, batch: Batch) -> DatabaseError | None:
        """Commit the batch; the error if it is not in the database, as far as one can know."""
        for _ in range(ATTEMPTS):
            batch.attempts += 1
            error = await self._attempt(batch)
            if error is None or not batch.is_decided:
                break
            batch.step(EnvelopeEvent.OUTCOME_UNKNOWN)  # the same again: what did take is recognised
        self._note(error)
        return error

    async def _attempt(self, batch: Batch) -> DatabaseError | None:
        self.transactions += 1
        try:
            await self._database.write(lambda connection: batch.apply(connection, self._quotas))
        except DatabaseError as error:
            return error
        except Exception as fault:  # a fault of ours in one batch must not end the writer
            log.error("a batch failed", error=name_of(fault), at=place_of(fault))
            return DatabaseError("the relay failed")
        return None

    def _note(self, error: DatabaseError | None) -> None:
        reason = None if error is None else str(error)
        if reason is not None and reason != self.failure:
            log.error("the database cannot be written", reason=reason)
        self.failure = reason

    def _succeed(self, batch: Batch) -> None:
        batch.step(EnvelopeEvent.COMMITTED)
        results, stored = batch.outcome
        for send, result in zip(batch.sends, results, strict=True):
            _call(send.answer, result)
        for deletion in batch.deletions:
            _call(deletion.answer)
        for errand in batch.errands:
            errand.done.set()
        if batch.attempts == 1:
            _call(self._bus.committed, stored)
        else:  # what an earlier attempt stored is not in `stored`: to listeners it would be passed over
            _call(self._bus.unsure, batch.queues)

    def _fail(self, batch: Batch, error: DatabaseError) -> None:
        """Senders try again; deletions are owed, and tried again here."""
        batch.step(EnvelopeEvent.FAILED)
        for send in batch.sends:
            _call(send.answer, [TRY_AGAIN] * len(send.arrivals))
        for errand in batch.errands:
            errand.error = error
            errand.done.set()
        self._inbox.put_back(batch.deletions)
        _call(self._bus.unsure, batch.queues)


def _call(answer: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """A fault of ours in one connection's answer must not silence the others."""
    try:
        answer(*args, **kwargs)
    except Exception as fault:
        log.error("an answer failed", error=name_of(fault), at=place_of(fault))
