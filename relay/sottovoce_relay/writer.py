"""The one task that writes: it gathers what arrived while the last transaction ran, commits it in one, then answers.

Nothing is answered before its commit. What is accepted stands in intake.py, the statements in storage/; who asks, in
gateway.py. Spec: relay, durability.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, ParamSpec, TypeVar, cast

import trio
from sqlalchemy import Connection

from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_hosting.errors import name_of, place_of
from sottovoce_hosting.logs import log
from sottovoce_wire.frames import KeyClass, SendResult

from . import envelopes as answers
from . import storage
from .bus import Bus
from .envelopes import Envelope
from .inbox import Batch, Deletion, Errand, Inbox, Undecided
from .intake import Intake
from .mailboxes import Mailboxes
from .metrics import Metrics
from .states import EnvelopeEvent, EnvelopeState
from .storage import Written

P = ParamSpec("P")
T = TypeVar("T")

#: Attempts at a commit whose outcome is unknown, and the pause after one that failed.
ATTEMPTS: Final = 3
PAUSE_SECONDS: Final = 0.25
_NOTHING: Final = Written({}, 0)


class Writer:
    """Writes what is in the inbox. `run` is its task; `make_room` is called, in a thread, when a write failed."""

    def __init__(
        self,
        database: Database,
        inbox: Inbox,
        intake: Intake,
        mailboxes: Mailboxes,
        bus: Bus,
        metrics: Metrics,
        make_room: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._inbox = inbox
        self._intake = intake
        self._mailboxes = mailboxes
        self._bus = bus
        self._metrics = metrics
        self._make_room = make_room
        self._clock = clock
        self.failure: str | None = None  # why the last transaction failed, if it did
        self.transactions = 0  # how many were begun
        self._untold: Callable[[], None] | None = None

    async def perform(self, work: Callable[[Connection], T], then: Callable[[], None] | None = None) -> T:
        """Run `work` in a transaction and wait for its commit. Raises DatabaseError: it was not done.

        `work` runs in a thread, and may run again when the outcome of a commit is unknown. `then` is called after it,
        done or not, before anything else is decided, whatever becomes of who waits.
        Cancellation: it may or may not be done.
        """
        await self._inbox.wait_for_room()
        errand = Errand(work, then)
        self._inbox.add_errand(cast("Errand[object]", errand))
        await errand.done.wait()
        if errand.error is not None:
            raise errand.error
        return cast("T", errand.result)

    async def flush(self) -> None:
        """Wait until everything that waits now has been tried. Cancellation: nothing changes."""
        while True:
            busy = len(self._inbox) > 0
            try:
                await self.perform(_nothing)
            except DatabaseError as error:
                log.warning("the writer could not finish", reason=str(error))
                return
            if not busy:
                return

    async def run(self) -> None:
        """Write for ever. Cancellation: a transaction that has begun ends first; what waited goes unanswered."""
        try:
            while True:
                if not self._inbox.is_next_ready:
                    self._tell()
                await self._inbox.wait()
                if errands := self._inbox.take_errands():
                    await self._run_errands(errands)
                if undecided := self._inbox.take_undecided():
                    await self._decide(undecided)
                await self._write(self._inbox.take_batch())
                if self.failure is not None:
                    await trio.sleep(PAUSE_SECONDS)
                    await trio.to_thread.run_sync(self._make_room)
        finally:
            self._tell()

    def _tell(self) -> None:
        """Have everybody told what the last transaction did. While more waits, that is when the next one has begun:
        the thread that writes is not kept waiting for the one that answers. Before anything else is decided, and before
        anything fails: what is committed must not be given up."""
        untold, self._untold = self._untold, None
        if untold is not None:
            _call(untold)

    # --- Errands -------------------------------------------------------------------------------------------------

    async def _run_errands(self, errands: Sequence[Errand[object]]) -> None:
        error, _, _ = await self._commit(partial(_do_all, errands=errands))
        if error is not None and len(errands) > 1:  # one that fails is not the others' fault
            for errand in errands:
                await self._run_errands([errand])
            return
        for errand in errands:
            errand.error = error
            if errand.then is not None:
                _call(errand.then)
            errand.done.set()

    # --- Arrivals that must be looked up -------------------------------------------------------------------------

    async def _decide(self, undecided: Sequence[Undecided]) -> None:
        """Decide them in their order. Every send key that is not known is looked up, whatever else is known of its
        queue: how long an answer takes says nothing about the queue."""
        try:
            await self._look_up({waiting.arrival.door for waiting in undecided})
        except Exception as fault:
            self._note(_as_database_error(fault))
            for waiting in undecided:
                self._mailboxes.decided(waiting.arrival.queue)
                waiting.ticket.stopped[waiting.arrival.queue] = answers.TRY_AGAIN
                _call(waiting.ticket.settle, waiting.place, answers.TRY_AGAIN)
            return
        for waiting in undecided:
            _call(self._intake.decide, waiting)

    async def _look_up(self, doors: Iterable[bytes]) -> None:
        known = {door: opens for door in doors if (opens := self._mailboxes.door(door))}
        missing = [door for door in doors if door not in known]
        if missing:
            found = await self._database.read(partial(storage.load_doors, doors=missing))
            self._mailboxes.learn(found)
            known |= found
        mailboxes = {door: self._mailboxes.at(answers.queue_of(door), opens.number) for door, opens in known.items()}
        cold = {mailbox.number for mailbox in mailboxes.values() if mailbox.fill is None}
        invites = [
            door
            for door, opens in known.items()
            if opens.key_class is KeyClass.INVITE and door not in mailboxes[door].invites
        ]
        if cold or invites:
            fills, held = await self._database.read(partial(_load, numbers=cold, invites=invites))
            for mailbox in {mailbox.number: mailbox for mailbox in mailboxes.values()}.values():
                if mailbox.number in cold:
                    mailbox.refill(*fills.get(mailbox.number, (answers.Fill(), 0)))
            for door in invites:
                waiting = sum(envelope.invite == door for envelope in mailboxes[door].unwritten())
                mailboxes[door].invites[door] = held.get(door, 0) + waiting

    # --- Envelopes -----------------------------------------------------------------------------------------------

    async def _write(self, batch: Batch) -> None:
        step_all(batch.arriving, EnvelopeEvent.TAKEN)
        if not (batch.arriving or batch.deletions or batch.refusals):
            self._tell()
            self._succeed(batch, _NOTHING, sure=True)
            return
        error, written, attempts = await self._commit(
            partial(
                storage.write,
                arriving=batch.arriving,
                leaving=batch.leaving,
                refused=[refusal.envelope for refusal in batch.refusals],
                now=int(self._clock()),
            ),
            batch.arriving,
        )
        if error is None and written is not None:
            self._untold = partial(self._succeed, batch, written, sure=attempts == 1)
        else:
            await self._fail(batch)

    async def _commit(
        self, work: Callable[[Connection], T], arriving: Sequence[Envelope] = ()
    ) -> tuple[DatabaseError | None, T | None, int]:
        """Commit `work`: the error if it is not in the database, as far as one can know; its result; the attempts."""
        for attempt in range(1, ATTEMPTS + 1):
            is_decided = False

            def decide(connection: Connection) -> T:
                nonlocal is_decided
                result = work(connection)
                is_decided = True  # every statement ran: if the commit fails now, nobody knows whether it took
                return result

            self.transactions += 1
            try:
                with self._metrics.commit_seconds.time():
                    result = await self._database.write(decide, meanwhile=self._tell)
            except Exception as fault:
                self._tell()  # this one may have failed before it began
                error = _as_database_error(fault)
            else:
                self._note(None)
                return None, result, attempt
            if not is_decided:
                break
            step_all(arriving, EnvelopeEvent.OUTCOME_UNKNOWN)  # the same again: what did take is recognised
        self._note(error)
        return error, None, attempt

    def _note(self, error: DatabaseError | None) -> None:
        reason = None if error is None else str(error)
        if reason is not None and reason != self.failure:
            log.error("the database cannot be written", reason=reason)
        self.failure = reason

    def _succeed(self, batch: Batch, written: Written, *, sure: bool) -> None:
        self._all_deleted(batch.deletions, written)
        self._all_replaced(batch, written, sure=sure)
        stored = [envelope for envelope in batch.arriving if self._stored(envelope, written)]
        self._metrics.written(stored, len(batch.leaving))
        for refusal in batch.refusals:
            same = written.repeats.get(refusal.envelope.seq)
            _call(refusal.envelope.settle, _of_repeat(same) if same is not None else refusal.result)
        for settlement in batch.settlements:
            _call(settlement.ticket.settle, settlement.place, settlement.result)
        if sure:
            _call(self._bus.committed, stored)
        else:  # a page read meanwhile may not show what an earlier attempt stored
            _call(self._bus.unsure, {envelope.queue for envelope in stored})
        for envelope in stored:
            if not envelope.is_pushed and (mailbox := self._mailboxes.find(envelope.number)):
                mailbox.forget(envelope)

    def _stored(self, envelope: Envelope, written: Written) -> bool:
        """Whether the transaction wrote it; otherwise it is a repeat of one that was there."""
        same = written.repeats.get(envelope.seq)
        if same is None:
            envelope.committed()
            _call(envelope.settle, answers.ACCEPTED)
            return True
        envelope.step(EnvelopeEvent.REFUSED)
        if envelope.is_gone and (mailbox := self._mailboxes.find(envelope.number)):
            mailbox.drop(envelope)
        _call(envelope.settle, _of_repeat(same))
        return False

    def _all_replaced(self, batch: Batch, written: Written, *, sure: bool) -> None:
        """Where an earlier attempt may have replaced more, the queues are counted anew."""
        self._mailboxes.expired(written.replaced)
        self._metrics.expired(len(written.replaced))
        if not sure:
            for number in {envelope.number for envelope in batch.arriving}:
                if mailbox := self._mailboxes.find(number):
                    mailbox.recount()

    def _all_deleted(self, deletions: Sequence[Deletion], written: Written) -> None:
        """Where the database did not hold exactly what memory thought (one was deleted twice, or had failed and was
        there all the same), the queues are counted anew."""
        counted = sum(e.state is EnvelopeState.DELETING for deletion in deletions for e in deletion.envelopes)
        for deletion in deletions:
            self._deleted(deletion, as_counted=counted == written.deleted)

    def _deleted(self, deletion: Deletion, *, as_counted: bool) -> None:
        for envelope in deletion.envelopes:
            mailbox = self._mailboxes.find(envelope.number)
            if envelope.state is EnvelopeState.DELETING:
                envelope.step(EnvelopeEvent.DELETED)
                if mailbox:
                    mailbox.drop(envelope)
            if mailbox and not as_counted:
                mailbox.recount()
        _call(deletion.answer)

    async def _fail(self, batch: Batch) -> None:
        """Senders try again, for all that waits in these queues, so that nothing overtakes. Deletions are owed: without
        the rest they need little room, and are tried alone at once."""
        queues = {envelope.queue: envelope.number for envelope in batch.arriving}
        for number in queues.values():
            if mailbox := self._mailboxes.find(number):
                mailbox.recount()
                self._give_up(mailbox.unwritten())
        self._give_up(batch.arriving)
        for refusal in batch.refusals:
            _call(refusal.envelope.settle, answers.TRY_AGAIN)
        for settlement in batch.settlements:
            _call(settlement.ticket.settle, settlement.place, settlement.result)
        _call(self._bus.unsure, queues)
        if batch.deletions:
            await self._delete_alone(batch)

    def _give_up(self, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.state in (EnvelopeState.QUEUED, EnvelopeState.WRITING, EnvelopeState.DELETING):
                envelope.step(EnvelopeEvent.FAILED)
                for ticket, _ in envelope.owed:
                    ticket.stopped[envelope.queue] = answers.TRY_AGAIN
                if mailbox := self._mailboxes.find(envelope.number):
                    mailbox.forget(envelope)
                _call(envelope.settle, answers.TRY_AGAIN)

    async def _delete_alone(self, batch: Batch) -> None:
        error: DatabaseError | None = None
        if batch.arriving or batch.refusals:
            await trio.to_thread.run_sync(self._make_room)
            error, written, _ = await self._commit(
                partial(storage.write, arriving=(), leaving=batch.leaving, refused=(), now=int(self._clock()))
            )
            if error is None:
                self._all_deleted(batch.deletions, written or _NOTHING)
                return
        self._inbox.put_back(batch.deletions)


def _as_database_error(fault: Exception) -> DatabaseError:
    """A fault of ours in one batch must not end the writer."""
    if isinstance(fault, DatabaseError):
        return fault
    log.error("a batch failed", error=name_of(fault), at=place_of(fault))
    return DatabaseError("the relay failed")


def step_all(envelopes: Iterable[Envelope], event: EnvelopeEvent) -> None:
    """Move them all."""
    for envelope in envelopes:
        envelope.step(event)


def _load(
    connection: Connection, numbers: Iterable[int], invites: Iterable[bytes]
) -> tuple[dict[int, tuple[answers.Fill, int]], dict[bytes, int]]:
    return storage.load_fills(connection, numbers), storage.count_invites(connection, invites)


def _do_all(connection: Connection, errands: Iterable[Errand[object]]) -> None:
    for errand in errands:
        errand.result = errand.work(connection)


def _of_repeat(same: bool) -> SendResult:
    return answers.ACCEPTED if same else answers.ID_CONFLICT


def _nothing(_connection: Connection) -> None:
    """For `flush`."""


def _call(answer: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """A fault of ours in one connection's answer must not silence the others."""
    try:
        answer(*args, **kwargs)
    except Exception as fault:
        log.error("an answer failed", error=name_of(fault), at=place_of(fault))
