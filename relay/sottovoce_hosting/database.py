"""One SQLite database of a server, driven through SQLAlchemy's AsyncEngine from trio.

The asyncio loop that AsyncEngine needs is opened and hidden here; work is given as plain functions of a synchronous
SQLAlchemy connection. Write transactions run one at a time with BEGIN IMMEDIATE; reads run beside them on snapshots,
each on one of a few connections that stay open.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
import trio_asyncio
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from .lockfile import hold_lock

T = TypeVar("T")

_READERS: Final = 4
#: Reads that wait for a connection: some seconds' worth. Whoever comes then is better told to try again.
_WAITING_READS: Final = 1000
#: Seconds between two looks whether a database that failed works again, and that such a look may take.
_PROBE_PERIOD: Final = 3.0
_PROBE_SECONDS: Final = 1.0
_BUSY_TIMEOUT: Final = 5000  # milliseconds
#: auto_vacuum must be set before the first table; secure_delete so that a deleted envelope leaves no bytes in the file.
_PRAGMAS: Final = (
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}",
)


class DatabaseError(Exception):
    """The database could not do the work; nothing of it was committed. `text` says what to do, and names no data."""


class Database:
    """An open database. Made by `open_database`."""

    def __init__(
        self, loop: trio_asyncio.TrioEventLoop, writer: AsyncConnection, readers: Sequence[AsyncConnection]
    ) -> None:
        self._loop = loop  # named in every call: a process may have two databases, and so two loops
        self._writer = writer
        self._idle_readers = list(readers)
        self._reader_limit = trio.CapacityLimiter(len(readers))
        self._write_lock = trio.Lock()
        self._failure: str | None = None
        self._next_probe = -inf

    @property
    def failure(self) -> str | None:
        """Why the last write failed, or None if it did not: what a service is not ready for."""
        return self._failure

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a snapshot. Raises DatabaseError, at once if too many reads are waiting.

        Cancellation: before the read has begun, nothing happened; once it has it runs to its end, so keep reads short.
        """
        if self._reader_limit.statistics().tasks_waiting >= _WAITING_READS:
            raise DatabaseError("the database is busy: try again later")
        async with self._reader_limit:
            reader = self._idle_readers.pop()
            try:
                with trio.CancelScope(shield=True):
                    result: T = await trio_asyncio.aio_as_trio(self._read, loop=self._loop)(reader, work)
            finally:
                self._idle_readers.append(reader)
        return result

    async def write(self, work: Callable[[Connection], T], *, within: float = inf) -> T:
        """Run `work` in the one write transaction and commit it durably before returning. Raises DatabaseError.

        `within`: seconds that it may wait for its turn, and then for a lock that another process holds.
        If `work` raises, nothing is committed and the exception goes through.
        Cancellation: before the transaction starts, nothing happened; once it has started it runs to its end.
        """
        deadline = trio.current_time() + within
        try:
            with trio.fail_at(deadline):
                await self._write_lock.acquire()
        except trio.TooSlowError:
            raise DatabaseError("the database is busy: try again later") from None
        try:
            with trio.CancelScope(shield=True):
                patience = max(0, deadline - trio.current_time())
                result: T = await trio_asyncio.aio_as_trio(self._write, loop=self._loop)(work, patience)
        finally:
            self._write_lock.release()
        return result

    async def probe(self) -> None:
        """While a failure stands, see whether a write works again, at most every few seconds; `failure` tells.

        Cancellation: as for `write`.
        """
        now = trio.current_time()
        if self._failure is None or now < self._next_probe:
            return
        self._next_probe = now + _PROBE_PERIOD
        with suppress(DatabaseError):
            await self.write(_change_nothing, within=_PROBE_SECONDS)

    async def empty_log(self) -> None:
        """Bring what is committed into the file and cut the log to nothing: deleted rows stand there until then.

        Raises DatabaseError if it failed, or if somebody reads an older state. Cancellation: as for `write`.
        """
        async with self._write_lock:
            with trio.CancelScope(shield=True):
                await trio_asyncio.aio_as_trio(self._empty_log, loop=self._loop)()

    async def _empty_log(self) -> None:
        # On the driver's own connection, since any statement through SQLAlchemy would begin a transaction.
        driver: Any = (await self._writer.get_raw_connection()).driver_connection
        try:
            await self._set_busy_timeout(500)  # writers wait as long
            try:
                async with driver.execute("PRAGMA wal_checkpoint(TRUNCATE)") as cursor:
                    is_busy = (await cursor.fetchone())[0]
            finally:
                await self._set_busy_timeout(_BUSY_TIMEOUT)
        except sqlite3.Error as error:
            raise DatabaseError(f"the log could not be emptied: {error}") from None
        if is_busy:
            raise DatabaseError("the log could not be emptied: somebody reads an older state")

    async def _read(self, reader: AsyncConnection, work: Callable[[Connection], T]) -> T:
        try:
            async with reader.begin():
                return await reader.run_sync(work)
        except exc.SQLAlchemyError as error:
            await reader.invalidate()  # whatever it was left in, the next read opens it anew
            raise _explain(error) from None

    async def _write(self, work: Callable[[Connection], T], patience: float) -> T:
        try:
            if patience < inf:
                await self._set_busy_timeout(int(1000 * patience))
            try:
                async with self._writer.begin():
                    result = await self._writer.run_sync(work)
            finally:
                if patience < inf:
                    await self._set_busy_timeout(_BUSY_TIMEOUT)
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            failure = _explain(error)
            self._failure = str(failure)
            raise failure from None
        self._failure = None
        return result

    async def _set_busy_timeout(self, milliseconds: int) -> None:
        """On the driver's own connection, since any statement through SQLAlchemy would begin a transaction."""
        driver: Any = (await self._writer.get_raw_connection()).driver_connection
        await driver.execute(f"PRAGMA busy_timeout = {milliseconds}")


