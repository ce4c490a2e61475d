"""A keyserver in memory: accounts, bundles and names, with every check of the directory (spec: directory).

It answers as `sottovoce_keyserver` does; a test puts the same requests to both. Nothing outlives the process.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sottovoce_wire import directory as wire
from sottovoce_wire import ids, labels, limits, records
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import AccountId, DeviceId
from sottovoce_wire.records import ContactRecord, DeviceEntry, DeviceList, PrekeyRecord, UsernameClaim

from ..crypto import primitives
from ..crypto.errors import CryptoRefusal

#: Fetches of one account, with one-time prekeys, in a minute.
FETCHES_A_MINUTE: Final = 30
_STATUS: Final = {
    Code.BAD_REQUEST_SIGNATURE: 401,
    Code.UNKNOWN_DEVICE: 403,
    Code.UNKNOWN_ACCOUNT: 404,
    Code.UNKNOWN_NAME: 404,
    Code.UNKNOWN_PATH: 404,
    Code.COUNTER_CONFLICT: 409,
    Code.NAME_TAKEN: 409,
    Code.ACCOUNT_CONFLICT: 409,
    Code.FRAME_TOO_LARGE: 413,
    Code.BAD_RECORD: 422,
    Code.TOO_MANY_PREKEYS: 422,
}
_COUNTER: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)
_MAX_NUMBER: Final = 2**63 - 1


class _Conflict(WireError):  # noqa: N818 - the code's own name
    def __init__(self, last: int) -> None:
        super().__init__(Code.COUNTER_CONFLICT, "the counter is not above the last")
        self.last = last


class _NumberConflict(WireError):  # noqa: N818 - as above
    def __init__(self, last: int) -> None:
        super().__init__(Code.BAD_RECORD, "a record must not go back: give it a greater number")
        self.last = min(last, limits.MAX_COUNTER)


@dataclass(frozen=True, slots=True)
class _Signer:
    """Who a request says it is from; nothing is proven yet."""

    account_id: AccountId
    device_id: DeviceId
    counter: int
    signature: bytes


@dataclass(slots=True)
class _Published:
    """A device's records as signed, and what orders and ends them."""

    prekey_record: bytes
    record_id: int
    contact_record: bytes
    sequence: int
    expires: int
    one_time_from: int  # where it rises, all one-time prekeys that are here go


@dataclass(slots=True)
class _Device:
    signing_key: bytes
    counter: int = 0
    published: _Published | None = None
    one_time: dict[int, bytes] = field(default_factory=dict)
    greatest_id: int = -1


@dataclass(slots=True)
class _Account:
    root_key: bytes
    device_list: bytes
    devices: dict[DeviceId, _Device]
    username: str | None = None
    claim: bytes = b""
    given: list[wire.Bundles] = field(default_factory=list)  # what it has been given so far, without one-time prekeys


