"""Opening a store, its one transaction at a time, and SQLite's errors in our words.

The file is encrypted by SQLite3 Multiple Ciphers (ChaCha20-Poly1305 per page) under the key of the key file. Commits
are durable when they return (`synchronous=FULL`): a ratchet state that a power cut took back would use a key twice.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import apsw

from .. import errors
from . import keyfile, lock, schema
from .account import AccountTable
from .inbox import InboxTable
from .outbox import OutboxTable
from .peers import PeerTable
from .prekeys import PrekeyTable
from .sessions import SessionTable

#: The key comes first, then the journal mode, then durability; secure_delete so that a used key leaves no bytes behind.
_PRAGMAS: Final = (
    ("locking_mode", "exclusive"),
    ("journal_mode", "wal"),
    ("synchronous", "full"),
    ("secure_delete", "on"),
    ("temp_store", "memory"),
    ("trusted_schema", "off"),
)
#: The write-ahead log holds older versions of pages, and so keys that were wiped since; it is emptied this often.
COMMITS_IN_LOG: Final = 64


@dataclass(frozen=True, slots=True)
class Tables:
    """Every table of a store, within one transaction."""

    account: AccountTable
    peers: PeerTable
    prekeys: PrekeyTable
    sessions: SessionTable
    inbox: InboxTable
    outbox: OutboxTable
    savepoint: Callable[[], AbstractContextManager[None]]


class Store:
    """An open store. Not for two threads at once: its owner runs one transaction after another."""

    def __init__(self, connection: apsw.Connection, held: BinaryIO) -> None:
        self._connection = connection
        self._lock = held
        self._tables = Tables(
            AccountTable(connection),
            PeerTable(connection),
            PrekeyTable(connection),
            SessionTable(connection),
            InboxTable(connection),
            OutboxTable(connection),
            self._savepoint,
        )
        self._commits = 0

    @contextmanager
    def transaction(self) -> Iterator[Tables]:
        """All that the block writes becomes durable when it ends, or nothing if it raises. Raises StoreFailed."""
        with _translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._tables
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._commits += 1
            if self._commits >= COMMITS_IN_LOG:
                with suppress(apsw.Error):  # the commit stands, whatever becomes of the log; the next one tries again
                    self._empty_log()

    def tidy(self) -> None:
        """Take what was wiped out of the write-ahead log too, if anything was written since. Raises StoreFailed."""
        with _translated():
            if self._commits:
                self._empty_log()

    def _empty_log(self) -> None:
        _empty_log(self._connection)
        self._commits = 0

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        """Within a transaction: what the block writes is taken back if it raises. Raises StoreFailed."""
        with _translated():
            self._connection.execute("SAVEPOINT part")
            try:
                yield
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK TO part")
                raise
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("RELEASE part")

    def pragma(self, name: str) -> object:
        """A setting of the database, as SQLite reports it."""
        return self._connection.pragma(name)

    def close(self) -> None:
        """Close the file and let others open it. Closing twice does nothing."""
        self._connection.close()
        self._lock.close()


def open_store(path: Path, passphrase: str | None = None) -> Store:
    """Open the store at `path`, or make one. Raises StoreInUse, WrongPassphrase, PassphraseNeeded, StoreUnreadable,
    StoreVersion or StoreFailed; a store that cannot be opened is left as it is."""
    if passphrase == "":
        raise errors.InvalidInput("an empty passphrase protects nothing; give none, or a real one")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = lock.take_lock(path)
    except OSError as error:
        raise errors.StoreFailed(f"cannot open {path}: {error.strerror}") from None
    try:
        return Store(_connect(path, _key(path, passphrase)), held)
    except BaseException:
        held.close()
        raise


def _key(path: Path, passphrase: str | None) -> bytes:
    key_file = keyfile.key_path(path)
    try:
        if key_file.exists():
            return keyfile.read_key(key_file, passphrase)
        if path.is_dir():
            raise errors.StoreFailed(f"{path} is a folder", hint="name a file in it")
        if path.exists() and path.stat().st_size > 0:
            raise errors.StoreUnreadable(f"{key_file.name} is missing beside the store")
        return keyfile.create_key(key_file, passphrase)
    except OSError as error:
        raise errors.StoreFailed(f"cannot use {key_file}: {error.strerror}") from None


def _connect(path: Path, key: bytes) -> apsw.Connection:
    with _translated():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = apsw.Connection(str(path))
        try:
            connection.pragma("cipher", "chacha20")
            connection.pragma("hexkey", key.hex())
            for name, value in _PRAGMAS:
                connection.pragma(name, value)
            _upgrade(connection)
            _empty_log(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _upgrade(connection: apsw.Connection) -> None:
    """Bring the tables to this version, each step in one transaction. Raises StoreVersion for a newer store."""
    version = connection.pragma("user_version")
    if not isinstance(version, int) or not 0 <= version <= schema.VERSION:
        raise errors.StoreVersion(f"the store has version {version}, this library knows up to {schema.VERSION}")
    for number in range(version, schema.VERSION):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(schema.STEPS[number])
        connection.pragma("user_version", number + 1)
        connection.execute("COMMIT")


def _empty_log(connection: apsw.Connection) -> None:
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as ours. Their texts name no data."""
    try:
        yield
    except apsw.BusyError:
        raise errors.StoreInUse("another program is using the store") from None
    except (apsw.NotADBError, apsw.CorruptError):
        raise errors.StoreUnreadable("the file is not an intact store, or its key file belongs to another") from None
    except apsw.FullError:
        raise errors.StoreFailed("the disk is full") from None
    except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError):
        raise errors.StoreFailed("the store cannot be written") from None
    except apsw.ConnectionClosedError:
        raise errors.StoreFailed("the client has been closed") from None
    except (apsw.IOError, apsw.NoMemError, apsw.AbortError, apsw.InterruptError):
        raise errors.StoreFailed("the disk failed") from None
