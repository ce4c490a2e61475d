"""A device's prekeys: the signed record that others start sessions with, and one-time keys.

Here stand the keys and the checks on a peer's records. The handshake that uses them is in `agreement`, sealing in
`sealed`. Spec: prekeys.
"""

import struct
from dataclasses import dataclass
from typing import Final

from sottovoce_wire import labels, limits
from sottovoce_wire.errors import WireError
from sottovoce_wire.ids import AccountId, DeviceId
from sottovoce_wire.records import ContactRecord, DeviceEntry, PrekeyRecord

from . import primitives
from .errors import CryptoRefusal, Reason
from .identity import DeviceKeys, open_record
from .primitives import OwnExchangeKey, OwnKemKey, OwnSealingKey, PeerExchangeKey, PeerKemKey, PeerSealingKey

_SECRETS: Final = struct.Struct(">32s64s96s")
_ONE_TIME: Final = struct.Struct(">I32s")


class OwnPrekeys:
    """The private side of one signed prekey record of one's own device, with the record itself."""

    __slots__ = ("_parsed", "pq_prekey", "record", "record_hash", "sealing_key", "signed_prekey")

    def __init__(
        self, signed_prekey: OwnExchangeKey, pq_prekey: OwnKemKey, sealing_key: OwnSealingKey, record: bytes
    ) -> None:
        payload = record[: -primitives.SIGNATURE_LENGTH]
        self._parsed: Final = _parse_prekeys(payload)
        self.signed_prekey: Final = signed_prekey
        self.pq_prekey: Final = pq_prekey
        self.sealing_key: Final = sealing_key
        self.record: Final = record
        self.record_hash: Final = _record_hash(payload)

    @classmethod
    def generate(cls, device: DeviceKeys, account_id: AccountId, record_id: int, now: int) -> "OwnPrekeys":
        """New keys in a record that `device` signs at `now`, good for 30 days. `record_id`: a u32 never used before."""
        signed_prekey, pq_prekey, sealing_key = (
            OwnExchangeKey.generate(),
            OwnKemKey.generate(),
            OwnSealingKey.generate(),
        )
        record = PrekeyRecord(
            account_id,
            device.device_id,
            record_id,
            now,
            now + limits.RECORD_LIFETIME,
            signed_prekey.public,
            pq_prekey.public,
            sealing_key.public,
        )
        return cls(signed_prekey, pq_prekey, sealing_key, device.sign_record(labels.PREKEY_RECORD, record.pack()))

    def pack(self) -> bytes:
        """SPK secret (32) ‖ PQPK seed (64) ‖ sealing seeds (96) ‖ signed record (2,564), for the encrypted store."""
        return _SECRETS.pack(self.signed_prekey.secret, self.pq_prekey.seed, self.sealing_key.seeds) + self.record

    @classmethod
    def unpack(cls, packed: bytes) -> "OwnPrekeys":
        """The inverse of `pack`. Raises CryptoRefusal (BAD_KEY or BAD_RECORD) for bytes that are not its output."""
        if len(packed) <= _SECRETS.size:
            raise CryptoRefusal(Reason.BAD_RECORD, "the packed prekeys are too short")
        spk, pqpk, sealing = _SECRETS.unpack_from(packed)
        prekeys = cls(OwnExchangeKey(spk), OwnKemKey(pqpk), OwnSealingKey(sealing), packed[_SECRETS.size :])
        parsed = prekeys._parsed
        public = (prekeys.signed_prekey.public, prekeys.pq_prekey.public, prekeys.sealing_key.public)
        if public != (parsed.signed_prekey, parsed.pq_prekey, parsed.sealing_key):
            raise CryptoRefusal(Reason.BAD_KEY, "the packed prekeys are not those of their record")
        return prekeys

    @property
    def account_id(self) -> AccountId:
        """The account in the record."""
        return self._parsed.account_id

    @property
    def device_id(self) -> DeviceId:
        """The device in the record."""
        return self._parsed.device_id

    @property
    def record_id(self) -> int:
        """The record's number among its device's."""
        return self._parsed.record_id

    @property
    def created(self) -> int:
        """When it was made, in unix seconds."""
        return self._parsed.created

    @property
    def expires(self) -> int:
        """From when on nobody starts a session with it, in unix seconds."""
        return self._parsed.expires


