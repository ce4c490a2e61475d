"""The directory's rules: what makes a signed request and the records inside it good (spec: directory).

Pure functions over bytes: no database, no HTTP. Every one raises WireError with the code that the client is told.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sottovoce_hosting.signatures import verifies
from sottovoce_wire import directory as wire
from sottovoce_wire import ids, labels, limits, records
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import AccountId, DeviceId
from sottovoce_wire.records import ContactRecord, DeviceEntry, DeviceList, PrekeyRecord, UsernameClaim

#: Versions and sequence numbers are u64 on the wire; a database holds signed 64-bit integers.
MAX_NUMBER: Final = 2**63 - 1
_COUNTER: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)


class CounterConflict(WireError):  # noqa: N818 - the code's own name
    """The request's counter is not above the device's last, which is `last`. Sign again with a greater one."""

    def __init__(self, last: int) -> None:
        super().__init__(Code.COUNTER_CONFLICT, "the counter is not above the last")
        self.last = last


class NumberConflict(WireError):  # noqa: N818 - as above
    """A publication goes back. `last` is the greatest number that this keyserver knows of the device: start above."""

    def __init__(self, last: int) -> None:
        super().__init__(Code.BAD_RECORD, "a record must not go back: give it a greater number")
        self.last = min(last, limits.MAX_COUNTER)


@dataclass(frozen=True)
class Signer:
    """Who a request says it is from, as its headers have it; nothing is proven yet. `signature` has 64 bytes."""

    account_id: AccountId
    device_id: DeviceId
    counter: int
    signature: bytes


@dataclass(frozen=True)
class Publication:
    """A device's checked records, as signed, and one-time prekeys. `expires`: when the first record does, unix seconds.
    `one_time_prekeys_from`: those with a smaller id are of a state that the device has left, and not handed out.

    Public keys inside are for clients to check: a keyserver never computes with them.
    """

    prekey_record: bytes
    record_id: int
    contact_record: bytes
    sequence: int
    expires: int
    one_time_prekeys: tuple[wire.OneTimePrekey, ...]
    one_time_prekeys_from: int


@dataclass(frozen=True)
class Name:
    """A checked username and its claim, as signed."""

    username: str
    claim: bytes


@dataclass(frozen=True)
class Registration:
    """A checked account: its root key, its device list as signed and parsed, one device's keys, perhaps a name."""

    account_id: AccountId
    root_key: bytes
    device_list: bytes
    devices: tuple[DeviceEntry, ...]
    publication: Publication
    name: Name | None


def parse_signer(header: Callable[[str], str | None]) -> Signer:
    """The signer that a request's headers name. Raises WireError (BAD_REQUEST) if one is missing or malformed."""
    counter = header(wire.HEADER_COUNTER) or ""
    if not _COUNTER.fullmatch(counter) or int(counter) > limits.MAX_COUNTER:
        raise WireError(Code.BAD_REQUEST, f"{wire.HEADER_COUNTER} is a number from 1 to 2^53 - 1")
    return Signer(
        AccountId(_base64(header, wire.HEADER_ACCOUNT, 32)),
        DeviceId(_base64(header, wire.HEADER_DEVICE, 16)),
        int(counter),
        _base64(header, wire.HEADER_SIGNATURE, records.SIGNATURE_LENGTH),
    )


def _base64(header: Callable[[str], str | None], name: str, length: int) -> bytes:
    text = header(name) or ""
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        value = b""
    if len(value) != length or base64.b64encode(value).decode("ascii") != text:
        raise WireError(Code.BAD_REQUEST, f"{name} is {length} bytes in base64")
    return value


def check_request(signer: Signer, signing_key: bytes, origins: Iterable[str], path: str, body: bytes) -> None:
    """That the device's `signing_key` signed this POST for one of our origins. Raises WireError."""
    for origin in origins:
        message = records.directory_request(
            origin, signer.account_id, signer.device_id, signer.counter, "POST", path, body
        )
        if verifies(signing_key, signer.signature, message):
            return
    raise WireError(Code.BAD_REQUEST_SIGNATURE, "the request is not signed by this device for this server")


