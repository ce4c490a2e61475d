"""Accounts and devices: the root key, a device's keys, a queue's owner key, and the signed device list.

Here stands who is who and what a root or device signature says. No sessions, no messages. Spec: identity.
"""

import struct
from collections.abc import Sequence
from typing import Final

from sottovoce_wire import ids, labels, records
from sottovoce_wire.errors import WireError
from sottovoce_wire.ids import AccountId, DeviceId, QueueId
from sottovoce_wire.records import DeviceEntry, DeviceList, ListFlag, UsernameClaim

from . import primitives
from .errors import CryptoRefusal, Reason
from .primitives import OwnExchangeKey, SigningKey

ENTROPY_LENGTH: Final = 32
_NONCE_LENGTH: Final = 32
_HASH_LENGTH: Final = 32


class RootKey:
    """The Ed25519 key that an account is, made of the 32 bytes that 24 words spell. It signs lists and names only."""

    __slots__ = ("_signing_key", "account_id", "entropy")

    def __init__(self, entropy: bytes) -> None:
        primitives.check_secret(entropy, ENTROPY_LENGTH)
        seed = primitives.hkdf_sha256(entropy, labels.ROOT_KEY, primitives.KEY_LENGTH)
        self._signing_key: Final = SigningKey(seed)
        self.entropy: Final = entropy
        self.account_id: Final = ids.account_id_of(self.public)

    @classmethod
    def generate(cls) -> "RootKey":
        """A new account's key."""
        return cls(primitives.random_bytes(ENTROPY_LENGTH))

    @classmethod
    def from_entropy(cls, entropy: bytes) -> "RootKey":
        """The key that these 32 bytes always give. Raises CryptoRefusal (BAD_KEY) for another length."""
        return cls(entropy)

    @property
    def public(self) -> bytes:
        """The public key: 32 bytes."""
        return self._signing_key.public

    def sign(self, label: bytes, payload: bytes) -> bytes:
        """A signed record: payload ‖ signature (64) over label ‖ payload."""
        return _sign_record(self._signing_key, label, payload)


class DeviceKeys:
    """A device's own Ed25519 signing key and X25519 identity key, and the id that both give."""

    __slots__ = ("_signing_key", "device_id", "identity")

    PACKED_LENGTH: Final = 64

    def __init__(self, signing_key: SigningKey, identity: OwnExchangeKey) -> None:
        self._signing_key: Final = signing_key
        self.identity: Final = identity
        self.device_id: Final[DeviceId] = ids.device_id_of(signing_key.public, identity.public)

    @classmethod
    def generate(cls) -> "DeviceKeys":
        """A new device's keys."""
        return cls(SigningKey.generate(), OwnExchangeKey.generate())

    def pack(self) -> bytes:
        """signing seed (32) ‖ identity secret (32), for the encrypted store."""
        return self._signing_key.seed + self.identity.secret

    @classmethod
    def unpack(cls, packed: bytes) -> "DeviceKeys":
        """The inverse of `pack`. Raises CryptoRefusal (BAD_KEY) for another length."""
        primitives.check_secret(packed, cls.PACKED_LENGTH)
        return cls(SigningKey(packed[:32]), OwnExchangeKey(packed[32:]))

    @property
    def signing_public(self) -> bytes:
        """The Ed25519 public key: 32 bytes."""
        return self._signing_key.public

    @property
    def identity_public(self) -> bytes:
        """The X25519 public key: 32 bytes."""
        return self.identity.public

    def sign_record(self, label: bytes, payload: bytes) -> bytes:
        """A signed record: payload ‖ signature (64) over label ‖ payload."""
        return _sign_record(self._signing_key, label, payload)

    def sign_detached(self, message: bytes) -> bytes:
        """The signature (64 bytes) over a message that begins with its own label, such as a directory request."""
        return self._signing_key.sign(message)

    def consent(self, account_id: AccountId) -> DeviceEntry:
        """This device's entry for the account's list, with its signature that it belongs there."""
        statement = records.device_consent(account_id, self.signing_public, self.identity_public)
        return DeviceEntry(self.signing_public, self.identity_public, self._signing_key.sign(statement))


