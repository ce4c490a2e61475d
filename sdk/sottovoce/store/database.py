"""Opening a store, its one transaction at a time, and SQLite's errors in our words.

The file is encrypted by SQLite3 Multiple Ciphers (ChaCha20-Poly1305 per page) under the key of the key file. Commits
are durable when they return (`synchronous=FULL`): a ratchet state that a power cut took back would use a key twice.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@dataclass(frozen=True, slots=True)
class Tables:
    """Every table of a store, within one transaction."""

    account: AccountTable
    peers: PeerTable
    prekeys: PrekeyTable
    sessions: SessionTable
    inbox: InboxTable
    outbox: OutboxTable


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
        )

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
    except apsw.IOError:
        raise errors.StoreFailed("the disk failed") from None
