"""Opening a store, its one transaction at a time, and SQLite's errors in our words.

The file is encrypted by SQLite3 Multiple Ciphers (ChaCha20-Poly1305 per page) under the key of the key file. Commits
are durable when they return (`synchronous=FULL`): a ratchet state that a power cut took back would use a key twice.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import apsw

from .. import errors
from ..crypto import primitives
from ..protocol.routing import Routing
from . import counter, keyfile, lock, schema, witness
from .account import AccountTable, RootLock
from .counter import CounterTable
from .events import EventTable
from .held import HeldTable
from .inbox import InboxTable
from .keyfile import Keys
from .outbox import OutboxTable
from .peers import PeerTable
from .prekeys import PrekeyTable
from .receipts import ReceiptTable
from .sent import SentTable
from .sessions import SessionTable
from .unlock import KEY_FILE, Unlock
from .wants import WantTable
from .witness import Witness

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
_NO_KEY: Final = "name another file; if it is a store, restore it and its .key file from one backup"
DAMAGED: Final = (
    "close it; sottovoce.check_store says what is damaged, sottovoce.read_intact reads the messages that are left;"
    " then restore the store and the .key file beside it from one backup"
)


@dataclass(frozen=True, slots=True)
class Tables:
    """Every table of a store, within one transaction."""

    counter: CounterTable
    account: AccountTable
    peers: PeerTable
    prekeys: PrekeyTable
    sessions: SessionTable
    inbox: InboxTable
    held: HeldTable
    wants: WantTable
    outbox: OutboxTable
    sent: SentTable
    receipts: ReceiptTable
    events: EventTable
    savepoint: Callable[[], AbstractContextManager[None]]
    derived: Callable[[], Routing]

    @property
    def routing(self) -> Routing:
        """The table of tags, as the rows have it."""
        return self.derived()


class Store:
    """An open store. Not for two threads at once: its owner runs one transaction after another."""

    def __init__(self, connection: apsw.Connection, root_lock: RootLock, held: BinaryIO | None = None) -> None:
        self._connection = connection
        self._lock = held
        self._witness: Witness | None = None
        self._is_restored = False
        self._tables = Tables(
            CounterTable(connection),
            AccountTable(connection, root_lock),
            PeerTable(connection),
            PrekeyTable(connection),
            SessionTable(connection),
            InboxTable(connection),
            HeldTable(connection),
            WantTable(connection),
            OutboxTable(connection),
            SentTable(connection),
            ReceiptTable(connection),
            EventTable(connection),
            self._savepoint,
            self._derive,
        )
        self._routing: Routing | None = None
        self._commits = 0

    @property
    def is_restored(self) -> bool:
        """Whether this opening found that the store was put back from a copy. Then it has started anew already."""
        return self._is_restored

    def begin(self, folder: Path | None) -> None:
        """Count this opening, in the store and in its witness in `folder`. Raises StoreFailed, StoreInUse."""
        self._witness, self._is_restored = counter.begin(self, folder)
        with translated():
            self._tables.account.lock_root()

    @contextmanager
    def transaction(self) -> Iterator[Tables]:
        """All that the block writes becomes durable when it ends, or nothing if it raises. Raises StoreFailed."""
        with translated():
            self._connection.execute("BEGIN IMMEDIATE")
            routing = self._routing_now()
            try:
                yield self._tables
                self._connection.execute("COMMIT")
            except BaseException:
                self._taken_back(routing)
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._tables.sessions.ended()
            self._commits += 1
            if self._commits >= COMMITS_IN_LOG:
                with suppress(apsw.Error):  # the commit stands, whatever becomes of the log; the next one tries again
                    self._empty_log()

    @property
    def is_in_transaction(self) -> bool:
        """Whether one is open. On some errors SQLite ends it by itself, and takes everything back."""
        return self._connection.in_transaction

    def _routing_now(self) -> tuple[Routing | None, int]:
        """Which table it is besides its count: one that was made anew may have counted as far."""
        return self._routing, 0 if self._routing is None else self._routing.changes

    def _taken_back(self, routing: tuple[Routing | None, int]) -> None:
        """What is kept in memory goes back with the rows: it is made from them again, where it had followed."""
        self._tables.sessions.taken_back()
        if self._routing_now() != routing:
            self._routing = None

    def _derive(self) -> Routing:
        """The table of tags, made from the rows if there is none."""
        if self._routing is None:
            routing = Routing()
            for session_id, is_contact, windows in self._tables.sessions.routes():
                routing.announce(session_id, windows)
                if is_contact:
                    routing.befriend(session_id)
            for session_id, window in self._tables.sessions.skipped_routes():
                routing.admit(session_id, [window])
            self._routing = routing
        return self._routing

    def tidy(self) -> None:
        """Take what was wiped out of the write-ahead log too, if anything was written since. Raises StoreFailed."""
        with translated():
            if self._commits:
                self._empty_log()

    def _empty_log(self) -> None:
        count = self._advance() if self._witness is not None else None
        _empty_log(self._connection)
        self._commits = 0
        if self._witness is not None and count is not None:  # what it tells is durable by now
            self._witness.write(count)

    def _advance(self) -> int | None:
        """The counter after this step, or None on a full disk: the log must be emptied all the same."""
        with suppress(apsw.Error):
            self._connection.execute("UPDATE counter SET count = count + 1")
            count: int = self._connection.execute("SELECT count FROM counter").get
            return count
        return None

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        """Within a transaction: what the block writes is taken back if it raises. Raises StoreFailed."""
        with translated():
            self._connection.execute("SAVEPOINT part")
            routing = self._routing_now()
            try:
                yield
            except BaseException:
                self._taken_back(routing)
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
        """Close the file and let others open it. Closing twice does nothing. Raises StoreFailed; it is closed then."""
        with translated(), ExitStack() as closing:
            for held in (self._lock, self._witness, self._connection):
                if held is not None:
                    closing.callback(held.close)
            with suppress(errors.StoreError):
                self.tidy()


def open_store(path: Path, unlock: Unlock = KEY_FILE, *, state: Path | None = None) -> Store:
    """Open the store at `path`, or make one. `state`: the folder of its witness, if not the system's.

    Raises StoreInUse, WrongPassphrase, PassphraseNeeded, KeyringNeeded, KeyringUnavailable, StoreUnreadable,
    StoreVersion or StoreFailed; a store that cannot be opened is left as it is."""
    with locked(path, make_folder=True) as held:
        keys = _keys(path, unlock)
        store = Store(_connect(path, keys.database), RootLock(keys.root), held)
        try:
            store.begin(witness.state_folder() if state is None else state)
        except BaseException:
            store.close()
            raise
        return store


def open_memory_store() -> Store:
    """A new store that is kept in memory alone: the same tables and transactions, no file, no lock, no witness."""
    with translated():
        connection = apsw.Connection(":memory:")
        connection.pragma("trusted_schema", "off")
        _upgrade(connection)
        return Store(connection, RootLock(primitives.random_bytes(keyfile.KEY_LENGTH), stays_open=True))


@contextmanager
def locked(path: Path, *, make_folder: bool = False) -> Iterator[BinaryIO]:
    """The lock of the store at `path`, for whoever closes it; let go if the block raises. Raises StoreInUse,
    StoreFailed."""
    try:
        refuse_other(path)
        if make_folder:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = lock.take_lock(path)
    except OSError as error:
        raise errors.StoreFailed(f"cannot open {path}: {error.strerror}") from None
    except ValueError:
        raise errors.InvalidInput("a path has no null bytes") from None
    try:
        yield held
    except BaseException:
        held.close()
        raise


def refuse_other(path: Path) -> None:
    """Nothing is put beside a folder or a file that is no store. Raises StoreFailed, StoreUnreadable."""
    if path.is_dir():
        raise errors.StoreFailed(f"{path} is a folder", hint="name a file in it")
    key_file = keyfile.key_path(path)
    if not key_file.exists() and path.exists() and path.stat().st_size > 0:
        raise errors.StoreUnreadable(
            f"{path.name} is not a store, or {key_file.name} beside it is missing", hint=_NO_KEY
        )


def _keys(path: Path, unlock: Unlock) -> Keys:
    key_file = keyfile.key_path(path)
    try:
        if key_file.exists():
            return keyfile.read_keys(key_file, unlock)
        return keyfile.create_keys(key_file, unlock)
    except OSError as error:
        raise errors.StoreFailed(f"cannot use {key_file}: {error.strerror}") from None


def _connect(path: Path, key: bytes) -> apsw.Connection:
    with translated():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = apsw.Connection(str(path))
        try:
            set_key(connection, key)
            for name, value in _PRAGMAS:
                connection.pragma(name, value)
            _upgrade(connection)
            _empty_log(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def set_key(connection: apsw.Connection, key: bytes) -> None:
    """Unlock a connection. The key is random and taken as it is: stretching it would only cost time."""
    connection.pragma("cipher", "chacha20")
    connection.pragma("key", f"raw:{key.hex()}")


def _upgrade(connection: apsw.Connection) -> None:
    """Bring the tables to this version, each step in one transaction. Raises StoreVersion for a newer store, and for
    one that was written before the first release."""
    version = connection.pragma("user_version")
    if not isinstance(version, int) or not 0 <= version <= schema.VERSION:
        raise errors.StoreVersion(f"the store has version {version}, this library knows up to {schema.VERSION}")
    if 0 < version <= schema.UNRELEASED:
        raise errors.StoreVersion(
            "the store was written before the first release, and cannot be read any more",
            hint="move it away with the files beside it, and register again under another name",
        )
    for number in range(max(version, schema.UNRELEASED), schema.VERSION):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(schema.STEPS[number - schema.UNRELEASED])
        connection.pragma("user_version", number + 1)
        connection.execute("COMMIT")


def _empty_log(connection: apsw.Connection) -> None:
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors as ours. Their texts name no data."""
    try:
        yield
    except apsw.BusyError:
        raise errors.StoreInUse("another program is using the store") from None
    except apsw.NotADBError:
        raise errors.StoreUnreadable("the file is not an intact store, or its key file belongs to another") from None
    except apsw.CorruptError:
        raise errors.StoreUnreadable("the store is damaged", hint=DAMAGED) from None
    except apsw.FullError:
        raise errors.StoreFailed("the disk is full") from None
    except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError):
        raise errors.StoreFailed("the store cannot be written") from None
    except apsw.ConnectionClosedError:
        raise errors.StoreFailed("the client has been closed") from None
    except (apsw.IOError, apsw.NoMemError, apsw.AbortError, apsw.InterruptError):
        raise errors.StoreFailed("the disk failed") from None
