"""One SQLite database of a server, driven through SQLAlchemy's AsyncEngine from trio.

The asyncio loop that AsyncEngine needs is opened and hidden here; work is given as plain functions of a synchronous
SQLAlchemy connection. Write transactions run one at a time with BEGIN IMMEDIATE; reads run beside them on snapshots.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
import trio_asyncio
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from .lockfile import hold_lock

T = TypeVar("T")

_READERS: Final = 4
#: auto_vacuum must be set before the first table; secure_delete so that a deleted envelope leaves no bytes in the file.
_PRAGMAS: Final = (
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 5000",
)


class DatabaseError(Exception):
    """The database could not do the work; nothing of it was committed. `text` says what to do, and names no data."""


class Database:
    """An open database. Made by `open_database`."""

    def __init__(self, loop: trio_asyncio.TrioEventLoop, engine: AsyncEngine, writer: AsyncConnection) -> None:
        self._loop = loop  # named in every call: a process may have two databases, and so two loops
        self._engine = engine
        self._writer = writer
        self._write_lock = trio.Lock()
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why the last write failed, or None if it did not: what a service is not ready for."""
        return self._failure

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a snapshot. Raises DatabaseError.

        Cancellation: waits for the statement that is running, so keep reads short.
        """
        result: T = await trio_asyncio.aio_as_trio(self._read, loop=self._loop)(work)
        return result

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in the one write transaction and commit it durably before returning. Raises DatabaseError.

        If `work` raises, nothing is committed and the exception goes through.
        Cancellation: before the transaction starts, nothing happened; once it has started it runs to its end.
        """
        async with self._write_lock:
            with trio.CancelScope(shield=True):
                result: T = await trio_asyncio.aio_as_trio(self._write, loop=self._loop)(work)
        return result

    async def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            async with self._engine.connect() as connection:
                return await connection.run_sync(work)
        except exc.DBAPIError as error:
            raise _explain(error) from None

    async def _write(self, work: Callable[[Connection], T]) -> T:
        try:
            async with self._writer.begin():
                result = await self._writer.run_sync(work)
        except exc.DBAPIError as error:
            failure = _explain(error)
            self._failure = str(failure)
            raise failure from None
        self._failure = None
        return result


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
                writer = await trio_asyncio.aio_as_trio(_connect_writer, loop=loop)(engine, migrations)
                try:
                    yield Database(loop, engine, writer)
                finally:
                    with trio.CancelScope(shield=True):
                        await trio_asyncio.aio_as_trio(writer.close, loop=loop)()
            finally:
                with trio.CancelScope(shield=True):
                    await trio_asyncio.aio_as_trio(engine.dispose, loop=loop)()


def _create_private(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _prepare(connection: Any, _record: Any) -> None:
    """Set up one DBAPI connection. Autocommit mode: the `begin` event below says when a transaction starts, and how."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


async def _connect_writer(engine: AsyncEngine, migrations: Path) -> AsyncConnection:
    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    try:
        writer = await (await engine.connect()).execution_options(immediate=True)
        async with writer.begin():
            await writer.run_sync(_migrate, migrations)
    except exc.DBAPIError as error:
        raise _explain(error) from None
    return writer


def _migrate(connection: Connection, migrations: Path) -> None:
    """Bring the tables to the newest Alembic revision in `migrations`, in the caller's transaction."""
    config = Config()
    config.set_main_option("script_location", str(migrations))
    script = ScriptDirectory(str(migrations), version_locations=[str(migrations)])

    def upgrade(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(config, script, fn=upgrade) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()


def _explain(error: exc.DBAPIError) -> DatabaseError:
    text = str(error.orig)
    if "disk is full" in text:
        return DatabaseError("the disk is full: free some space; nothing that was acknowledged is lost")
    if "readonly" in text:
        return DatabaseError("the database cannot be written: check the file's and folder's permissions")
    if "not a database" in text or "malformed" in text:
        return DatabaseError("the file is not an intact database: restore it from a backup")
    return DatabaseError(f"the database failed: {text}")