def open_device_list(register: wire.Register, account_id: AccountId) -> DeviceList:
    """The device list of a registration, which its root key signed for this account. Raises WireError."""
    if ids.account_id_of(register.root_key) != account_id:
        raise WireError(Code.BAD_RECORD, "the root key is not this account's")
    device_list = DeviceList.parse(_signed(register.device_list, labels.DEVICE_LIST, register.root_key))
    if device_list.account_id != account_id:
        raise WireError(Code.BAD_RECORD, "the device list is another account's")
    return device_list


def signing_key_in(device_list: DeviceList, device_id: DeviceId) -> bytes:
    """The signing key (32 bytes) of a listed device. Raises WireError (UNKNOWN_DEVICE)."""
    for device in device_list.devices:
        if device.device_id == device_id:
            return device.signing_key
    raise WireError(Code.UNKNOWN_DEVICE, "the device list does not name this device")


def _signed(record: bytes, label: bytes, key: bytes) -> bytes:
    """The payload of a record that `key` signed under `label`."""
    payload, signature = records.split_signed(record)
    if not verifies(key, signature, label + payload):
        raise WireError(Code.BAD_RECORD, "a record's signature does not hold")
    return payload


def check_registration(register: wire.Register, device_list: DeviceList, signer: Signer, now: float) -> Registration:
    """Everything else in a registration that can be checked without the database. Raises WireError."""
    _check_number(device_list.version)
    _check_begun(device_list.time, now)
    if device_list.version == 1 and device_list.previous != records.NO_LIST_HASH:
        raise WireError(Code.BAD_RECORD, "the first device list has no predecessor")
    for device in device_list.devices:
        consent = records.device_consent(signer.account_id, device.signing_key, device.identity_key)
        if not verifies(device.signing_key, device.consent, consent):
            raise WireError(Code.BAD_RECORD, "a listed device has not agreed to be listed")
    return Registration(
        signer.account_id,
        register.root_key,
        register.device_list,
        device_list.devices,
        check_publication(register.publish, signer, signing_key_in(device_list, signer.device_id), now),
        None if register.username_claim is None else _check_claim(register.username_claim, register.root_key, now),
    )


def _check_claim(record: bytes, root_key: bytes, now: float) -> Name:
    claim = UsernameClaim.parse(_signed(record, labels.USERNAME_CLAIM, root_key))
    if claim.account_id != ids.account_id_of(root_key):
        raise WireError(Code.BAD_RECORD, "the username claim is another account's")
    _check_begun(claim.time, now)
    return Name(claim.username, record)


def check_publication(publish: wire.Publish, signer: Signer, signing_key: bytes, now: float) -> Publication:
    """A device's records and one-time prekeys, checked as far as the device itself goes. Raises WireError."""
    prekeys = PrekeyRecord.parse(_signed(publish.prekey_record, labels.PREKEY_RECORD, signing_key))
    contact = ContactRecord.parse(_signed(publish.contact_record, labels.CONTACT_RECORD, signing_key))
    for record in (prekeys, contact):
        if (record.account_id, record.device_id) != (signer.account_id, signer.device_id):
            raise WireError(Code.BAD_RECORD, "a record is another device's")
        _check_lifetime(record.created, record.expires, now)
    _check_number(contact.sequence)
    if len({prekey.id for prekey in publish.one_time_prekeys}) != len(publish.one_time_prekeys):
        raise WireError(Code.BAD_REQUEST, "two one-time prekeys have one id")
    return Publication(
        publish.prekey_record,
        prekeys.record_id,
        publish.contact_record,
        contact.sequence,
        min(prekeys.expires, contact.expires),
        tuple(publish.one_time_prekeys),
        publish.one_time_prekeys_from,
    )


def _check_begun(time: int, now: float) -> None:
    if time > now + limits.CLOCK_TOLERANCE:
        raise WireError(Code.BAD_RECORD, "a record is dated in the future: is the clock right?")


def _check_lifetime(created: int, expires: int, now: float) -> None:
    _check_begun(created, now)
    if not created < expires <= created + limits.RECORD_LIFETIME:
        raise WireError(Code.BAD_RECORD, f"a record is good for at most {limits.RECORD_LIFETIME // limits.DAY} days")
    if expires <= now:
        raise WireError(Code.BAD_RECORD, "a record has expired: is the clock right?")


def _check_number(number: int) -> None:
    if number > MAX_NUMBER:
        raise WireError(Code.BAD_RECORD, "a version or sequence number is out of range")
