"""identity.md: ids, signed records, device lists and their succession, names, a queue's owner. No sessions."""

import re
from dataclasses import dataclass

from . import keys
from .notation import fields, hkdf, label, number, sha256, text
from .refusal import RefusedError

NORMAL, RECOVERY, FINAL = 0, 1, 2
_LIST_HEAD = (32, 8, 32, 8, 1, 1)
_ENTRY = (32, 32, 64)
_USERNAME = re.compile(r"[a-z][a-z0-9._-]{1,31}", re.ASCII)


def root_seed(entropy: bytes) -> bytes:
    """The seed of an account's root key, from 32 bytes."""
    if len(entropy) != 32:
        raise RefusedError("bad_key")
    return hkdf(bytes(32), entropy, label("root key"), 32)


def account_id(root_public: bytes) -> bytes:
    """32 bytes."""
    return sha256(label("account id") + root_public)


def device_id(signing_key: bytes, identity_key: bytes) -> bytes:
    """16 bytes."""
    return sha256(label("device id") + signing_key + identity_key)[:16]


def queue_id(owner_key: bytes) -> bytes:
    """16 bytes."""
    return sha256(label("queue id") + owner_key)[:16]


def send_key_hash(send_key: bytes) -> bytes:
    """32 bytes."""
    return sha256(label("send key hash") + send_key)


def split(record: bytes) -> tuple[bytes, bytes]:
    """(payload, signature)."""
    if len(record) <= 64:
        raise RefusedError("bad_record")
    return record[:-64], record[-64:]


def open_record(public: bytes, name: str, record: bytes) -> bytes:
    """The payload of a signed record, its signature checked under the label `name`."""
    payload, signature = split(record)
    keys.verify(public, label(name) + payload, signature)
    return payload


@dataclass(frozen=True)
class Device:
    """One entry of a device list."""

    signing_key: bytes
    identity_key: bytes
    consent: bytes

    @property
    def id(self) -> bytes:
        """The id that the two keys give."""
        return device_id(self.signing_key, self.identity_key)


@dataclass(frozen=True)
class DeviceList:
    """A device list's fields, and the hash by which the next one names it."""

    account: bytes
    version: int
    previous: bytes
    time: int
    flag: int
    devices: tuple[Device, ...]
    hash: bytes


def parse_list(payload: bytes) -> DeviceList:
    """The fields of a device list, strictly."""
    head_length = sum(_LIST_HEAD)
    account, version, previous, time, flag, count = fields(payload[:head_length], _LIST_HEAD, "bad_record")
    devices = number(count)
    if number(version) < 1 or number(flag) > FINAL or devices > 10 or (number(flag) == FINAL) != (devices == 0):
        raise RefusedError("bad_record")
    pieces = fields(payload[head_length:], _ENTRY * devices, "bad_record")
    entries = tuple(Device(*pieces[at : at + 3]) for at in range(0, len(pieces), 3))
    all_keys = [key for entry in entries for key in (entry.signing_key, entry.identity_key)]
    if len(all_keys) != len(set(all_keys)):
        raise RefusedError("bad_record")
    list_hash = sha256(label("device list hash") + payload)
    return DeviceList(account, number(version), previous, number(time), number(flag), entries, list_hash)


def open_device_list(root_public: bytes, record: bytes) -> DeviceList:
    """The list in a record, with all checks of the table."""
    keys.check_signing_key(root_public)
    found = parse_list(open_record(root_public, "device list", record))
    if found.account != account_id(root_public):
        raise RefusedError("wrong_account")
    for entry in found.devices:
        keys.check_signing_key(entry.signing_key)
        keys.check_exchange_key(entry.identity_key)
        statement = label("device consent") + found.account + entry.signing_key + entry.identity_key
        keys.verify(entry.signing_key, statement, entry.consent)
    return found


def check_successor(known_record: bytes, new_record: bytes, root_public: bytes) -> DeviceList:
    """The new list, if it may take the known one's place."""
    known_payload = split(known_record)[0]
    known = parse_list(known_payload)
    new = open_device_list(root_public, new_record)
    if new.account != known.account:
        raise RefusedError("wrong_account")
    if split(new_record)[0] == known_payload:
        return new
    follows = new.version == known.version + 1 and new.previous == known.hash
    recovers = new.flag == RECOVERY and new.version > known.version and new.version >= new.time
    if known.flag != FINAL and (follows or recovers):
        return new
    if known.flag == FINAL:
        raise RefusedError("account_ended")
    if new.version < known.version:
        raise RefusedError("stale_list")
    raise RefusedError("forked_list" if new.version - known.version < 2 else "missing_list")


def parse_claim(payload: bytes) -> tuple[bytes, int, str]:
    """(account id, time, username) of a claim, strictly."""
    account, time = fields(payload[:40], (32, 8), "bad_record")
    username = text(payload[40:], "bad_record")
    if not _USERNAME.fullmatch(username):
        raise RefusedError("bad_record")
    return account, number(time), username


def open_username_claim(root_public: bytes, record: bytes) -> tuple[int, str]:
    """(time, username) of an account's claim."""
    keys.check_signing_key(root_public)
    account, time, username = parse_claim(open_record(root_public, "username claim", record))
    if account != account_id(root_public):
        raise RefusedError("wrong_account")
    return time, username


def owner_statement(origin: str, nonce: bytes, owner_key: bytes) -> bytes:
    """What a queue's owner signs for the relay at `origin`."""
    name = origin.encode("ascii")
    return label("queue owner") + bytes([len(name)]) + name + nonce + queue_id(owner_key)
