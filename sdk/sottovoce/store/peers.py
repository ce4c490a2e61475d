"""Other accounts: what they have proven about themselves, the names they were found by, and where they are reached."""

import apsw

from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import AccountId, DeviceId, QueueId, SendKey

from ..protocol.state import Address, Peer


class PeerTable:
    """Tables `peers`, `peer_names` and `peer_addresses`. Satisfies `protocol.state.Peers`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute

    def get(self, account_id: AccountId) -> Peer | None:
        """What is known of an account."""
        row = self._execute("SELECT root_public, device_list FROM peers WHERE account_id = ?", (account_id,)).get
        return None if row is None else Peer(account_id, *row)

    def put(self, peer: Peer) -> None:
        """Insert or replace."""
        self._execute(
            "INSERT INTO peers (account_id, root_public, device_list) VALUES (?, ?, ?) ON CONFLICT (account_id)"
            " DO UPDATE SET root_public = excluded.root_public, device_list = excluded.device_list",
            (peer.account_id, peer.root_public, peer.device_list),
        )

    def is_contact(self, account_id: AccountId) -> bool:
        """Whether the person has written to this account, or accepted its request."""
        return self._execute("SELECT 1 FROM peers WHERE account_id = ? AND is_contact", (account_id,)).get is not None

    def is_blocked(self, account_id: AccountId) -> bool:
        """Whether nothing of this account is shown."""
        return self._execute("SELECT 1 FROM peers WHERE account_id = ? AND is_blocked", (account_id,)).get is not None

    def add_contact(self, account_id: AccountId) -> None:
        """This account, which is known, is a contact, and blocked no longer."""
        self._execute(
            "UPDATE peers SET is_contact = 1, is_blocked = 0 WHERE account_id = ? AND NOT is_contact", (account_id,)
        )

    def block(self, account_id: AccountId) -> None:
        """Nothing of this account is shown from now on."""
        self._execute("UPDATE peers SET is_contact = 0, is_blocked = 1 WHERE account_id = ?", (account_id,))

    def unblock(self, account_id: AccountId) -> None:
        """The account is a stranger again."""
        self._execute("UPDATE peers SET is_blocked = 0 WHERE account_id = ?", (account_id,))

    def contacts(self) -> list[AccountId]:
        """Every contact, and every blocked account."""
        return [
            AccountId(row[0]) for row in self._execute("SELECT account_id FROM peers WHERE is_contact OR is_blocked")
        ]

    def verified_at(self, account_id: AccountId) -> int | None:
        """When the person compared safety numbers (unix seconds)."""
        found: int | None = self._execute("SELECT verified_at FROM peers WHERE account_id = ?", (account_id,)).get
        return found

    def set_verified(self, account_id: AccountId, now: int | None) -> None:
        """The person compared safety numbers now, or takes that back."""
        self._execute("UPDATE peers SET verified_at = ? WHERE account_id = ?", (now, account_id))

    def forked_list(self, account_id: AccountId) -> bytes | None:
        """A second signed list for one place in the account's chain."""
        found: bytes | None = self._execute("SELECT forked_list FROM peers WHERE account_id = ?", (account_id,)).get
        return found

    def set_forked_list(self, account_id: AccountId, device_list: bytes | None) -> None:
        """Keep it beside the known one; None when the person has decided."""
        self._execute("UPDATE peers SET forked_list = ? WHERE account_id = ?", (device_list, account_id))

    def announce(self, account_id: AccountId, version: int) -> None:
        """The account itself names this version of its list, which is newer than the known one."""
        self._execute(
            "UPDATE peers SET announced = ? WHERE account_id = ? AND coalesce(announced, 0) < ?",
            (version, account_id, version),
        )

    def reached(self, account_id: AccountId, version: int) -> None:
        """This version of the list is known."""
        self._execute(
            "UPDATE peers SET announced = NULL WHERE account_id = ? AND announced <= ?", (account_id, version)
        )

    def behind(self) -> list[tuple[AccountId, int]]:
        """The contacts that have named a newer list than the known one, and its version."""
        rows = self._execute("SELECT account_id, announced FROM peers WHERE announced IS NOT NULL AND is_contact")
        return [(AccountId(account_id), version) for account_id, version in rows]

    def named(self, username: str) -> AccountId | None:
        """The account that had this name when it was first looked up: a directory cannot change it afterwards."""
        account_id: bytes | None = self._execute(
            "SELECT account_id FROM peer_names WHERE username = ?", (username,)
        ).get
        return None if account_id is None else AccountId(account_id)

    def pin_name(self, username: str, account_id: AccountId) -> AccountId:
        """Pin a name to an account, and return the account that it is pinned to: a name that is pinned stays."""
        self._execute("INSERT OR IGNORE INTO peer_names VALUES (?, ?)", (username, account_id))
        return self.named(username) or account_id

    def name_of(self, account_id: AccountId) -> str | None:
        """A name under which this account was found."""
        name: str | None = self._execute(
            "SELECT username FROM peer_names WHERE account_id = ? ORDER BY username LIMIT 1", (account_id,)
        ).get
        return name

    def address(self, account_id: AccountId, device_id: DeviceId) -> Address | None:
        """Where a device is reached."""
        row = self._execute(
            "SELECT origin, queue, send_key, key_class FROM peer_addresses WHERE account_id = ? AND device_id = ?",
            (account_id, device_id),
        ).get
        if row is None:
            return None
        origin, queue, send_key, key_class = row
        return Address(origin, QueueId(queue), SendKey(send_key), KeyClass(key_class))

    def put_address(self, account_id: AccountId, device_id: DeviceId, address: Address) -> None:
        """Insert or replace."""
        self._execute(
            "INSERT OR REPLACE INTO peer_addresses VALUES (?, ?, ?, ?, ?, ?)",
            (account_id, device_id, address.origin, address.queue, address.send_key, int(address.key_class)),
        )
