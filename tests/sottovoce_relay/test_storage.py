"""The relay's statements on a real database: what is taken in, refused, counted, paged, deleted and swept."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, func, select

import sottovoce_relay
from sottovoce_hosting.database import Database, DatabaseError, open_database
from sottovoce_relay import storage
from sottovoce_relay.envelopes import Arrival, Loss, Page, Quotas, Range, name_of
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, NewSendKey
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKeyHash

NOW = 1_800_000_000
QUEUE = QueueId(b"q" * 16)
OTHER = QueueId(b"o" * 16)
KEYS = {kind: SendKeyHash(bytes([kind]) * 32) for kind in KeyClass}
SECOND_INVITE = SendKeyHash(b"i" * 32)
QUOTAS = Quotas()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with two queues that have one key of each class, and a second invite key in the first."""
    assert sottovoce_relay.__file__
    async with open_database(tmp_path / "relay.db", Path(sottovoce_relay.__file__).with_name("migrations")) as opened:
        keys = [NewSendKey(key_hash, kind) for kind, key_hash in KEYS.items()]
        invite = NewSendKey(SECOND_INVITE, KeyClass.INVITE)
        await opened.write(lambda c: storage.create_queue(c, QUEUE, b"1" * 32, [*keys, invite]))
        await opened.write(lambda c: storage.create_queue(c, OTHER, b"2" * 32, keys))
        yield opened


def arrival(
    body: bytes = b"body",
    kind: KeyClass = KeyClass.CONTACT,
    *,
    queue: QueueId = QUEUE,
    key_hash: SendKeyHash | None = None,
    name: bytes | None = None,
    expires_at: int = NOW + 3600,
) -> Arrival:
    door = queue + (key_hash or KEYS[kind])
    return Arrival(queue, door, name_of(door, EnvelopeId(name or os.urandom(16))), expires_at, body)


async def send(database: Database, *arrivals: Arrival, quotas: Quotas = QUOTAS) -> list[Code]:
    """The results of one Send."""
    insertion = await database.write(lambda c: storage.Insertion(c, [arrivals], quotas))
    return [result.code for result in insertion.results[0]]


async def counters(database: Database, queue: QueueId = QUEUE) -> tuple[int, int, int, int]:
    """Envelopes, size, stranger envelopes, stranger size: as the queue counts them, which must be what is there."""
    table, rows = storage.queues.c, storage.envelopes.c
    counted = select(table.envelopes, table.size, table.stranger_envelopes, table.stranger_size).where(
        table.id == queue
    )
    there = select(func.count(), func.coalesce(func.sum(func.length(rows.body)), 0)).where(rows.queue_id == queue)
    strangers = there.where(rows.key_class == KeyClass.STRANGER)
    one = await database.read(lambda c: c.execute(counted).one())
    two = await database.read(lambda c: (*c.execute(there).one(), *c.execute(strangers).one()))
    assert tuple(one) == two
    return two


async def page(database: Database, cursor: int = 0, count: int = 256, size: int = 2**20, now: float = NOW) -> Page:
    return await database.read(lambda c: storage.read_page(c, QUEUE, cursor, (count, size), now))


async def bodies(database: Database) -> list[bytes]:
    return [envelope.body for envelope in (await page(database)).envelopes]


async def test_the_migrations_make_the_tables_that_the_statements_know(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"include_name": lambda name, kind, _: kind != "table" or name != "alembic_version"}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), storage.metadata))

    assert await database.read(differences) == []


# --- A queue's owner ----------------------------------------------------------------------------------------------


async def test_a_queue_belongs_to_the_key_that_created_it(database: Database) -> None:
    assert await database.read(lambda c: storage.owns_queue(c, QUEUE, b"1" * 32))
    assert not await database.read(lambda c: storage.owns_queue(c, QUEUE, b"2" * 32))
    assert not await database.read(lambda c: storage.owns_queue(c, QueueId(b"?" * 16), b"1" * 32))


