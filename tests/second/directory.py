"""directory.md: who signs a request, what a keyserver checks of a registration, what a client checks of answers."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import identity, keys, prekeys
from .identity import DeviceList
from .notation import label, sha256
from .refusal import RefusedError

_DAY = 86_400
_COUNTER = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)
_RECORD = (65, 4_096)
_NEVER_ABOVE = 2**63 - 1


# --- Bodies -------------------------------------------------------------------------------------------------------


def _object(found: Any, members: tuple[str, ...], defaults: Mapping[str, Any] | None = None) -> Any:
    """A JSON object with exactly these members; those with a default may be left out."""
    known = dict(defaults or {})
    if not isinstance(found, dict) or not set(members) <= set(found) <= {*members, *known}:
        raise RefusedError("malformed")
    return known | found


def _body(data: bytes) -> Any:
    if len(data) > 65_536:
        raise RefusedError("malformed")
    try:
        return json.loads(data.decode("utf-8"))
    except ValueError:
        raise RefusedError("malformed") from None


def _bytes(value: Any, least: int, most: int) -> bytes:
    try:
        found = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except binascii.Error:
        raise RefusedError("malformed") from None
    if not least <= len(found) <= most:
        raise RefusedError("malformed")
    return found


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise RefusedError("malformed")
    return value


def _list(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise RefusedError("malformed")
    return value


def _one_time(value: Any) -> tuple[int, bytes]:
    found = _object(value, ("id", "key"))
    return _number(found["id"], 2**32 - 1), _bytes(found["key"], 32, 32)


# --- Signed requests ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signer:
    """What the four headers say."""

    account: bytes
    device: bytes
    counter: int
    signature: bytes


def _spelt(text: str, length: int) -> bytes:
    """The one spelling of `length` bytes."""
    value = _bytes(text, length, length)
    if base64.b64encode(value).decode("ascii") != text:
        raise RefusedError("malformed")
    return value


def parse_signer(account: str, device: str, counter: str, signature: str) -> Signer:
    """The signer, from the headers' texts."""
    if not _COUNTER.fullmatch(counter) or int(counter) >= 2**53:
        raise RefusedError("malformed")
    return Signer(_spelt(account, 32), _spelt(device, 16), int(counter), _spelt(signature, 64))


