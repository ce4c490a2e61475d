"""When the sweeper believes the clock, what it takes away, and whom it tells."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from sottovoce_hosting.database import Database, DatabaseError
from sottovoce_relay import storage, sweeper
from sottovoce_relay.envelopes import Fill, Loss, Shared
from sottovoce_relay.settings import CALM_SECONDS, JUMP_SECONDS, SWEEP_GRACE_SECONDS
from sottovoce_relay.states import EnvelopeState
from sottovoce_relay.statistics import statistics
from sottovoce_relay.storage import Door
from sottovoce_relay.sweeper import SteadyClock, Sweeper, empty_log_for_ever, return_space_once
from sottovoce_relay.writer import ATTEMPTS
from sottovoce_wire import limits
from sottovoce_wire.frames import KeyClass
from tests.sottovoce_relay.parts import (
    KEYS,
    NOW,
    OTHER,
    PATIENCE,
    QUEUE,
    Parts,
    Unreliable,
    door_of,
    envelope,
    stored_bodies,
    two_queues,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sqlalchemy import Connection
    from trio.testing import MockClock

    from sottovoce_relay.envelopes import Envelope
    from sottovoce_relay.writer import Writer


class Wall:
    """A wall clock that goes with trio's and can be set."""

    def __init__(self) -> None:
        self.ahead = 1_800_000_000.0

    def __call__(self) -> float:
        return trio.current_time() + self.ahead


async def test_a_clock_that_goes_steadily_or_drifts_a_little_is_believed(autojump_clock: MockClock) -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    for _ in range(100):
        await trio.sleep(30)
        wall.ahead += JUMP_SECONDS / 10
        assert clock.now() == wall()


@pytest.mark.parametrize("jump", [-(10**9), -JUMP_SECONDS - 1, JUMP_SECONDS + 1, 10**9])
async def test_a_clock_that_jumped_is_believed_again_after_ten_calm_minutes(
    jump: float, autojump_clock: MockClock
) -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    await trio.sleep(30)
    wall.ahead += jump
    assert clock.now() is None
    await trio.sleep(CALM_SECONDS - 1)
    assert clock.now() is None
    await trio.sleep(1)
    assert clock.now() == wall()


async def test_a_clock_that_jumps_again_is_in_doubt_from_then(autojump_clock: MockClock) -> None:
    wall = Wall()
    clock = SteadyClock(wall)
    wall.ahead += 10**9
    assert clock.now() is None
    await trio.sleep(CALM_SECONDS - 1)
    wall.ahead -= 10**9
    assert clock.now() is None
    await trio.sleep(CALM_SECONDS - 1)
    assert clock.now() is None
    await trio.sleep(1)
    assert clock.now() == wall()


# --- Over a real database -----------------------------------------------------------------------------------------

DAY = NOW // limits.DAY
IDLE_DAYS = 90


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Unreliable]:
    """A database with two queues, whose owners were here today."""
    async with two_queues(tmp_path) as opened:
        await opened.write(partial(storage.seen_all, numbers=[1, 2], day=DAY))
        yield Unreliable(opened)


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
async def writer(parts: Parts, database: Unreliable, nursery: trio.Nursery) -> Writer:
    """A writer that runs."""
    subject = parts.writer(database)
    nursery.start_soon(subject.run)
    return subject


@pytest.fixture
def subject(parts: Parts, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> Sweeper:
    """A sweeper whose clock is the parts' and never in doubt, and that is in a hurry."""
    for name in ("SWEEP_SECONDS", "SWEEP_PAUSE_SECONDS"):
        monkeypatch.setattr(sweeper, name, 0.001)
    monkeypatch.setattr(sweeper, "JUMP_SECONDS", math.inf)
    clock = SteadyClock(lambda: parts.now)
    return Sweeper(writer, parts.mailboxes, parts.bus, parts.metrics, clock, IDLE_DAYS)


async def put(database: Database, *envelopes: Envelope) -> None:
    await database.write(partial(storage.write, arriving=envelopes, leaving=(), refused=(), now=NOW))


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.001)


