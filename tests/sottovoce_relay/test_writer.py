"""The writer over a real database: answers after commits, and what happens when a commit fails or nobody knows."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

import sottovoce_relay
from sottovoce_hosting.database import Database, DatabaseError, open_database
from sottovoce_relay import storage, writer
from sottovoce_relay.bus import Bus
from sottovoce_relay.envelopes import ACCEPTED, TRY_AGAIN, Arrival, Loss, Quotas, Range, Stored
from sottovoce_relay.writer import Inbox, Send, Writer
from sottovoce_wire.frames import KeyClass, NewSendKey, SendResult
from sottovoce_wire.ids import QueueId, SendKeyHash

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")
QUEUE = QueueId(b"q" * 16)
KEY = SendKeyHash(b"k" * 32)


def arrival(body: bytes = b"body") -> Arrival:
    return Arrival(QUEUE, QUEUE + KEY, os.urandom(32), 2**40, body)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with one queue."""
    assert sottovoce_relay.__file__
    async with open_database(tmp_path / "relay.db", Path(sottovoce_relay.__file__).with_name("migrations")) as opened:
        key = NewSendKey(KEY, KeyClass.CONTACT)
        await opened.write(lambda c: storage.create_queue(c, QUEUE, b"1" * 32, [key]))
        yield opened


class Answers:
    """Collects answers of Sends, and lets a test wait for them."""

    def __init__(self) -> None:
        self.results: list[SendResult] = []
        self._came = trio.Event()

    def __call__(self, results: Sequence[SendResult]) -> None:
        self.results.extend(results)
        self._came.set()

    async def wait(self, count: int) -> list[SendResult]:
        with trio.fail_after(20):
            while len(self.results) < count:
                self._came = trio.Event()
                await self._came.wait()
        return self.results


