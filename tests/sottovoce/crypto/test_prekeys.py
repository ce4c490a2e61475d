"""Prekeys: what a device publishes, and every check on what a peer published."""

import msgspec
import pytest

from sottovoce.crypto import primitives
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.identity import DeviceKeys, RootKey
from sottovoce.crypto.prekeys import OneTimePrekey, OwnPrekeys, PeerPrekeys, open_contact_record, open_prekeys
from sottovoce_wire import labels, limits
from sottovoce_wire.ids import QueueId, SendKey
from sottovoce_wire.records import ContactRecord, PrekeyRecord

DAY = limits.DAY


def test_own_prekeys_know_what_their_record_says(
    bob_prekeys: OwnPrekeys, bob: DeviceKeys, bob_root: RootKey, now: int
) -> None:
    assert (bob_prekeys.account_id, bob_prekeys.device_id) == (bob_root.account_id, bob.device_id)
    assert (bob_prekeys.record_id, bob_prekeys.created, bob_prekeys.expires) == (0x107, now, now + 30 * DAY)


def test_a_peer_reads_the_keys_that_the_device_published(bob_prekeys: OwnPrekeys, bob_peer: PeerPrekeys) -> None:
    assert bob_peer.signed_record == bob_prekeys.record
    assert bob_peer.record.signed_prekey == bob_peer.signed_prekey.public == bob_prekeys.signed_prekey.public
    assert bob_peer.pq_prekey.public == bob_prekeys.pq_prekey.public
    expected = primitives.sha256(labels.PREKEY_RECORD_HASH, bob_prekeys.record[:-64])
    assert bob_peer.record_hash == bob_prekeys.record_hash == expected


def test_own_prekeys_come_back_from_the_store(bob_prekeys: OwnPrekeys) -> None:
    again = OwnPrekeys.unpack(bob_prekeys.pack())
    assert again.pack() == bob_prekeys.pack()
    assert again.record == bob_prekeys.record
    assert again.sealing_key.public == bob_prekeys.sealing_key.public


def test_packed_prekeys_cut_short_are_refused(bob_prekeys: OwnPrekeys) -> None:
    packed = bob_prekeys.pack()
    for damaged in (*(packed[:length] for length in range(0, len(packed), 31)), packed[:-1], packed + b"\x00"):
        with pytest.raises(CryptoRefusal) as refusal:
            OwnPrekeys.unpack(damaged)
        assert refusal.value.reason in {Reason.BAD_RECORD, Reason.BAD_KEY}


@pytest.mark.parametrize("place", [0, 40, 100, 170])
def test_packed_prekeys_that_are_not_their_records_are_refused(bob_prekeys: OwnPrekeys, place: int) -> None:
    packed = bytearray(bob_prekeys.pack())
    packed[place] ^= 0x10
    with pytest.raises(CryptoRefusal) as refusal:
        OwnPrekeys.unpack(bytes(packed))
    assert refusal.value.reason is Reason.BAD_KEY


def test_a_one_time_prekey_comes_back_from_the_store() -> None:
    prekey = OneTimePrekey.generate(2**32 - 1)
    again = OneTimePrekey.unpack(prekey.pack())
    assert (again.id, again.public) == (prekey.id, prekey.public)


def test_a_packed_one_time_prekey_of_another_length_is_refused() -> None:
    packed = OneTimePrekey.generate(1).pack()
    for damaged in (*(packed[:length] for length in range(len(packed))), packed + b"\x00"):
        with pytest.raises(CryptoRefusal) as refusal:
            OneTimePrekey.unpack(damaged)
        assert refusal.value.reason is Reason.BAD_KEY


class Opening:
    """Signs a record as Bob and opens it as a peer does."""

    def __init__(self, bob: DeviceKeys, bob_root: RootKey, now: int) -> None:
        self.device, self.root, self.now = bob, bob_root, now
        self.entry = bob.consent(bob_root.account_id)

    def prekeys(self, record: PrekeyRecord, *, signer: DeviceKeys | None = None, label: bytes | None = None) -> None:
        signed = (signer or self.device).sign_record(label or labels.PREKEY_RECORD, record.pack())
        open_prekeys(self.entry, self.root.account_id, signed, self.now)

    def contact(self, record: ContactRecord, *, signer: DeviceKeys | None = None, label: bytes | None = None) -> None:
        signed = (signer or self.device).sign_record(label or labels.CONTACT_RECORD, record.pack())
        open_contact_record(self.entry, self.root.account_id, signed, self.now)


@pytest.fixture
def opening(bob: DeviceKeys, bob_root: RootKey, now: int) -> Opening:
    return Opening(bob, bob_root, now)


@pytest.fixture
def prekey_record(bob_peer: PeerPrekeys) -> PrekeyRecord:
    return bob_peer.record


@pytest.fixture
def contact_record(bob: DeviceKeys, bob_root: RootKey, now: int) -> ContactRecord:
    expires = now + limits.RECORD_LIFETIME
    queue, key = QueueId(bytes(16)), SendKey(bytes(32))
    return ContactRecord(bob_root.account_id, bob.device_id, 1, now, expires, queue, key, "https://relay.example")


