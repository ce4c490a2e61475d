"""Sessions, the keys of messages that have not come yet, and the handshakes that were accepted."""

from collections.abc import Sequence

import apsw

from sottovoce_wire.ids import AccountId, DeviceId

from ..crypto.ratchet import SkippedKey
from ..protocol.state import FirstContact, Session

_COLUMNS = "session_id, account_id, device_id, generation, ratchet, handshake, prekey_record, address_confirmed"


class SessionTable:
    """Tables `sessions`, `skipped_keys` and `accepted_handshakes`. Satisfies `protocol.state.Sessions`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany

    def of_device(self, account_id: AccountId, device_id: DeviceId) -> Sequence[Session]:
        """All sessions with a device, the greatest rank first."""
        rows = self._execute(
            f"SELECT {_COLUMNS} FROM sessions WHERE account_id = ? AND device_id = ?"  # noqa: S608 - fixed names
            " ORDER BY generation DESC, session_id DESC",
            (account_id, device_id),
        )
        return [_session(*row) for row in rows]

    def get(self, session_id: bytes) -> Session | None:
        """The session of this id."""
        row = self._execute(
            f"SELECT {_COLUMNS} FROM sessions WHERE session_id = ?",  # noqa: S608 - fixed names
            (session_id,),
        ).get
        return None if row is None else _session(*row)

    def put(self, session: Session) -> None:
        """Insert or replace."""
        first = session.unanswered
        self._execute(
            "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                session.session_id,
                session.account_id,
                session.device_id,
                session.generation,
                session.ratchet,
                None if first is None else first.handshake,
                None if first is None else first.prekey_record,
                session.address_confirmed,
            ),
        )

    def prune(self, account_id: AccountId, device_id: DeviceId, keep: int) -> None:
        """Wipe all but the `keep` greatest sessions with a device, and their skipped keys."""
        for session in self.of_device(account_id, device_id)[keep:]:
            self._execute("DELETE FROM skipped_keys WHERE session_id = ?", (session.session_id,))
            self._execute("DELETE FROM sessions WHERE session_id = ?", (session.session_id,))

    def skipped_key(self, session_id: bytes, ratchet_key: bytes, number: int) -> bytes | None:
        """A stored message key (32 bytes)."""
        key: bytes | None = self._execute(
            "SELECT key FROM skipped_keys WHERE session_id = ? AND ratchet_key = ? AND number = ?",
            (session_id, ratchet_key, number),
        ).get
        return key

    def add_skipped(self, session_id: bytes, keys: Sequence[SkippedKey], *, keep: int) -> None:
        """Store message keys, then wipe all but the newest `keep` of the session."""
        self._executemany(
            "INSERT OR REPLACE INTO skipped_keys (session_id, ratchet_key, number, key) VALUES (?, ?, ?, ?)",
            [(session_id, key.ratchet_key, key.n, key.key) for key in keys],
        )
        self._execute(
            "DELETE FROM skipped_keys WHERE session_id = ? AND position <= (SELECT position FROM skipped_keys"
            " WHERE session_id = ? ORDER BY position DESC LIMIT 1 OFFSET ?)",
            (session_id, session_id, keep),
        )

    def remove_skipped(self, session_id: bytes, ratchet_key: bytes, number: int) -> None:
        """Wipe a message key that was used."""
        self._execute(
            "DELETE FROM skipped_keys WHERE session_id = ? AND ratchet_key = ? AND number = ?",
            (session_id, ratchet_key, number),
        )

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
) -> Session:
    first = None if handshake is None or prekey_record is None else FirstContact(handshake, prekey_record)
    return Session(
        session_id, AccountId(account_id), DeviceId(device_id), generation, ratchet, first, bool(address_confirmed)
    )
