"""One SQLite database of a server, used from trio as plain functions of a synchronous SQLAlchemy connection.

Each connection lives in a thread of aiosqlite's. A whole transaction is one call into that thread: SQLAlchemy's
AsyncEngine would make four of each statement, and a hop costs more than the statement. The asyncio loop that aiosqlite
needs is opened and hidden here. Write transactions run one at a time with BEGIN IMMEDIATE; reads run beside them on
snapshots, one at a time too. The connections stay open.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import aiosqlite
import outcome
import trio
import trio_asyncio
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, create_engine, event, exc
from sqlalchemy.pool import StaticPool

from .lockfile import hold_lock

T = TypeVar("T")

#: More take Python's lock from one another after every row: two drain a backlog 5 % more slowly, three 15 %.
_READERS: Final = 1
#: Reads that wait for a connection: some seconds' worth. Whoever comes then is better told to try again.
_WAITING_READS: Final = 1000
#: Seconds between two looks whether a database that failed works again, and that such a look may take.
_PROBE_PERIOD: Final = 3.0
_PROBE_SECONDS: Final = 1.0
_BUSY_TIMEOUT: Final = 5000  # milliseconds
#: auto_vacuum must be set before the first table; secure_delete so that a deleted envelope leaves no bytes in the file.
_PRAGMAS: Final = (
    # Twice SQLite's own: seven envelopes of 1 KiB in a page instead of three. A file keeps what it was made with.
    "PRAGMA page_size = 8192",
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
)
#: Bytes at which the log is brought into the file: more often costs an fsync each time, more rarely a longer one.
_LOG_BYTES: Final = 16 * 1024 * 1024
#: KiB of pages that the writer keeps in memory.
_WRITER_CACHE: Final = 32 * 1024


def _nothing() -> None:
    """For who has nothing to do meanwhile."""


class DatabaseError(Exception):
    """The database could not do the work; nothing of it was committed. `text` says what to do, and names no data."""


class _Session:
    """One connection and its thread, both aiosqlite's. What is given to `run` has it for itself."""

    def __init__(self, path: Path, loop: trio_asyncio.TrioEventLoop, *, is_writer: bool) -> None:
        self._path = path
        self._loop = loop  # named in every call: a process may have two databases, and so two loops
        self._is_writer = is_writer
        self._is_open = False

    async def open(self) -> None:
        """Connect. Raises sqlite3.Error or SQLAlchemyError."""
        await trio_asyncio.aio_as_trio(self._open, loop=self._loop)()

    async def run(self, function: Callable[..., T], *args: object, meanwhile: Callable[[], None] = _nothing) -> T:
        """Call `function` with the SQLAlchemy connection in the connection's thread, and `meanwhile` here; what that
        raises goes through when `function` has ended. Cannot be cancelled.

        Straight from trio into the thread's queue and back: the way over asyncio would take some turns of trio's
        scheduler more, and each is as long as all that connections have to do.
        """
        if not self._is_open:
            await self.open()
        task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

        def call() -> None:
            result = outcome.capture(function, self._connection, *args)
            token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        self._driver._tx.put_nowait((None, call))
        try:
            meanwhile()
        finally:
            result = await trio.lowlevel.wait_task_rescheduled(_cannot_be_cancelled)
        return cast("T", result)

    async def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        if self._is_open:
            self._is_open = False
            await trio_asyncio.aio_as_trio(self._close, loop=self._loop)()

    async def _open(self) -> None:
        # Any: what is called of it, to have a function run in its thread, is its own and untyped.
        self._driver = cast(
            "Any", await aiosqlite.connect(self._path, isolation_level=None, timeout=_BUSY_TIMEOUT / 1000)
        )
        try:
            self._connection: Connection = await self._driver._execute(self._prepare)
        except BaseException:
            await self._driver.close()
            raise
        self._is_open = True

    async def _close(self) -> None:
        await self._driver._execute(self._dispose)
        await self._driver.close()

    def _dispose(self) -> None:
        """In the thread: SQLAlchemy would close the connection when it is collected, in whichever thread that is."""
        with suppress(exc.SQLAlchemyError, sqlite3.Error):
            self._connection.close()
        self._connection.engine.dispose()

    def _prepare(self) -> Connection:
        """In the thread. Autocommit mode: the `begin` event says when a transaction starts, and how."""
        for pragma in _PRAGMAS:
            self._driver._conn.execute(pragma)
        (page_size,) = self._driver._conn.execute("PRAGMA page_size").fetchone()
        self._driver._conn.execute(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // page_size}")
        if self._is_writer:
            self._driver._conn.execute(f"PRAGMA cache_size = -{_WRITER_CACHE}")
        engine = create_engine("sqlite://", creator=lambda: self._driver._conn, poolclass=StaticPool)
        begin = "BEGIN IMMEDIATE" if self._is_writer else "BEGIN"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine.connect()


class Database:
    """An open database. Made by `open_database`."""

    def __init__(self, writer: _Session, readers: Sequence[_Session]) -> None:
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
        """Run `work` on a snapshot, in a thread. Raises DatabaseError, at once if too many reads are waiting.

        Cancellation: before the read has begun, nothing happened; once it has it runs to its end, so keep reads short.
        """
        if self._reader_limit.statistics().tasks_waiting >= _WAITING_READS:
            raise DatabaseError("the database is busy: try again later")
        async with self._reader_limit:
            reader = self._idle_readers.pop()
            try:
                with trio.CancelScope(shield=True):
                    result: T = await self._read(reader, work)
            finally:
                self._idle_readers.append(reader)
        return result

    async def write(
        self, work: Callable[[Connection], T], *, within: float = inf, meanwhile: Callable[[], None] = _nothing
    ) -> T:
        """Run `work`, in a thread, in the one write transaction; commit durably before returning. Raises DatabaseError.

        `within`: seconds that it may wait for its turn, and then for a lock that another process holds. `meanwhile` is
        called once, and must not raise, when `work` was handed to the thread, or before if it must wait for its turn;
        not if it was cancelled, or the database could not be opened again.
        If `work` raises, nothing is committed and the exception goes through.
        Cancellation: before the transaction starts, nothing happened; once it has started it runs to its end.
        """
        deadline = trio.current_time() + within
        if self._write_lock.locked():
            meanwhile()
            meanwhile = _nothing
        try:
            with trio.fail_at(deadline):
                await self._write_lock.acquire()
        except trio.TooSlowError:
            raise DatabaseError("the database is busy: try again later") from None
        try:
            with trio.CancelScope(shield=True):
                patience = max(0, deadline - trio.current_time())
                result: T = await self._write(work, patience, meanwhile)
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
                await self._empty_log()

    async def _empty_log(self) -> None:
        try:
            is_busy = await self._writer.run(_truncate_log)
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            raise DatabaseError(f"the log could not be emptied: {_text(error)}") from None
        if is_busy:
            raise DatabaseError("the log could not be emptied: somebody reads an older state")

    async def _read(self, reader: _Session, work: Callable[[Connection], T]) -> T:
        try:
            return await reader.run(_transact, work)
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            failure = _explain(error)
        await reader.close()  # whatever state it was left in: the next read opens it anew
        raise failure

    async def _write(self, work: Callable[[Connection], T], patience: float, meanwhile: Callable[[], None]) -> T:
        try:
            result: T = await self._writer.run(_transact, work, patience, meanwhile=meanwhile)
        except (exc.SQLAlchemyError, sqlite3.Error) as error:
            failure = _explain(error)
            self._failure = str(failure)
            raise failure from None
        self._failure = None
        return result


def _transact(connection: Connection, work: Callable[[Connection], T], patience: float = inf) -> T:
    """In the connection's thread: one transaction, which waits `patience` seconds for a lock of another process."""
    with _patient(connection, patience), connection.begin():
        return work(connection)


@contextmanager
def _patient(connection: Connection, seconds: float) -> Iterator[None]:
    if seconds == inf:
        yield
        return
    _run_pragma(connection, f"busy_timeout = {int(1000 * seconds)}")
    try:
        yield
    finally:
        _run_pragma(connection, f"busy_timeout = {_BUSY_TIMEOUT}")


def _run_pragma(connection: Connection, pragma: str) -> Any:
    """Outside of any transaction: SQLAlchemy would begin one for a statement of its own."""
    driver: Any = connection.connection.driver_connection
    return driver.execute(f"PRAGMA {pragma}").fetchone()


def _truncate_log(connection: Connection) -> bool:
    """Whether somebody was in the way. Waits half a second for them: writers wait as long."""
    with _patient(connection, 0.5):
        return bool(_run_pragma(connection, "wal_checkpoint(TRUNCATE)")[0])


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
            writer = _Session(path, loop, is_writer=True)
            readers = [_Session(path, loop, is_writer=False) for _ in range(_READERS)]
            try:
                await _open(writer, readers, migrations)
                yield Database(writer, readers)
            finally:
                with trio.CancelScope(shield=True):
                    for session in (*readers, writer):
                        await session.close()


def _create_private(path: Path) -> None:
    """Make the file its owner's alone, even if it was there. What SQLite puts beside it takes its mode from it."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)


async def _open(writer: _Session, readers: Sequence[_Session], migrations: Path) -> None:
    """Connect all; the readers once the tables are up to date."""
    try:
        await writer.run(_transact, partial(_migrate, migrations=migrations))
        for reader in readers:
            await reader.open()
    except (exc.SQLAlchemyError, sqlite3.Error) as error:
        raise _explain(error) from None


def _cannot_be_cancelled(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


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
    text = _text(error)
    if "disk is full" in text:
        return DatabaseError("the disk is full: free some space; nothing that was acknowledged is lost")
    if "readonly" in text:
        return DatabaseError("the database cannot be written: check the file's and folder's permissions")
    if "not a database" in text or "malformed" in text:
        return DatabaseError("the file is not an intact database: restore it from a backup")
    return DatabaseError(f"the database failed: {text}")


def _text(error: exc.SQLAlchemyError | sqlite3.Error) -> str:
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    return str(cause) if isinstance(cause, sqlite3.Error) else type(error).__name__  # others may tell of statements
