"""What senders and owners of a relay said and heard, in order, and what of it a relay must never let happen.

Pure: no sockets, no clock. The checker is given histories with every fault in test_history.py.
"""

import enum
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import trio


class Envelope(NamedTuple):
    """What is recognised: the queue, and the sender's own count. One body for several queues has one number."""

    queue: bytes
    sender: int
    number: int


@enum.unique
class Kind(enum.Enum):
    """What happened to an envelope, seen from outside the relay."""

    SAID = "said"
    ACCEPTED = "accepted"
    REFUSED = "to be tried again"
    DELIVERED = "delivered"
    ACKED = "acknowledgement answered"


class Event(NamedTuple):
    """One thing that happened."""

    kind: Kind
    envelope: Envelope
    connection: int


@dataclass
class History:
    """All events in the order in which they were seen, and how many of each kind."""

    events: list[Event] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)
    _happened: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def note(self, kind: Kind, envelope: Envelope, connection: int = 0) -> None:
        """Something happened; `connection` is the owner's, whose deliveries it tells apart."""
        self.events.append(Event(kind, envelope, connection))
        self.counts[kind] += 1
        self._happened.unpark_all()

    async def until(self, kind: Kind, count: int) -> None:
        """Wait until so many of a kind have happened."""
        while self.counts[kind] < count:
            await self._happened.park()

    def never(self, kind: Kind, of: Iterable[Envelope]) -> set[Envelope]:
        """Those to which this has never happened."""
        return set(of) - {event.envelope for event in self.events if event.kind is kind}

    def all_of(self, kind: Kind, upto: int | None = None) -> set[Envelope]:
        """Those to which this has happened, among the first `upto` events."""
        return {event.envelope for event in self.events[:upto] if event.kind is kind}


def complaints(events: Iterable[Event]) -> list[str]:
    """What a relay must never do, and did. For a history that ends with every queue drained."""
    events = list(events)
    return [*_lost(events), *_returned(events), *_repeated(events), *_overtaken(events)]


def _lost(events: list[Event]) -> list[str]:
    delivered = {event.envelope for event in events if event.kind is Kind.DELIVERED}
    accepted = {event.envelope for event in events if event.kind is Kind.ACCEPTED}
    return [f"lost: {_name(envelope)}" for envelope in sorted(accepted - delivered)]


def _returned(events: list[Event]) -> list[str]:
    """Delivered once more after Acked. What is sent again after that may come again: the relay has forgotten it."""
    said: Counter[Envelope] = Counter()
    acked: Counter[Envelope] = Counter()
    returned: dict[Envelope, None] = {}
    for kind, envelope, _ in events:
        said[envelope] += kind is Kind.SAID
        acked[envelope] += kind is Kind.ACKED
        if kind is Kind.DELIVERED and acked[envelope] >= max(1, said[envelope]):
            returned[envelope] = None
    return [f"came back: {_name(envelope)}" for envelope in returned]


def _repeated(events: list[Event]) -> list[str]:
    said = Counter(event.envelope for event in events if event.kind is Kind.SAID)
    times = Counter((event.envelope, event.connection) for event in events if event.kind is Kind.DELIVERED)
    return [
        f"twice on one connection: {_name(envelope)}"
        for (envelope, _), count in times.items()
        if count > said[envelope]
    ]


def _overtaken(events: list[Event]) -> list[str]:
    found = []
    seen: set[Envelope] = set()
    last: dict[tuple[bytes, int], int] = defaultdict(lambda: -1)
    for kind, envelope, _ in events:
        if kind is not Kind.DELIVERED or envelope in seen:
            continue
        seen.add(envelope)
        if envelope.number < last[envelope[:2]]:
            found.append(f"overtaken: {_name(envelope)}")
        last[envelope[:2]] = max(envelope.number, last[envelope[:2]])
    return found


def _name(envelope: Envelope) -> str:
    return f"number {envelope.number} of sender {envelope.sender}"
