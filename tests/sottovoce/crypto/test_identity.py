"""Accounts, devices and device lists: what is signed, and every way in which a list is refused."""

import dataclasses
import hashlib
import hmac
from collections.abc import Sequence

import msgspec
import pytest

from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.identity import (
    DeviceKeys,
    OwnerKey,
    RootKey,
    check_successor,
    make_device_list,
    open_device_list,
    open_record,
    open_username_claim,
)
from sottovoce.crypto.primitives import verify
from sottovoce_wire import ids, labels, records
from sottovoce_wire.records import NO_LIST_HASH, DeviceEntry, DeviceList, ListFlag, UsernameClaim

LOW_ORDER = bytes(32)


def refused(reason: Reason) -> "pytest.RaisesExc[CryptoRefusal]":
    return pytest.RaisesExc(CryptoRefusal, check=lambda refusal: refusal.reason is reason)


def list_of(
    root: RootKey,
    devices: Sequence[DeviceKeys],
    *,
    version: int = 1,
    after: bytes | None = None,
    time: int = 1_800_000_000,
    flag: ListFlag = ListFlag.NORMAL,
) -> bytes:
    """A signed list; `after` is the record that it follows."""
    previous = NO_LIST_HASH if after is None else records.device_list_hash(after[: -records.SIGNATURE_LENGTH])
    entries = [device.consent(root.account_id) for device in devices]
    return make_device_list(root, entries, version=version, previous=previous, time=time, flag=flag)


def sign_list(root: RootKey, device_list: DeviceList) -> bytes:
    """A signed list that nobody checked first."""
    return root.sign(labels.DEVICE_LIST, device_list.pack())


# Root keys, devices, owner keys


def test_the_root_key_comes_from_the_entropy_as_the_spec_says() -> None:
    root = RootKey.from_entropy(b"e" * 32)
    prk = hmac.digest(bytes(32), b"e" * 32, "sha256")
    seed = hmac.digest(prk, labels.ROOT_KEY + b"\x01", "sha256")
    assert root.public == DeviceKeys.unpack(seed + b"x" * 32).signing_public
    assert root.account_id == hashlib.sha256(labels.ACCOUNT_ID + root.public).digest()
    assert RootKey.from_entropy(root.entropy).account_id == root.account_id


def test_two_generated_roots_differ() -> None:
    assert RootKey.generate().account_id != RootKey.generate().account_id


@pytest.mark.parametrize("length", [0, 31, 33])
def test_entropy_of_another_length_is_refused(length: int) -> None:
    with refused(Reason.BAD_KEY):
        RootKey.from_entropy(bytes(length))
    with refused(Reason.BAD_KEY):
        OwnerKey.from_seed(bytes(length))


def test_a_device_comes_back_from_the_store(alice: DeviceKeys) -> None:
    again = DeviceKeys.unpack(alice.pack())
    assert again.device_id == alice.device_id == ids.device_id_of(alice.signing_public, alice.identity_public)
    assert again.identity_public == alice.identity_public
    assert again.pack() == alice.pack()


def test_packed_device_keys_of_another_length_are_refused(alice: DeviceKeys) -> None:
    packed = alice.pack()
    for damaged in (*(packed[:length] for length in range(len(packed))), packed + b"\x00"):
        with refused(Reason.BAD_KEY):
            DeviceKeys.unpack(damaged)


def test_a_device_signs_requests(alice: DeviceKeys) -> None:
    verify(alice.signing_public, b"message", alice.sign_detached(b"message"))


def test_an_owner_proves_its_queue_to_the_relay_that_asked() -> None:
    owner = OwnerKey.generate()
    again = OwnerKey.from_seed(owner.seed)
    assert owner.queue_id == again.queue_id == ids.queue_id_of(owner.public)
    answer = again.answer("https://relay.example", b"n" * 32)
    verify(owner.public, records.owner_challenge("https://relay.example", b"n" * 32, owner.queue_id), answer)
    with refused(Reason.BAD_SIGNATURE):
        verify(owner.public, records.owner_challenge("https://other.example", b"n" * 32, owner.queue_id), answer)