async def test_creating_a_queue_again_keeps_its_envelopes_and_adds_the_missing_keys(database: Database) -> None:
    await send(database, arrival(b"kept"))
    fresh = SendKeyHash(b"f" * 32)
    keys = [NewSendKey(KEYS[KeyClass.CONTACT], KeyClass.STRANGER), NewSendKey(fresh, KeyClass.GROUP)]
    assert await database.write(lambda c: storage.create_queue(c, QUEUE, b"1" * 32, keys)) is Code.ACCEPTED
    assert await send(database, arrival(b"new", key_hash=fresh)) == [Code.ACCEPTED]
    assert await bodies(database) == [b"kept", b"new"]
    assert (await page(database)).envelopes[0].key_class is KeyClass.CONTACT


async def test_a_queue_has_at_most_256_keys_and_too_many_change_nothing(database: Database) -> None:
    keys = [NewSendKey(SendKeyHash(os.urandom(32)), KeyClass.GROUP) for _ in range(252)]
    add = storage.add_send_keys
    assert await database.write(lambda c: add(c, QUEUE, keys)) is Code.TOO_MANY_SEND_KEYS
    assert await send(database, arrival(key_hash=keys[0].key_hash)) == [Code.REFUSED]
    assert await database.write(lambda c: add(c, QUEUE, keys[1:])) is Code.ACCEPTED
    assert await database.write(lambda c: add(c, QUEUE, keys[1:])) is Code.ACCEPTED
    assert await database.write(lambda c: add(c, QUEUE, keys[:1])) is Code.TOO_MANY_SEND_KEYS


async def test_nothing_is_accepted_under_a_revoked_key(database: Database) -> None:
    assert await send(database, arrival()) == [Code.ACCEPTED]
    await database.write(lambda c: storage.revoke_send_key(c, QUEUE, KEYS[KeyClass.CONTACT]))
    assert await send(database, arrival(), arrival(kind=KeyClass.GROUP)) == [Code.REFUSED, Code.ACCEPTED]


# --- Envelopes in -------------------------------------------------------------------------------------------------


async def test_unknown_queues_and_wrong_keys_are_refused_alike(database: Database) -> None:
    unknown = arrival(queue=QueueId(b"?" * 16))
    wrong = arrival(key_hash=SendKeyHash(b"?" * 32))
    foreign = Arrival(QUEUE, OTHER + KEYS[KeyClass.CONTACT][:31] + b"?", bytes(32), NOW, b"x")
    insertion = await database.write(lambda c: storage.Insertion(c, [[unknown, wrong, foreign]], QUOTAS))
    assert len(set(insertion.results[0])) == 1
    assert insertion.results[0][0].code is Code.REFUSED
    assert insertion.stored == []


async def test_numbers_follow_each_other_in_each_queue_and_are_never_used_again(database: Database) -> None:
    await send(database, arrival(b"1"), arrival(b"a", queue=OTHER), arrival(b"2"))
    await database.write(lambda c: storage.delete_ranges(c, [Range(QUEUE, 0, 2)]))
    await send(database, arrival(b"3"))
    assert [envelope.seq for envelope in (await page(database)).envelopes] == [3]


async def test_the_same_again_is_accepted_and_another_body_under_its_id_is_a_conflict(database: Database) -> None:
    name = b"n" * 16
    first, again, other = arrival(b"x", name=name), arrival(b"x", name=name), arrival(b"y", name=name)
    longer = arrival(b"longer", name=name)
    assert await send(database, first, again, other) == [Code.ACCEPTED, Code.ACCEPTED, Code.ID_CONFLICT]
    assert await send(database, again, other, longer) == [Code.ACCEPTED, Code.ID_CONFLICT, Code.ID_CONFLICT]
    assert await send(database, longer) == [Code.ID_CONFLICT]
    assert await send(database, arrival(b"y", name=name, queue=OTHER)) == [Code.ACCEPTED]
    assert await bodies(database) == [b"x"]


async def test_an_id_is_free_again_once_its_envelope_is_gone(database: Database) -> None:
    await send(database, arrival(b"x", name=b"n" * 16))
    await database.write(lambda c: storage.delete_ranges(c, [Range(QUEUE, 0, 1)]))
    assert await send(database, arrival(b"y", name=b"n" * 16)) == [Code.ACCEPTED]


