"""The keyserver's tables and every statement on them: plain functions of a SQLAlchemy connection.

They run inside a transaction that the caller opened, and decide what only the stored state can decide. No HTTP here,
and no signatures: what arrives has been checked.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from sottovoce_wire import limits
from sottovoce_wire.directory import Bundle, OneTimePrekey
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import AccountId, DeviceId

from .directory import CounterConflict, Name, NumberConflict, Publication, Registration, Signer

metadata: Final = MetaData()

accounts: Final = Table(
    "accounts",
    metadata,
    Column("id", LargeBinary(32), primary_key=True),
    Column("root_key", LargeBinary(32), nullable=False),
    Column("device_list", LargeBinary, nullable=False),  # as signed
    sqlite_with_rowid=False,
)

usernames: Final = Table(
    "usernames",
    metadata,
    Column("username", String(32), primary_key=True),
    Column("account_id", LargeBinary(32), ForeignKey("accounts.id"), nullable=False, unique=True),
    Column("claim", LargeBinary, nullable=False),  # as signed
    sqlite_with_rowid=False,
)

devices: Final = Table(
    "devices",
    metadata,
    Column("account_id", LargeBinary(32), ForeignKey("accounts.id"), primary_key=True),
    Column("device_id", LargeBinary(16), primary_key=True),
    Column("signing_key", LargeBinary(32), nullable=False),
    Column("counter", BigInteger, nullable=False),  # of the last signed request that was carried out
    # Null until the device has published; then both records as signed, and what of them orders and ends them.
    Column("prekey_record", LargeBinary),
    Column("record_id", BigInteger),
    Column("contact_record", LargeBinary),
    Column("sequence", BigInteger),
    Column("expires", BigInteger),
    # Its one-time prekeys begin with this id; where it rises, all that are here are of a state that was left behind.
    Column("one_time_from", BigInteger, nullable=False),
    # The greatest id that one of them had since: nothing at or below it is taken in again.
    Column("greatest_prekey_id", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

one_time_prekeys: Final = Table(
    "one_time_prekeys",
    metadata,
    Column("account_id", LargeBinary(32), primary_key=True),
    Column("device_id", LargeBinary(16), primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("key", LargeBinary(32), nullable=False),
    ForeignKeyConstraint(["account_id", "device_id"], ["devices.account_id", "devices.device_id"]),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True)
class Account:
    """An account's root key (32 bytes) and its device list as signed."""

    root_key: bytes
    device_list: bytes


# --- Signed changes -----------------------------------------------------------------------------------------


def signing_key_of(connection: Connection, account_id: AccountId, device_id: DeviceId) -> bytes:
    """The key (32 bytes) of a listed device. Raises WireError (UNKNOWN_ACCOUNT, UNKNOWN_DEVICE)."""
    device = _device(connection, account_id, device_id)
    if device is not None:
        return bytes(device.signing_key)
    if read_account(connection, account_id) is None:
        raise WireError(Code.UNKNOWN_ACCOUNT, "there is no such account here")
    raise WireError(Code.UNKNOWN_DEVICE, "the account's device list does not name this device")


def register(connection: Connection, signer: Signer, registration: Registration) -> int:
    """Make the account, or find it as it is; publish the device's keys; claim the name.

    Returns the device's number of one-time prekeys. Raises WireError: nothing may be committed then.
    """
    account = read_account(connection, registration.account_id)
    if account is None:
        _insert_account(connection, registration)
    elif account.device_list != registration.device_list:
        raise WireError(Code.ACCOUNT_CONFLICT, "the account is registered with another device list")
    count = publish(connection, signer, registration.publication)
    if registration.name is not None:
        _claim(connection, registration.account_id, registration.name)
    return count


def _insert_account(connection: Connection, registration: Registration) -> None:
    account_id = registration.account_id
    connection.execute(
        insert(accounts).values(id=account_id, root_key=registration.root_key, device_list=registration.device_list)
    )
    rows = [
        {
            "account_id": account_id,
            "device_id": device.device_id,
            "signing_key": device.signing_key,
            "counter": 0,
            "one_time_from": 0,
            "greatest_prekey_id": -1,
        }
        for device in registration.devices
    ]
    connection.execute(insert(devices), rows)


def _claim(connection: Connection, account_id: AccountId, name: Name) -> None:
    taken = select(usernames.c.account_id).where(usernames.c.username == name.username)
    own = select(usernames.c.username).where(usernames.c.account_id == account_id)
    holder = connection.execute(taken).scalar()
    if holder == account_id:
        return
    if holder is not None:
        raise WireError(Code.NAME_TAKEN, "the username is taken")
    if connection.execute(own).scalar() is not None:
        raise WireError(Code.ACCOUNT_CONFLICT, "the account has another username")
    connection.execute(insert(usernames).values(username=name.username, account_id=account_id, claim=name.claim))


