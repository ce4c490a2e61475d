"""Who appears in the vectors, with keys made of their names: Alice and Bob with a device each, Mallory with another.

Everything is deterministic. Nothing here is secret: these keys must never be used.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from sottovoce.crypto.identity import DeviceKeys, RootKey, make_device_list
from sottovoce.crypto.prekeys import OneTimePrekey, OwnPrekeys
from sottovoce.crypto.primitives import ML_KEM_768_SEED_LENGTH, OwnExchangeKey, OwnKemKey, OwnSealingKey, SigningKey
from sottovoce_wire import labels, limits
from sottovoce_wire.ids import AccountId
from sottovoce_wire.records import NO_LIST_HASH, DeviceEntry, ListFlag, PrekeyRecord

#: When everything happens, in unix seconds.
NOW: Final = 1_800_000_000
DAY: Final = limits.DAY


def stream(name: str, length: int = 32) -> bytes:
    """Bytes that look random and are always the same for a name."""
    return hashlib.shake_256(b"Sottovoce vectors: " + name.encode("ascii")).digest(length)


def flipped(data: bytes, at: int = -1) -> bytes:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@dataclass(frozen=True)
class Person:
    """An account with one device."""

    name: str
    root: RootKey
    signing_key: SigningKey
    device: DeviceKeys

    @property
    def account(self) -> AccountId:
        """The account's id."""
        return self.root.account_id

    @property
    def entry(self) -> DeviceEntry:
        """The device's entry in the account's list."""
        return self.device.consent(self.account)


def person(name: str) -> Person:
    """Somebody, from a name."""
    signing_key = SigningKey(stream(f"{name}, signing key"))
    device = DeviceKeys(signing_key, OwnExchangeKey(stream(f"{name}, identity key")))
    return Person(name, RootKey.from_entropy(stream(f"{name}, entropy")), signing_key, device)


ALICE: Final = person("Alice")
BOB: Final = person("Bob")
MALLORY: Final = person("Mallory")


def first_list(who: Person, *devices: DeviceKeys) -> bytes:
    """The first signed device list of an account: with its device, or with these instead."""
    entries = [device.consent(who.account) for device in devices or (who.device,)]
    return make_device_list(who.root, entries, version=1, previous=NO_LIST_HASH, time=NOW, flag=ListFlag.NORMAL)


def prekeys(who: Person, record_id: int, *, created: int = NOW) -> OwnPrekeys:
    """The prekeys of somebody's device; another record id gives other keys."""
    spk = OwnExchangeKey(stream(f"{who.name}, signed prekey {record_id}"))
    pqpk = OwnKemKey(stream(f"{who.name}, post-quantum prekey {record_id}", ML_KEM_768_SEED_LENGTH))
    sealing = OwnSealingKey(stream(f"{who.name}, sealing key {record_id}", OwnSealingKey.LENGTH))
    expires = created + limits.RECORD_LIFETIME
    ids = (who.account, who.device.device_id, record_id, created, expires)
    record = PrekeyRecord(*ids, spk.public, pqpk.public, sealing.public)
    return OwnPrekeys(spk, pqpk, sealing, who.device.sign_record(labels.PREKEY_RECORD, record.pack()))


def one_time(who: Person, prekey_id: int) -> OneTimePrekey:
    """A one-time prekey of somebody's device."""
    return OneTimePrekey(prekey_id, OwnExchangeKey(stream(f"{who.name}, one-time prekey {prekey_id}")))