async def test_a_repeat_without_a_valid_key_learns_nothing(database: Database) -> None:
    await send(database, arrival(b"x", name=b"n" * 16))
    assert await send(database, arrival(b"x", name=b"n" * 16, key_hash=SendKeyHash(b"?" * 32))) == [Code.REFUSED]


async def test_who_has_another_key_learns_nothing_of_ids(database: Database) -> None:
    await send(database, arrival(b"x", name=b"n" * 16))
    for body in (b"x", b"y"):
        stranger = arrival(body, KeyClass.STRANGER, name=b"n" * 16)
        assert await send(database, stranger, quotas=Quotas(stranger_envelopes=0)) == [Code.QUEUE_FULL]
    assert await send(database, arrival(b"x", KeyClass.STRANGER, name=b"n" * 16)) == [Code.ACCEPTED]
    assert await bodies(database) == [b"x", b"x"]


async def test_an_envelope_above_the_limit_is_too_large_and_stops_nothing(database: Database) -> None:
    quotas = Quotas(max_envelope=4)
    codes = await send(database, arrival(b"12345"), arrival(b"1234"), quotas=quotas)
    assert codes == [Code.ENVELOPE_TOO_LARGE, Code.ACCEPTED]


async def test_a_full_queue_says_when_to_come_again(database: Database) -> None:
    quotas = Quotas(envelopes=1)
    insertion = await database.write(lambda c: storage.Insertion(c, [[arrival()], [arrival()]], quotas))
    assert [results[0].code for results in insertion.results] == [Code.ACCEPTED, Code.QUEUE_FULL]
    assert insertion.results[1][0].retry_after_ms > 0


async def test_a_full_queue_still_knows_what_it_holds(database: Database) -> None:
    held = arrival()
    assert await send(database, held, quotas=Quotas(envelopes=1)) == [Code.ACCEPTED]
    assert await send(database, held, quotas=Quotas(envelopes=1)) == [Code.ACCEPTED]


async def test_after_a_full_queue_nothing_later_in_the_send_overtakes(database: Database) -> None:
    quotas = Quotas(size=10)
    codes = await send(
        database, arrival(bytes(8)), arrival(bytes(8)), arrival(b"1"), arrival(b"1", queue=OTHER), quotas=quotas
    )
    assert codes == [Code.ACCEPTED, Code.QUEUE_FULL, Code.QUEUE_FULL, Code.ACCEPTED]


async def test_strangers_share_one_quota_over_all_their_keys_and_leave_room_for_contacts(database: Database) -> None:
    second = NewSendKey(SendKeyHash(b"s" * 32), KeyClass.STRANGER)
    await database.write(lambda c: storage.add_send_keys(c, QUEUE, [second]))
    quotas = Quotas(stranger_envelopes=2)
    assert await send(database, arrival(kind=KeyClass.STRANGER), quotas=quotas) == [Code.ACCEPTED]
    assert await send(database, arrival(key_hash=second.key_hash), quotas=quotas) == [Code.ACCEPTED]
    assert await send(database, arrival(key_hash=second.key_hash), quotas=quotas) == [Code.QUEUE_FULL]
    assert await send(database, arrival(), quotas=quotas) == [Code.ACCEPTED]


async def test_each_invite_key_has_a_quota_of_its_own(database: Database) -> None:
    quotas = Quotas(invite_envelopes=2)
    invite = [arrival(kind=KeyClass.INVITE) for _ in range(3)]
    assert await send(database, *invite, quotas=quotas) == [Code.ACCEPTED, Code.ACCEPTED, Code.QUEUE_FULL]
    assert await send(database, arrival(kind=KeyClass.INVITE), quotas=quotas) == [Code.QUEUE_FULL]
    assert await send(database, arrival(key_hash=SECOND_INVITE), quotas=quotas) == [Code.ACCEPTED]
    await database.write(lambda c: storage.delete_ranges(c, [Range(QUEUE, 0, 1)]))
    assert await send(database, arrival(kind=KeyClass.INVITE), quotas=quotas) == [Code.ACCEPTED]


