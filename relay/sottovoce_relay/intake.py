"""Decides what becomes of every envelope that arrives: pushed at once and held, written first, passed on, refused.

Who carries it out: the bus pushes, the writer writes. The states are in states.py. No I/O but the timer of held ones.
Spec: relay, sending and envelopes.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from sottovoce_hosting.rates import Rates
from sottovoce_wire.frames import KeyClass, SendResult, Ttl

from . import envelopes as answers
from .bus import Bus
from .envelopes import Arrival, Envelope, Quotas, Ticket
from .inbox import Deletion, Inbox, Refusal, Settlement, Undecided
from .mailboxes import Mailbox, Mailboxes
from .metrics import Metrics
from .space import Space
from .states import EnvelopeEvent, EnvelopeState
from .storage import Door

#: What may be held at a time, of all queues.
HELD_BYTES: Final = 64 * 1024 * 1024
#: The classes whose envelopes are pushed before they are written: given by the owner to people it knows.
_PUSHED_AT_ONCE: Final = (KeyClass.CONTACT, KeyClass.GROUP)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the relay grants."""

    quotas: Quotas
    lifetimes: Mapping[Ttl, int]  # seconds
    hold_seconds: float
    rates: Mapping[KeyClass, Rates]  # of one queue, by class; a demoted key's are a stranger's