class Ear:
    """A listener that notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[bytes | str] = []

    def committed(self, queue: QueueId, envelopes: Sequence[Stored]) -> None:
        self.heard.extend(envelope.body for envelope in envelopes)

    def unsure(self, queue: QueueId) -> None:
        self.heard.append("unsure")

    def lost(self, loss: Loss) -> None:
        self.heard.append("lost")

    def displaced(self) -> None:
        self.heard.append("displaced")


class Unreliable(Database):
    """The real database, except that some writes report a failure: before they begin, or after they were committed."""

    def __init__(self, real: Database, *outcomes: str) -> None:
        self._real = real
        self.outcomes = list(outcomes)

    async def write(self, work: Callable[[Connection], T], *, within: float = inf) -> T:
        outcome = self.outcomes.pop(0) if self.outcomes else "works"
        if outcome == "fails":
            raise DatabaseError("the disk is full")
        result = await self._real.write(work, within=within)
        if outcome == "works but seems to fail":
            raise DatabaseError("the disk went away")
        return result


async def stored_bodies(database: Database) -> list[bytes]:
    page = await database.read(lambda c: storage.read_page(c, QUEUE, 0, (256, 2**20), 0))
    return [envelope.body for envelope in page.envelopes]


async def test_what_arrives_while_a_transaction_runs_is_committed_in_one(
    database: Database, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    take = Inbox.take

    async def noting_take(inbox: Inbox) -> list[writer.Job]:
        batch = await take(inbox)
        sizes.append(len(batch))
        return batch

    monkeypatch.setattr(Inbox, "take", noting_take)
    subject, answers = Writer(database, Bus(), Quotas()), Answers()
    for number in range(50):
        await subject.send([arrival(b"%d" % number)], answers)
    nursery.start_soon(subject.run)
    assert await answers.wait(50) == [ACCEPTED] * 50
    assert sizes == [50]
    assert await stored_bodies(database) == [b"%d" % number for number in range(50)]


async def test_listeners_hear_of_envelopes_after_the_commit_and_in_order(
    database: Database, nursery: trio.Nursery
) -> None:
    bus, ear, answers = Bus(), Ear(), Answers()
    subject = Writer(database, bus, Quotas())
    bus.listen(QUEUE, ear)
    nursery.start_soon(subject.run)
    await subject.send([arrival(b"1"), arrival(b"2")], answers)
    await subject.send([arrival(b"3")], answers)
    await answers.wait(3)
    await subject.flush()
    assert ear.heard == [b"1", b"2", b"3"]


async def test_a_failed_write_tells_senders_to_try_again_and_the_writer_goes_on(
    database: Database, nursery: trio.Nursery
) -> None:
    bus, ear, first, second = Bus(), Ear(), Answers(), Answers()
    subject = Writer(Unreliable(database, "fails"), bus, Quotas())
    bus.listen(QUEUE, ear)
    nursery.start_soon(subject.run)
    await subject.send([arrival(b"1"), arrival(b"2")], first)
    assert await first.wait(2) == [TRY_AGAIN, TRY_AGAIN]
    assert subject.failure == "the disk is full"
    assert ear.heard == ["unsure"]
    await subject.send([arrival(b"3")], second)
    assert await second.wait(1) == [ACCEPTED]
    assert subject.failure is None
    assert await stored_bodies(database) == [b"3"]


async def test_a_full_disk_is_survived(database: Database, nursery: trio.Nursery) -> None:
    """The real thing: SQLite may not grow its file any more, and then it may again."""
    subject, big = Writer(database, Bus(), Quotas()), os.urandom(60_000)
    nursery.start_soon(subject.run)
    full = await database.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    await database.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {full + 10}").all())
    refused = Answers()
    for count in (1, 2, 3):
        await subject.send([arrival(big)], refused)
        assert await refused.wait(count) == [TRY_AGAIN] * count
    assert subject.failure is not None
    assert "disk is full" in subject.failure
    await database.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100000").all())
    taken = Answers()
    await subject.send([arrival(big)], taken)
    assert await taken.wait(1) == [ACCEPTED]
    assert await stored_bodies(database) == [big]


async def test_when_nobody_knows_whether_a_commit_took_it_is_done_again_without_doubles(
    database: Database, nursery: trio.Nursery
) -> None:
    subject, answers = Writer(Unreliable(database, "works but seems to fail"), Bus(), Quotas()), Answers()
    nursery.start_soon(subject.run)
    await subject.send([arrival(b"once")], answers)
    assert await answers.wait(1) == [ACCEPTED]
    assert await stored_bodies(database) == [b"once"]


async def test_a_listener_looks_again_when_a_commit_took_at_an_attempt_that_seemed_to_fail(
    database: Database, nursery: trio.Nursery
) -> None:
    bus, ear, answers = Bus(), Ear(), Answers()
    subject = Writer(Unreliable(database, "works but seems to fail"), bus, Quotas())
    bus.listen(QUEUE, ear)
    nursery.start_soon(subject.run)
    await subject.send([arrival(b"1")], answers)
    await answers.wait(1)
    await subject.send([arrival(b"2")], answers)
    assert await answers.wait(2) == [ACCEPTED, ACCEPTED]
    await subject.flush()
    assert ear.heard == ["unsure", b"2"]


async def test_a_listener_looks_again_when_the_commit_took_and_the_writer_gave_up(
    database: Database, nursery: trio.Nursery
) -> None:
    bus, ear, answers = Bus(), Ear(), Answers()
    unreliable = Unreliable(database, *["works but seems to fail"] * writer.ATTEMPTS)
    subject = Writer(unreliable, bus, Quotas())
    bus.listen(QUEUE, ear)
    nursery.start_soon(subject.run)
    await subject.send([arrival(b"there")], answers)
    assert await answers.wait(1) == [TRY_AGAIN]
    assert ear.heard == ["unsure"]
    assert await stored_bodies(database) == [b"there"]


async def test_an_acknowledgement_is_answered_once_its_deletion_is_committed_however_often_that_fails(
    database: Database, nursery: trio.Nursery
) -> None:
    await database.write(lambda c: storage.Insertion(c, [[arrival(b"1"), arrival(b"2")]], Quotas()))
    unreliable = Unreliable(database, "fails", "fails")
    subject, gone = Writer(unreliable, Bus(), Quotas()), trio.Event()
    nursery.start_soon(subject.run)
    await subject.delete([Range(QUEUE, 0, 1)], gone.set)
    with trio.fail_after(20):
        await gone.wait()
    assert unreliable.outcomes == []
    assert await stored_bodies(database) == [b"2"]


async def test_a_fault_of_ours_fails_its_batch_and_not_the_writer(database: Database, nursery: trio.Nursery) -> None:
    subject = Writer(database, Bus(), Quotas())
    nursery.start_soon(subject.run)

    def faulty(_: Connection) -> None:
        raise KeyError("a bug")

    with pytest.raises(DatabaseError):
        await subject.perform(faulty)
    assert await subject.perform(lambda _: "fine") == "fine"


async def test_an_answer_that_raises_does_not_end_the_writer(database: Database, nursery: trio.Nursery) -> None:
    subject, answers = Writer(database, Bus(), Quotas()), Answers()
    nursery.start_soon(subject.run)

    def faulty(_: Sequence[SendResult]) -> None:
        raise KeyError("a bug")

    await subject.send([arrival(b"1")], faulty)
    await subject.send([arrival(b"2")], answers)
    await subject.flush()
    await subject.send([arrival(b"3")], answers)
    assert ACCEPTED in await answers.wait(1)


async def test_senders_wait_when_the_inbox_is_full(autojump_clock: trio.testing.MockClock) -> None:
    inbox = Inbox()
    big = Send([arrival(bytes(writer.INBOX_BYTES))], lambda _: None)
    await inbox.put(big)
    with trio.move_on_after(1) as scope:
        await inbox.put(big)
    assert scope.cancelled_caught
    assert await inbox.take() == [big]
    await inbox.put(big)


async def test_a_batch_is_bounded_in_envelopes_and_bytes() -> None:
    inbox = Inbox()
    for _ in range(2 * writer.BATCH_ENVELOPES):
        await inbox.put(Send([arrival()], lambda _: None))
    assert len(await inbox.take()) == len(await inbox.take()) == writer.BATCH_ENVELOPES
    for _ in range(6):
        await inbox.put(Send([arrival(bytes(writer.BATCH_BYTES // 4))], lambda _: None))
    assert [len(await inbox.take()), len(await inbox.take())] == [4, 2]