async def test_deciding_the_same_batch_again_after_it_was_committed_changes_nothing(database: Database) -> None:
    batch = [arrival(b"1"), arrival(b"2", KeyClass.INVITE)]
    assert await send(database, *batch) == await send(database, *batch) == [Code.ACCEPTED] * 2
    assert await counters(database) == (2, 2, 0, 0)


async def test_no_key_is_kept_with_an_envelope_but_an_invite_key(database: Database) -> None:
    await send(database, *(arrival(kind=kind) for kind in KeyClass))
    rows = storage.envelopes.c
    kept = await database.read(lambda c: c.execute(select(rows.key_class, rows.invite_door)).all())
    assert [kind for kind, door in kept if door is not None] == [KeyClass.INVITE]


# --- Envelopes out ------------------------------------------------------------------------------------------------


async def test_pages_follow_the_cursor_in_order_within_their_allowance(database: Database) -> None:
    await send(database, *(arrival(b"%d" % number * 10) for number in range(5)))
    first = await page(database, count=2)
    assert ([envelope.seq for envelope in first.envelopes], first.cursor, first.more) == ([1, 2], 2, True)
    second = await page(database, cursor=2, size=25)
    assert ([envelope.seq for envelope in second.envelopes], second.cursor, second.more) == ([3, 4], 4, True)
    third = await page(database, cursor=4)
    assert ([envelope.seq for envelope in third.envelopes], third.cursor, third.more) == ([5], 5, False)
    last = await page(database, cursor=5)
    assert (last.envelopes, last.cursor, last.head, last.more) == ((), 5, 5, False)


async def test_a_page_whose_first_envelope_does_not_fit_says_that_more_follows(database: Database) -> None:
    await send(database, arrival(bytes(100)))
    stuck = await page(database, size=99)
    assert (stuck.envelopes, stuck.cursor, stuck.more) == ((), 0, True)


async def test_an_expired_envelope_is_passed_over(database: Database) -> None:
    lifetimes = (NOW + 10, NOW + 99, NOW + 10)
    await send(database, *(arrival(b"%d" % end, expires_at=end) for end in lifetimes))
    got = await page(database, now=NOW + 10)
    assert ([envelope.seq for envelope in got.envelopes], got.cursor, got.more) == ([2], 3, False)


async def test_the_head_of_an_emptied_queue_is_its_last_number(database: Database) -> None:
    await send(database, arrival(), arrival())
    await database.write(lambda c: storage.delete_ranges(c, [Range(QUEUE, 0, 2)]))
    assert await page(database) == Page((), cursor=0, head=2, more=False, expired=0, told=0)


# --- Envelopes gone -----------------------------------------------------------------------------------------------


async def test_a_deletion_stays_within_both_bounds_and_counts_out_what_it_deleted(database: Database) -> None:
    await send(database, *(arrival(b"12345", kind) for kind in (*KeyClass, KeyClass.STRANGER)))
    await send(database, arrival(b"other", queue=OTHER))
    await database.write(lambda c: storage.delete_ranges(c, [Range(QUEUE, 0, 1), Range(QUEUE, 2, 4)]))
    assert [envelope.seq for envelope in (await page(database)).envelopes] == [2, 5]
    assert await counters(database) == (2, 10, 1, 5)
    assert await counters(database, OTHER) == (1, 5, 0, 0)


async def test_deleting_again_changes_nothing(database: Database) -> None:
    await send(database, arrival(), arrival())
    for _ in range(2):
        await database.write(lambda c: storage.delete_ranges(c, [Range(QUEUE, 0, 1), Range(QUEUE, 0, 1)]))
    assert await counters(database) == (1, 4, 0, 0)