async def test_what_expired_is_swept_after_its_grace_and_its_owner_told(
    subject: Sweeper, parts: Parts, database: Unreliable
) -> None:
    receiver = parts.receive()
    await put(database, envelope(1, b"old", expires_at=NOW), envelope(2, b"new", expires_at=NOW + 1))
    parts.now = NOW + SWEEP_GRACE_SECONDS - 0.5
    assert not await subject.sweep_once()
    assert await stored_bodies(database) == [b"old", b"new"]
    parts.now += 0.5
    assert not await subject.sweep_once()
    assert await stored_bodies(database) == [b"new"]
    assert receiver.lost_here == [Loss(QUEUE, 1, 0)]


async def test_nothing_is_swept_while_the_clock_is_in_doubt(parts: Parts, writer: Writer, database: Unreliable) -> None:
    clock = SteadyClock(lambda: parts.now)
    careful = Sweeper(writer, parts.mailboxes, parts.bus, parts.metrics, clock, IDLE_DAYS)
    await put(database, envelope(1))
    await database.write(partial(storage.demote_send_key, queue=QUEUE, key_hash=KEYS[KeyClass.GROUP], dies_at=NOW))
    before = await database.read(statistics)
    parts.now += 1000 * limits.DAY
    for step in (careful.sweep_once, careful.sweep_keys_once, careful.sweep_idle_once):
        assert not await step()
    assert await database.read(statistics) == before


async def test_a_sweep_says_whether_there_is_more(
    subject: Sweeper, parts: Parts, database: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "BATCH", 2)
    await put(database, *(envelope(seq, expires_at=NOW) for seq in range(3)))
    parts.now += SWEEP_GRACE_SECONDS
    assert [await subject.sweep_once() for _ in range(2)] == [True, False]
    for kind in (KeyClass.GROUP, KeyClass.INVITE, KeyClass.CONTACT):
        await database.write(partial(storage.demote_send_key, queue=QUEUE, key_hash=KEYS[kind], dies_at=NOW))
    assert [await subject.sweep_keys_once() for _ in range(2)] == [True, False]
    parts.now += 1000 * limits.DAY
    assert [await subject.sweep_idle_once() for _ in range(2)] == [True, False]


async def test_what_is_swept_makes_room_in_memory_too(subject: Sweeper, parts: Parts, database: Unreliable) -> None:
    mailbox = parts.know()
    pushed = envelope(1, b"12", KeyClass.STRANGER, expires_at=NOW, state=EnvelopeState.STORED)
    leaving = envelope(2, b"123", expires_at=NOW, state=EnvelopeState.DELETING)
    invited = envelope(3, b"1234", KeyClass.INVITE, expires_at=NOW)
    await put(database, pushed, leaving, invited, envelope(4, queue=OTHER, expires_at=NOW))
    mailbox.known = {pushed.name: pushed, leaving.name: leaving}
    mailbox.fill, mailbox.invites = Fill(4, 19, 1, 2), {door_of(KeyClass.INVITE): 1}
    parts.now += SWEEP_GRACE_SECONDS
    await subject.sweep_once()
    assert (pushed.is_gone, leaving.is_gone, mailbox.known) == (True, True, {})
    assert (mailbox.fill, mailbox.invites) == (Fill(1, 10, 0, 0), {door_of(KeyClass.INVITE): 0})


async def test_a_sweep_leaves_alone_what_was_sent_again_under_the_name_it_swept(
    subject: Sweeper, parts: Parts, database: Unreliable
) -> None:
    mailbox = parts.know()
    again = envelope(9, name=b"n", state=EnvelopeState.QUEUED)
    mailbox.known, mailbox.fill = {again.name: again}, Fill(2, 8, 0, 0)
    await put(database, envelope(1, name=b"n", expires_at=NOW))
    parts.now += SWEEP_GRACE_SECONDS
    await subject.sweep_once()
    assert (again.state, mailbox.known, mailbox.fill) == (
        EnvelopeState.QUEUED,
        {again.name: again},
        Fill(1, 4, 0, 0),
    )