def _sized(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("ascii")


def check_request(key: bytes, signer: Signer, origin: str, method: str, path: str, body: bytes) -> None:
    """Refuse (bad_signature) unless the device signed this request for this server."""
    head = label("directory request") + _sized(origin) + signer.account + signer.device
    what = signer.counter.to_bytes(8, "big") + _sized(method) + _sized(path) + sha256(body)
    keys.verify(key, head + what, signer.signature)


# --- What a keyserver checks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registration:
    """What a keyserver would keep of a registration."""

    version: int
    record_id: int
    sequence: int
    expires: int
    one_time_ids: list[int]
    username: str


def open_registration(account: bytes, device: bytes, data: bytes, now: int) -> Registration:
    """A body of *Register* by this device, with all checks that need no table but that of the request's signature."""
    body = _object(_body(data), ("root_key", "device_list", "publish"), {"username_claim": None})
    publish = _object(
        body["publish"], ("prekey_record", "contact_record", "one_time_prekeys"), {"one_time_prekeys_from": 0}
    )
    root, record = _bytes(body["root_key"], 32, 32), _bytes(body["device_list"], *_RECORD)
    records = [_bytes(publish[name], *_RECORD) for name in ("prekey_record", "contact_record")]
    ids = [_one_time(each)[0] for each in _list(publish["one_time_prekeys"], 200)]
    _number(publish["one_time_prekeys_from"], 2**32 - 1)
    claim = None if body["username_claim"] is None else _bytes(body["username_claim"], *_RECORD)
    listed = _check_list(account, root, record)
    entries = [entry for entry in listed.devices if entry.id == device]
    if not entries:
        raise RefusedError("not_listed")
    _check_first(listed, now)
    for entry in listed.devices:
        statement = label("device consent") + account + entry.signing_key + entry.identity_key
        _holds(entry.signing_key, statement, entry.consent)
    signing_key = entries[0].signing_key
    ours = prekeys.parse_prekeys(_signed(signing_key, "prekey record", records[0]))
    named, contact = prekeys.parse_contact(_signed(signing_key, "contact record", records[1])[:-64])
    for owner, dates in (
        ((ours.account, ours.device), (ours.created, ours.expires)),
        (named, (contact.created, contact.expires)),
    ):
        _require(owner == (account, device) and _is_good(*dates, now))
    _require(contact.sequence <= _NEVER_ABOVE)
    if len(set(ids)) != len(ids):
        raise RefusedError("malformed")
    username = "" if claim is None else _check_claim(account, root, claim, now)
    expires = min(ours.expires, contact.expires)
    return Registration(listed.version, ours.record_id, contact.sequence, expires, ids, username)


def _require(holds: bool) -> None:
    if not holds:
        raise RefusedError("bad_record")


def _holds(key: bytes, message: bytes, signature: bytes) -> None:
    try:
        keys.verify(key, message, signature)
    except RefusedError:
        raise RefusedError("bad_record") from None


def _signed(key: bytes, name: str, record: bytes) -> bytes:
    """The record, if the key signed it under the label `name`."""
    payload, signature = identity.split(record)
    _holds(key, label(name) + payload, signature)
    return record


def _is_good(created: int, expires: int, now: int) -> bool:
    return created <= now + _DAY and created < expires <= created + 30 * _DAY and now < expires


def _check_list(account: bytes, root: bytes, record: bytes) -> DeviceList:
    _require(identity.account_id(root) == account)
    found = identity.parse_list(_signed(root, "device list", record)[:-64])
    _require(found.account == account)
    return found


def _check_first(found: DeviceList, now: int) -> None:
    _require(found.version <= _NEVER_ABOVE and found.time <= now + _DAY)
    _require(found.version != 1 or found.previous == bytes(32))


def _check_claim(account: bytes, root: bytes, record: bytes, now: int) -> str:
    named, time, username = identity.parse_claim(_signed(root, "username claim", record)[:-64])
    _require(named == account and time <= now + _DAY)
    return username


# --- What a client checks -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reached:
    """A device that a client can write to."""

    device: bytes
    queue: bytes
    one_time: int | None


def open_bundles(account: bytes, data: bytes, now: int) -> tuple[DeviceList, list[Reached]]:
    """The account's list, and those of its devices whose records are good now."""
    answer = _object(_body(data), ("root_key", "device_list", "bundles"))
    root, record = _bytes(answer["root_key"], 32, 32), _bytes(answer["device_list"], *_RECORD)
    bundles = [_parsed_bundle(each) for each in _list(answer["bundles"], 10)]
    if identity.account_id(root) != account:
        raise RefusedError("wrong_account")
    listed = identity.open_device_list(root, record)
    found = [_open_bundle(account, listed, bundle, now) for bundle in bundles]
    return listed, [each for each in found if each]


def _parsed_bundle(value: Any) -> tuple[bytes, bytes, bytes, int | None]:
    found = _object(value, ("device_id", "prekey_record", "contact_record"), {"one_time_prekey": None})
    device, one_time = _bytes(found["device_id"], 16, 16), found["one_time_prekey"]
    records = (_bytes(found[name], *_RECORD) for name in ("prekey_record", "contact_record"))
    return device, *records, None if one_time is None else _one_time(one_time)[0]  # type: ignore[return-value]


def _open_bundle(
    account: bytes, listed: DeviceList, bundle: tuple[bytes, bytes, bytes, int | None], now: int
) -> Reached | None:
    device, prekey_record, contact_record, one_time = bundle
    entries = [entry for entry in listed.devices if entry.id == device]
    if not entries:
        raise RefusedError("not_listed")
    try:
        prekeys.open_prekeys(entries[0], account, prekey_record, now)
        contact = prekeys.open_contact_record(entries[0], account, contact_record, now)
    except RefusedError as refusal:
        if refusal.reason in ("expired", "not_yet_valid"):
            return None
        raise
    return Reached(device, contact.queue, one_time)


def open_found_name(username: str, data: bytes) -> bytes:
    """The account that has the name it was asked for."""
    answer = _object(_body(data), ("root_key", "username_claim"))
    root, record = _bytes(answer["root_key"], 32, 32), _bytes(answer["username_claim"], *_RECORD)
    if identity.open_username_claim(root, record)[1] != username:
        raise RefusedError("wrong_account")
    return identity.account_id(root)