class MemoryKeyserver:
    """All accounts of one keyserver at `origin`, whose users have their queues at `relay`. `now` gives unix seconds."""

    def __init__(self, origin: str, relay: str, now: Callable[[], float]) -> None:
        self._origin = origin
        self._relay = relay
        self._now = now
        self._accounts: dict[AccountId, _Account] = {}
        self._names: dict[str, AccountId] = {}
        self._minute = 0
        self._fetches: dict[AccountId, int] = {}

    def answer(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """The status and body that a request is answered with."""
        ways = {
            wire.PATH_INFO: ("GET", self._info),
            wire.PATH_REGISTER: ("POST", self._register),
            wire.PATH_PUBLISH: ("POST", self._publish),
            wire.PATH_FIND_NAME: ("POST", self._find_name),
            wire.PATH_BUNDLES: ("POST", self._bundles),
        }
        expected, respond = ways.get(path, ("", None))
        if respond is None or method != expected:
            return _problem(WireError(Code.UNKNOWN_PATH, "there is nothing here"), 404 if respond is None else 405)
        try:
            return 200, wire.encode(respond(body, headers))
        except WireError as error:
            return _problem(error, _STATUS.get(error.code, 400))

    # --- For `bad_keyserver` -------------------------------------------------------------------------------------

    def account_of(self, username: str) -> AccountId:
        """Who has the name. Raises KeyError."""
        return self._names[username]

    def asked_for(self, path: str, body: bytes) -> str | None:
        """The username of the person that a look-up is about; None if it is about nobody who is known here."""
        try:
            if path == wire.PATH_FIND_NAME:
                username = wire.decode(wire.FindName, body).username
                return username if username in self._names else None
            if path == wire.PATH_BUNDLES:
                account = self._accounts.get(AccountId(wire.decode(wire.FetchBundles, body).account_id))
                return None if account is None else account.username
        except WireError:
            pass
        return None

    def given(self, username: str) -> list[wire.Bundles]:
        """A person's device list and records, from those of the registration to the newest. Raises KeyError."""
        return self._accounts[self._names[username]].given

    # --- Answers -------------------------------------------------------------------------------------------------

    def _info(self, _body: bytes, _headers: Mapping[str, str]) -> wire.Info:
        return wire.Info("sottovoce-keyserver", [1], self._relay)

    # --- Changes -------------------------------------------------------------------------------------------------

    def _register(self, body: bytes, headers: Mapping[str, str]) -> wire.Published:
        signer, register = _parse_signer(headers), wire.decode(wire.Register, body)
        device_list = _open_device_list(register, signer.account_id)
        device = _entry_of(device_list, signer.device_id)
        self._check_request(signer, device.signing_key, wire.PATH_REGISTER, body)
        self._check_list(device_list)
        published = self._check_publish(register.publish, signer, device.signing_key)
        claim = None if register.username_claim is None else self._check_claim(register)
        account = self._accounts.get(signer.account_id) or _Account(
            register.root_key,
            register.device_list,
            {entry.device_id: _Device(entry.signing_key) for entry in device_list.devices},
        )
        if account.device_list != register.device_list:
            raise WireError(Code.ACCOUNT_CONFLICT, "the account is registered with another device list")
        own = account.devices[signer.device_id]
        changed = _updated(own, signer.counter, published, register.publish.one_time_prekeys)
        if claim is not None:
            self._check_name(signer.account_id, account, claim.username)
        # Everything that may refuse has been asked: all of it or nothing.
        account.devices[signer.device_id] = changed
        self._accounts[signer.account_id] = account
        if claim is not None and account.username is None:
            account.username, account.claim = claim.username, register.username_claim or b""
            self._names[claim.username] = signer.account_id
        account.given.append(_all_given(account))
        return wire.Published(len(changed.one_time))

    def _publish(self, body: bytes, headers: Mapping[str, str]) -> wire.Published:
        signer, publish = _parse_signer(headers), wire.decode(wire.Publish, body)
        account = self._accounts.get(signer.account_id)
        if account is None:
            raise WireError(Code.UNKNOWN_ACCOUNT, "there is no such account here")
        device = account.devices.get(signer.device_id)
        if device is None:
            raise WireError(Code.UNKNOWN_DEVICE, "the account's device list does not name this device")
        self._check_request(signer, device.signing_key, wire.PATH_PUBLISH, body)
        published = self._check_publish(publish, signer, device.signing_key)
        changed = _updated(device, signer.counter, published, publish.one_time_prekeys)
        account.devices[signer.device_id] = changed
        account.given.append(_all_given(account))
        return wire.Published(len(changed.one_time))

    def _check_request(self, signer: _Signer, signing_key: bytes, path: str, body: bytes) -> None:
        message = records.directory_request(
            self._origin, signer.account_id, signer.device_id, signer.counter, "POST", path, body
        )
        if not _verifies(signing_key, signer.signature, message):
            raise WireError(Code.BAD_REQUEST_SIGNATURE, "the request is not signed by this device for this server")

    def _check_list(self, device_list: DeviceList) -> None:
        if device_list.version > _MAX_NUMBER:
            raise WireError(Code.BAD_RECORD, "a version or sequence number is out of range")
        self._check_begun(device_list.time)
        if device_list.version == 1 and device_list.previous != records.NO_LIST_HASH:
            raise WireError(Code.BAD_RECORD, "the first device list has no predecessor")
        for device in device_list.devices:
            consent = records.device_consent(device_list.account_id, device.signing_key, device.identity_key)
            if not _verifies(device.signing_key, device.consent, consent):
                raise WireError(Code.BAD_RECORD, "a listed device has not agreed to be listed")

    def _check_publish(self, publish: wire.Publish, signer: _Signer, signing_key: bytes) -> _Published:
        prekeys = PrekeyRecord.parse(_signed(publish.prekey_record, labels.PREKEY_RECORD, signing_key))
        contact = ContactRecord.parse(_signed(publish.contact_record, labels.CONTACT_RECORD, signing_key))
        for record in (prekeys, contact):
            if (record.account_id, record.device_id) != (signer.account_id, signer.device_id):
                raise WireError(Code.BAD_RECORD, "a record is another device's")
            self._check_begun(record.created)
            if not record.created < record.expires <= record.created + limits.RECORD_LIFETIME:
                raise WireError(Code.BAD_RECORD, "a record is good for at most 30 days")
            if record.expires <= self._now():
                raise WireError(Code.BAD_RECORD, "a record has expired: is the clock right?")
        if contact.sequence > _MAX_NUMBER:
            raise WireError(Code.BAD_RECORD, "a version or sequence number is out of range")
        if len({prekey.id for prekey in publish.one_time_prekeys}) != len(publish.one_time_prekeys):
            raise WireError(Code.BAD_REQUEST, "two one-time prekeys have one id")
        expires = min(prekeys.expires, contact.expires)
        return _Published(
            publish.prekey_record,
            prekeys.record_id,
            publish.contact_record,
            contact.sequence,
            expires,
            publish.one_time_prekeys_from,
        )

    def _check_claim(self, register: wire.Register) -> UsernameClaim:
        claim = UsernameClaim.parse(_signed(register.username_claim or b"", labels.USERNAME_CLAIM, register.root_key))
        if claim.account_id != ids.account_id_of(register.root_key):
            raise WireError(Code.BAD_RECORD, "the username claim is another account's")
        self._check_begun(claim.time)
        return claim

    def _check_begun(self, time: int) -> None:
        if time > self._now() + limits.CLOCK_TOLERANCE:
            raise WireError(Code.BAD_RECORD, "a record is dated in the future: is the clock right?")

    def _check_name(self, account_id: AccountId, account: _Account, username: str) -> None:
        if self._names.get(username, account_id) != account_id:
            raise WireError(Code.NAME_TAKEN, "the username is taken")
        if account.username not in (None, username):
            raise WireError(Code.ACCOUNT_CONFLICT, "the account has another username")

    # --- Look-ups ------------------------------------------------------------------------------------------------

    def _find_name(self, body: bytes, _headers: Mapping[str, str]) -> wire.FoundName:
        username = ids.check_username(wire.decode(wire.FindName, body).username)
        if username not in self._names:
            raise WireError(Code.UNKNOWN_NAME, "nobody here has this username")
        account = self._accounts[self._names[username]]
        return wire.FoundName(account.root_key, account.claim)

    def _bundles(self, body: bytes, _headers: Mapping[str, str]) -> wire.Bundles:
        asked = wire.decode(wire.FetchBundles, body)
        account_id = AccountId(asked.account_id)
        account = self._accounts.get(account_id)
        if account is None:
            raise WireError(Code.UNKNOWN_ACCOUNT, "there is no such account here")
        may_pop = asked.devices != [] and self._may_pop(account_id)
        bundles = [
            _bundle(device_id, device.published, device.one_time if may_pop else {})
            for device_id, device in sorted(account.devices.items())
            if (asked.devices is None or device_id in asked.devices)
            and device.published is not None
            and device.published.expires > self._now()
        ]
        return wire.Bundles(account.root_key, account.device_list, bundles)

    def _may_pop(self, account_id: AccountId) -> bool:
        """Whoever drains an account's one-time prekeys takes a little forward secrecy, never reachability."""
        minute = int(self._now() // 60)
        if minute != self._minute:
            self._minute = minute
            self._fetches.clear()
        self._fetches[account_id] = self._fetches.get(account_id, 0) + 1
        return self._fetches[account_id] <= FETCHES_A_MINUTE


def _problem(error: WireError, status: int) -> tuple[int, bytes]:
    counter = error.last if isinstance(error, _Conflict) else None
    number = error.last if isinstance(error, _NumberConflict) else None
    return status, wire.encode(wire.Problem(error.code, error.detail, counter, number))


def _parse_signer(headers: Mapping[str, str]) -> _Signer:
    counter = headers.get(wire.HEADER_COUNTER, "")
    if not _COUNTER.fullmatch(counter) or int(counter) > limits.MAX_COUNTER:
        raise WireError(Code.BAD_REQUEST, f"{wire.HEADER_COUNTER} is a number from 1 to 2^53 - 1")
    return _Signer(
        AccountId(_base64(headers, wire.HEADER_ACCOUNT, 32)),
        DeviceId(_base64(headers, wire.HEADER_DEVICE, 16)),
        int(counter),
        _base64(headers, wire.HEADER_SIGNATURE, records.SIGNATURE_LENGTH),
    )


def _base64(headers: Mapping[str, str], name: str, length: int) -> bytes:
    text = headers.get(name, "")
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        value = b""
    if len(value) != length or base64.b64encode(value).decode("ascii") != text:
        raise WireError(Code.BAD_REQUEST, f"{name} is {length} bytes in base64")
    return value


def _verifies(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        primitives.verify(public_key, message, signature)
    except CryptoRefusal:
        return False
    return True


def _signed(record: bytes, label: bytes, key: bytes) -> bytes:
    """The payload of a record that `key` signed under `label`."""
    payload, signature = records.split_signed(record)
    if not _verifies(key, signature, label + payload):
        raise WireError(Code.BAD_RECORD, "a record's signature does not hold")
    return payload


def _open_device_list(register: wire.Register, account_id: AccountId) -> DeviceList:
    if ids.account_id_of(register.root_key) != account_id:
        raise WireError(Code.BAD_RECORD, "the root key is not this account's")
    device_list = DeviceList.parse(_signed(register.device_list, labels.DEVICE_LIST, register.root_key))
    if device_list.account_id != account_id:
        raise WireError(Code.BAD_RECORD, "the device list is another account's")
    return device_list


def _entry_of(device_list: DeviceList, device_id: DeviceId) -> DeviceEntry:
    for device in device_list.devices:
        if device.device_id == device_id:
            return device
    raise WireError(Code.UNKNOWN_DEVICE, "the device list does not name this device")


def _updated(device: _Device, counter: int, new: _Published, prekeys: list[wire.OneTimePrekey]) -> _Device:
    """The device after this publication, a value of its own. Raises WireError."""
    if counter <= device.counter:
        raise _Conflict(device.counter)
    old = device.published
    if old is not None and _goes_back(old, new):
        raise _NumberConflict(max(old.record_id, old.sequence, old.one_time_from, device.greatest_id))
    begins_anew = new.one_time_from > (0 if old is None else old.one_time_from)
    greatest = new.one_time_from - 1 if begins_anew else device.greatest_id
    added = {prekey.id: prekey.key for prekey in prekeys if prekey.id > greatest}
    one_time = ({} if begins_anew else device.one_time) | added
    if len(one_time) > limits.MAX_ONE_TIME_PREKEYS:
        raise WireError(Code.TOO_MANY_PREKEYS, "a device has at most 200 one-time prekeys")
    greatest = max([greatest, *added])
    return replace(device, counter=counter, published=new, one_time=one_time, greatest_id=greatest)


def _goes_back(old: _Published, new: _Published) -> bool:
    return (
        _is_older(old.record_id, old.prekey_record, new.record_id, new.prekey_record)
        or _is_older(old.sequence, old.contact_record, new.sequence, new.contact_record)
        or new.one_time_from < old.one_time_from
    )


def _is_older(old_number: int, old: bytes, new_number: int, new: bytes) -> bool:
    return new_number < old_number or (new_number == old_number and new != old)


def _bundle(device_id: DeviceId, published: _Published, one_time: dict[int, bytes]) -> wire.Bundle:
    """With one of the device's one-time prekeys, which is taken away, if there is any."""
    prekey = None
    if one_time:
        number = min(one_time)
        prekey = wire.OneTimePrekey(number, one_time.pop(number))
    return wire.Bundle(device_id, published.prekey_record, published.contact_record, prekey)


def _all_given(account: _Account) -> wire.Bundles:
    devices = sorted(account.devices.items())
    bundles = [_bundle(each, device.published, {}) for each, device in devices if device.published is not None]
    return wire.Bundles(account.root_key, account.device_list, bundles)