async def test_a_demoted_key_whose_time_is_up_is_forgotten_in_memory_too(
    subject: Sweeper, parts: Parts, database: Unreliable
) -> None:
    parts.mailboxes.learn({door_of(): Door(1, KeyClass.CONTACT, NOW + 1)})
    demote = partial(storage.demote_send_key, queue=QUEUE, key_hash=KEYS[KeyClass.CONTACT], dies_at=NOW + 1)
    await database.write(demote)
    await subject.sweep_keys_once()
    assert parts.mailboxes.door(door_of()) is not None
    parts.now += 1
    await subject.sweep_keys_once()
    assert parts.mailboxes.door(door_of()) is None
    assert await database.read(partial(storage.load_doors, doors=[door_of()])) == {}


async def test_a_queue_that_nobody_opened_for_long_is_deleted_and_one_that_is_received_is_not(
    subject: Sweeper, parts: Parts, database: Unreliable
) -> None:
    parts.know(QUEUE)
    parts.know(OTHER)
    parts.receive(OTHER)
    parts.now += IDLE_DAYS * limits.DAY
    await subject.sweep_idle_once()
    assert (await database.read(statistics))["queues"] == 2  # it is its last day
    parts.now += limits.DAY
    await subject.sweep_idle_once()
    asked = [door_of(), door_of(queue=OTHER)]
    assert list(await database.read(partial(storage.load_doors, doors=asked))) == [door_of(queue=OTHER)]
    assert (parts.mailboxes.door(door_of()), parts.mailboxes.door(door_of(queue=OTHER)) is None) == (None, False)
    parts.mailboxes.at(OTHER, 2).is_received = False
    parts.now += IDLE_DAYS * limits.DAY
    await subject.sweep_idle_once()
    assert (await database.read(statistics))["queues"] == 1


async def test_those_that_are_received_are_marked_once_a_day(
    subject: Sweeper, parts: Parts, writer: Writer, database: Unreliable
) -> None:
    parts.receive()
    written = []
    for outcomes, later in (([], 0), ([], 10), (["fails"], limits.DAY), ([], 0), ([], 0)):
        parts.now += later
        database.outcomes = list(outcomes)
        before = writer.transactions
        with suppress(DatabaseError):
            await subject.sweep_idle_once()
        written.append(writer.transactions - before)
    assert written == [2, 1, 1, 2, 1]  # one looks for idle queues; a mark that failed is made again


async def test_what_a_deleted_queue_left_is_swept_with_the_bodies_that_it_shared(
    subject: Sweeper, database: Unreliable, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "BATCH", 2)
    shared = Shared(77, b"both")
    own = envelope(9, b"own", shared=Shared(78, b"own"))
    await put(database, *(envelope(seq) for seq in range(5)), envelope(7, b"both", shared=shared), own)
    await put(database, envelope(8, b"both", queue=OTHER, shared=shared))
    nursery.start_soon(subject.sweep_for_ever)
    for number, left in ((1, 1), (2, 0)):
        await database.write(partial(storage.delete_queue, number=number))
        await until_left(database, envelopes=left, rows=2 - number)
        assert (await database.read(statistics))["shared_bodies"] == left


async def until_left(database: Database, envelopes: int, rows: int) -> None:
    def left(connection: Connection) -> tuple[int, int]:
        counted = "SELECT (SELECT count(*) FROM envelopes), (SELECT count(*) FROM queues)"
        found = connection.exec_driver_sql(counted).one()
        return found[0], found[1]

    with trio.fail_after(PATIENCE):
        while await database.read(left) != (envelopes, rows):  # noqa: ASYNC110 - it tells nobody
            await trio.sleep(0.001)