@pytest.mark.parametrize("length", [0, 31, 33, 48])
def test_an_owner_answers_no_challenge_of_another_length(length: int) -> None:
    with refused(Reason.MALFORMED):
        OwnerKey.generate().answer("https://relay.example", bytes(length))


# Signed records


def test_a_record_opens_under_its_own_key_and_label_only(alice: DeviceKeys, bob: DeviceKeys) -> None:
    record = alice.sign_record(labels.PREKEY_RECORD, b"payload")
    assert open_record(alice.signing_public, labels.PREKEY_RECORD, record) == b"payload"
    for key, label in [(bob.signing_public, labels.PREKEY_RECORD), (alice.signing_public, labels.CONTACT_RECORD)]:
        with refused(Reason.BAD_SIGNATURE):
            open_record(key, label, record)


def test_a_record_with_any_bit_changed_or_byte_missing_is_refused(alice: DeviceKeys) -> None:
    record = alice.sign_record(labels.PREKEY_RECORD, b"payload")
    for place in range(len(record)):
        changed = bytearray(record)
        changed[place] ^= 1
        with refused(Reason.BAD_SIGNATURE):
            open_record(alice.signing_public, labels.PREKEY_RECORD, bytes(changed))
    for length in range(len(record)):
        with pytest.raises(CryptoRefusal) as refusal:
            open_record(alice.signing_public, labels.PREKEY_RECORD, record[:length])
        assert refusal.value.reason in {Reason.BAD_RECORD, Reason.BAD_SIGNATURE}
    with refused(Reason.BAD_SIGNATURE):
        open_record(alice.signing_public, labels.PREKEY_RECORD, record + b"\x00")


# Device lists


def test_a_device_list_says_what_the_root_signed(alice_root: RootKey, alice: DeviceKeys, alice_list: bytes) -> None:
    opened = open_device_list(alice_root.public, alice_list)
    assert opened.account_id == alice_root.account_id
    assert [entry.device_id for entry in opened.devices] == [alice.device_id]
    assert (opened.version, opened.previous, opened.flag) == (1, NO_LIST_HASH, ListFlag.NORMAL)


def test_a_list_under_another_root_is_refused(alice_list: bytes, bob_root: RootKey) -> None:
    with refused(Reason.BAD_SIGNATURE):
        open_device_list(bob_root.public, alice_list)


def test_a_list_that_names_another_account_is_refused(alice_root: RootKey, bob_root: RootKey, bob: DeviceKeys) -> None:
    theirs = open_device_list(bob_root.public, list_of(bob_root, [bob]))
    with refused(Reason.WRONG_ACCOUNT):
        open_device_list(alice_root.public, sign_list(alice_root, theirs))


def test_a_root_key_of_small_order_is_refused(alice_list: bytes) -> None:
    with refused(Reason.BAD_KEY):
        open_device_list(b"\x01" + bytes(31), alice_list)


def test_a_device_that_did_not_consent_to_this_account_is_refused(
    alice_root: RootKey, bob_root: RootKey, bob: DeviceKeys, alice_list: bytes
) -> None:
    borrowed = bob.consent(bob_root.account_id)
    device_list = msgspec.structs.replace(open_device_list(alice_root.public, alice_list), devices=(borrowed,))
    with refused(Reason.BAD_SIGNATURE):
        open_device_list(alice_root.public, sign_list(alice_root, device_list))


