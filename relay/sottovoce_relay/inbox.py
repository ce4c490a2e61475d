"""What waits for the writer, by kind and in order, bounded in number and bytes. Nothing is decided or written here."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import trio
from sqlalchemy import Connection

from sottovoce_hosting.database import DatabaseError
from sottovoce_wire.frames import SendResult

from .envelopes import Arrival, Envelope, Ticket
from .states import EnvelopeState

T = TypeVar("T")

#: What may wait. Beyond it, connections are not read.
INBOX_JOBS: Final = 16_384
INBOX_BYTES: Final = 16 * 1024 * 1024
#: What one transaction takes: enough to make its fsync cheap, little enough to stay short.
BATCH_ENVELOPES: Final = 2048
#: Deletions count for this much of one: they are short, and cost far less together.
_DELETION: Final = 1 / 2
BATCH_BYTES: Final = 4 * 1024 * 1024
#: Errands in one transaction, and arrivals whose send keys are looked up at a time.
BATCH_ERRANDS: Final = 64
BATCH_ARRIVALS: Final = 512


@dataclass(eq=False, slots=True)
class Errand(Generic[T]):
    """Any write but an envelope's, whose result somebody waits for."""

    work: Callable[[Connection], T]
    then: Callable[[], None] | None = None
    done: trio.Event = field(default_factory=trio.Event)
    result: T | None = None
    error: DatabaseError | None = None


@dataclass(eq=False, slots=True)
class Undecided:
    """An arrival whose send key, or whose queue, must be looked up first."""

    arrival: Arrival
    ticket: Ticket
    place: int


@dataclass(eq=False, slots=True)
class Refusal:
    """An envelope that a quota refuses, unless the database shows that it is a repeat."""

    envelope: Envelope
    result: SendResult


@dataclass(eq=False, slots=True)
class Settlement:
    """A result that is known and is told with those that are not, so that the time tells nothing."""

    ticket: Ticket
    place: int
    result: SendResult


@dataclass(eq=False, slots=True)
class Deletion:
    """What one Ack frame acknowledged and the database holds, and whom to tell when it is gone."""

    envelopes: Sequence[Envelope]
    answer: Callable[[], None]


@dataclass(slots=True)
class Batch:
    """One transaction's work, by kind."""

    arriving: list[Envelope] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)

    @property
    def leaving(self) -> list[Envelope]:
        """Every envelope that is to be deleted."""
        return [envelope for deletion in self.deletions for envelope in deletion.envelopes]


Ready = Envelope | Deletion | Refusal | Settlement


class Inbox:
    """Adding never waits, so that what is decided together stays together; whoever adds waits for room first."""

    def __init__(self) -> None:
        self._errands: deque[Errand[object]] = deque()
        self._undecided: deque[Undecided] = deque()
        self._ready: deque[Ready] = deque()
        self._size = 0
        self._arrived = trio.Event()
        self._eased = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._errands) + len(self._undecided) + len(self._ready)

    @property
    def is_next_ready(self) -> bool:
        """Whether what comes next is decided: envelopes to write or delete, and nothing else."""
        return bool(self._ready) and not self._errands and not self._undecided

    @property
    def has_room(self) -> bool:
        """Whether one more Send, Ack or errand may be added."""
        return len(self) < INBOX_JOBS and self._size < INBOX_BYTES

    async def wait_for_room(self) -> None:
        """Wait until there is room for one more Send, Ack or errand. Cancellation: nothing changes."""
        while not self.has_room:
            await self._eased.park()

    async def wait(self) -> None:
        """Wait until there is anything. Cancellation: nothing changes."""
        if not len(self):
            self._arrived = trio.Event()
            await self._arrived.wait()

    def add_errand(self, errand: Errand[object]) -> None:
        """Have it done."""
        self._errands.append(errand)
        self._arrived.set()

    def add_undecided(self, arrival: Undecided) -> None:
        """Have it decided, in its turn."""
        self._undecided.append(arrival)
        self._size += arrival.arrival.weight
        self._arrived.set()

    def add(self, ready: Ready) -> None:
        """Have it written or told, in its turn."""
        self._ready.append(ready)
        self._size += _size(ready)
        self._arrived.set()

    def put_back(self, deletions: Sequence[Deletion]) -> None:
        """Put deletions back in front: they are owed."""
        self._ready.extendleft(reversed(deletions))

    def take_errands(self) -> list[Errand[object]]:
        """The oldest, as many as one transaction takes."""
        taken = [self._errands.popleft() for _ in range(min(len(self._errands), BATCH_ERRANDS))]
        self._ease()
        return taken

    def take_undecided(self) -> list[Undecided]:
        """The oldest, as many as are looked up at a time."""
        taken = [self._undecided.popleft() for _ in range(min(len(self._undecided), BATCH_ARRIVALS))]
        self._size -= sum(waiting.arrival.weight for waiting in taken)
        self._ease()
        return taken

    def take_batch(self) -> Batch:
        """The oldest of what is ready, as much as one transaction takes."""
        batch = Batch()
        envelopes = 0.0
        size = 0
        while self._ready and envelopes < BATCH_ENVELOPES and size < BATCH_BYTES:
            ready = self._ready.popleft()
            size += _size(ready)
            if isinstance(ready, Envelope):
                if ready.state is EnvelopeState.QUEUED:  # otherwise it was acknowledged meanwhile, or failed
                    batch.arriving.append(ready)
                    envelopes += 1
            elif isinstance(ready, Deletion):
                batch.deletions.append(ready)
                envelopes += len(ready.envelopes) * _DELETION
            elif isinstance(ready, Refusal):
                batch.refusals.append(ready)
                envelopes += 1
            else:
                batch.settlements.append(ready)
        self._size -= size
        self._ease()
        return batch

    def _ease(self) -> None:
        self._eased.unpark_all()


def _size(ready: Ready) -> int:
    if isinstance(ready, Envelope):
        return ready.weight
    return ready.envelope.weight if isinstance(ready, Refusal) else 0