async def test_a_database_that_fails_is_swept_once_it_works_again(
    subject: Sweeper, parts: Parts, database: Unreliable, nursery: trio.Nursery
) -> None:
    receiver = parts.receive()
    await put(database, envelope(1, expires_at=NOW))
    parts.now += SWEEP_GRACE_SECONDS
    database.outcomes = ["fails"] * 8
    nursery.start_soon(subject.sweep_for_ever)
    await until(lambda: receiver.lost_here)
    assert receiver.lost_here == [Loss(QUEUE, 1, 0)]


# --- Nobody knows -------------------------------------------------------------------------------------------------

TOOK = "works but seems to fail"


@pytest.mark.parametrize("outcomes", [[TOOK], [TOOK, TOOK]])
async def test_what_an_attempt_that_seemed_to_fail_swept_is_told_and_counted_out_once(
    subject: Sweeper, parts: Parts, database: Unreliable, outcomes: list[str]
) -> None:
    mailbox = parts.know()
    mailbox.fill = Fill(2, 8, 0, 0)
    receiver = parts.receive()
    await put(database, envelope(1, expires_at=NOW), envelope(2))
    parts.now += SWEEP_GRACE_SECONDS
    database.outcomes = list(outcomes)
    await subject.sweep_once()
    assert (receiver.lost_here, mailbox.fill) == ([Loss(QUEUE, 1, 0)], Fill(1, 4, 0, 0))


async def test_after_a_sweep_that_perhaps_took_its_queues_are_counted_anew(
    subject: Sweeper, parts: Parts, database: Unreliable
) -> None:
    mailbox, other = parts.know(), parts.know(OTHER)
    await put(database, envelope(1, expires_at=NOW))
    parts.now += SWEEP_GRACE_SECONDS
    database.outcomes = [TOOK] * ATTEMPTS
    with pytest.raises(DatabaseError):
        await subject.sweep_once()
    assert (mailbox.fill, other.fill) == (None, Fill())


@pytest.mark.parametrize("attempts", [1, ATTEMPTS])
async def test_the_keys_of_a_queue_that_was_deleted_perhaps_are_asked_for_again(
    subject: Sweeper, parts: Parts, database: Unreliable, attempts: int
) -> None:
    parts.know(QUEUE)
    parts.now += (IDLE_DAYS + 1) * limits.DAY
    database.outcomes = ["works"] + [TOOK] * attempts  # the first only notes who is connected
    with suppress(DatabaseError):
        await subject.sweep_idle_once()
    assert parts.mailboxes.door(door_of()) is None
    assert (await database.read(statistics))["queues"] == 0


# --- The file -----------------------------------------------------------------------------------------------------


async def test_space_is_given_back_only_if_much_of_the_file_is_free(
    writer: Writer, database: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [envelope(seq, bytes(8000)) for seq in range(100)]  # a page each
    await put(database, *some)
    await database.write(partial(storage.write, arriving=(), leaving=some, refused=(), now=NOW))
    assert not await return_space_once(writer)
    for name, pages in (("SPARE_PAGES", 20), ("VACUUM_PAGES", 30)):
        monkeypatch.setattr(sweeper, name, pages)
    given = 0
    while await return_space_once(writer):
        given += 1
    assert given > 1
    free = await database.read(lambda c: c.exec_driver_sql("PRAGMA freelist_count").scalar_one())
    assert 20 <= free < 50


class Log(Database):
    """A database of which nothing is asked but to empty its log."""

    def __init__(self) -> None:
        self.emptied = 0
        self.is_broken = False

    async def empty_log(self) -> None:
        self.emptied += 1
        if self.is_broken:
            raise DatabaseError("somebody reads an older state")


async def test_the_log_is_emptied_after_something_was_written_and_again_until_that_works(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, nursery: trio.Nursery, parts: Parts
) -> None:
    log = Log()
    quiet = parts.writer(log)
    nursery.start_soon(empty_log_for_ever, log, quiet)
    await trio.sleep(101)
    assert log.emptied == 0
    quiet.transactions, log.is_broken = 3, True
    await trio.sleep(10.1)
    assert log.emptied == 2
    log.is_broken = False
    await trio.sleep(100)
    assert log.emptied == 3
