"""Two people, Alice and Bob, with one device each, and Bob's prekeys: what most tests of the room start from.

Only values; nothing here asserts.
"""

import pytest

from sottovoce.crypto.identity import DeviceKeys, RootKey, make_device_list
from sottovoce.crypto.prekeys import OneTimePrekey, OwnPrekeys, PeerPrekeys, open_prekeys
from sottovoce_wire.records import NO_LIST_HASH, ListFlag
from tests.sottovoce.crypto.sides import Side, make_pair


@pytest.fixture(scope="session")
def now() -> int:
    return 1_800_000_000


@pytest.fixture(scope="session")
def alice_root() -> RootKey:
    return RootKey.from_entropy(b"a" * 32)


@pytest.fixture(scope="session")
def alice() -> DeviceKeys:
    return DeviceKeys.generate()


@pytest.fixture(scope="session")
def bob_root() -> RootKey:
    return RootKey.from_entropy(b"b" * 32)


@pytest.fixture(scope="session")
def bob() -> DeviceKeys:
    return DeviceKeys.generate()


def _first_list(root: RootKey, device: DeviceKeys, now: int) -> bytes:
    entries = [device.consent(root.account_id)]
    return make_device_list(root, entries, version=1, previous=NO_LIST_HASH, time=now, flag=ListFlag.NORMAL)


@pytest.fixture(scope="session")
def alice_list(alice_root: RootKey, alice: DeviceKeys, now: int) -> bytes:
    return _first_list(alice_root, alice, now)


@pytest.fixture(scope="session")
def bob_list(bob_root: RootKey, bob: DeviceKeys, now: int) -> bytes:
    return _first_list(bob_root, bob, now)


@pytest.fixture(scope="session")
def bob_prekeys(bob: DeviceKeys, bob_root: RootKey, now: int) -> OwnPrekeys:
    return OwnPrekeys.generate(bob, bob_root.account_id, 0x107, now)


@pytest.fixture(scope="session")
def bob_one_time() -> OneTimePrekey:
    return OneTimePrekey.generate(41)


@pytest.fixture(scope="session")
def bob_peer(bob: DeviceKeys, bob_root: RootKey, bob_prekeys: OwnPrekeys, now: int) -> PeerPrekeys:
    """Bob's prekeys as Alice verified them."""
    return open_prekeys(bob.consent(bob_root.account_id), bob_root.account_id, bob_prekeys.record, now)


@pytest.fixture
def pair() -> tuple[Side, Side]:
    """A fresh session: the initiator, then the responder."""
    return make_pair()
