"""Looking into a store that may be damaged: what is intact, and the messages that can still be read.

All of it works on a copy beside the store, which is lengthened where its end is missing: the store itself is only read,
so that nobody makes it worse by looking.
"""

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import apsw
import msgspec

from sottovoce_wire import records
from sottovoce_wire.errors import WireError

from .. import errors, events
from ..crypto.errors import CryptoRefusal
from ..crypto.identity import DeviceKeys, OwnerKey
from ..crypto.prekeys import OneTimePrekey, OwnPrekeys
from ..crypto.ratchet import Ratchet
from . import keyfile
from .account import RootLock
from .database import locked, set_key, translated
from .keyfile import Keys
from .unlock import Unlock

#: Called with (steps done, steps in all).
Progress = Callable[[int, int], None]
#: A copy is lengthened to this at most: a header that asks for more is damaged.
_LONGEST: Final = 2**40
#: The files of a store, but for its key and its lock.
_FILES: Final = ("", "-wal", "-shm")
_MESSAGES: Final = (
    "SELECT position, message_id, account_id, text, sent_at, received_at, is_request FROM messages NOT INDEXED"
    " WHERE position > ? ORDER BY position"
)
#: How far messages are looked for behind the last that could be read, if nothing tells how many there are.
_BEYOND: Final = 100_000


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table. `is_damaged`: pages or indexes are not what they must be. `unreadable` rows are stored whole, and hold
    what this library cannot parse."""

    name: str
    rows: int
    unreadable: int
    is_damaged: bool


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What a check found. `pages` has the length of the database, in pages of 4,096 bytes."""

    pages: int
    is_truncated: bool
    tables: tuple[TableReport, ...]

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.is_truncated or self.damaged)

    @property
    def damaged(self) -> tuple[str, ...]:
        """The tables that are not intact."""
        return tuple(table.name for table in self.tables if table.is_damaged or table.unreadable)


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as it lies in the store. Ids are bytes (16, 32), times milliseconds since 1970."""

    message_id: bytes
    account_id: bytes
    text: str = field(repr=False)
    sent_at: int
    received_at: int
    is_request: bool


def _device_list(packed: bytes) -> None:
    payload, _ = records.split_signed(packed)
    records.DeviceList.parse(payload)


def _origin_and_ids(origin: str, *ids: bytes) -> None:
    if not origin or [len(each) for each in ids] != [16, 32, 16, 16, 16, 32]:
        raise ValueError


#: Of a table some columns, and what parses them.
_Parsed: TypeAlias = tuple[str, str, Callable[..., object]]
#: What of which table is parsed, besides the root key, for which the key file is needed. Every other column is SQLite's
#: own.
_PARSED: Final[tuple[_Parsed, ...]] = (
    ("account", "device", DeviceKeys.unpack),
    ("account", "device_list", _device_list),
    ("own_queues", "owner_seed", OwnerKey.from_seed),
    ("prekeys", "state", OwnPrekeys.unpack),
    ("one_time_prekeys", "state", OneTimePrekey.unpack),
    ("peers", "device_list", _device_list),
    ("sessions", "ratchet", Ratchet.unpack),
    ("events", "event", events.unpack),
    ("outbox", "origin, message_id, account_id, device_id, envelope_id, queue, send_key", _origin_and_ids),
)
_UNPARSABLE: Final = (CryptoRefusal, WireError, msgspec.MsgspecError, ValueError, TypeError, IndexError, OverflowError)


def check(path: Path, unlock: Unlock, progress: Progress | None = None) -> StoreReport:
    """Read all of the store at `path` and say what is wrong with it. `progress` counts tables.

    Raises what `open_store` raises; StoreUnreadable only if not even its list of tables can be read."""
    with _copied(path, unlock) as (connection, is_truncated, root_lock), translated():
        parsed = [*_PARSED, ("account", "wrapped_root, root_public", root_lock.unwrap)]
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        found = []
        for done, name in enumerate(sorted(names)):
            if progress is not None:
                progress(done, len(names))
            found.append(_check_table(connection, name, parsed))
        if progress is not None:
            progress(len(names), len(names))
        return StoreReport(connection.pragma("page_count"), is_truncated, tuple(found))


def _check_table(connection: apsw.Connection, name: str, parsed: Sequence[_Parsed]) -> TableReport:
    rows, is_damaged = 0, False
    try:
        rows = connection.execute(f"SELECT count(*) FROM {name} NOT INDEXED").get  # noqa: S608 - from the schema
        is_damaged = connection.execute(f"PRAGMA integrity_check('{name}')").get != "ok"
    except apsw.CorruptError:
        is_damaged = True
    columns = [(column, parse) for table, column, parse in parsed if table == name]
    return TableReport(name, rows, sum(_unreadable(connection, name, *each) for each in columns), is_damaged)


def _unreadable(connection: apsw.Connection, name: str, column: str, parse: Callable[..., object]) -> int:
    """How many rows hold something that does not parse; those that cannot be read at all are not counted."""
    count = 0
    with suppress(apsw.CorruptError):
        for values in connection.execute(f"SELECT {column} FROM {name}"):  # noqa: S608 - fixed names
            try:
                if values[0] is not None:
                    parse(*values)
            except _UNPARSABLE:
                count += 1
    return count


def read_messages(path: Path, unlock: Unlock, progress: Progress | None = None) -> Generator[StoredMessage, None, None]:
    """The received messages that can be read, in the order of arrival. `progress` counts places in that order.

    The copy goes when the iterator is used up or closed. Raises what `check` raises."""
    with _copied(path, unlock) as (connection, _, root_lock), translated():
        root_lock.drop()  # the application may keep the iterator for as long as it likes
        last, position = _last(connection), 0
        end = last or _BEYOND
        while position < end:
            try:
                for position, *row in connection.execute(_MESSAGES, (position,)):  # noqa: B020 - where to go on
                    end = last or position + _BEYOND
                    if progress is not None:
                        progress(position, end)
                    yield _stored(*row)
                position = end
            except apsw.CorruptError:
                position += 1  # it lies on a page that is damaged, or behind one


def _stored(
    message_id: bytes, account_id: bytes, text: str, sent_at: int, received_at: int, is_request: int
) -> StoredMessage:
    return StoredMessage(message_id, account_id, text, sent_at, received_at, bool(is_request))


def _last(connection: apsw.Connection) -> int | None:
    """The place of the newest message, if anything still tells."""
    for query in (
        "SELECT seq FROM sqlite_sequence WHERE name = 'messages'",
        "SELECT max(position) FROM messages NOT INDEXED",
    ):
        with suppress(apsw.CorruptError):
            last: int | None = connection.execute(query).get
            return last or 0
    return None


@contextmanager
def _copied(path: Path, unlock: Unlock) -> Iterator[tuple[apsw.Connection, bool, RootLock]]:
    """A copy of a store that nobody uses meanwhile, open to be read, whether its end is missing, and what opens its
    root key. No key stays here while the caller works."""
    if not path.is_file():
        raise errors.StoreUnreadable(f"there is no store at {path}", hint="check the path")
    copy = path.with_name(path.name + ".copy")
    with locked(path) as held, closing(held):
        try:
            keys = _read_keys(path, unlock)
            _copy(path, copy)
            with closing(apsw.Connection(str(copy))) as connection, translated():
                is_truncated = _unlock_copy(connection, copy, keys.database)
                if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
                    raise errors.StoreUnreadable("the store is empty", hint="restore it from a backup")
                root_lock = RootLock(keys.root)
                del keys
                yield connection, is_truncated, root_lock
        except OSError as error:
            raise errors.StoreFailed(f"cannot copy {path.name}: {error.strerror}") from None
        finally:
            for suffix in _FILES:
                copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _read_keys(path: Path, unlock: Unlock) -> Keys:
    try:
        return keyfile.read_keys(keyfile.key_path(path), unlock)
    except FileNotFoundError:
        raise errors.StoreUnreadable(f"{keyfile.key_path(path).name} is missing beside the store") from None


def _copy(path: Path, copy: Path) -> None:
    """The database and what its log holds, encrypted as they are."""
    for suffix in _FILES:
        part = path.with_name(path.name + suffix)
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
        if part.exists() and suffix != "-shm":
            shutil.copy(part, copy.with_name(copy.name + suffix))


def _unlock_copy(connection: apsw.Connection, copy: Path, key: bytes) -> bool:
    """Unlock the copy, and whether it had to be made longer for that: SQLite opens no file that is shorter than it was.
    What is missing is then damaged pages."""
    set_key(connection, key)
    connection.pragma("locking_mode", "exclusive")
    connection.pragma("query_only", True)
    is_truncated = False
    while True:
        try:
            connection.pragma("user_version")
        except apsw.CorruptError:
            length = copy.stat().st_size
            if length >= _LONGEST:
                raise
            is_truncated = True
            os.truncate(copy, max(2 * length, 4096))
        else:
            return is_truncated