class OwnerKey:
    """The Ed25519 key that owns one queue. It is made for that queue and signs nothing but its challenges."""

    __slots__ = ("_signing_key", "queue_id")

    def __init__(self, signing_key: SigningKey) -> None:
        self._signing_key: Final = signing_key
        self.queue_id: Final[QueueId] = ids.queue_id_of(signing_key.public)

    @classmethod
    def generate(cls) -> "OwnerKey":
        """A new queue's key."""
        return cls(SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "OwnerKey":
        """The key of this seed. Raises CryptoRefusal (BAD_KEY) unless it has 32 bytes."""
        return cls(SigningKey(seed))

    @property
    def seed(self) -> bytes:
        """The 32 bytes that the key is made of, for the encrypted store."""
        return self._signing_key.seed

    @property
    def public(self) -> bytes:
        """The public key: 32 bytes."""
        return self._signing_key.public

    def answer(self, origin: str, nonce: bytes) -> bytes:
        """The signature (64 bytes) that proves the queue to the relay at `origin`, as dialled; its nonce has 32 bytes.

        Raises CryptoRefusal (MALFORMED) for a nonce of another length.
        """
        if len(nonce) != _NONCE_LENGTH:
            raise CryptoRefusal(Reason.MALFORMED, "a challenge has 32 bytes")
        return self._signing_key.sign(records.owner_challenge(origin, nonce, self.queue_id))


def _sign_record(key: SigningKey, label: bytes, payload: bytes) -> bytes:
    return payload + key.sign(label + payload)


def open_record(public_key: bytes, label: bytes, record: bytes) -> bytes:
    """The payload of a signed record. Raises CryptoRefusal (BAD_RECORD if too short, BAD_SIGNATURE)."""
    try:
        payload, signature = records.split_signed(record)
    except WireError as error:
        raise CryptoRefusal(Reason.BAD_RECORD, error.detail) from None
    primitives.verify(public_key, label + payload, signature)
    return payload


def make_device_list(
    root: RootKey, devices: Sequence[DeviceEntry], *, version: int, previous: bytes, time: int, flag: ListFlag
) -> bytes:
    """The signed record of a device list; `previous` is the hash (32) of the list before it, or NO_LIST_HASH.

    Raises CryptoRefusal as `open_device_list` does: the root signs nothing that a contact would refuse.
    """
    if len(previous) != _HASH_LENGTH:
        raise CryptoRefusal(Reason.BAD_RECORD, "the hash of the list before has 32 bytes")
    try:
        payload = DeviceList(root.account_id, version, previous, time, flag, tuple(devices)).pack()
    except struct.error:
        raise CryptoRefusal(Reason.BAD_RECORD, "a number of the device list is out of range") from None
    _read_device_list(root.public, payload)
    return root.sign(labels.DEVICE_LIST, payload)


def open_device_list(root_public: bytes, record: bytes) -> DeviceList:
    """The device list in a record that this root key signed, with every device's keys and consent checked.

    Raises CryptoRefusal: BAD_KEY, BAD_SIGNATURE (the root's or a device's), BAD_RECORD, WRONG_ACCOUNT.
    """
    primitives.check_signing_key(root_public)
    return _read_device_list(root_public, open_record(root_public, labels.DEVICE_LIST, record))


def _read_device_list(root_public: bytes, payload: bytes) -> DeviceList:
    device_list = _parse_device_list(payload)
    if device_list.account_id != ids.account_id_of(root_public):
        raise CryptoRefusal(Reason.WRONG_ACCOUNT, "the device list is of another account")
    for entry in device_list.devices:
        _check_entry(device_list.account_id, entry)
    return device_list


def _parse_device_list(payload: bytes) -> DeviceList:
    try:
        return DeviceList.parse(payload)
    except WireError as error:
        raise CryptoRefusal(Reason.BAD_RECORD, error.detail) from None


def _check_entry(account_id: AccountId, entry: DeviceEntry) -> None:
    primitives.check_signing_key(entry.signing_key)
    primitives.PeerExchangeKey(entry.identity_key)
    statement = records.device_consent(account_id, entry.signing_key, entry.identity_key)
    primitives.verify(entry.signing_key, statement, entry.consent)


def check_successor(known_record: bytes, new_record: bytes, root_public: bytes) -> DeviceList:
    """The list in `new_record`, if it may take the place of the one in `known_record`, which was verified before.

    The same statement again is fine. Otherwise raises CryptoRefusal as `open_device_list` does, and: ACCOUNT_ENDED
    (nothing follows a final list), STALE_LIST (a lower version), FORKED_LIST (two statements for one place in the
    chain: keep both, stop sending), MISSING_LIST (lists between the two have to be checked first).
    """
    known_payload = _payload(known_record)
    known = _parse_device_list(known_payload)
    if new_record == known_record:
        return known
    new = open_device_list(root_public, new_record)
    if new.account_id != known.account_id:
        raise CryptoRefusal(Reason.WRONG_ACCOUNT, "the device lists are of two accounts")
    if _payload(new_record) == known_payload:
        return new
    _check_order(known, new, records.device_list_hash(known_payload))
    return new


def _payload(record: bytes) -> bytes:
    try:
        return records.split_signed(record)[0]
    except WireError as error:
        raise CryptoRefusal(Reason.BAD_RECORD, error.detail) from None


def _check_order(known: DeviceList, new: DeviceList, known_hash: bytes) -> None:
    if known.flag is ListFlag.FINAL:
        raise CryptoRefusal(Reason.ACCOUNT_ENDED, "nothing follows an account's final device list")
    if new.version < known.version:
        raise CryptoRefusal(Reason.STALE_LIST, "the device list is older than the known one")
    if new.version == known.version:
        raise CryptoRefusal(Reason.FORKED_LIST, "two device lists have one version")
    follows = new.version == known.version + 1 and new.previous == known_hash
    # A recovery was made without the chain at hand. Its version is max(known + 1, time), so never below its time.
    recovers = new.flag is ListFlag.RECOVERY and new.version >= new.time
    if follows or recovers:
        return
    if new.version == known.version + 1:
        raise CryptoRefusal(Reason.FORKED_LIST, "the device list follows another one than the known")
    raise CryptoRefusal(Reason.MISSING_LIST, "lists are missing between the known device list and this one")


def open_username_claim(root_public: bytes, record: bytes) -> UsernameClaim:
    """The claim in a record that this root key signed. Raises CryptoRefusal as `open_device_list` does."""
    primitives.check_signing_key(root_public)
    payload = open_record(root_public, labels.USERNAME_CLAIM, record)
    try:
        claim = UsernameClaim.parse(payload)
    except WireError as error:
        raise CryptoRefusal(Reason.BAD_RECORD, error.detail) from None
    if claim.account_id != ids.account_id_of(root_public):
        raise CryptoRefusal(Reason.WRONG_ACCOUNT, "the username claim is of another account")
    return claim
