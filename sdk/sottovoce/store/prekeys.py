"""The device's own prekeys: the current signed ones, those that were replaced, and the one-time prekeys."""

from collections.abc import Sequence
from typing import Final

import apsw

from ..crypto.prekeys import OneTimePrekey, OwnPrekeys

#: One-time prekeys kept: some are handed out by the keyserver and never used by whoever took them.
KEPT: Final = 2_000
#: As many are handed in at the keyserver at first, and when there are few left.
STOCK: Final = 100


class PrekeyTable:
    """Tables `prekeys` and `one_time_prekeys`. Satisfies `protocol.state.Prekeys`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute
        #: By their packed bytes, so that they are never other than their row; emptied when any are wiped.
        self._unpacked: dict[bytes, OwnPrekeys] = {}

    def current(self) -> OwnPrekeys | None:
        """The newest prekeys."""
        state = self._execute("SELECT state FROM prekeys ORDER BY record_id DESC LIMIT 1").get
        return None if state is None else OwnPrekeys.unpack(state)

    def published_created(self) -> int:
        """When the prekeys that the keyserver hands out were made (unix seconds): the oldest not replaced yet."""
        created: int = self._execute("SELECT min(created) FROM prekeys WHERE replaced IS NULL").get
        return created

    def is_newest_published(self) -> bool:
        """Whether the keyserver has confirmed the newest prekeys, or none came after the first."""
        waiting: int = self._execute("SELECT count(*) FROM prekeys WHERE replaced IS NULL").get
        return waiting <= 1

    def add(self, prekeys: OwnPrekeys) -> None:
        """Store new prekeys, before the keyserver hears of them."""
        self._execute(
            "INSERT INTO prekeys VALUES (?, ?, ?, NULL)", (prekeys.record_id, prekeys.pack(), prekeys.created)
        )

    def replace_older(self, record_id: int, now: int) -> None:
        """The keyserver hands out `record_id` now: those before it count as replaced from `now`."""
        self._execute("UPDATE prekeys SET replaced = ? WHERE record_id < ? AND replaced IS NULL", (now, record_id))

    def wipe_replaced(self, before: int) -> None:
        """Wipe prekeys replaced before `before` (unix seconds), and forget the handshakes made to them."""
        self._execute(
            "DELETE FROM accepted_handshakes WHERE record_id IN (SELECT record_id FROM prekeys WHERE replaced < ?)",
            (before,),
        )
        self._execute("DELETE FROM prekeys WHERE replaced < ?", (before,))
        self._unpacked.clear()

    def records(self, wire_id: int) -> Sequence[OwnPrekeys]:
        """The prekeys whose record id is `wire_id` modulo 256, newest first."""
        rows = self._execute("SELECT state FROM prekeys WHERE record_id % 256 = ? ORDER BY record_id DESC", (wire_id,))
        return [self._unpack(state) for (state,) in rows]

    def _unpack(self, state: bytes) -> OwnPrekeys:
        """Unpacking costs more than opening a sealed message, and strangers decide how often it is needed."""
        if state not in self._unpacked:
            self._unpacked[state] = OwnPrekeys.unpack(state)
        return self._unpacked[state]

    def one_time(self, prekey_id: int) -> OneTimePrekey | None:
        """A one-time prekey that has not been used."""
        state = self._execute("SELECT state FROM one_time_prekeys WHERE id = ?", (prekey_id,)).get
        return None if state is None else OneTimePrekey.unpack(state)

    def use_one_time(self, prekey_id: int) -> None:
        """Wipe a one-time prekey. Its id is never given out again."""
        self._execute("DELETE FROM one_time_prekeys WHERE id = ?", (prekey_id,))

    def make_one_time(self, count: int) -> None:
        """Make and store `count` one-time prekeys, before the keyserver hears of them, and wipe the oldest."""
        for _ in range(count):
            self._execute("INSERT INTO one_time_prekeys (state) VALUES (NULL)")
            prekey_id: int = self._execute("SELECT last_insert_rowid()").get
            packed = OneTimePrekey.generate(prekey_id).pack()
            self._execute("UPDATE one_time_prekeys SET state = ? WHERE id = ?", (packed, prekey_id))
        self._execute(
            "DELETE FROM one_time_prekeys WHERE id <="
            " (SELECT id FROM one_time_prekeys ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (KEPT,),
        )

    def skip_to(self, number: int) -> None:
        """The next one-time prekey has an id above this one."""
        self._execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'one_time_prekeys'", (number,))

    def last_one_time(self) -> int:
        """The greatest id that a one-time prekey ever had here."""
        last: int = self._execute("SELECT seq FROM sqlite_sequence WHERE name = 'one_time_prekeys'").get
        return last

    def begin_one_time(self) -> int:
        """The keyserver is to hand out none of those made so far; returns the id that the next ones begin with. They
        stay here: some may have been handed out, and the first messages to them be on their way."""
        self._execute("UPDATE one_time_prekeys SET published = 1")
        return self.last_one_time() + 1

    def drop_refused(self) -> None:
        """Wipe what the keyserver has refused: one-time prekeys that it does not have, and the newest prekeys, where
        it may hand out others. Else each refusal would leave some here."""
        self._execute("DELETE FROM one_time_prekeys WHERE published = 0")
        if self.is_newest_published():
            return
        newest: int = self._execute("SELECT max(record_id) FROM prekeys").get
        self._execute("DELETE FROM accepted_handshakes WHERE record_id = ?", (newest,))
        self._execute("DELETE FROM prekeys WHERE record_id = ?", (newest,))
        self._unpacked.clear()

    def unpublished(self, limit: int) -> list[OneTimePrekey]:
        """The oldest `limit` one-time prekeys that the keyserver does not have yet."""
        rows = self._execute("SELECT state FROM one_time_prekeys WHERE published = 0 ORDER BY id LIMIT ?", (limit,))
        return [OneTimePrekey.unpack(state) for (state,) in rows]

    def mark_published(self, upto: int) -> None:
        """The keyserver has every one-time prekey up to this id."""
        self._execute("UPDATE one_time_prekeys SET published = 1 WHERE id <= ?", (upto,))