class Intake:
    """Takes what senders send and what owners acknowledge. `first_seq` is the first number that is free."""

    def __init__(
        self,
        mailboxes: Mailboxes,
        bus: Bus,
        inbox: Inbox,
        terms: Terms,
        metrics: Metrics,
        space: Space,
        clock: Callable[[], float],
        first_seq: int,
    ) -> None:
        self._mailboxes = mailboxes
        self._bus = bus
        self._inbox = inbox
        self._terms = terms
        self._metrics = metrics
        self._space = space
        self._clock = clock
        self._next_seq = first_seq
        self._held: deque[tuple[float, Envelope]] = deque()  # in the order of their deadlines, monotonic
        self._held_bytes = 0
        self._any_held = trio.Event()

    @property
    def held_bytes(self) -> int:
        """Bytes of the envelopes that are held now."""
        return self._held_bytes

    def next_seq(self) -> int:
        """A number that no envelope and no shared body has."""
        self._next_seq += 1
        return self._next_seq - 1

    # --- From senders --------------------------------------------------------------------------------------------

    def take(self, arrivals: Sequence[Arrival], ticket: Ticket) -> None:
        """Take these in; `ticket` is settled for each, sooner or later."""
        at = 0
        while at < len(arrivals):
            end = at + 1
            while end < len(arrivals) and arrivals[end].door == arrivals[at].door:
                end += 1
            run = [(place, arrivals[place]) for place in range(at, end) if self._fits(place, arrivals[place], ticket)]
            self._take_run(arrivals[at], run, ticket)
            at = end

    def _take_run(self, first: Arrival, run: Sequence[tuple[int, Arrival]], ticket: Ticket) -> None:
        """Arrivals under one send key, that of `first`, in their order."""
        queue, key = first.queue, first.door
        door = self._mailboxes.door(key)
        if door is not None and queue not in self._mailboxes.undecided:
            mailbox = self._mailboxes.at(queue, door.number)
            if mailbox.is_loaded(door, key):
                self._decide(door, mailbox, run, ticket)
                return
        for place, arrival in run:
            self._mailboxes.undecided[queue] += 1
            self._inbox.add_undecided(Undecided(arrival, ticket, place))

    def _fits(self, place: int, arrival: Arrival, ticket: Ticket) -> bool:
        if len(arrival.body) > self._terms.quotas.max_envelope:
            ticket.settle(place, answers.ENVELOPE_TOO_LARGE)
        elif self._space.is_short:
            ticket.settle(place, answers.TRY_AGAIN)
        else:
            return True
        return False

    def decide(self, waiting: Undecided) -> None:
        """Its send key was looked up: if it opens anything, that is remembered, and the queue is loaded."""
        arrival = waiting.arrival
        self._mailboxes.decided(arrival.queue)
        door = self._mailboxes.door(arrival.door)
        if door is None:
            self._inbox.add(Settlement(waiting.ticket, waiting.place, answers.REFUSED))
            return
        mailbox = self._mailboxes.at(arrival.queue, door.number)
        self._decide(door, mailbox, [(waiting.place, arrival)], waiting.ticket)

    def _decide(self, door: Door, mailbox: Mailbox, run: Sequence[tuple[int, Arrival]], ticket: Ticket) -> None:
        """The send key and the queue are known."""
        now = int(self._clock())
        if door.dies_at is not None and door.dies_at <= now:
            for place, _ in run:
                self._inbox.add(Settlement(ticket, place, answers.REFUSED))
            return
        if wait := self._wait(door, run):
            ticket.stopped[mailbox.queue] = answers.try_again_in(wait)
        listener = self._bus.listener(mailbox.queue)
        may_hold = listener is not None and self._may_hold(door) and listener.follows(mailbox.queue)
        deadline = trio.current_time() + self._terms.hold_seconds if may_hold else 0
        is_closed = door.is_limited or door.key_class not in _PUSHED_AT_ONCE
        for place, arrival in run:
            if is_closed:
                arrival = arrival._replace(name=answers.closed_name(arrival.name, arrival.body))
            if arrival.ttl is Ttl.NOW:
                self._pass_on(arrival, door, ticket, place)
            elif not self._is_repeat(arrival, mailbox, ticket, place):
                envelope = self._envelope(arrival, door, now, ticket, place)
                if refusal := self._refusal(envelope, mailbox, ticket):
                    ticket.stopped[mailbox.queue] = refusal
                    self._refuse(envelope, refusal, mailbox)
                else:
                    may_hold = self._accept(envelope, mailbox, deadline, may_hold=may_hold)
        if listener is not None and mailbox.unpushed:
            listener.push(mailbox)

    def _refuse(self, envelope: Envelope, result: SendResult, mailbox: Mailbox) -> None:
        if result is answers.QUEUE_FULL:
            mailbox.refused += 1
            self._inbox.add(Refusal(envelope, result))
        else:
            envelope.settle(result)

    def _wait(self, door: Door, run: Sequence[tuple[int, Arrival]]) -> float:
        """Seconds until the queue takes so much under a key of this class, or 0."""
        rates = self._terms.rates[KeyClass.STRANGER if door.is_limited else door.key_class]
        invite = run[0][1].door if run and door.key_class is KeyClass.INVITE else None
        return rates.take((door.number, door.is_limited, invite), len(run))

    def _may_hold(self, door: Door) -> bool:
        return not door.is_limited and door.key_class in _PUSHED_AT_ONCE and self._terms.hold_seconds > 0

    def _pass_on(self, arrival: Arrival, door: Door, ticket: Ticket, place: int) -> None:
        listener = self._bus.listener(arrival.queue)
        if listener is not None and arrival.queue not in ticket.stopped:
            listener.pass_on(arrival.queue, door.key_class, arrival.body)
        self._inbox.add(Settlement(ticket, place, ticket.stopped.get(arrival.queue, answers.ACCEPTED)))

    def _is_repeat(self, arrival: Arrival, mailbox: Mailbox, ticket: Ticket, place: int) -> bool:
        """Whether it is one that is in memory with its body. What is in the database alone, the writer recognises."""
        known = mailbox.known.get(arrival.name)
        if known is None or not known.body or known.state is EnvelopeState.DELETING:
            return False
        if known.body != arrival.body:
            self._inbox.add(Settlement(ticket, place, answers.ID_CONFLICT))
        else:
            known.owed.append((ticket, place))  # told with the first
        return True

    def _envelope(self, arrival: Arrival, door: Door, now: int, ticket: Ticket, place: int) -> Envelope:
        return Envelope(
            arrival.queue,
            door.number,
            self.next_seq(),
            arrival.name,
            door.key_class,
            door.is_limited,
            arrival.door if door.key_class is KeyClass.INVITE else None,
            now + self._terms.lifetimes[arrival.ttl],
            len(arrival.body),
            arrival.body,
            arrival.shared,
            owed=[(ticket, place)],
            arrived=ticket.arrived,
        )

    def _refusal(self, envelope: Envelope, mailbox: Mailbox, ticket: Ticket) -> SendResult | None:
        """A failure that may pass stops the rest of its queue in this Send, so that the queue's order is kept."""
        if stopped := ticket.stopped.get(envelope.queue):
            return stopped
        quotas = self._terms.quotas
        has_room = mailbox.fill is not None and mailbox.fill.has_room(envelope.is_limited, envelope.size, quotas)
        if has_room and mailbox.invites.get(envelope.invite or b"", 0) < quotas.invite_envelopes:
            return None
        return answers.QUEUE_FULL

    def _accept(self, envelope: Envelope, mailbox: Mailbox, deadline: float, *, may_hold: bool) -> bool:
        """Take it in. Whether it is held; what comes behind one that is not, is not held either."""
        known = mailbox.known.get(envelope.name)
        if known is None or known.state is EnvelopeState.DELETING:
            mailbox.known[envelope.name] = envelope
        else:
            mailbox.shadowed[envelope.seq] = envelope
        is_held = may_hold and known is None and self._held_bytes + envelope.weight <= HELD_BYTES
        mailbox.count_in(envelope)
        if is_held:
            envelope.step(EnvelopeEvent.PUSHED)
            mailbox.held.append(envelope)
            mailbox.unpushed.append(envelope)
            self._held.append((deadline, envelope))
            self._held_bytes += envelope.weight
            self._any_held.set()
        else:
            self._let_go(mailbox, EnvelopeEvent.FOLLOWED)
            envelope.step(EnvelopeEvent.WAITS)
            self._inbox.add(envelope)
        return is_held

    # --- Held ----------------------------------------------------------------------------------------------------

    def _let_go(self, mailbox: Mailbox, event: EnvelopeEvent, upto: float = float("inf")) -> None:
        """Have the writer write what is held of this queue, in its order, up to the number `upto`."""
        while mailbox.held and mailbox.held[0].seq <= upto:
            envelope = mailbox.held.popleft()
            if envelope.state is EnvelopeState.HELD:
                envelope.step(event)
                self._held_bytes -= envelope.weight
                self._inbox.add(envelope)

    def let_go_all(self) -> None:
        """Have the writer write all that is held: the relay is stopping, and its senders are to be answered."""
        for _, envelope in self._held:
            if envelope.state is EnvelopeState.HELD and (mailbox := self._mailboxes.find(envelope.number)):
                self._let_go(mailbox, EnvelopeEvent.TIME_UP, envelope.seq)

    async def let_go_for_ever(self) -> None:
        """Let go what was held long enough. Cancellation: what is held stays so."""
        while True:
            if not self._held:
                self._any_held = trio.Event()
                await self._any_held.wait()
            await trio.sleep_until(self._held[0][0])
            now = trio.current_time()
            while self._held and self._held[0][0] <= now:
                _, envelope = self._held.popleft()
                if envelope.state is EnvelopeState.HELD and (mailbox := self._mailboxes.find(envelope.number)):
                    self._let_go(mailbox, EnvelopeEvent.TIME_UP, envelope.seq)

    # --- From owners ---------------------------------------------------------------------------------------------

    def acknowledge(self, mailbox: Mailbox, envelopes: Sequence[Envelope], answer: Callable[[], None]) -> None:
        """Their owner has them; `answer` is called when none of them is in the database any more."""
        leaving = []
        for envelope in envelopes:
            if envelope.state is EnvelopeState.HELD:
                self._held_bytes -= envelope.weight
            if envelope.state is not EnvelopeState.GONE:  # it may have failed or expired; its row may be there
                envelope.step(EnvelopeEvent.ACK)
                envelope.settle(answers.ACCEPTED)
                if envelope.is_gone:
                    envelope.body = b""  # it waits for its deadline among the held
                    mailbox.drop(envelope)
                    self._metrics.never_written += 1
                    continue
            leaving.append(envelope)
        while mailbox.held and mailbox.held[0].state is not EnvelopeState.HELD:
            mailbox.held.popleft()
        if leaving or mailbox.leaving:  # an answer speaks for all that was acknowledged before, too
            mailbox.leaving.update(envelope.seq for envelope in leaving)
            self._inbox.add(Deletion(leaving, partial(_deleted, mailbox, leaving, answer)))
        else:
            answer()

    def release(self, mailbox: Mailbox, unacknowledged: Sequence[Envelope]) -> None:
        """The connection that received this queue is over, and left this behind."""
        mailbox.is_received = False
        mailbox.unpushed.clear()
        self._let_go(mailbox, EnvelopeEvent.LEFT)
        for envelope in unacknowledged:
            envelope.is_pushed = False
            if envelope.state in (EnvelopeState.STORED, EnvelopeState.GONE):
                mailbox.forget(envelope)


def _deleted(mailbox: Mailbox, envelopes: Sequence[Envelope], answer: Callable[[], None]) -> None:
    mailbox.leaving.difference_update(envelope.seq for envelope in envelopes)
    answer()