@pytest.mark.parametrize(
    ("signing_key", "identity_key"),
    [(b"\x01" + bytes(31), None), (b"\xff" * 32, None), (None, LOW_ORDER), (None, b"\xff" * 32)],
)
def test_a_list_with_an_invalid_key_is_refused(
    alice_root: RootKey, alice: DeviceKeys, signing_key: bytes | None, identity_key: bytes | None
) -> None:
    signing, identity = signing_key or alice.signing_public, identity_key or alice.identity_public
    consent = alice.sign_detached(records.device_consent(alice_root.account_id, signing, identity))
    entry = DeviceEntry(signing, identity, consent)
    device_list = DeviceList(alice_root.account_id, 1, NO_LIST_HASH, 0, ListFlag.NORMAL, (entry,))
    with refused(Reason.BAD_KEY):
        open_device_list(alice_root.public, sign_list(alice_root, device_list))
    with refused(Reason.BAD_KEY):
        make_device_list(alice_root, [entry], version=1, previous=NO_LIST_HASH, time=0, flag=ListFlag.NORMAL)


def test_a_list_that_does_not_parse_is_refused(alice_root: RootKey, alice_list: bytes) -> None:
    payload = alice_list[: -records.SIGNATURE_LENGTH]
    for damaged in (*(payload[:length] for length in range(1, len(payload))), payload + b"\x00"):
        with refused(Reason.BAD_RECORD):
            open_device_list(alice_root.public, alice_root.sign(labels.DEVICE_LIST, damaged))


@pytest.mark.parametrize(
    ("version", "previous", "time"), [(0, bytes(32), 0), (1, bytes(31), 0), (2**64, bytes(32), 0), (1, bytes(32), -1)]
)
def test_no_impossible_list_is_made(
    alice_root: RootKey, alice: DeviceKeys, version: int, previous: bytes, time: int
) -> None:
    entries = [alice.consent(alice_root.account_id)]
    with refused(Reason.BAD_RECORD):
        make_device_list(alice_root, entries, version=version, previous=previous, time=time, flag=ListFlag.NORMAL)


def test_an_eleventh_device_is_refused(alice_root: RootKey) -> None:
    devices = [DeviceKeys.generate() for _ in range(11)]
    list_of(alice_root, devices[:10])
    with refused(Reason.BAD_RECORD):
        list_of(alice_root, devices)


# Succession


@dataclasses.dataclass(frozen=True)
class Chain:
    """A list at version 5, and its account."""

    root: RootKey
    device: DeviceKeys
    known: bytes

    def check(self, new: bytes) -> DeviceList:
        return check_successor(self.known, new, self.root.public)


@pytest.fixture
def chain(alice_root: RootKey, alice: DeviceKeys) -> Chain:
    return Chain(alice_root, alice, list_of(alice_root, [alice], version=5))


def test_the_same_list_again_is_fine(chain: Chain) -> None:
    assert chain.check(chain.known).version == 5


def test_the_next_list_that_names_the_known_one_is_accepted(chain: Chain) -> None:
    second = DeviceKeys.generate()
    new = chain.check(list_of(chain.root, [chain.device, second], version=6, after=chain.known))
    assert [entry.device_id for entry in new.devices] == [chain.device.device_id, second.device_id]


def test_a_list_does_not_go_back(chain: Chain) -> None:
    with refused(Reason.STALE_LIST):
        chain.check(list_of(chain.root, [chain.device], version=4))


def test_two_lists_of_one_version_are_a_fork(chain: Chain) -> None:
    with refused(Reason.FORKED_LIST):
        chain.check(list_of(chain.root, [chain.device], version=5, time=1))


def test_a_next_list_that_follows_another_is_a_fork(chain: Chain) -> None:
    other = list_of(chain.root, [chain.device], version=5, time=1)
    with refused(Reason.FORKED_LIST):
        chain.check(list_of(chain.root, [chain.device], version=6, after=other))


def test_a_gap_has_to_be_filled_first(chain: Chain) -> None:
    with refused(Reason.MISSING_LIST):
        chain.check(list_of(chain.root, [chain.device], version=7, after=chain.known))


def test_a_recovery_may_skip_the_chain(chain: Chain) -> None:
    new = list_of(
        chain.root, [DeviceKeys.generate()], version=1_900_000_000, time=1_900_000_000, flag=ListFlag.RECOVERY
    )
    assert chain.check(new).flag is ListFlag.RECOVERY


