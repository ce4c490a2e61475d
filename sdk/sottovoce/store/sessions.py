"""Sessions, the keys of messages that have not come yet, and the handshakes that were accepted.

Sessions are kept in memory with their ratchets unpacked, for receiving and sending alike. Never one whose row says
something else: all that a transaction or a part of it had in hand is dropped when it is taken back.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import apsw

from sottovoce_wire.ids import AccountId, DeviceId

from ..crypto.message import Window
from ..crypto.ratchet import Ratchet, SkippedKey
from ..protocol.state import FirstContact, Session

#: Sessions kept unpacked, some 4 KiB each: at least as many as one search for a message tries.
UNPACKED: Final = 2_048

_NAMES: Final = (
    "session_id",
    "account_id",
    "device_id",
    "generation",
    "ratchet",
    "handshake",
    "prekey_record",
    "address_confirmed",
    "replaced_at",
    "heard_at",
    "failures",
    "owed",
    "answer_by",
    "silent",
    "silent_since",
    "told_from",
)
_COLUMNS: Final = ", ".join(_NAMES)
_SELECT: Final = f"SELECT {_COLUMNS} FROM sessions"  # noqa: S608 - fixed names
#: What stays for as long as the session does is not written again with every message.
_CHANGING: Final = _NAMES[4:]
_UPDATE: Final = ", ".join(f"{name} = excluded.{name}" for name in _CHANGING)
_PUT: Final = (
    f"INSERT INTO sessions ({_COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608 - fixed names
    f" ON CONFLICT (session_id) DO UPDATE SET {_UPDATE}"
)
_GIVE_UP: Final = (
    "INSERT INTO skipped_given_up (session_id, chain, number) VALUES (?, ?, ?) ON CONFLICT (session_id)"
    " DO UPDATE SET chain = excluded.chain, number = excluded.number"
    " WHERE (excluded.chain, excluded.number) > (chain, number)"
)


class SessionTable:
    """Tables `sessions`, `skipped_keys` and `accepted_handshakes`. Satisfies `protocol.state.Sessions`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._unpacked: dict[bytes, Session] = {}
        self._in_hand: set[bytes] = set()

    def ended(self) -> None:
        """The transaction is over: what is in memory agrees with the rows."""
        self._in_hand.clear()

    def taken_back(self) -> None:
        """Rows were taken back: drop every session that was in hand, for its ratchet may have moved. It stays in hand
        until the transaction ends: until then its row, read again, may hold what is never committed."""
        for session_id in self._in_hand:
            self._unpacked.pop(session_id, None)

    def of_device(self, account_id: AccountId, device_id: DeviceId) -> Sequence[Session]:
        """All sessions with a device, the greatest rank first."""
        return self._some(
            "WHERE account_id = ? AND device_id = ? ORDER BY generation DESC, session_id DESC", account_id, device_id
        )

    def of_account(self, account_id: AccountId) -> Sequence[Session]:
        """All sessions with the devices of an account."""
        return self._some("WHERE account_id = ?", account_id)

    def sending(self, account_id: AccountId, device_id: DeviceId) -> Session | None:
        """The session of the greatest rank with a device."""
        session_id = self._execute(
            "SELECT session_id FROM sessions WHERE account_id = ? AND device_id = ?"
            " ORDER BY generation DESC, session_id DESC LIMIT 1",
            (account_id, device_id),
        ).get
        return None if session_id is None else self.get(session_id)

    def get(self, session_id: bytes) -> Session | None:
        """The session of this id."""
        session = self.peek(session_id)
        if session is not None:
            self._in_hand.add(session_id)
        return session

    def peek(self, session_id: bytes) -> Session | None:
        """The same for a look alone: its ratchet must not be moved."""
        known = self._unpacked.pop(session_id, None)
        if known is None:
            row = self._execute(f"{_SELECT} WHERE session_id = ?", (session_id,)).get
            if row is None:
                return None
            known = _session(*row)
        self._keep(known)
        return known

    def _keep(self, session: Session) -> None:
        """Keep a session unpacked, as the one used last."""
        self._unpacked[session.session_id] = session
        if len(self._unpacked) > UNPACKED:
            del self._unpacked[next(iter(self._unpacked))]

    def _some(self, condition: str, *values: object) -> list[Session]:
        query = f"SELECT session_id FROM sessions {condition}"  # noqa: S608 - fixed conditions
        rows: list[tuple[Any, ...]] = self._execute(query, values).fetchall()
        found = [self.get(session_id) for (session_id,) in rows]
        return [session for session in found if session is not None]

    def put(self, session: Session) -> None:
        """Insert or replace."""
        first = session.unanswered
        self._execute(
            _PUT,
            (
                session.session_id,
                session.account_id,
                session.device_id,
                session.generation,
                session.ratchet.pack(),
                None if first is None else first.handshake,
                None if first is None else first.prekey_record,
                session.address_confirmed,
                session.replaced_at,
                session.heard_at,
                session.failures,
                session.owed,
                session.answer_by,
                session.silent,
                session.silent_since,
                session.told_from,
            ),
        )
        self._in_hand.add(session.session_id)
        self._unpacked.pop(session.session_id, None)
        self._keep(session)

    def wipe(self, session_id: bytes) -> None:
        """Wipe a session and its skipped keys."""
        self._execute("DELETE FROM skipped_keys WHERE session_id = ?", (session_id,))
        self._execute("DELETE FROM skipped_given_up WHERE session_id = ?", (session_id,))
        self._execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))
        self._unpacked.pop(session_id, None)

    def replaced(self, before: int) -> Sequence[Session]:
        """The sessions that were replaced before this time."""
        return self._some("WHERE replaced_at < ?", before)

    def retire(self, now: int) -> Sequence[tuple[AccountId, DeviceId]]:
        """No session sends any more, from `now` on; returns the devices that there were sending ones with."""
        query = "UPDATE sessions SET replaced_at = ? WHERE replaced_at IS NULL RETURNING account_id, device_id"
        rows: list[tuple[Any, ...]] = self._execute(query, (now,)).fetchall()
        self._unpacked.clear()
        return [(AccountId(account_id), DeviceId(device_id)) for account_id, device_id in rows]

    def tell_address(self, now: int, within: int) -> None:
        """All peers are to be given the device's address again, contacts that have ever answered by a random time
        within so many seconds."""
        self._execute("UPDATE sessions SET address_confirmed = 0, told_from = NULL")
        self._execute(
            "UPDATE sessions SET answer_by = ? + abs(random() % ?) WHERE answer_by IS NULL AND replaced_at IS NULL"
            " AND handshake IS NULL AND account_id IN (SELECT account_id FROM peers WHERE is_contact)",
            (now, within),
        )
        self._unpacked.clear()

    def owing(self, messages: int, now: int) -> Sequence[Session]:
        """The sending sessions with contacts on which an answer is due: after so many messages, or by the time."""
        return self._some(
            "WHERE answer_by IS NOT NULL AND (answer_by <= ? OR owed >= ?) AND replaced_at IS NULL"
            " AND account_id IN (SELECT account_id FROM peers WHERE is_contact AND forked_list IS NULL)",
            now,
            messages,
        )

    def silent(self, messages: int, since: int) -> Sequence[Session]:
        """The sending sessions on which nothing came after so many messages, or since then."""
        return self._some("WHERE (silent >= ? OR silent_since <= ?) AND replaced_at IS NULL", messages, since)

    def routes(self) -> Iterator[tuple[bytes, bool, Sequence[Window]]]:
        """(session id, whether it is a contact's, the tags that are expected) of all sessions, those heard from last
        at the end; without those of skipped keys."""
        rows = self._execute(
            "SELECT session_id, account_id IN (SELECT account_id FROM peers WHERE is_contact), ratchet"
            " FROM sessions ORDER BY heard_at"
        )
        for session_id, is_contact, packed in rows:
            yield session_id, bool(is_contact), Ratchet.unpack(packed).expected()

    def skipped_routes(self) -> Iterator[tuple[bytes, Window]]:
        """(session id, tag and what it announces) of all skipped keys."""
        for session_id, tag, chain, number in self._execute("SELECT session_id, tag, chain, number FROM skipped_keys"):
            yield session_id, Window((tag,), chain, number)

    def skipped_key(self, session_id: bytes, chain: int, number: int) -> SkippedKey | None:
        """The stored keys of a message that has not come."""
        row = self._execute(
            "SELECT tag, header_key, key FROM skipped_keys WHERE session_id = ? AND chain = ? AND number = ?",
            (session_id, chain, number),
        ).get
        return None if row is None else SkippedKey(chain, number, *row)

    def skipped_tags(self, session_id: bytes) -> Sequence[bytes]:
        """The tags of all stored keys of a session."""
        rows = self._execute("SELECT tag FROM skipped_keys WHERE session_id = ?", (session_id,))
        return [tag for (tag,) in rows]

    def add_skipped(self, session_id: bytes, keys: Sequence[SkippedKey], now: int, *, keep: int) -> Sequence[bytes]:
        """Store message keys, then wipe all but the newest `keep` of the session; returns the tags of those wiped."""
        self._executemany(
            "INSERT OR REPLACE INTO skipped_keys (session_id, chain, number, tag, header_key, key, stored_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(session_id, key.chain, key.number, key.tag, key.header_key, key.key, now) for key in keys],
        )
        given_up = self._wipe_skipped(
            "session_id = ? AND position <= (SELECT position FROM skipped_keys"
            " WHERE session_id = ? ORDER BY position DESC LIMIT 1 OFFSET ?)",
            session_id,
            session_id,
            keep,
        )
        return [tag for _, tag in given_up]

    def remove_skipped(self, session_id: bytes, chain: int, number: int) -> None:
        """Wipe the keys of a message that came."""
        self._execute(
            "DELETE FROM skipped_keys WHERE session_id = ? AND chain = ? AND number = ?", (session_id, chain, number)
        )

    def expire_skipped(self, before: int) -> Sequence[tuple[bytes, bytes]]:
        """Wipe keys stored before this time; returns (session id, tag) of each."""
        return self._wipe_skipped("stored_at < ?", before)

    def _wipe_skipped(self, condition: str, *values: object) -> list[tuple[bytes, bytes]]:
        """Give up keys whose messages never came; (session id, tag) of each."""
        query = f"DELETE FROM skipped_keys WHERE {condition} RETURNING session_id, chain, number, tag"  # noqa: S608 - fixed
        rows: list[tuple[Any, ...]] = self._execute(query, values).fetchall()
        self._executemany(_GIVE_UP, [(session_id, chain, number) for session_id, chain, number, _ in rows])
        return [(session_id, tag) for session_id, _, _, tag in rows]

    def give_up(self, session_id: bytes, chain: int, number: int) -> None:
        """Keys up to this number of a chain were given up; only the newest chain is remembered."""
        self._execute(_GIVE_UP, (session_id, chain, number))

    def is_given_up(self, session_id: bytes, chain: int, number: int) -> bool:
        """Whether a number of a chain lies where keys were given up."""
        row = self._execute(
            "SELECT 1 FROM skipped_given_up WHERE session_id = ? AND chain = ? AND number >= ?",
            (session_id, chain, number),
        )
        return row.get is not None

    def accepted(self, handshake_digest: bytes) -> bytes | None:
        """The session id that this handshake made."""
        session_id: bytes | None = self._execute(
            "SELECT session_id FROM accepted_handshakes WHERE digest = ?", (handshake_digest,)
        ).get
        return session_id

    def accepted_count(self, record_id: int) -> int:
        """How many accepted handshakes to these prekeys are remembered."""
        count: int = self._execute("SELECT count(*) FROM accepted_handshakes WHERE record_id = ?", (record_id,)).get
        return count

    def accept(self, handshake_digest: bytes, session_id: bytes, record_id: int) -> None:
        """Remember a handshake as long as the prekeys that it was made to."""
        self._execute("INSERT INTO accepted_handshakes VALUES (?, ?, ?)", (handshake_digest, session_id, record_id))


def _session(
    session_id: bytes,
    account_id: bytes,
    device_id: bytes,
    generation: int,
    ratchet: bytes,
    handshake: bytes | None,
    prekey_record: bytes | None,
    address_confirmed: int,
    *times_and_counts: Any,
) -> Session:
    first = None if handshake is None or prekey_record is None else FirstContact(handshake, prekey_record)
    ids = session_id, AccountId(account_id), DeviceId(device_id)
    return Session(*ids, generation, Ratchet.unpack(ratchet), first, bool(address_confirmed), *times_and_counts)