class OneTimePrekey:
    """An own X25519 prekey that serves one handshake and is wiped with it."""

    __slots__ = ("id", "key")

    def __init__(self, prekey_id: int, key: OwnExchangeKey) -> None:
        self.id: Final = prekey_id
        self.key: Final = key

    @classmethod
    def generate(cls, prekey_id: int) -> "OneTimePrekey":
        """A new key with this id, a u32 never used before by the device."""
        return cls(prekey_id, OwnExchangeKey.generate())

    @property
    def public(self) -> bytes:
        """The public key: 32 bytes."""
        return self.key.public

    def pack(self) -> bytes:
        """id (4) ‖ secret (32), for the encrypted store."""
        return _ONE_TIME.pack(self.id, self.key.secret)

    @classmethod
    def unpack(cls, packed: bytes) -> "OneTimePrekey":
        """The inverse of `pack`. Raises CryptoRefusal (BAD_KEY) for another length."""
        primitives.check_secret(packed, _ONE_TIME.size)
        prekey_id, secret = _ONE_TIME.unpack(packed)
        return cls(prekey_id, OwnExchangeKey(secret))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PeerPrekeys:
    """A peer device's verified prekeys; made by `open_prekeys` only.

    `signed_record` are the bytes as received; `record_hash` is SHA-256(L(prekey record hash) ‖ payload), 32 bytes.
    """

    record: PrekeyRecord
    signed_record: bytes
    record_hash: bytes
    signed_prekey: PeerExchangeKey
    pq_prekey: PeerKemKey
    sealing_key: PeerSealingKey


def open_prekeys(entry: DeviceEntry, account_id: AccountId, record: bytes, now: int) -> PeerPrekeys:
    """The prekeys that the listed device `entry` of `account_id` signed, if they may be used at `now`.

    Raises CryptoRefusal: BAD_SIGNATURE, BAD_RECORD (layout or lifetime), WRONG_ACCOUNT, WRONG_DEVICE, EXPIRED,
    NOT_YET_VALID, BAD_KEY.
    """
    payload = open_record(entry.signing_key, labels.PREKEY_RECORD, record)
    parsed = _parse_prekeys(payload)
    _check_owner(entry, account_id, parsed)
    _check_times(parsed, now)
    return PeerPrekeys(
        parsed,
        record,
        _record_hash(payload),
        PeerExchangeKey(parsed.signed_prekey),
        PeerKemKey(parsed.pq_prekey),
        PeerSealingKey(parsed.sealing_key),
    )


def open_contact_record(entry: DeviceEntry, account_id: AccountId, record: bytes, now: int) -> ContactRecord:
    """The address that the listed device `entry` of `account_id` signed, if it is good at `now`.

    Raises CryptoRefusal as `open_prekeys` does. Whether to connect there is for the caller to decide.
    """
    payload = open_record(entry.signing_key, labels.CONTACT_RECORD, record)
    try:
        parsed = ContactRecord.parse(payload)
    except WireError as error:
        raise CryptoRefusal(Reason.BAD_RECORD, error.detail) from None
    _check_owner(entry, account_id, parsed)
    _check_times(parsed, now)
    return parsed


def _parse_prekeys(payload: bytes) -> PrekeyRecord:
    try:
        return PrekeyRecord.parse(payload)
    except WireError as error:
        raise CryptoRefusal(Reason.BAD_RECORD, error.detail) from None


def _record_hash(payload: bytes) -> bytes:
    return primitives.sha256(labels.PREKEY_RECORD_HASH, payload)


def _check_owner(entry: DeviceEntry, account_id: AccountId, record: PrekeyRecord | ContactRecord) -> None:
    if record.account_id != account_id:
        raise CryptoRefusal(Reason.WRONG_ACCOUNT, "the record is of another account")
    if record.device_id != entry.device_id:
        raise CryptoRefusal(Reason.WRONG_DEVICE, "the record is of another device")


def _check_times(record: PrekeyRecord | ContactRecord, now: int) -> None:
    if not record.created < record.expires <= record.created + limits.RECORD_LIFETIME:
        raise CryptoRefusal(Reason.BAD_RECORD, "the record is good for longer than 30 days, or not at all")
    if record.created > now + limits.CLOCK_TOLERANCE:
        raise CryptoRefusal(Reason.NOT_YET_VALID, "the record was made in the future")
    if record.expires <= now:
        raise CryptoRefusal(Reason.EXPIRED, "the record has expired")
