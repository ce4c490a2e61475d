"""Devices that are to get a new handshake, and when they last got one for which reason."""

from collections.abc import Sequence

import apsw

from sottovoce_wire.ids import AccountId, DeviceId

from ..protocol.state import Want


class WantTable:
    """Table `wanted_handshakes`. Satisfies `protocol.state.Wants`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute

    def last(self, account_id: AccountId, device_id: DeviceId, want: Want) -> int | None:
        """When a handshake was last made for this reason."""
        last_at: int | None = self._execute(
            "SELECT last_at FROM wanted_handshakes WHERE account_id = ? AND device_id = ? AND reason = ?",
            (account_id, device_id, want),
        ).get
        return last_at

    def add(self, account_id: AccountId, device_id: DeviceId, want: Want) -> None:
        """A handshake is wanted."""
        self._execute(
            "INSERT INTO wanted_handshakes VALUES (?, ?, ?, 1, NULL)"
            " ON CONFLICT (account_id, device_id, reason) DO UPDATE SET wanted = 1",
            (account_id, device_id, want),
        )

    def is_wanted(self, account_id: AccountId, device_id: DeviceId, *wants: Want) -> bool:
        """Whether a handshake is wanted for one of these reasons."""
        holes = ",".join("?" * len(wants))
        row = self._execute(
            "SELECT 1 FROM wanted_handshakes WHERE account_id = ? AND device_id = ?"  # noqa: S608 - "?"s
            f" AND reason IN ({holes}) AND wanted = 1",
            (account_id, device_id, *wants),
        )
        return row.get is not None

    def of_contacts(self) -> Sequence[tuple[AccountId, DeviceId]]:
        """The devices of contacts with which a handshake is wanted. Nothing goes to an account that has forked."""
        rows = self._execute(
            "SELECT DISTINCT account_id, device_id FROM wanted_handshakes WHERE wanted = 1"
            " AND account_id IN (SELECT account_id FROM peers WHERE is_contact AND forked_list IS NULL)"
        )
        return [(AccountId(account_id), DeviceId(device_id)) for account_id, device_id in rows]

    def done(self, account_id: AccountId, device_id: DeviceId, now: int) -> None:
        """A handshake was made, or is given up for this time: nothing is wanted any more."""
        self._execute(
            "UPDATE wanted_handshakes SET wanted = 0, last_at = ?"
            " WHERE account_id = ? AND device_id = ? AND wanted = 1",
            (now, account_id, device_id),
        )
