"""The counter inside the store, which its witness outside follows: how a copy that was put back is noticed, and what is
done about it before anybody can send.

Both go up at every opening and whenever the log is emptied; the store first, so that a witness is never ahead of the
store that it belongs to. Spec: store.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from ..crypto import primitives
from ..crypto.prekeys import OwnPrekeys
from ..events import StoreRestored, WitnessUnwritable
from ..protocol import healing
from . import witness
from .prekeys import STOCK
from .witness import Witness

if TYPE_CHECKING:
    from .database import Store, Tables

#: Prekeys are numbered with 32 bits. A clock that is further ahead than this must not use them up.
NUMBERS: Final = 2**32 - 2**24


@dataclass(frozen=True, slots=True)
class Count:
    """The counter, and whose it is. `is_witnessed`: the last opening left a witness."""

    store_id: bytes
    count: int
    is_witnessed: bool


class CounterTable:
    """Table `counter`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute

    def get(self) -> Count:
        """The counter; made now, at 0, if the store has none."""
        self._execute("INSERT OR IGNORE INTO counter VALUES (1, ?, 0, 0)", (primitives.random_bytes(16),))
        store_id, count, is_witnessed = self._execute("SELECT store_id, count, is_witnessed FROM counter").get
        return Count(store_id, count, bool(is_witnessed))

    def set(self, count: int) -> None:
        """The count from now on."""
        self._execute("UPDATE counter SET count = ?", (count,))

    def set_witnessed(self, is_witnessed: bool) -> None:
        """Whether this opening has left a witness."""
        self._execute("UPDATE counter SET is_witnessed = ?", (is_witnessed,))


def begin(store: "Store", folder: Path | None) -> tuple[Witness | None, bool]:
    """Count an opening: the witness, if it can be written, and whether the store was put back from a copy. Then it has
    started anew. Raises StoreFailed, StoreInUse."""
    with store.transaction() as tables:
        own = tables.counter.get()
    found = None if folder is None else witness.open_witness(folder, own.store_id)
    try:
        seen = found.count if found is not None else witness.read_count(folder, own.store_id)
        is_restored = own.is_witnessed if seen is None else seen > own.count
        count = max(own.count, seen or 0) + 1
        with store.transaction() as tables:
            tables.counter.set(count)
            if is_restored:
                start_anew(tables, int(time.time()))
        _leave_witness(store, found, count, own)
    except BaseException:
        if found is not None:
            found.close()
        raise
    return found, is_restored


def _leave_witness(store: "Store", found: Witness | None, count: int, own: Count) -> None:
    """Take the witness along, and note in the store whether that worked: only one that was left can be missed."""
    is_witnessed = found is not None and found.write(count, is_synced=True)
    if is_witnessed == own.is_witnessed and is_witnessed:
        return
    with store.transaction() as tables:
        tables.counter.set_witnessed(is_witnessed)
        if not is_witnessed:
            tables.events.add(WitnessUnwritable(datetime.now(UTC)))


def start_anew(tables: "Tables", now: int) -> None:
    """A state that was left behind: nothing is sent under its sessions, and nothing is published under a number that
    the keyserver may know with another meaning. Of the one-time prekeys there, it lacks those that were made since: all
    of them are replaced. `now` in unix seconds."""
    healing.restored(tables, now)
    renumber(tables, now if now < NUMBERS else 0, now)
    tables.events.add(StoreRestored(datetime.fromtimestamp(now, UTC)))


def start_above(tables: "Tables", last: int, now: int) -> bool:
    """The keyserver says that it knows this device by numbers up to `last`, and refuses what has smaller ones: new
    ones above them, in the place of what it refused. False if it names one that nobody reaches who counts honestly: of
    those behind it this store would have too few."""
    current = tables.prekeys.current()
    if current is None or max(last, current.record_id, tables.prekeys.last_one_time()) >= NUMBERS:
        return False
    above = max(last, current.record_id) + 1
    tables.prekeys.drop_refused()
    renumber(tables, above, now)
    return True


def renumber(tables: "Tables", at_least: int, now: int) -> None:
    """New prekeys, and one-time prekeys in the place of all at the keyserver, under numbers never used here and of at
    least `at_least`; nothing in a store without an account.

    The one-time prekeys begin right above the record id. So a record id that is new to the keyserver brings a beginning
    that is new to it, whatever other copies of this store have told it."""
    account, current = tables.account.get(), tables.prekeys.current()
    if account is None or current is None:
        return
    record_id = max(at_least, current.record_id + 1, tables.prekeys.last_one_time())
    tables.account.skip_to(record_id)
    tables.prekeys.skip_to(record_id)
    tables.prekeys.add(OwnPrekeys.generate(account.device, account.account_id, record_id, now))
    tables.account.set_one_time_from(tables.prekeys.begin_one_time())
    tables.prekeys.make_one_time(STOCK)
