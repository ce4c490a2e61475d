"""The database: durable writes one at a time, reads beside them, several databases in one process, clear failures."""

import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from sqlalchemy import Connection, exc, text

from sottovoce_hosting.database import Database, DatabaseError, open_database
from sottovoce_hosting.errors import leaves
from sottovoce_hosting.lockfile import LockHeld

REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "{name}", {before!r}, None, None
def upgrade():
    op.create_table("{table}", sa.Column("number", sa.Integer, unique=True))
"""


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001.py").write_text(REVISION.format(name="0001", before=None, table="numbers"))
    return folder


def add(connection: Connection, number: int) -> None:
    connection.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": number})


def count(connection: Connection) -> int:
    value: int = connection.execute(text("SELECT count(*) FROM numbers")).scalar_one()
    return value


async def test_what_was_written_is_there_when_opened_again(tmp_path: Path, migrations: Path) -> None:
    async with open_database(tmp_path / "a.db", migrations) as database:
        await database.write(lambda c: add(c, 1))
    async with open_database(tmp_path / "a.db", migrations) as database:
        assert await database.read(count) == 1


async def test_a_write_that_raises_leaves_nothing(tmp_path: Path, migrations: Path) -> None:
    def add_and_fail(connection: Connection) -> None:
        add(connection, 1)
        raise KeyError

    async with open_database(tmp_path / "a.db", migrations) as database:
        with pytest.raises(KeyError):
            await database.write(add_and_fail)
        assert await database.read(count) == 0
        await database.write(lambda c: add(c, 1))


async def test_a_failed_write_is_remembered_until_one_succeeds(tmp_path: Path, migrations: Path) -> None:
    async with open_database(tmp_path / "a.db", migrations) as database:
        await database.write(lambda c: add(c, 1))
        assert database.failure is None
        with pytest.raises(DatabaseError):
            await database.write(lambda c: add(c, 1))
        assert database.failure is not None
        await database.write(lambda c: add(c, 2))
        assert database.failure is None


async def test_writes_from_many_tasks_all_happen(tmp_path: Path, migrations: Path) -> None:
    async with open_database(tmp_path / "a.db", migrations) as database, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(database.write, partial(add, number=number))
            nursery.start_soon(database.read, count)
    async with open_database(tmp_path / "a.db", migrations) as database:
        assert await database.read(count) == 50


async def test_a_write_that_has_begun_is_not_cancelled(tmp_path: Path, migrations: Path) -> None:
    token = trio.lowlevel.current_trio_token()
    async with open_database(tmp_path / "a.db", migrations) as database:

        def add_and_cancel(connection: Connection) -> None:
            add(connection, 1)
            token.run_sync_soon(scope.cancel)

        with trio.CancelScope() as scope:
            await database.write(add_and_cancel)
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert await database.read(count) == 1


async def test_other_tasks_go_on_while_work_takes_long(tmp_path: Path, migrations: Path) -> None:
    has_begun, may_end = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def wait(connection: Connection) -> bool:
        add(connection, 1)
        token.run_sync_soon(has_begun.set)
        return may_end.wait(20)

    async with open_database(tmp_path / "a.db", migrations) as database, trio.open_nursery() as nursery:

        async def write() -> None:
            assert await database.write(wait)

        nursery.start_soon(write)
        await has_begun.wait()
        assert await database.read(count) == 0  # also a read
        may_end.set()
    async with open_database(tmp_path / "a.db", migrations) as database:
        assert await database.read(count) == 1


async def test_what_is_to_be_done_meanwhile_is_done_while_the_work_is(tmp_path: Path, migrations: Path) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def work(_: Connection) -> bool:
        has_begun.set()
        return may_end.wait(5)

    def meanwhile() -> None:
        assert has_begun.wait(5)
        may_end.set()

    async with open_database(tmp_path / "a.db", migrations) as database:
        assert await database.write(work, meanwhile=meanwhile)


async def test_what_is_to_be_done_meanwhile_does_not_wait_for_a_turn_and_is_done_once(
    tmp_path: Path, migrations: Path
) -> None:
    has_begun, may_end = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    done = []

    def wait(_: Connection) -> None:
        token.run_sync_soon(has_begun.set)
        assert may_end.wait(5)

    def meanwhile() -> None:
        done.append(1)
        may_end.set()

    async with open_database(tmp_path / "a.db", migrations) as database, trio.open_nursery() as nursery:
        nursery.start_soon(database.write, wait)
        await has_begun.wait()
        await database.write(lambda c: add(c, 1), meanwhile=meanwhile)
    assert done == [1]


async def test_what_goes_wrong_meanwhile_goes_through_when_the_work_is_done(tmp_path: Path, migrations: Path) -> None:
    def fail() -> None:
        raise KeyError

    async with open_database(tmp_path / "a.db", migrations) as database:
        with pytest.raises(KeyError):
            await database.write(lambda c: add(c, 1), meanwhile=fail)
        await database.write(lambda c: add(c, 2))
        assert await database.read(count) == 2


async def test_a_write_has_the_file_for_itself_from_its_beginning_and_a_read_does_not(
    tmp_path: Path, migrations: Path
) -> None:
    def is_locked(_: Connection) -> bool:
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None, timeout=0)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    async with open_database(tmp_path / "a.db", migrations) as database:
        assert await database.write(is_locked)
        assert not await database.read(is_locked)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program is writing to the file."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


def number_of(connection: Connection) -> int:
    value: int = connection.execute(text("SELECT number FROM numbers")).scalar_one()
    return value


async def test_a_read_sees_one_state_throughout(tmp_path: Path, migrations: Path) -> None:
    async with open_database(tmp_path / "a.db", migrations) as database:
        await database.write(lambda c: add(c, 1))

        def look_twice(connection: Connection) -> tuple[int, int]:
            before = number_of(connection)
            with sqlite3.connect(tmp_path / "a.db") as other:
                other.execute("UPDATE numbers SET number = 2")
            other.close()
            return before, number_of(connection)

        assert await database.read(look_twice) == (1, 1)
        assert await database.read(number_of) == 2


async def test_a_cancelled_read_leaves_its_connection_clean(tmp_path: Path, migrations: Path) -> None:
    token = trio.lowlevel.current_trio_token()
    async with open_database(tmp_path / "a.db", migrations) as database:

        def count_and_cancel(connection: Connection) -> int:
            token.run_sync_soon(scope.cancel)
            return count(connection)

        for _ in range(10):
            with trio.CancelScope() as scope:
                await database.read(count_and_cancel)
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
        await database.write(lambda c: add(c, 1))
        assert [await database.read(count) for _ in range(10)] == [1] * 10


async def test_a_read_that_raises_leaves_its_connection_clean(tmp_path: Path, migrations: Path) -> None:
    def fail(connection: Connection) -> None:
        count(connection)
        raise KeyError

    async with open_database(tmp_path / "a.db", migrations) as database:
        for _ in range(10):
            with pytest.raises(KeyError):
                await database.read(fail)
        await database.write(lambda c: add(c, 1))
        assert [await database.read(count) for _ in range(10)] == [1] * 10


async def test_every_failure_of_the_database_is_one_error_and_the_next_work_is_done(
    tmp_path: Path, migrations: Path
) -> None:
    def fail(error: Exception, connection: Connection) -> None:
        count(connection)
        raise error

    async with open_database(tmp_path / "a.db", migrations) as database:
        for error in (exc.TimeoutError("SELECT secret"), exc.ResourceClosedError("SELECT secret")):
            for transact in (database.read, database.write):
                with pytest.raises(DatabaseError) as caught:
                    await transact(partial(fail, error))
                assert "secret" not in str(caught.value)
        for _ in range(10):
            with pytest.raises(DatabaseError):
                await database.read(lambda c: c.execute(text("SELECT * FROM nothing")))
        await database.write(lambda c: add(c, 1))
        assert [await database.read(count) for _ in range(10)] == [1] * 10


async def test_more_reads_than_can_wait_are_refused_and_the_others_done(
    tmp_path: Path, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce_hosting.database._WAITING_READS", 20)
    done, refused = [], []

    async def read(database: Database) -> None:
        try:
            done.append(await database.read(count))
        except DatabaseError as error:
            refused.append(str(error))

    async with open_database(tmp_path / "a.db", migrations) as database:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(read, database)
        assert await database.read(count) == 0
    assert len(done) + len(refused) == 100
    assert len(done) >= 21
    assert refused
    assert set(refused) == {"the database is busy: try again later"}


async def test_a_write_with_little_patience_gives_up_a_lock_soon(tmp_path: Path, migrations: Path) -> None:
    async with open_database(tmp_path / "a.db", migrations) as database:
        with locked(tmp_path / "a.db"), trio.fail_after(3):
            for _ in range(2):
                with pytest.raises(DatabaseError):
                    await database.write(lambda c: add(c, 1), within=0.1)
        await database.write(lambda c: add(c, 1), within=0.1)
        patience = await database.write(lambda c: c.execute(text("PRAGMA busy_timeout")).scalar_one())
        assert patience == 5000


async def test_a_write_with_little_patience_gives_up_its_turn_soon(tmp_path: Path, migrations: Path) -> None:
    refused = []

    async def add_impatiently(database: Database) -> None:
        try:
            await database.write(lambda c: add(c, 1), within=0.2)
        except DatabaseError as error:
            refused.append(str(error))

    async with open_database(tmp_path / "a.db", migrations) as database:
        with locked(tmp_path / "a.db"), trio.fail_after(3):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(add_impatiently, database)
        assert len(refused) == 20


async def test_a_failure_is_over_once_a_probe_has_written(
    tmp_path: Path, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce_hosting.database._PROBE_PERIOD", 3600.0)
    async with open_database(tmp_path / "a.db", migrations) as database:
        with locked(tmp_path / "a.db"):
            with pytest.raises(DatabaseError):
                await database.write(lambda c: add(c, 1), within=0.1)
            await database.probe()
            assert database.failure is not None
        log = tmp_path / "a.db-wal"
        size = log.stat().st_size
        await database.probe()
        assert database.failure is not None  # it was looked at a moment ago
        database._next_probe = 0
        await database.probe()
        assert database.failure is None
        assert log.stat().st_size > size  # the disk took it


async def test_a_file_of_a_newer_release_is_refused_in_words(tmp_path: Path, migrations: Path) -> None:
    newer = migrations / "0002.py"
    newer.write_text(REVISION.format(name="0002", before="0001", table="others"))
    async with open_database(tmp_path / "a.db", migrations):
        pass
    newer.unlink()
    with pytest.raises(ExceptionGroup) as caught:
        async with open_database(tmp_path / "a.db", migrations):
            pass
    assert [str(error) for error in leaves(caught.value)] == [
        "the database was made by a newer version of this program: upgrade"
    ]


async def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    path.chmod(0o644)
    async with open_database(path, migrations) as database:
        await database.write(lambda c: add(c, 1))
        assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("a.db*")} == {0o600}


async def test_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path, migrations: Path) -> None:
    (tmp_path / "other").touch(0o644)
    (tmp_path / "a.db").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        async with open_database(tmp_path / "a.db", migrations):
            pass
    assert (tmp_path / "other").read_bytes() == b""


async def test_a_database_serves_tasks_from_before_and_after_another_was_opened(
    tmp_path: Path, migrations: Path
) -> None:
    """Such tasks inherit different asyncio loops. The database must use its own, or a pool with waiters breaks."""
    opened = trio.Event()

    async def use(database: Database, numbers: range) -> None:
        await opened.wait()
        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(database.write, partial(add, number=number))
                nursery.start_soon(database.read, count)

    async with open_database(tmp_path / "a.db", migrations) as first, trio.open_nursery() as nursery:
        nursery.start_soon(use, first, range(20))
        async with open_database(tmp_path / "b.db", migrations) as second, trio.open_nursery() as later:
            opened.set()
            later.start_soon(use, first, range(20, 40))
            later.start_soon(use, second, range(20))
    async with open_database(tmp_path / "a.db", migrations) as first:
        assert await first.read(count) == 40


async def test_a_new_revision_is_applied_to_an_old_file(tmp_path: Path, migrations: Path) -> None:
    async with open_database(tmp_path / "a.db", migrations) as database:
        await database.write(lambda c: add(c, 1))
    (migrations / "0002.py").write_text(REVISION.format(name="0002", before="0001", table="others"))
    async with open_database(tmp_path / "a.db", migrations) as database:
        assert await database.read(count) == 1
        await database.read(lambda c: c.execute(text("SELECT count(*) FROM others")).scalar_one())


async def test_a_file_that_another_process_has_open_is_refused(tmp_path: Path, migrations: Path) -> None:
    async with open_database(tmp_path / "a.db", migrations):
        with pytest.raises(LockHeld, match=r"another process is using .*a\.db"):
            async with open_database(tmp_path / "a.db", migrations):
                pass


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, migrations: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database" * 100)
    with pytest.raises(ExceptionGroup) as caught:
        async with open_database(tmp_path / "a.db", migrations):
            pass
    assert [type(error) for error in leaves(caught.value)] == [DatabaseError]


def value_of(connection: Connection, pragma: str) -> object:
    return connection.execute(text(f"PRAGMA {pragma}")).scalar_one()


async def test_the_file_is_for_its_owner_alone_and_keeps_no_deleted_bytes(tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "data" / "a.db"
    async with open_database(path, migrations) as database:
        for transact in (database.read, database.write):
            for pragma, value in (
                ("secure_delete", 1),
                ("synchronous", 2),
                ("foreign_keys", 1),
                ("journal_mode", "wal"),
            ):
                assert await transact(partial(value_of, pragma=pragma)) == value
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with sqlite3.connect(path) as plain:
        assert plain.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    plain.close()


@pytest.mark.parametrize("made_with", [None, 4096])
async def test_a_file_keeps_its_pages_and_its_log_the_same_size(
    tmp_path: Path, migrations: Path, made_with: int | None
) -> None:
    """A new one has larger pages than older releases gave it."""
    path = tmp_path / "a.db"
    if made_with:
        with closing(sqlite3.connect(path)) as old:
            old.executescript(f"PRAGMA page_size = {made_with}; PRAGMA journal_mode = WAL; CREATE TABLE others (n)")
    async with open_database(path, migrations) as database:
        page_size = await database.write(partial(value_of, pragma="page_size"))
        pages = await database.write(partial(value_of, pragma="wal_autocheckpoint"))
    assert (page_size, pages) == ((4096, 4096) if made_with else (8192, 2048))  # 16 MiB


async def test_a_folder_with_marks_of_an_url_is_an_ordinary_folder(tmp_path: Path, migrations: Path) -> None:
    path = tmp_path / "50%?x=1#y" / "a.db"
    async with open_database(path, migrations) as database:
        await database.write(lambda c: add(c, 1))
    assert path.stat().st_size > 0