TIMES = [
    (-30 * DAY, 0, Reason.EXPIRED),
    (-30 * DAY - 1, -1, Reason.EXPIRED),
    (DAY + 1, 2 * DAY, Reason.NOT_YET_VALID),
    (0, 30 * DAY + 1, Reason.BAD_RECORD),
    (0, 0, Reason.BAD_RECORD),
    (5, 4, Reason.BAD_RECORD),
]
GOOD_TIMES = [(0, 1), (DAY, 31 * DAY), (-30 * DAY + 1, 1)]


@pytest.mark.parametrize(("created", "expires", "reason"), TIMES)
def test_records_are_good_at_their_time_only(
    opening: Opening,
    prekey_record: PrekeyRecord,
    contact_record: ContactRecord,
    created: int,
    expires: int,
    reason: Reason,
) -> None:
    times = {"created": opening.now + created, "expires": opening.now + expires}
    with pytest.raises(CryptoRefusal) as refusal:
        opening.prekeys(msgspec.structs.replace(prekey_record, **times))
    assert refusal.value.reason is reason
    with pytest.raises(CryptoRefusal) as refusal:
        opening.contact(msgspec.structs.replace(contact_record, **times))
    assert refusal.value.reason is reason


@pytest.mark.parametrize(("created", "expires"), GOOD_TIMES)
def test_records_are_good_until_the_last_second(
    opening: Opening, prekey_record: PrekeyRecord, contact_record: ContactRecord, created: int, expires: int
) -> None:
    times = {"created": opening.now + created, "expires": opening.now + expires}
    opening.prekeys(msgspec.structs.replace(prekey_record, **times))
    opening.contact(msgspec.structs.replace(contact_record, **times))


def test_records_of_another_account_or_device_are_refused(
    opening: Opening, prekey_record: PrekeyRecord, contact_record: ContactRecord, alice_root: RootKey, alice: DeviceKeys
) -> None:
    changes: list[tuple[dict[str, bytes], Reason]] = [
        ({"account_id": alice_root.account_id}, Reason.WRONG_ACCOUNT),
        ({"device_id": alice.device_id}, Reason.WRONG_DEVICE),
    ]
    for change, reason in changes:
        with pytest.raises(CryptoRefusal) as refusal:
            opening.prekeys(msgspec.structs.replace(prekey_record, **change))
        assert refusal.value.reason is reason
        with pytest.raises(CryptoRefusal) as refusal:
            opening.contact(msgspec.structs.replace(contact_record, **change))
        assert refusal.value.reason is reason


def test_records_need_the_devices_signature_under_their_own_label(
    opening: Opening, prekey_record: PrekeyRecord, contact_record: ContactRecord, alice: DeviceKeys
) -> None:
    for signer, label in [(alice, None), (None, labels.DIRECTORY_REQUEST)]:
        with pytest.raises(CryptoRefusal) as refusal:
            opening.prekeys(prekey_record, signer=signer, label=label)
        assert refusal.value.reason is Reason.BAD_SIGNATURE
        with pytest.raises(CryptoRefusal) as refusal:
            opening.contact(contact_record, signer=signer, label=label)
        assert refusal.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("signed_prekey", bytes(32)),
        ("signed_prekey", b"\xff" * 32),
        ("pq_prekey", b"\xff" * 1184),
        ("sealing_key", b"\xff" * 1216),
        ("sealing_key", bytes(1216)),
    ],
)
def test_a_record_with_an_invalid_key_is_refused(
    opening: Opening, prekey_record: PrekeyRecord, field: str, value: bytes
) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        opening.prekeys(msgspec.structs.replace(prekey_record, **{field: value}))
    assert refusal.value.reason is Reason.BAD_KEY


def test_records_that_do_not_parse_are_refused(
    opening: Opening, prekey_record: PrekeyRecord, contact_record: ContactRecord
) -> None:
    prekeys, contact = prekey_record.pack(), contact_record.pack()
    account_id = opening.root.account_id
    for bad in (*(prekeys[:length] for length in range(1, len(prekeys), 40)), prekeys[:-1], prekeys + b"\x00"):
        signed = opening.device.sign_record(labels.PREKEY_RECORD, bad)
        with pytest.raises(CryptoRefusal) as refusal:
            open_prekeys(opening.entry, account_id, signed, opening.now)
        assert refusal.value.reason is Reason.BAD_RECORD
    for bad in (*(contact[:length] for length in range(1, len(contact))), contact + b"\x00"):
        signed = opening.device.sign_record(labels.CONTACT_RECORD, bad)
        with pytest.raises(CryptoRefusal) as refusal:
            open_contact_record(opening.entry, account_id, signed, opening.now)
        assert refusal.value.reason is Reason.BAD_RECORD


@pytest.mark.parametrize(
    "origin", ["HTTPS://relay.example", "http://relay.example", "ftp://x", "https://[::1", "", "x"]
)
def test_an_address_that_is_no_canonical_origin_is_refused(
    opening: Opening, contact_record: ContactRecord, origin: str
) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        opening.contact(msgspec.structs.replace(contact_record, origin=origin))
    assert refusal.value.reason is Reason.BAD_RECORD