@asynccontextmanager
async def open_database(path: Path, migrations: Path) -> AsyncIterator[Database]:
    """Open (or create) the SQLite file at `path`, bring its tables up to date, and close it at the end.

    `migrations` is a folder of Alembic revisions. Raises LockHeld if another process has the file open, DatabaseError
    if it cannot be opened. Must surround everything that uses the database: the asyncio loop is a context variable.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with hold_lock(path.with_name(path.name + ".lock")):
        _create_private(path)
        async with trio_asyncio.open_loop() as loop:
            url = URL.create("sqlite+aiosqlite", database=str(path))
            engine = create_async_engine(url, pool_size=_READERS + 1, max_overflow=0)
            event.listen(engine.sync_engine, "connect", _prepare)
            try:
                writer, *readers = await trio_asyncio.aio_as_trio(_connect, loop=loop)(engine, migrations)
                try:
                    yield Database(loop, writer, readers)
                finally:
                    with trio.CancelScope(shield=True):
                        await trio_asyncio.aio_as_trio(_close, loop=loop)([*readers, writer])
            finally:
                with trio.CancelScope(shield=True):
                    await trio_asyncio.aio_as_trio(engine.dispose, loop=loop)()


def _create_private(path: Path) -> None:
    """Make the file its owner's alone, even if it was there. What SQLite puts beside it takes its mode from it."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)


def _prepare(connection: Any, _record: Any) -> None:
    """Set up one DBAPI connection. Autocommit mode: the `begin` event below says when a transaction starts, and how."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


async def _connect(engine: AsyncEngine, migrations: Path) -> list[AsyncConnection]:
    """The writer and then the readers, once the tables are up to date."""

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    try:
        async with AsyncExitStack() as opened:
            writer = await opened.enter_async_context(engine.connect())
            writer = await writer.execution_options(immediate=True)
            async with writer.begin():
                await writer.run_sync(_migrate, migrations)
            readers = [await opened.enter_async_context(engine.connect()) for _ in range(_READERS)]
            opened.pop_all()
    except exc.SQLAlchemyError as error:
        raise _explain(error) from None
    return [writer, *readers]


async def _close(connections: Sequence[AsyncConnection]) -> None:
    async with AsyncExitStack() as opened:
        for connection in connections:
            opened.push_async_callback(connection.close)


def _migrate(connection: Connection, migrations: Path) -> None:
    """Bring the tables to the newest Alembic revision in `migrations`, in the caller's transaction."""
    config = Config()
    config.set_main_option("script_location", str(migrations))
    script = ScriptDirectory(str(migrations), version_locations=[str(migrations)])

    def upgrade(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(config, script, fn=upgrade) as environment:
        environment.configure(connection=connection)
        try:
            environment.run_migrations()
        except CommandError:  # it names a revision that is not in the folder
            raise DatabaseError("the database was made by a newer version of this program: upgrade") from None


def _change_nothing(connection: Connection) -> None:
    """A write that does reach the disk: setting the number, to what it always is, writes the file's first page."""
    connection.exec_driver_sql("PRAGMA user_version = 0")


def _explain(error: exc.SQLAlchemyError | sqlite3.Error) -> DatabaseError:
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    text = str(cause) if isinstance(cause, sqlite3.Error) else type(error).__name__  # others may tell of statements
    if "disk is full" in text:
        return DatabaseError("the disk is full: free some space; nothing that was acknowledged is lost")
    if "readonly" in text:
        return DatabaseError("the database cannot be written: check the file's and folder's permissions")
    if "not a database" in text or "malformed" in text:
        return DatabaseError("the file is not an intact database: restore it from a backup")
    return DatabaseError(f"the database failed: {text}")
