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
        """Whether the person has ever written to this account."""
        return self._execute("SELECT 1 FROM peers WHERE account_id = ? AND is_contact", (account_id,)).get is not None

    def add_contact(self, account_id: AccountId) -> None:
        """The person writes to this account, which is known."""
        self._execute("UPDATE peers SET is_contact = 1 WHERE account_id = ? AND NOT is_contact", (account_id,))

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
