"""What the relay has in memory of the queues in use: how full they are, who may send, what is on its way.

A cache of the database, which no other process writes, and of what is not written yet. Bounded; nothing here waits.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import chain, islice
from typing import Final

from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import QueueId

from .envelopes import Envelope, Fill, queue_of
from .states import EnvelopeEvent, EnvelopeState
from .storage import Door, Expired

#: Queues and send keys that are remembered while nothing is under way for them.
MAILBOXES: Final = 20_000
DOORS: Final = 40_000
#: Looked at, at most, to find one that can be forgotten.
_CANDIDATES: Final = 16
_UNWRITTEN: Final = frozenset({EnvelopeState.HELD, EnvelopeState.QUEUED, EnvelopeState.WRITING})


class Mailbox:
    """One queue in memory."""

    __slots__ = (
        "fill",
        "held",
        "invites",
        "is_received",
        "known",
        "last",
        "leaving",
        "number",
        "queue",
        "refused",
        "shadowed",
        "unpushed",
    )

    def __init__(self, queue: QueueId, number: int) -> None:
        self.queue = queue
        self.number = number  # the queue's, in the database
        self.fill: Fill | None = None  # None: ask the database
        self.invites: dict[bytes, int] = {}  # envelopes waiting under each invite key that was asked for
        self.last = 0  # the highest number that an envelope of this queue was given
        #: By name: what is not written yet, what is pushed and not acknowledged, and what is being deleted.
        self.known: dict[bytes, Envelope] = {}
        self.held: deque[Envelope] = deque()  # some may have been acknowledged or written since
        #: What follows all that was pushed, in order, and waits in memory for the owner's credit.
        self.unpushed: deque[Envelope] = deque()
        self.leaving: set[int] = set()  # what is acknowledged and may still be in the database
        #: What waits for the writer while `known` has another of its name: repeats, perhaps.
        self.shadowed: dict[int, Envelope] = {}
        self.is_received = False  # a connection receives it
        self.refused = 0  # how many were answered QUEUE_FULL, and the owner was not told

    @property
    def can_be_forgotten(self) -> bool:
        """Whether nothing but a count of refusals is lost with it."""
        return not (self.is_received or self.known or self.shadowed or self.held)

    def is_loaded(self, door: Door, key: bytes) -> bool:
        """Whether enough is known to decide on an envelope under this send key."""
        return self.fill is not None and (door.key_class is not KeyClass.INVITE or key in self.invites)

    def unwritten(self) -> list[Envelope]:
        """What is decided and not in the database, in order."""
        all_of_them = chain(self.known.values(), self.shadowed.values())
        return sorted((e for e in all_of_them if e.state in _UNWRITTEN), key=lambda envelope: envelope.seq)

    def refill(self, stored: Fill, head: int) -> None:
        """Count anew: what the database holds, and what is not written yet."""
        self.fill = stored
        self.last = max(self.last, head)
        for envelope in self.unwritten():
            stored.add(envelope.is_limited, envelope.size)

    def count_in(self, envelope: Envelope) -> None:
        """It was accepted."""
        if self.fill:
            self.fill.add(envelope.is_limited, envelope.size)
        if envelope.invite in self.invites:
            self.invites[envelope.invite] += 1
        self.last = envelope.seq

    def count_out(self, *, is_limited: bool, size: int, invite: bytes | None) -> None:
        """One is gone."""
        if self.fill:
            self.fill.add(is_limited, size, -1)
        if invite in self.invites:
            self.invites[invite] -= 1

    def drop(self, envelope: Envelope) -> None:
        """It is gone: neither counted nor known."""
        self.count_out(is_limited=envelope.is_limited, size=envelope.size, invite=envelope.invite)
        self.forget(envelope)

    def know(self, envelope: Envelope) -> None:
        """It was pushed, and is the one that an acknowledgement speaks of."""
        before = self.known.get(envelope.name)
        if before is not None and before is not envelope and before.state in _UNWRITTEN:
            self.shadowed[before.seq] = before
        self.known[envelope.name] = envelope

    def recount(self) -> None:
        """Nobody knows what the database holds: ask it before the next one is accepted."""
        self.fill = None
        self.invites.clear()

    def forget(self, envelope: Envelope) -> None:
        """Know it no longer; it is in the database, or gone."""
        if self.shadowed.get(envelope.seq) is envelope:
            del self.shadowed[envelope.seq]
        if self.known.get(envelope.name) is envelope:
            del self.known[envelope.name]


class Mailboxes:
    """All of them, and the send keys that lead there."""

    def __init__(self, mailboxes: int = MAILBOXES, doors: int = DOORS) -> None:
        self._capacity = mailboxes
        self._door_capacity = doors
        self._mailboxes: OrderedDict[int, Mailbox] = OrderedDict()
        self._doors: OrderedDict[bytes, Door] = OrderedDict()
        #: Arrivals that wait for the database to say what their send keys open: what comes later waits behind them.
        self.undecided: Counter[QueueId] = Counter()

    def __len__(self) -> int:
        return len(self._mailboxes)

    def at(self, queue: QueueId, number: int) -> Mailbox:
        """The queue's mailbox, which knows nothing yet if it is new."""
        mailbox = self._mailboxes.get(number)
        if mailbox is None:
            mailbox = self._mailboxes[number] = Mailbox(queue, number)
            if len(self._mailboxes) > self._capacity:
                self._forget_one()
        self._mailboxes.move_to_end(number)
        return mailbox

    def find(self, number: int) -> Mailbox | None:
        """The mailbox, if there is one."""
        return self._mailboxes.get(number)

    def expired(self, expired: Iterable[Expired]) -> None:
        """These are in the database no longer."""
        for gone in expired:
            mailbox = self.find(gone.number)
            if mailbox is None:
                continue
            known = mailbox.known.get(gone.name)
            if known is not None and known.seq == gone.seq:
                known.step(EnvelopeEvent.EXPIRED)
                mailbox.drop(known)
            else:
                mailbox.count_out(is_limited=bool(gone.is_limited), size=gone.size, invite=gone.invite)

    def decided(self, queue: QueueId) -> None:
        """One of the arrivals that waited for this queue does so no longer."""
        self.undecided[queue] -= 1
        if not self.undecided[queue]:
            del self.undecided[queue]

    def door(self, door: bytes) -> Door | None:
        """What a send key opens, if that is remembered."""
        found = self._doors.get(door)
        if found is not None:
            self._doors.move_to_end(door)
        return found

    def learn(self, doors: Mapping[bytes, Door]) -> None:
        """Remember what these send keys open."""
        self._doors.update(doors)
        while len(self._doors) > self._door_capacity:
            self._doors.popitem(last=False)

    def forget_doors(self, doors: Iterable[bytes]) -> None:
        """These send keys open something else now, or nothing."""
        for door in doors:
            opened = self._doors.pop(door, None)
            if opened is not None and (mailbox := self._mailboxes.get(opened.number)):
                mailbox.invites.pop(door, None)

    def forget_queues(self, queues: AbstractSet[QueueId]) -> None:
        """They were deleted."""
        self.forget_doors([door for door in self._doors if queue_of(door) in queues])

    def received(self) -> list[int]:
        """The numbers of the queues that are received now."""
        return [number for number, mailbox in self._mailboxes.items() if mailbox.is_received]

    def _forget_one(self) -> None:
        for number in list(islice(self._mailboxes, _CANDIDATES)):
            if self._mailboxes[number].can_be_forgotten:
                del self._mailboxes[number]
                return
            self._mailboxes.move_to_end(number)
