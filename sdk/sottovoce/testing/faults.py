"""Faults on purpose: what a relay that loses, lies or dawdles does to the next envelopes; networks slow or away.

A relay cannot tell a message from a receipt or an acknowledgement, and neither can these: they count envelopes.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from sottovoce_wire.errors import Code
from sottovoce_wire.frames import SendResult

from .bad_keyserver import KeyserverFaults
from .relay import ACCEPTED, Envelope, honest

#: How many envelopes a fault hits; None: all until `Faults.clear`.
Count: TypeAlias = int | None
_Act: TypeAlias = Callable[[Envelope], tuple[SendResult, Sequence[Envelope]]]


@dataclass(slots=True)
class _Fault:
    """What happens to the next `left` envelopes from `sender` to `to`; None is anybody."""

    act: _Act
    left: Count
    sender: str | None
    to: str | None

    def hits(self, sender: str, recipient: str | None) -> bool:
        return self.sender in (None, sender) and self.to in (None, recipient)


class Faults:
    """The faults of one world. Each call adds one; an envelope is hit by the first that fits it.

    Made by the network: `keep` puts envelopes into queues, `later` does so with one after some seconds, `hang_up` ends
    the connections of one person or, with None, of all.
    """

    def __init__(
        self,
        recipient_of: Callable[[Envelope], str | None],
        keep: Callable[[Sequence[Envelope]], None],
        later: Callable[[float, Envelope], None],
        hang_up: Callable[[str | None], None],
        keyserver: KeyserverFaults,
    ) -> None:
        #: The faults of the keyserver.
        self.keyserver = keyserver
        self._recipient_of = recipient_of
        self._keep = keep
        self._later = later
        self._hang_up = hang_up
        self._faults: list[_Fault] = []
        self._kept_back: list[Envelope] = []
        self._offline: list[tuple[str, ...]] = []
        self._slow: list[tuple[float, tuple[str, ...]]] = []
        self._chance = random.Random(0)  # noqa: S311 - the same weather each time

    # --- The relay -----------------------------------------------------------------------------------------------

    def drop(self, count: Count = 1, *, sender: str | None = None, to: str | None = None) -> None:
        """The relay says ACCEPTED, and forgets."""
        self._add(lambda _: (ACCEPTED, ()), count, sender, to)

    def delay(self, seconds: float, count: Count = 1, *, sender: str | None = None, to: str | None = None) -> None:
        """The relay keeps it back for so long; what is sent meanwhile overtakes."""

        def act(envelope: Envelope) -> tuple[SendResult, Sequence[Envelope]]:
            self._later(seconds, envelope)
            return ACCEPTED, ()

        self._add(act, count, sender, to)

    def duplicate(self, count: Count = 1, *, sender: str | None = None, to: str | None = None) -> None:
        """The relay delivers it twice."""
        self._add(lambda envelope: (ACCEPTED, (envelope, envelope)), count, sender, to)

    def reorder(self, count: int = 2, *, sender: str | None = None, to: str | None = None) -> None:
        """The relay gathers so many, and delivers them in reverse; `clear` lets go of those that wait."""
        gathered: list[Envelope] = []

        def act(envelope: Envelope) -> tuple[SendResult, Sequence[Envelope]]:
            gathered.append(envelope)
            self._kept_back.append(envelope)
            if len(gathered) < count:
                return ACCEPTED, ()
            for each in gathered:
                self._kept_back.remove(each)
            return ACCEPTED, gathered[::-1]

        self._add(act, count, sender, to)

    def corrupt(self, count: Count = 1, *, sender: str | None = None, to: str | None = None) -> None:
        """The relay flips a bit of it."""

        def act(envelope: Envelope) -> tuple[SendResult, Sequence[Envelope]]:
            changed = envelope.body[:-1] + bytes([envelope.body[-1] ^ 1])
            return ACCEPTED, (replace(envelope, body=changed),)

        self._add(act, count, sender, to)

    def lie(
        self, answer: Code = Code.REFUSED, count: Count = 1, *, sender: str | None = None, to: str | None = None
    ) -> None:
        """The relay takes it, and tells the sender otherwise."""
        self._add(lambda envelope: (SendResult(answer, 0), (envelope,)), count, sender, to)

    def refuse(
        self,
        answer: Code = Code.QUEUE_FULL,
        count: Count = 1,
        *,
        retry_after: float = 60,
        sender: str | None = None,
        to: str | None = None,
    ) -> None:
        """The relay does not take it, and says so. `retry_after`: what it tells the sender to wait, in seconds."""
        self._add(lambda _: (SendResult(answer, int(retry_after * 1000)), ()), count, sender, to)

    def clear(self) -> None:
        """The relay is honest from now on. What `reorder` kept back is delivered."""
        self._faults.clear()
        kept, self._kept_back = self._kept_back, []
        self._keep(kept)

    # --- The network ---------------------------------------------------------------------------------------------

    def cut(self, who: str | None = None) -> None:
        """The connections of one person, or of everybody, end now. Clients connect again by themselves."""
        self._hang_up(who)

    @contextmanager
    def offline(self, *people: str) -> Iterator[None]:
        """These people, or everybody, reach no server while the block runs."""
        self._offline.append(people)
        for who in people or (None,):
            self._hang_up(who)
        try:
            yield
        finally:
            self._offline.remove(people)

    def is_offline(self, who: str) -> bool:
        """Whether this person reaches no server now."""
        return any(not people or who in people for people in self._offline)

    @contextmanager
    def slow(self, seconds: float, *people: str) -> Iterator[None]:
        """What these people, or all, say to the relay and hear from it takes up to so long while the block runs.

        It stays in order on its connection, and what has been said arrives, even if the client has hung up since.
        """
        added = seconds, people
        self._slow.append(added)
        try:
            yield
        finally:
            self._slow.remove(added)

    def takes(self, who: str) -> float:
        """Seconds that this person's next message takes."""
        return sum(self._chance.uniform(0, longest) for longest, people in self._slow if not people or who in people)

    # --- Asked by the relay --------------------------------------------------------------------------------------

    def tamper(self, envelope: Envelope) -> tuple[SendResult, Sequence[Envelope]]:
        """What becomes of an envelope that the rules accept."""
        recipient = self._recipient_of(envelope)
        self._faults = [fault for fault in self._faults if fault.left != 0]
        for fault in self._faults:
            if fault.hits(envelope.sender, recipient):
                fault.left = None if fault.left is None else fault.left - 1
                return fault.act(envelope)
        return honest(envelope)

    def _add(self, act: _Act, count: Count, sender: str | None, to: str | None) -> None:
        if count is not None and count < 1:
            raise ValueError("a fault hits at least one envelope")
        self._faults.append(_Fault(act, count, sender, to))