def test_a_recovery_whose_version_is_below_its_time_is_refused(chain: Chain) -> None:
    new = list_of(chain.root, [chain.device], version=99, time=100, flag=ListFlag.RECOVERY)
    with refused(Reason.MISSING_LIST):
        chain.check(new)


def test_a_recovery_does_not_go_back(chain: Chain) -> None:
    new = list_of(chain.root, [chain.device], version=4, time=0, flag=ListFlag.RECOVERY)
    with refused(Reason.STALE_LIST):
        chain.check(new)


def test_a_final_list_follows_like_any_other(chain: Chain) -> None:
    assert chain.check(list_of(chain.root, [], version=6, after=chain.known, flag=ListFlag.FINAL)).devices == ()
    with refused(Reason.MISSING_LIST):
        chain.check(list_of(chain.root, [], version=99, flag=ListFlag.FINAL))


@pytest.mark.parametrize("flag", [ListFlag.NORMAL, ListFlag.RECOVERY])
def test_nothing_follows_a_final_list(chain: Chain, flag: ListFlag) -> None:
    final = list_of(chain.root, [], version=6, after=chain.known, flag=ListFlag.FINAL)
    new = list_of(chain.root, [chain.device], version=7, after=final, flag=flag, time=7)
    with refused(Reason.ACCOUNT_ENDED):
        check_successor(final, new, chain.root.public)
    assert check_successor(final, final, chain.root.public).flag is ListFlag.FINAL


def test_a_successor_needs_the_roots_signature(chain: Chain, bob_root: RootKey) -> None:
    new = list_of(chain.root, [chain.device], version=6, after=chain.known)
    with refused(Reason.BAD_SIGNATURE):
        chain.check(new[:-1] + bytes([new[-1] ^ 1]))
    with refused(Reason.BAD_SIGNATURE):
        check_successor(chain.known, new, bob_root.public)


def test_another_accounts_list_is_no_successor(chain: Chain, bob_root: RootKey, bob: DeviceKeys) -> None:
    new = list_of(bob_root, [bob], version=6)
    with refused(Reason.WRONG_ACCOUNT):
        check_successor(chain.known, new, bob_root.public)


def test_a_known_list_too_short_to_be_one_is_refused(chain: Chain) -> None:
    with refused(Reason.BAD_RECORD):
        check_successor(b"", chain.known, chain.root.public)


# Usernames


def test_a_username_claim_is_its_accounts(alice_root: RootKey, bob_root: RootKey) -> None:
    claim = UsernameClaim(alice_root.account_id, 5, "alice")
    record = alice_root.sign(labels.USERNAME_CLAIM, claim.pack())
    assert open_username_claim(alice_root.public, record) == claim
    with refused(Reason.BAD_SIGNATURE):
        open_username_claim(bob_root.public, record)
    with refused(Reason.WRONG_ACCOUNT):
        open_username_claim(bob_root.public, bob_root.sign(labels.USERNAME_CLAIM, claim.pack()))
    with refused(Reason.BAD_KEY):
        open_username_claim(bytes(32), record)


def test_a_username_claim_that_does_not_parse_is_refused(alice_root: RootKey) -> None:
    payload = UsernameClaim(alice_root.account_id, 5, "alice").pack()
    damaged = [*(payload[:length] for length in range(1, len(payload))), payload + b"\x00", payload[:-1] + b"\xff"]
    for bad in [*damaged, payload[:-5] + b"ALICE"]:
        with refused(Reason.BAD_RECORD):
            open_username_claim(alice_root.public, alice_root.sign(labels.USERNAME_CLAIM, bad))


def test_a_device_list_is_no_username_claim(alice_root: RootKey, alice_list: bytes) -> None:
    with refused(Reason.BAD_SIGNATURE):
        open_username_claim(alice_root.public, alice_list)
