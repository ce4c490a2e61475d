"""Signed records: fixed big-endian layouts, carried and signed as opaque bytes.

A signed record is `payload ‖ signature (64)`; the Ed25519 signature covers the record's label and the payload
as received. This file packs and parses payloads strictly; whoever holds a verifier checks the signature first.
Spec: identity, prekeys, relay (owner challenge), directory (requests).
"""

import enum
import hashlib
import struct
from typing import Final

import msgspec

from . import ids, labels, limits
from .errors import Code, WireError
from .ids import AccountId, DeviceId, QueueId, SendKey
from .origins import parse_origin

SIGNATURE_LENGTH: Final = 64
ML_KEM_768_PUBLIC_LENGTH: Final = 1184
#: X-Wing: the ML-KEM-768 key, then the X25519 key.
SEALING_KEY_LENGTH: Final = ML_KEM_768_PUBLIC_LENGTH + 32
NO_LIST_HASH: Final = bytes(32)


class _Reader:
    """Takes fields off the front of a payload; too few or too many bytes is BAD_RECORD."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        piece = self._data[self._at : self._at + length]
        if len(piece) != length:
            raise WireError(Code.BAD_RECORD, "the record is too short")
        self._at += length
        return piece

    def u8(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def text(self) -> str:
        try:
            return self.take(self.u8()).decode("ascii")
        except UnicodeDecodeError:
            raise WireError(Code.BAD_RECORD, "the record's text is not ASCII") from None

    def end(self) -> None:
        if self._at != len(self._data):
            raise WireError(Code.BAD_RECORD, "bytes follow the record")


def _text(value: str) -> bytes:
    data = value.encode("ascii")
    return bytes([len(data)]) + data


def split_signed(record: bytes) -> tuple[bytes, bytes]:
    """(payload, signature of 64 bytes). Raises WireError (BAD_RECORD) if there is no room for both."""
    if len(record) <= SIGNATURE_LENGTH:
        raise WireError(Code.BAD_RECORD, "the record is too short")
    return record[:-SIGNATURE_LENGTH], record[-SIGNATURE_LENGTH:]


@enum.unique
class ListFlag(enum.IntEnum):
    """What a device list may do beyond following its predecessor (spec: identity)."""

    NORMAL = 0
    RECOVERY = 1
    FINAL = 2


class DeviceEntry(msgspec.Struct, frozen=True):
    """One device: signing key (32), identity key (32), and its own signature (64) that it belongs to the account."""

    signing_key: bytes
    identity_key: bytes
    consent: bytes

    @property
    def device_id(self) -> DeviceId:
        """The id that these two keys have."""
        return ids.device_id_of(self.signing_key, self.identity_key)


def device_consent(account_id: AccountId, signing_key: bytes, identity_key: bytes) -> bytes:
    """What a device signs to be listed: L(device consent) ‖ account id ‖ both keys."""
    return labels.DEVICE_CONSENT + account_id + signing_key + identity_key


class DeviceList(msgspec.Struct, frozen=True):
    """The devices of an account: account id (32) ‖ version (8) ‖ previous hash (32) ‖ time (8) ‖ flag (1) ‖ count (1) ‖
    entries (128 each)."""

    account_id: AccountId
    version: int
    previous: bytes
    time: int
    flag: ListFlag
    devices: tuple[DeviceEntry, ...]

    def pack(self) -> bytes:
        """The payload that the root key signs under L(device list)."""
        head = struct.pack(
            ">32sQ32sQBB", self.account_id, self.version, self.previous, self.time, self.flag, len(self.devices)
        )
        return head + b"".join(d.signing_key + d.identity_key + d.consent for d in self.devices)

    @classmethod
    def parse(cls, payload: bytes) -> "DeviceList":
        """Strict inverse of `pack`: at most 10 devices, none twice, none at all only when final. Raises WireError."""
        reader = _Reader(payload)
        account_id, version = AccountId(reader.take(32)), reader.u64()
        previous, time = reader.take(32), reader.u64()
        flag, count = reader.u8(), reader.u8()
        if flag not in ListFlag.__members__.values() or count > limits.MAX_DEVICES or version == 0:
            raise WireError(Code.BAD_RECORD, "the device list's flag, version or count is out of range")
        devices = tuple(DeviceEntry(reader.take(32), reader.take(32), reader.take(64)) for _ in range(count))
        reader.end()
        keys = [key for device in devices for key in (device.signing_key, device.identity_key)]
        if len(set(keys)) != len(keys) or (flag == ListFlag.FINAL) != (not devices):
            raise WireError(Code.BAD_RECORD, "the device list names a key twice, or has the wrong number of devices")
        return cls(account_id, version, previous, time, ListFlag(flag), devices)


def device_list_hash(payload: bytes) -> bytes:
    """SHA-256(L(device list hash) ‖ payload): what the next list names as its predecessor."""
    return hashlib.sha256(labels.DEVICE_LIST_HASH + payload).digest()


class PrekeyRecord(msgspec.Struct, frozen=True):
    """A device's signed prekeys: account id (32) ‖ device id (16) ‖ record id (4) ‖ created (8) ‖ expires (8) ‖
    signed prekey (X25519, 32) ‖ post-quantum prekey (ML-KEM-768, 1184) ‖ sealing key (X-Wing, 1216)."""

    account_id: AccountId
    device_id: DeviceId
    record_id: int
    created: int
    expires: int
    signed_prekey: bytes
    pq_prekey: bytes
    sealing_key: bytes

    def pack(self) -> bytes:
        """The payload that the device signs under L(prekey record)."""
        head = struct.pack(">32s16sIQQ", self.account_id, self.device_id, self.record_id, self.created, self.expires)
        return head + self.signed_prekey + self.pq_prekey + self.sealing_key

    @classmethod
    def parse(cls, payload: bytes) -> "PrekeyRecord":
        """Strict inverse of `pack`. Raises WireError."""
        reader = _Reader(payload)
        record = cls(
            AccountId(reader.take(32)),
            DeviceId(reader.take(16)),
            reader.u32(),
            reader.u64(),
            reader.u64(),
            reader.take(32),
            reader.take(ML_KEM_768_PUBLIC_LENGTH),
            reader.take(SEALING_KEY_LENGTH),
        )
        reader.end()
        return record


class ContactRecord(msgspec.Struct, frozen=True):
    """Where strangers reach a device: account id (32) ‖ device id (16) ‖ sequence (8) ‖ created (8) ‖ expires (8) ‖
    intake queue (16) ‖ stranger send key (32) ‖ length (1) ‖ relay origin."""

    account_id: AccountId
    device_id: DeviceId
    sequence: int
    created: int
    expires: int
    queue: QueueId
    send_key: SendKey
    origin: str

    def pack(self) -> bytes:
        """The payload that the device signs under L(contact record)."""
        head = struct.pack(">32s16sQQQ", self.account_id, self.device_id, self.sequence, self.created, self.expires)
        return head + self.queue + self.send_key + _text(self.origin)

    @classmethod
    def parse(cls, payload: bytes) -> "ContactRecord":
        """Strict inverse of `pack`; the origin must be canonical. Raises WireError."""
        reader = _Reader(payload)
        record = cls(
            AccountId(reader.take(32)),
            DeviceId(reader.take(16)),
            reader.u64(),
            reader.u64(),
            reader.u64(),
            QueueId(reader.take(16)),
            SendKey(reader.take(32)),
            reader.text(),
        )
        reader.end()
        if not _is_canonical(record.origin):
            raise WireError(Code.BAD_RECORD, "the relay's address is not in its canonical form")
        return record


def _is_canonical(origin: str) -> bool:
    try:
        return parse_origin(origin) == origin
    except WireError:
        return False


class UsernameClaim(msgspec.Struct, frozen=True):
    """An account's claim to a name: account id (32) ‖ time (8) ‖ length (1) ‖ username."""

    account_id: AccountId
    time: int
    username: str

    def pack(self) -> bytes:
        """The payload that the root key signs under L(username claim)."""
        return self.account_id + self.time.to_bytes(8, "big") + _text(self.username)

    @classmethod
    def parse(cls, payload: bytes) -> "UsernameClaim":
        """Strict inverse of `pack`; the name must follow the rule. Raises WireError."""
        reader = _Reader(payload)
        claim = cls(AccountId(reader.take(32)), reader.u64(), reader.text())
        reader.end()
        ids.check_username(claim.username)
        return claim


def owner_challenge(origin: str, nonce: bytes, queue: QueueId) -> bytes:
    """What a queue's owner signs: L(queue owner) ‖ length ‖ origin as dialled ‖ nonce (32) ‖ queue id (16)."""
    return labels.QUEUE_OWNER + _text(origin) + nonce + queue


def directory_request(
    origin: str, account_id: AccountId, device_id: DeviceId, counter: int, method: str, path: str, body: bytes
) -> bytes:
    """What a device signs to change its account: L(directory request) ‖ origin ‖ account id ‖ device id ‖
    counter (8) ‖ method ‖ path ‖ SHA-256(body); each text with one length byte."""
    head = labels.DIRECTORY_REQUEST + _text(origin) + account_id + device_id + counter.to_bytes(8, "big")
    return head + _text(method) + _text(path) + hashlib.sha256(body).digest()
