"""The writer over a real database: answers after commits, and what happens when a commit fails or nobody knows."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_relay import envelopes as answers
from sottovoce_relay import inbox, storage, writer
from sottovoce_relay.delivery import Delivery
from sottovoce_relay.envelopes import ACCEPTED, ID_CONFLICT, QUEUE_FULL, REFUSED, TRY_AGAIN, Fill, Quotas, Shared
from sottovoce_relay.inbox import BATCH_ENVELOPES
from sottovoce_relay.mailboxes import Mailbox
from sottovoce_relay.states import EnvelopeEvent, EnvelopeState
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, SendResult, Ttl
from sottovoce_wire.ids import QueueId, SendKeyHash
from tests.sottovoce_relay.parts import (
    DAY,
    KEYS,
    NOW,
    OTHER,
    PATIENCE,
    QUEUE,
    Parts,
    Receiver,
    Unreliable,
    arrival,
    door_of,
    stored_bodies,
    two_queues,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from sottovoce_relay.envelopes import Arrival
    from sottovoce_relay.writer import Writer

STRANGER = KeyClass.STRANGER
TOOK = "works but seems to fail"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with two queues."""
    async with two_queues(tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PAUSE_SECONDS", 0)


async def tried(subject: Writer) -> None:
    """Everything that waits was tried."""
    with trio.fail_after(PATIENCE):
        await subject.flush()


async def until(condition: Callable[[], object]) -> None:
    """The writer goes on by itself until this holds."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.001)


def acknowledge(parts: Parts, receiver: Receiver, upto: int) -> list[str]:
    """Filled when the owner may be told."""
    told: list[str] = []
    mailbox = receiver.delivery.mailbox
    parts.intake.acknowledge(mailbox, receiver.delivery.acknowledge(upto, []), lambda: told.append("acked"))
    return told


# --- Group commit -------------------------------------------------------------------------------------------------


async def test_what_arrives_while_a_transaction_runs_is_committed_in_one(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database)
    later: list[list[SendResult]] = []

    def send_more() -> None:
        unreliable.before_write = lambda: None
        later.extend(parts.send(arrival(b"%d" % number)) for number in range(50))

    unreliable.before_write = send_more
    subject = parts.writer(unreliable)
    parts.send(arrival(b"first"))
    nursery.start_soon(subject.run)
    await until(lambda: all(later) and later)
    assert later == [[ACCEPTED]] * 50
    assert subject.transactions == 2
    assert await stored_bodies(database) == [b"first", *(b"%d" % number for number in range(50))]


async def test_nobody_is_answered_before_the_commit(database: Database, nursery: trio.Nursery) -> None:
    parts, unreliable = Parts(), Unreliable(database)
    parts.know()
    results = parts.send(arrival(), arrival(kind=STRANGER))
    seen: list[list[SendResult]] = []
    unreliable.before_write = lambda: seen.append(list(results))
    subject = parts.writer(unreliable)
    nursery.start_soon(subject.run)
    await until(lambda: results)
    assert seen == [[]]
    assert results == [ACCEPTED] * 2


async def test_what_a_transaction_did_is_told_while_the_next_one_runs(
    database: Database, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, unreliable, told = Parts(), Unreliable(database), threading.Event()
    seen: list[bool] = []
    write = storage.write

    def write_and_look(*work: Any, **more: Any) -> storage.Written:
        seen.append(told.wait(PATIENCE) if seen else told.is_set())
        return write(*work, **more)

    def send_more() -> None:
        unreliable.before_write = lambda: seen.append(told.is_set())
        later.append(parts.send(arrival(b"2")))

    later: list[list[SendResult]] = []
    monkeypatch.setattr(storage, "write", write_and_look)
    unreliable.before_write = send_more
    parts.know()
    parts.intake.take([arrival(b"1")], answers.Ticket(1, 0, lambda _: told.set()))
    nursery.start_soon(parts.writer(unreliable).run)
    await until(lambda: later and later[0])
    assert seen == [False, False, True]  # in the first, before the second, in the second


@pytest.mark.parametrize("what", ["an errand", "an arrival to look up"])
async def test_what_a_transaction_did_is_told_before_anything_else_is_decided(
    database: Database, nursery: trio.Nursery, what: str
) -> None:
    parts, unreliable = Parts(), Unreliable(database)
    parts.know()
    seen: list[list[SendResult]] = []
    later: list[list[SendResult]] = []

    def ask_more() -> None:
        unreliable.before_write = unreliable.before_read = lambda: seen.append(list(first))
        later.append(parts.send(arrival(b"2")))
        if what == "an errand":
            parts.inbox.add_errand(inbox.Errand(lambda _: None))
        else:
            parts.send(arrival(b"3", queue=OTHER))

    unreliable.before_write = ask_more
    first = parts.send(arrival(b"1"))
    nursery.start_soon(parts.writer(unreliable).run)
    await until(lambda: later and later[0])
    assert seen[0] == [ACCEPTED]


async def test_a_writer_that_is_cancelled_tells_what_it_has_committed_and_nothing_else(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, unreliable = Parts(), Unreliable(database)
    parts.know()
    write, token, later = storage.write, trio.lowlevel.current_trio_token(), []

    def write_and_cancel(*work: Any, **more: Any) -> storage.Written:
        token.run_sync_soon(scope.cancel)
        return write(*work, **more)

    monkeypatch.setattr(storage, "write", write_and_cancel)
    unreliable.before_write = lambda: later.append(parts.send(arrival(b"2")))
    first = parts.send(arrival(b"1"))
    with trio.CancelScope() as scope:
        await parts.writer(unreliable).run()
    assert scope.cancelled_caught
    assert (first, later[0]) == ([ACCEPTED], [])
    assert await stored_bodies(database) == [b"1"]


async def test_more_than_one_transaction_takes_is_written_in_several_and_in_order(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, count = Parts(), BATCH_ENVELOPES + 5
    results = [parts.send(arrival(b"%d" % number)) for number in range(count)]
    subject = parts.writer(database)
    nursery.start_soon(subject.run)
    await until(lambda: all(results))
    assert await stored_bodies(database) == [b"%d" % number for number in range(count)]


async def test_listeners_hear_of_envelopes_after_the_commit_and_in_order(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    receiver, subject = parts.receive(), parts.writer(database)
    nursery.start_soon(subject.run)
    parts.send(arrival(b"1", STRANGER), arrival(b"2", STRANGER))
    parts.send(arrival(b"3", STRANGER))
    await tried(subject)
    assert receiver.heard == [b"1", b"2", b"3"]


async def test_what_is_stored_is_remembered_only_while_it_is_pushed_and_not_acknowledged(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    mailbox, other = parts.know(), parts.know(OTHER)
    receiver, subject = parts.receive(), parts.writer(database)
    nursery.start_soon(subject.run)
    parts.send(arrival(b"1", STRANGER), arrival(b"2", queue=OTHER))
    await tried(subject)
    (pushed,) = mailbox.known.values()
    assert (pushed.state, pushed.body, other.known) == (EnvelopeState.STORED, b"", {})
    told = acknowledge(parts, receiver, 1)
    await tried(subject)
    assert told == ["acked"]
    assert (mailbox.known, mailbox.fill) == ({}, Fill())
    assert await stored_bodies(database) == []


async def test_what_is_only_known_results_needs_no_transaction(database: Database, nursery: trio.Nursery) -> None:
    parts, subject = Parts(), None
    parts.know()
    subject = parts.writer(database)
    results = parts.send(arrival(ttl=Ttl.NOW))
    nursery.start_soon(subject.run)
    await until(lambda: results)
    assert (results, subject.transactions) == ([ACCEPTED], 0)


async def test_a_shared_body_is_stored_once_and_freed_with_its_last_pointer(
    database: Database, nursery: trio.Nursery
) -> None:
    def bodies(connection: Connection) -> int:
        return int(connection.exec_driver_sql("SELECT count(*) FROM bodies").scalar_one())

    parts, shared = Parts(), Shared(77, b"body")
    receivers = {queue: parts.receive(queue) for queue in (QUEUE, OTHER)}
    subject = parts.writer(database)
    nursery.start_soon(subject.run)
    parts.send(*(arrival(b"body", STRANGER, queue=queue, shared=shared) for queue in receivers))
    await tried(subject)
    for receiver, left in zip(receivers.values(), (1, 0), strict=True):
        assert receiver.heard == [b"body"]
        assert await database.read(bodies) == 1
        acknowledge(parts, receiver, 1)
        await tried(subject)
        assert await database.read(bodies) == left


# --- Held ---------------------------------------------------------------------------------------------------------


async def test_what_is_acknowledged_while_it_is_written_is_deleted_in_the_next_transaction(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database)
    mailbox = parts.know()
    receiver, subject = parts.receive(), parts.writer(unreliable)
    results = parts.send(arrival(b"1"))
    parts.intake._let_go(mailbox, EnvelopeEvent.TIME_UP)
    told: list[str] = []

    def acknowledge_meanwhile() -> None:
        unreliable.before_write = lambda: None
        envelopes = receiver.delivery.acknowledge(1, [])
        parts.intake.acknowledge(mailbox, envelopes, lambda: told.append("acked"))
        told.append("not yet")
        assert results == [ACCEPTED]

    unreliable.before_write = acknowledge_meanwhile
    nursery.start_soon(subject.run)
    await until(lambda: len(told) > 1)
    assert subject.transactions == 2
    assert told == ["not yet", "acked"]
    assert (await stored_bodies(database), mailbox.known, mailbox.fill) == ([], {}, Fill())
    assert receiver.heard == [b"1"]


async def test_what_is_acknowledged_between_its_commit_and_its_answer_is_deleted_and_then_answered(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database)
    mailbox = parts.know()
    receiver, subject = parts.receive(), parts.writer(unreliable)
    told: list[list[str]] = []
    seen: list[list[str]] = []

    def send_more() -> None:
        unreliable.before_write = acknowledge_now
        parts.send(arrival(b"2", STRANGER))

    def acknowledge_now() -> None:
        unreliable.before_write = lambda: seen.append(list(told[0]))
        assert mailbox.known[first.name].state is EnvelopeState.WRITING  # it is committed, and nobody was told so
        told.append(acknowledge(parts, receiver, 1))

    unreliable.before_write = send_more
    first = arrival(b"1")
    results = parts.send(first)
    parts.intake._let_go(mailbox, EnvelopeEvent.TIME_UP)
    nursery.start_soon(subject.run)
    await until(lambda: told and told[0])
    assert (results, seen, subject.transactions) == ([ACCEPTED], [[]], 3)
    assert receiver.heard == [b"1", b"2"]
    assert (await stored_bodies(database), mailbox.fill, mailbox.shadowed) == ([b"2"], Fill(1, 1, 1, 1), {})


# --- Look-ups -----------------------------------------------------------------------------------------------------


async def test_a_queue_that_is_not_in_memory_is_counted_with_what_it_holds(
    database: Database, nursery: trio.Nursery
) -> None:
    for quotas, code in ((Quotas(envelopes=3), ACCEPTED), (Quotas(envelopes=3), QUEUE_FULL)):
        parts = Parts(quotas=quotas)  # as after a restart
        parts.intake._next_seq = 1 + await database.read(storage.last_seq)
        subject = parts.writer(database)
        nursery.start_soon(subject.run)
        results = [parts.send(arrival()) for _ in range(2)]
        await tried(subject)
        assert results == [[ACCEPTED], [code]]


async def test_invite_keys_that_are_not_in_memory_are_counted_with_what_they_hold(
    database: Database, nursery: trio.Nursery
) -> None:
    kind = KeyClass.INVITE
    for codes in ([ACCEPTED, ACCEPTED], [ACCEPTED, QUEUE_FULL]):
        parts = Parts(quotas=Quotas(invite_envelopes=3))
        parts.intake._next_seq = 1 + await database.read(storage.last_seq)
        subject = parts.writer(database)
        nursery.start_soon(subject.run)
        first, other = parts.send(arrival(kind=kind)), parts.send(arrival())
        await tried(subject)  # what is known already is not asked for again
        second = parts.send(arrival(kind=kind))
        await tried(subject)
        assert (first, second, other) == ([codes[0]], [codes[1]], [ACCEPTED])


async def test_an_unknown_queue_and_a_wrong_key_are_looked_up_the_same_whatever_is_known_of_the_queue(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database)
    subject = parts.writer(unreliable)
    nursery.start_soon(subject.run)
    wrong = SendKeyHash(b"?" * 32)
    unknown = QueueId(b"?" * 16)
    reads = []
    for queue in (unknown, OTHER, QUEUE):
        if queue == QUEUE:
            parts.know()
            parts.receive()
        unreliable.reads.clear()
        before = subject.transactions
        results = parts.send(arrival(queue=queue, key_hash=wrong))
        await until(results.__len__)
        assert results == [REFUSED]
        reads.append((list(unreliable.reads), subject.transactions - before))
    assert reads == [([storage.load_doors], 0)] * 3


async def test_a_look_up_that_fails_tells_senders_to_try_again_and_what_follows_is_decided(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database)
    subject = parts.writer(unreliable)

    unreliable.fault_of_next_read = DatabaseError("the disk went away")
    results = [parts.send(arrival()), parts.send(arrival(queue=OTHER))]
    nursery.start_soon(subject.run)
    await until(lambda: all(results))
    assert results == [[TRY_AGAIN]] * 2
    assert parts.mailboxes.undecided == {}
    again = parts.send(arrival())
    await tried(subject)
    assert again == [ACCEPTED]
    assert subject.failure is None


async def test_what_follows_in_the_send_of_one_whose_look_up_failed_does_not_overtake(
    database: Database, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "BATCH_ARRIVALS", 1)
    parts, unreliable = Parts(), Unreliable(database)
    subject = parts.writer(unreliable)
    unreliable.fault_of_next_read = DatabaseError("the disk went away")
    results = parts.send(arrival(b"1"), arrival(b"other", queue=OTHER), arrival(b"2"))
    nursery.start_soon(subject.run)
    await tried(subject)
    assert results == [TRY_AGAIN, ACCEPTED, TRY_AGAIN]
    assert await stored_bodies(database) == []


async def test_a_fault_of_ours_in_what_follows_a_look_up_does_not_end_the_writer(
    database: Database, nursery: trio.Nursery
) -> None:
    class Faulty(Receiver):
        def push(self, mailbox: Mailbox) -> None:
            raise KeyError("a bug")

    parts = Parts()
    subject = parts.writer(database)
    parts.bus.listen(QUEUE, Faulty(parts.mailboxes.at(QUEUE, 1)))
    parts.send(arrival(b"1"))
    results = parts.send(arrival(b"2", queue=OTHER))
    nursery.start_soon(subject.run)
    await tried(subject)
    assert results == [ACCEPTED]


async def test_a_look_up_that_fails_by_a_fault_of_ours_does_not_end_the_writer(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database)
    subject = parts.writer(unreliable)

    unreliable.fault_of_next_read = KeyError("a bug")
    results = parts.send(arrival())
    nursery.start_soon(subject.run)
    await until(lambda: results)
    assert results == [TRY_AGAIN]
    again = parts.send(arrival())
    await tried(subject)
    assert again == [ACCEPTED]


# --- Repeats ------------------------------------------------------------------------------------------------------


async def test_a_repeat_of_what_is_in_the_database_is_recognised_and_counted_once(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    subject = parts.writer(database)
    nursery.start_soon(subject.run)
    results = []
    for body in (b"x", b"x", b"y"):
        results.append(parts.send(arrival(body, name=b"n")))
        await tried(subject)
    assert results == [[ACCEPTED], [ACCEPTED], [ID_CONFLICT]]
    assert await stored_bodies(database) == [b"x"]
    mailbox = parts.mailboxes.at(QUEUE, 1)
    assert (mailbox.fill, mailbox.known) == (Fill(1, 1, 0, 0), {})


@pytest.mark.parametrize("kind", [STRANGER, KeyClass.INVITE, KeyClass.GROUP])
async def test_a_sender_that_may_be_a_stranger_never_learns_what_is_stored(
    database: Database, nursery: trio.Nursery, kind: KeyClass
) -> None:
    """An id again with another body is answered as if the first were gone; with the same body it is a repeat."""
    demote = partial(storage.demote_send_key, queue=QUEUE, key_hash=KEYS[KeyClass.GROUP], dies_at=NOW + 9)
    await database.write(demote)
    parts = Parts()
    subject = parts.writer(database)
    nursery.start_soon(subject.run)
    for body in (b"x", b"y", b"x", b"y"):
        assert await sent(parts, subject, arrival(body, kind, name=b"n")) == [ACCEPTED]
    assert await stored_bodies(database) == [b"x", b"y"]


async def test_a_repeat_is_recognised_after_a_restart(database: Database, nursery: trio.Nursery) -> None:
    for body, result in ((b"x", ACCEPTED), (b"x", ACCEPTED), (b"y", ID_CONFLICT)):
        parts = Parts()
        parts.intake._next_seq = 1 + await database.read(storage.last_seq)
        subject = parts.writer(database)
        nursery.start_soon(subject.run)
        results = parts.send(arrival(body, name=b"n"))
        await tried(subject)
        assert results == [result]


async def test_a_full_queue_still_knows_what_it_holds(database: Database, nursery: trio.Nursery) -> None:
    parts = Parts(quotas=Quotas(envelopes=1))
    subject = parts.writer(database)
    nursery.start_soon(subject.run)
    parts.send(arrival(b"x", name=b"n"))
    await tried(subject)
    results = [parts.send(arrival(body, name=name)) for body, name in ((b"x", b"n"), (b"y", b"n"), (b"z", b"m"))]
    await tried(subject)
    assert results == [[ACCEPTED], [ID_CONFLICT], [QUEUE_FULL]]


async def test_a_repeat_of_what_is_pushed_and_stored_is_not_pushed_again(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    receiver, subject = parts.receive(), parts.writer(database)
    nursery.start_soon(subject.run)
    for _ in range(2):
        results = parts.send(arrival(b"x", STRANGER, name=b"n"))
        await tried(subject)
        assert results == [ACCEPTED]
    assert receiver.heard == [b"x"]
    acknowledge(parts, receiver, 1)
    await tried(subject)
    assert parts.mailboxes.at(QUEUE, 1).fill == Fill()


# --- Failures -----------------------------------------------------------------------------------------------------


async def test_a_failed_write_tells_senders_to_try_again_and_the_writer_goes_on(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, room_made = Parts(), []
    mailbox = parts.know()
    receiver, subject = parts.receive(), parts.writer(Unreliable(database, "fails"), lambda: room_made.append(1))
    first = parts.send(arrival(b"1", STRANGER), arrival(b"2", STRANGER))
    nursery.start_soon(subject.run)
    await until(lambda: first)
    assert first == [TRY_AGAIN] * 2
    assert subject.failure == "the disk is full"
    assert (receiver.heard, mailbox.known, mailbox.fill) == (["unsure"], {}, None)
    await until(lambda: room_made)
    second = parts.send(arrival(b"3"))
    await tried(subject)
    assert second == [ACCEPTED]
    assert not subject.failure
    assert await stored_bodies(database) == [b"3"]
    assert mailbox.fill == Fill(1, 1, 0, 0)


@pytest.mark.parametrize("with_deletion", [False, True])
async def test_room_is_made_by_a_thread_so_that_a_stuck_disk_stops_nobody(
    database: Database, nursery: trio.Nursery, with_deletion: bool
) -> None:
    parts, made = Parts(), trio.Event()
    unreliable = Unreliable(database)
    subject = parts.writer(unreliable, lambda: trio.from_thread.run_sync(made.set))  # raises where there is no thread
    receiver = parts.receive()
    nursery.start_soon(subject.run)
    assert await sent(parts, subject, arrival(b"1", STRANGER)) == [ACCEPTED]
    unreliable.outcomes = ["fails"]
    parts.send(arrival(b"2", STRANGER))
    told = acknowledge(parts, receiver, 1) if with_deletion else ["acked"]
    with trio.fail_after(PATIENCE):
        await made.wait()
    await until(lambda: told)
    assert await sent(parts, subject, arrival(b"3", STRANGER)) == [ACCEPTED]


async def test_when_a_write_fails_nothing_of_its_queues_that_waits_overtakes(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database, "fails")
    parts.know()
    parts.know(OTHER)
    later: list[list[SendResult]] = []

    def send_more() -> None:
        unreliable.before_write = lambda: None
        later.extend([parts.send(arrival(b"2")), parts.send(arrival(b"other", queue=OTHER))])

    unreliable.before_write = send_more
    subject = parts.writer(unreliable)
    first = parts.send(arrival(b"1"))
    nursery.start_soon(subject.run)
    await until(lambda: later and all(later))
    assert (first, later) == ([TRY_AGAIN], [[TRY_AGAIN], [ACCEPTED]])
    assert await stored_bodies(database) == []


async def test_a_write_that_fails_before_it_begins_leaves_alone_what_the_one_before_it_committed(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database, "works", "fails")
    mailbox = parts.know()
    receiver = parts.receive()
    later: list[list[SendResult]] = []

    def send_more() -> None:
        unreliable.before_write = lambda: None
        later.append(parts.send(arrival(b"2", STRANGER)))

    unreliable.before_write = send_more
    first = parts.send(arrival(b"1", STRANGER))
    nursery.start_soon(parts.writer(unreliable).run)
    await until(lambda: later and later[0])
    assert (first, later) == ([ACCEPTED], [[TRY_AGAIN]])
    assert receiver.heard == [b"1", "unsure"]
    assert (await stored_bodies(database), mailbox.fill) == ([b"1"], None)


async def test_what_is_acknowledged_while_its_write_fails_is_gone_and_not_counted(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database, "fails")
    mailbox = parts.know()
    receiver, subject = parts.receive(), parts.writer(unreliable)
    results = parts.send(arrival(b"1"))
    parts.intake._let_go(mailbox, EnvelopeEvent.TIME_UP)
    told: list[list[str]] = []

    def acknowledge_meanwhile() -> None:
        unreliable.before_write = lambda: None
        told.append(acknowledge(parts, receiver, 1))

    unreliable.before_write = acknowledge_meanwhile
    nursery.start_soon(subject.run)
    await until(lambda: told and told[0])
    assert (results, mailbox.known) == ([ACCEPTED], {})
    await sent(parts, subject, arrival(b"2", STRANGER))
    assert (await stored_bodies(database), mailbox.fill) == ([b"2"], Fill(1, 1, 1, 1))


async def test_a_repeat_that_waits_while_a_write_of_its_queue_fails_is_counted_rightly(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    receiver, unreliable = parts.receive(), Unreliable(database)
    subject = parts.writer(unreliable)
    nursery.start_soon(subject.run)
    mailbox = parts.mailboxes.at(QUEUE, 1)
    await sent(parts, subject, arrival(b"x", STRANGER, name=b"n"))
    later: list[list[SendResult]] = []

    def repeat_meanwhile() -> None:
        unreliable.before_write = lambda: None
        later.append(parts.send(arrival(b"x", STRANGER, name=b"n")))

    unreliable.outcomes, unreliable.before_write = ["fails"], repeat_meanwhile
    failing = parts.send(arrival(b"y", STRANGER))
    await until(lambda: later and later[0])
    assert (failing, later) == ([TRY_AGAIN], [[TRY_AGAIN]])
    again = [
        await sent(parts, subject, arrival(body, STRANGER, name=name)) for body, name in ((b"x", b"n"), (b"y", b"m"))
    ]
    assert again == [[ACCEPTED], [ACCEPTED]]
    assert mailbox.fill == Fill(2, 2, 2, 2)
    acknowledge(parts, receiver, 1)
    await tried(subject)
    assert (await stored_bodies(database), mailbox.fill, mailbox.shadowed) == ([b"y"], Fill(1, 1, 1, 1), {})


async def test_a_refusal_that_could_not_be_looked_up_is_tried_again(database: Database, nursery: trio.Nursery) -> None:
    parts = Parts(quotas=Quotas(envelopes=0))
    parts.know()
    subject = parts.writer(Unreliable(database, "fails"))
    results = parts.send(arrival())
    known = parts.send(arrival(ttl=Ttl.NOW))
    nursery.start_soon(subject.run)
    await until(lambda: results and known)
    assert (results, known) == ([TRY_AGAIN], [ACCEPTED])


async def test_a_full_disk_is_survived(database: Database, nursery: trio.Nursery) -> None:
    """The real thing: SQLite may not grow its file any more, and then it may again."""
    parts, big = Parts(), os.urandom(60_000)
    subject = parts.writer(database)
    nursery.start_soon(subject.run)
    full = await database.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    await database.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {full + 5}").all())
    for _ in range(3):
        refused = parts.send(arrival(big))
        await until(refused.__len__)
        assert refused == [TRY_AGAIN]
        assert subject.failure is not None
        assert "disk is full" in subject.failure
    await database.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100000").all())
    taken = parts.send(arrival(big))
    await tried(subject)
    assert taken == [ACCEPTED]
    assert await stored_bodies(database) == [big]


# --- Nobody knows -------------------------------------------------------------------------------------------------


async def test_when_nobody_knows_whether_a_commit_took_it_is_done_again_without_doubles(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    mailbox = parts.know()
    subject = parts.writer(Unreliable(database, TOOK, TOOK))
    nursery.start_soon(subject.run)
    results = parts.send(arrival(b"once", name=b"n"), arrival(b"once", STRANGER))
    await until(lambda: results)
    assert results == [ACCEPTED] * 2
    assert await stored_bodies(database) == [b"once"] * 2
    assert await sent(parts, subject, arrival(b"next")) == [ACCEPTED]
    assert (mailbox.fill, mailbox.known, subject.failure) == (Fill(3, 12, 1, 4), {}, None)


async def test_a_listener_looks_again_when_a_commit_took_at_an_attempt_that_seemed_to_fail(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    receiver, subject = parts.receive(), parts.writer(Unreliable(database, TOOK))
    nursery.start_soon(subject.run)
    results = parts.send(arrival(b"1", STRANGER))
    await until(lambda: results)
    assert (results, receiver.heard) == ([ACCEPTED], ["unsure"])


async def sent(parts: Parts, subject: Writer, one: Arrival) -> Sequence[SendResult]:
    results = parts.send(one)
    await tried(subject)
    return results


async def test_a_listener_looks_again_when_the_commit_took_and_the_writer_gave_up(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    mailbox = parts.know()
    receiver, subject = parts.receive(), parts.writer(Unreliable(database, *[TOOK] * writer.ATTEMPTS))
    nursery.start_soon(subject.run)
    results = parts.send(arrival(b"there", STRANGER))
    await until(lambda: results)
    assert (results, receiver.heard, mailbox.known, mailbox.fill) == ([TRY_AGAIN], ["unsure"], {}, None)
    assert await stored_bodies(database) == [b"there"]


async def test_one_that_may_be_there_is_recognised_when_it_is_sent_again(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    subject = parts.writer(Unreliable(database, *[TOOK] * writer.ATTEMPTS))
    nursery.start_soon(subject.run)
    parts.know()
    results = [parts.send(arrival(b"x", name=b"n"))]
    await until(lambda: results[0])
    results.append(parts.send(arrival(b"x", name=b"n")))
    await tried(subject)
    assert results == [[TRY_AGAIN], [ACCEPTED]]
    assert await stored_bodies(database) == [b"x"]


# --- Deletions ----------------------------------------------------------------------------------------------------


async def stored_and_pushed(parts: Parts, database: Database, nursery: trio.Nursery) -> tuple[Receiver, Unreliable]:
    """Two envelopes that are in the database and with their owner."""
    unreliable = Unreliable(database)
    receiver, subject = parts.receive(), parts.writer(unreliable)
    nursery.start_soon(subject.run)
    parts.send(arrival(b"1", STRANGER), arrival(b"2", STRANGER))
    await tried(subject)
    assert receiver.heard == [b"1", b"2"]
    return receiver, unreliable


@pytest.mark.parametrize("outcomes", [["fails", "fails"], [TOOK, "fails", "fails"], [TOOK] * 5])
async def test_an_acknowledgement_is_answered_once_its_deletion_is_committed_however_often_that_fails(
    database: Database, nursery: trio.Nursery, outcomes: list[str]
) -> None:
    parts = Parts()
    receiver, unreliable = await stored_and_pushed(parts, database, nursery)
    unreliable.outcomes = list(outcomes)
    seen: list[int] = []
    told = acknowledge(parts, receiver, 1)
    unreliable.before_write = lambda: seen.append(len(told))
    await until(lambda: told)
    assert unreliable.outcomes == []
    assert seen == [0] * (len(outcomes) + 1)
    assert await stored_bodies(database) == [b"2"]
    unreliable.before_write = lambda: None
    parts.send(arrival(b"3", STRANGER))
    await until(lambda: b"3" in receiver.heard)
    assert parts.mailboxes.at(QUEUE, 1).fill == Fill(2, 2, 2, 2)


async def test_a_deletion_is_done_alone_when_its_transaction_fails_for_the_rest_of_it(
    database: Database, nursery: trio.Nursery
) -> None:
    """On a full disk nothing can be taken in, however much comes, and what is taken out must still go."""
    parts = Parts()
    receiver, unreliable = await stored_and_pushed(parts, database, nursery)
    parts.know(OTHER)
    full = await database.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    await database.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {full}").all())
    writes, results, told = [], [], []

    def keep_sending() -> None:
        writes.append(1)
        queue = (QUEUE, OTHER)[len(writes) % 2]  # what waits in another queue is not given up with a failed write
        if len(writes) < 10:
            results.append(parts.send(arrival(bytes(60_000), STRANGER, queue=queue)))

    unreliable.before_write = keep_sending
    keep_sending()
    leaving = receiver.delivery.acknowledge(2, [])
    parts.intake.acknowledge(receiver.delivery.mailbox, leaving, lambda: told.append(len(writes)))
    await until(lambda: told)
    assert told == [3]  # the test's own, the transaction that failed, and the deletion alone
    assert results[0] == [TRY_AGAIN]
    assert await stored_bodies(database) == []


async def test_a_deletion_whose_own_transaction_fails_too_is_owed(database: Database, nursery: trio.Nursery) -> None:
    parts = Parts()
    receiver, unreliable = await stored_and_pushed(parts, database, nursery)
    unreliable.outcomes = ["fails", "fails"]
    parts.send(arrival(b"3", STRANGER))
    told = acknowledge(parts, receiver, 2)
    await until(lambda: told)
    assert unreliable.outcomes == []
    assert await stored_bodies(database) == []


async def test_what_two_connections_acknowledged_is_counted_out_once(database: Database, nursery: trio.Nursery) -> None:
    """A page that was read before the first deletion was committed reaches the next connection after it."""
    parts = Parts()
    receiver, _ = await stored_and_pushed(parts, database, nursery)
    mailbox = receiver.delivery.mailbox
    old_page = await database.read(lambda c: storage.read_page(c, QUEUE, 0, (256, 2**20), NOW))
    assert old_page is not None
    parts.intake.release(mailbox, [])
    first = acknowledge(parts, receiver, 2)
    await until(lambda: first)
    again = Delivery(mailbox, 256, 2**20, lambda _: None)
    again.begin_page()
    assert len(again.take_page(old_page)) == 2
    second: list[str] = []
    parts.intake.acknowledge(mailbox, again.acknowledge(2, []), lambda: second.append("acked"))
    await until(lambda: second)
    assert mailbox.fill is None
    parts.send(arrival(b"3", STRANGER))
    await until(lambda: mailbox.fill)
    assert mailbox.fill == Fill(1, 1, 1, 1)


async def test_the_row_of_one_that_had_failed_is_counted_out_when_its_acknowledgement_deletes_it(
    database: Database, nursery: trio.Nursery
) -> None:
    parts, unreliable = Parts(), Unreliable(database, *[TOOK] * writer.ATTEMPTS)
    mailbox = parts.know()
    receiver, subject = parts.receive(), parts.writer(unreliable)
    results = parts.send(arrival(b"1"))
    parts.intake._let_go(mailbox, EnvelopeEvent.TIME_UP)
    nursery.start_soon(subject.run)
    await until(lambda: results)
    assert (results, receiver.heard) == ([TRY_AGAIN], [b"1", "unsure"])
    await sent(parts, subject, arrival(b"2", STRANGER))
    assert mailbox.fill == Fill(2, 2, 1, 1)
    told = acknowledge(parts, receiver, 1)
    await until(lambda: told)
    await sent(parts, subject, arrival(b"3", STRANGER))
    assert (await stored_bodies(database), mailbox.fill) == ([b"2", b"3"], Fill(2, 2, 2, 2))


# --- Errands ------------------------------------------------------------------------------------------------------


async def test_an_errand_has_its_result_after_the_commit(database: Database, nursery: trio.Nursery) -> None:
    subject = Parts().writer(database)
    nursery.start_soon(subject.run)
    create = partial(storage.create_queue, queue=QueueId(b"n" * 16), owner_key=b"3" * 32, keys=[], day=DAY)
    owned = await subject.perform(create)
    assert owned.number == 3
    assert await stored_bodies(database, QueueId(b"n" * 16)) == []


async def test_an_errand_that_failed_was_not_done(database: Database, nursery: trio.Nursery) -> None:
    subject = Parts().writer(Unreliable(database, "fails"))
    nursery.start_soon(subject.run)
    with pytest.raises(DatabaseError, match="the disk is full"):
        await subject.perform(lambda c: storage.delete_queue(c, 1))
    assert await stored_bodies(database) == []


async def test_an_errand_whose_outcome_is_unknown_is_done_again(database: Database, nursery: trio.Nursery) -> None:
    subject = Parts().writer(Unreliable(database, TOOK))
    nursery.start_soon(subject.run)
    assert await subject.perform(lambda c: storage.delete_queue(c, 1)) is Code.ACCEPTED


async def test_errands_that_wait_together_are_done_in_one_transaction(
    database: Database, nursery: trio.Nursery
) -> None:
    subject, done = Parts().writer(database), []

    async def perform(number: int) -> None:
        done.append(await subject.perform(lambda _: number))

    async with trio.open_nursery() as errands:
        for number in range(20):
            errands.start_soon(perform, number)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(subject.run)
    assert sorted(done) == list(range(20))
    assert subject.transactions == 1


async def test_a_fault_of_ours_fails_its_batch_and_not_the_writer(database: Database, nursery: trio.Nursery) -> None:
    subject = Parts().writer(database)
    nursery.start_soon(subject.run)

    def faulty(_: Connection) -> None:
        raise KeyError("a bug")

    with pytest.raises(DatabaseError):
        await subject.perform(faulty)
    assert await subject.perform(lambda _: "fine") == "fine"


async def test_an_errand_that_fails_does_not_fail_those_that_wait_with_it(
    database: Database, nursery: trio.Nursery
) -> None:
    subject, done = Parts().writer(database), []

    def faulty(_: Connection) -> None:
        raise KeyError("a bug")

    async def perform(number: int) -> None:
        work = faulty if number == 1 else partial(storage.delete_queue, number=number)
        try:
            await subject.perform(work)
        except DatabaseError:
            done.append(-number)
        else:
            done.append(number)

    async with trio.open_nursery() as errands:
        for number in range(3):
            errands.start_soon(perform, number)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(subject.run)
    assert sorted(done) == [-1, 0, 2]


async def test_an_answer_that_raises_does_not_end_the_writer_or_silence_others(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    subject = parts.writer(database)
    nursery.start_soon(subject.run)

    def faulty(_: Sequence[SendResult]) -> None:
        raise KeyError("a bug")

    parts.intake.take([arrival(b"1")], answers.Ticket(1, 0, faulty))
    results = parts.send(arrival(b"2"))
    await tried(subject)
    assert results == [ACCEPTED]
    assert await stored_bodies(database) == [b"1", b"2"]


async def test_who_flushes_waits_until_all_that_waited_was_tried(database: Database, nursery: trio.Nursery) -> None:
    parts = Parts()
    subject = parts.writer(database)
    results = [parts.send(arrival(b"%d" % number)) for number in range(2 * BATCH_ENVELOPES)]
    nursery.start_soon(subject.run)
    await tried(subject)
    assert results == [[ACCEPTED]] * len(results)


async def test_a_failing_database_does_not_keep_who_flushes(database: Database, nursery: trio.Nursery) -> None:
    parts = Parts()
    subject = parts.writer(Unreliable(database, "fails"))
    nursery.start_soon(subject.run)
    await tried(subject)


async def test_an_envelope_that_expires_unwritten_is_passed_over_by_who_is_live(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    receiver, subject = parts.receive(), parts.writer(database)
    parts.now = NOW - 3600
    nursery.start_soon(subject.run)
    assert await sent(parts, subject, arrival(b"1", STRANGER, ttl=Ttl.HOUR)) == [ACCEPTED]
    assert receiver.heard == []


@pytest.mark.parametrize("outcome", ["works", "fails"])
async def test_what_follows_an_errand_is_done_before_anything_else_is_decided(
    database: Database, nursery: trio.Nursery, outcome: str
) -> None:
    """Also if who asked is gone by then: what a key opens may have changed either way."""
    parts = Parts()
    parts.know()
    subject = parts.writer(Unreliable(database, outcome))
    with trio.move_on_after(0):
        await subject.perform(lambda _: None, partial(parts.mailboxes.forget_doors, [door_of()]))
    nursery.start_soon(subject.run)
    await until(lambda: parts.mailboxes.door(door_of()) is None)


async def test_revoked_keys_are_gone_for_arrivals_that_are_looked_up_later(
    database: Database, nursery: trio.Nursery
) -> None:
    parts = Parts()
    subject = parts.writer(database)
    nursery.start_soon(subject.run)
    assert await sent(parts, subject, arrival()) == [ACCEPTED]
    revoke = partial(storage.revoke_send_key, queue=QUEUE, key_hash=SendKeyHash(door_of()[16:]))
    await subject.perform(revoke, partial(parts.mailboxes.forget_doors, [door_of()]))
    assert await sent(parts, subject, arrival()) == [REFUSED]