async def test_a_sweep_deletes_what_expired_and_counts_it_as_lost_until_the_owner_is_told(database: Database) -> None:
    await send(database, arrival(expires_at=NOW - 1), arrival(expires_at=NOW + 1), arrival(expires_at=NOW))
    await send(database, arrival(queue=OTHER, kind=KeyClass.STRANGER, expires_at=NOW - 5))
    swept, losses = await database.write(lambda c: storage.sweep(c, NOW, 10))
    assert (swept, set(losses)) == (3, {Loss(QUEUE, 2, 0), Loss(OTHER, 1, 0)})
    assert await counters(database) == (1, 4, 0, 0)
    assert await counters(database, OTHER) == (0, 0, 0, 0)
    for told in (2, 2, 1):
        await database.write(partial(storage.told_expired, queue=QUEUE, total=told))
    got = await page(database)
    assert (got.expired, got.told) == (2, 2)


async def test_a_sweep_takes_the_oldest_first_and_no_more_than_its_batch(database: Database) -> None:
    await send(database, *(arrival(b"%d" % age, expires_at=NOW - age) for age in (1, 3, 2)))
    assert (await database.write(lambda c: storage.sweep(c, NOW, 2)))[0] == 2
    assert (await database.write(lambda c: storage.sweep(c, NOW, 2)))[0] == 1
    assert await database.write(lambda c: storage.sweep(c, NOW, 2)) == (0, [])


async def test_freed_space_goes_back_to_the_system_in_steps(database: Database) -> None:
    await send(database, *(arrival(bytes(4000)) for _ in range(200)))
    await database.write(lambda c: storage.delete_ranges(c, [Range(QUEUE, 0, 200)]))
    before = await database.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    given = await database.write(lambda c: storage.return_space(c, 50, 40))
    assert 0 < given <= 40  # Python 3.12 frees a page with every other step
    after = await database.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    assert after == before - given
    assert await database.write(lambda c: storage.return_space(c, 250, 40)) == 0  # too little to bother


async def test_a_deleted_envelope_leaves_no_bytes_in_the_file(database: Database, tmp_path: Path) -> None:
    secret = os.urandom(32)
    await send(database, arrival(secret))
    await database.write(lambda c: storage.delete_ranges(c, [Range(QUEUE, 0, 1)]))
    await database.read(lambda c: c.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all())
    assert not any(secret in path.read_bytes() for path in tmp_path.iterdir())


async def test_the_log_is_emptied_unless_somebody_reads_an_older_state(database: Database, tmp_path: Path) -> None:
    log = tmp_path / "relay.db-wal"
    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM envelopes").fetchone()
        await send(database, arrival())
        with pytest.raises(DatabaseError):
            await database.empty_log()
        assert await send(database, arrival()) == [Code.ACCEPTED]
        assert log.stat().st_size
        reader.execute("COMMIT")
    await database.empty_log()
    assert log.stat().st_size == 0
    assert len(await bodies(database)) == 2


# --- All statements -----------------------------------------------------------------------------------------------


async def test_no_statement_walks_a_whole_table(database: Database) -> None:
    statements: list[tuple[str, object]] = []

    def note(_c: object, _cursor: object, sql: str, parameters: object, _context: object, many: bool) -> None:
        statements.append((sql, parameters[0] if many else parameters))  # type: ignore[index] # a list when many

    def everything(connection: Connection) -> list[str]:
        event.listen(connection, "before_cursor_execute", note)
        storage.owns_queue(connection, QUEUE, b"1" * 32)
        storage.create_queue(connection, QUEUE, b"1" * 32, [NewSendKey(SendKeyHash(bytes(32)), KeyClass.GROUP)])
        storage.Insertion(connection, [[arrival(kind=kind) for kind in KeyClass]], QUOTAS)
        storage.read_page(connection, QUEUE, 0, (10, 1000), NOW)
        storage.delete_ranges(connection, [Range(QUEUE, 0, 1), Range(QUEUE, 2, 3)])
        storage.sweep(connection, NOW + 3600, 10)
        storage.told_expired(connection, QUEUE, 1)
        storage.revoke_send_key(connection, QUEUE, KEYS[KeyClass.GROUP])
        event.remove(connection, "before_cursor_execute", note)
        return [
            f"{row.detail}: {sql}"
            for sql, parameters in statements
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters)  # type: ignore[arg-type]
        ]

    plans = await database.write(everything)
    assert len(statements) > 12
    assert [plan for plan in plans if plan.startswith("SCAN ") and not plan.startswith("SCAN gone")] == []