def publish(connection: Connection, signer: Signer, publication: Publication) -> int:
    """Replace the device's records, drop its one-time prekeys if it begins anew, add the new ones, take its counter.

    Returns the number of one-time prekeys. Raises WireError: nothing may be committed then.
    """
    device = _device(connection, signer.account_id, signer.device_id)
    if device is None:
        raise WireError(Code.UNKNOWN_DEVICE, "the account's device list does not name this device")
    if signer.counter <= device.counter:
        raise CounterConflict(device.counter)
    if _goes_back(device, publication):
        raise NumberConflict(_greatest_number(device))
    begins_anew = publication.one_time_prekeys_from > device.one_time_from
    greatest = publication.one_time_prekeys_from - 1 if begins_anew else device.greatest_prekey_id
    added = [prekey for prekey in publication.one_time_prekeys if prekey.id > greatest]
    connection.execute(
        update(devices)
        .where(devices.c.account_id == signer.account_id, devices.c.device_id == signer.device_id)
        .values(
            counter=signer.counter,
            prekey_record=publication.prekey_record,
            record_id=publication.record_id,
            contact_record=publication.contact_record,
            sequence=publication.sequence,
            expires=publication.expires,
            one_time_from=publication.one_time_prekeys_from,
            greatest_prekey_id=max([greatest, *(prekey.id for prekey in added)]),
        )
    )
    if begins_anew:
        own = _one_time_prekeys_of(signer.account_id, signer.device_id)
        connection.execute(delete(one_time_prekeys).where(own))
    return _add_one_time_prekeys(connection, signer, added)


def _device(connection: Connection, account_id: AccountId, device_id: DeviceId) -> Row[tuple[object, ...]] | None:
    query = select(devices).where(devices.c.account_id == account_id, devices.c.device_id == device_id)
    return connection.execute(query).one_or_none()


def _goes_back(device: Row[tuple[object, ...]], new: Publication) -> bool:
    if device.record_id is None:
        return False
    return (
        _is_older(device.record_id, device.prekey_record, new.record_id, new.prekey_record)
        or _is_older(device.sequence, device.contact_record, new.sequence, new.contact_record)
        or new.one_time_prekeys_from < device.one_time_from
    )


def _is_older(old_number: int, old: bytes, new_number: int, new: bytes) -> bool:
    return new_number < old_number or (new_number == old_number and new != old)


def _greatest_number(device: Row[tuple[object, ...]]) -> int:
    numbers: list[int] = [device.record_id, device.sequence, device.one_time_from, device.greatest_prekey_id]
    return max(numbers)


def _one_time_prekeys_of(account_id: AccountId, device_id: bytes) -> ColumnElement[bool]:
    return and_(one_time_prekeys.c.account_id == account_id, one_time_prekeys.c.device_id == device_id)


def _add_one_time_prekeys(connection: Connection, signer: Signer, added: Iterable[OneTimePrekey]) -> int:
    own = _one_time_prekeys_of(signer.account_id, signer.device_id)
    rows = [
        {"account_id": signer.account_id, "device_id": signer.device_id, "id": prekey.id, "key": prekey.key}
        for prekey in added
    ]
    if rows:
        connection.execute(insert(one_time_prekeys), rows)
    count = connection.execute(select(func.count(one_time_prekeys.c.id)).where(own)).scalar_one()
    if count > limits.MAX_ONE_TIME_PREKEYS:
        raise WireError(Code.TOO_MANY_PREKEYS, f"a device has at most {limits.MAX_ONE_TIME_PREKEYS} one-time prekeys")
    return count


# --- Look-ups -----------------------------------------------------------------------------------------------


def find_name(connection: Connection, username: str) -> tuple[bytes, bytes] | None:
    """(root key, username claim as signed) of the account that has the name."""
    query = (
        select(accounts.c.root_key, usernames.c.claim)
        .join(accounts, accounts.c.id == usernames.c.account_id)
        .where(usernames.c.username == username)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.root_key, row.claim)


def read_account(connection: Connection, account_id: AccountId) -> Account | None:
    """The account, if it is registered here."""
    row = connection.execute(select(accounts).where(accounts.c.id == account_id)).one_or_none()
    return None if row is None else Account(row.root_key, row.device_list)


def read_bundles(
    connection: Connection, account_id: AccountId, wanted: Collection[bytes] | None, now: float
) -> list[Bundle]:
    """The bundles, without one-time prekeys, of those devices that have published and whose records are still good.

    `wanted` are device ids; None means all.
    """
    query = select(devices).where(devices.c.account_id == account_id, devices.c.expires > now)
    if wanted is not None:
        query = query.where(devices.c.device_id.in_(wanted))
    rows = connection.execute(query.order_by(devices.c.device_id))
    return [Bundle(row.device_id, row.prekey_record, row.contact_record) for row in rows]


def pop_bundles(
    connection: Connection, account_id: AccountId, wanted: Collection[bytes] | None, now: float
) -> list[Bundle]:
    """Like `read_bundles`, and each bundle takes one of its device's one-time prekeys away, if there is one."""
    return [
        Bundle(
            bundle.device_id,
            bundle.prekey_record,
            bundle.contact_record,
            _pop(connection, account_id, bundle.device_id),
        )
        for bundle in read_bundles(connection, account_id, wanted, now)
    ]


def _pop(connection: Connection, account_id: AccountId, device_id: bytes) -> OneTimePrekey | None:
    own = _one_time_prekeys_of(account_id, device_id)
    query = select(one_time_prekeys).where(own)
    row = connection.execute(query.order_by(one_time_prekeys.c.id).limit(1)).one_or_none()
    if row is None:
        return None
    connection.execute(delete(one_time_prekeys).where(own, one_time_prekeys.c.id == row.id))
    return OneTimePrekey(row.id, row.key)


def forget_one_time_prekeys(connection: Connection) -> int:
    """Forget all one-time prekeys, in a database that was put back from a copy: some were handed out since, and their
    devices have wiped them. Devices bring new ones. Returns how many there were."""
    return connection.execute(delete(one_time_prekeys)).rowcount
