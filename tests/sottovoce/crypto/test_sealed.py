"""The sealed first message: who can open it, how long it is, and whom it is believed to come from."""

import dataclasses

import pytest

from sottovoce.crypto.agreement import Handshake, initiate, respond
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.identity import DeviceKeys, RootKey, make_device_list
from sottovoce.crypto.prekeys import OwnPrekeys, PeerPrekeys
from sottovoce.crypto.primitives import OwnSealingKey
from sottovoce.crypto.ratchet import Ratchet
from sottovoce.crypto.sealed import FirstMessage, open_sealed, open_sender, seal, sealed_record_id
from sottovoce_wire import labels, limits
from sottovoce_wire.ids import AccountId, DeviceId
from sottovoce_wire.records import NO_LIST_HASH, ListFlag
from tests.sottovoce.crypto.sides import Side

OVERHEAD = 2 + 1120 + 16


@pytest.fixture
def handshake(alice: DeviceKeys, alice_root: RootKey, bob: DeviceKeys, bob_peer: PeerPrekeys) -> Handshake:
    return initiate(alice, alice_root.account_id, bob_peer, bob.identity_public, None, 1)[0]


@pytest.fixture
def first(handshake: Handshake, alice_root: RootKey, alice_list: bytes) -> FirstMessage:
    return FirstMessage(handshake, alice_root.public, alice_list, b"ratchet message")


def test_a_stranger_is_read_and_known_from_one_envelope(
    alice: DeviceKeys,
    alice_root: RootKey,
    alice_list: bytes,
    bob: DeviceKeys,
    bob_root: RootKey,
    bob_prekeys: OwnPrekeys,
    bob_peer: PeerPrekeys,
    now: int,
) -> None:
    handshake, keys = initiate(alice, alice_root.account_id, bob_peer, bob.identity_public, None, 1)
    message = Ratchet.initiator(keys, bob_peer.record.signed_prekey, now).encrypt(b"hello", now)
    envelope = seal(bob_peer, FirstMessage(handshake, alice_root.public, alice_list, message).pack())

    received = FirstMessage.parse(open_sealed(bob_prekeys, bob_root.account_id, bob.device_id, envelope))
    device_list, entry = open_sender(received)
    answered = respond(bob, bob_root.account_id, bob_prekeys, None, received.handshake)
    side = Side(Ratchet.responder(answered, bob_prekeys.signed_prekey, now))
    assert side.read(received.message, now).body == b"hello"
    assert (device_list.account_id, entry.device_id) == (alice_root.account_id, alice.device_id)


def test_the_envelope_names_its_record_by_one_byte(bob_peer: PeerPrekeys) -> None:
    envelope = seal(bob_peer, b"content")
    assert envelope[:2] == b"\x02\x07"
    assert sealed_record_id(envelope) == bob_peer.record.record_id % 256 == 7


@pytest.mark.parametrize(("content", "padded"), [(0, 4096), (4095, 4096), (4096, 4352), (8000, 8192), (9000, 9216)])
def test_the_length_says_only_the_size_class(
    bob_peer: PeerPrekeys, bob_prekeys: OwnPrekeys, content: int, padded: int
) -> None:
    envelope = seal(bob_peer, b"c" * content)
    assert len(envelope) == padded + OVERHEAD
    assert open_sealed(bob_prekeys, bob_prekeys.account_id, bob_prekeys.device_id, envelope) == b"c" * content


def test_a_first_message_from_an_account_with_ten_devices_looks_like_any_other(
    alice_root: RootKey, alice_list: bytes, handshake: Handshake, bob_peer: PeerPrekeys, now: int
) -> None:
    entries = [DeviceKeys.generate().consent(alice_root.account_id) for _ in range(limits.MAX_DEVICES)]
    long = make_device_list(alice_root, entries, version=1, previous=NO_LIST_HASH, time=now, flag=ListFlag.NORMAL)
    contents = [FirstMessage(handshake, alice_root.public, each, b"m" * 357).pack() for each in (alice_list, long)]
    assert len(seal(bob_peer, contents[0])) == len(seal(bob_peer, contents[1])) == 4096 + OVERHEAD


def test_a_sealed_message_is_for_one_device_of_one_account(
    bob_peer: PeerPrekeys, bob_prekeys: OwnPrekeys, bob: DeviceKeys, bob_root: RootKey
) -> None:
    envelope = seal(bob_peer, b"content")
    for account, device in [
        (AccountId(bytes(32)), bob.device_id),
        (bob_root.account_id, DeviceId(bytes(16))),
    ]:
        with pytest.raises(CryptoRefusal) as refusal:
            open_sealed(bob_prekeys, account, device, envelope)
        assert refusal.value.reason is Reason.NOT_AUTHENTIC


def test_a_message_sealed_to_another_record_is_refused(
    bob_peer: PeerPrekeys, bob: DeviceKeys, bob_root: RootKey, now: int
) -> None:
    envelope = seal(bob_peer, b"content")
    later = OwnPrekeys.generate(bob, bob_root.account_id, 0x108, now)
    with pytest.raises(CryptoRefusal) as refusal:
        open_sealed(later, bob_root.account_id, bob.device_id, envelope)
    assert refusal.value.reason is Reason.UNKNOWN_PREKEY
    same_byte = OwnPrekeys.generate(bob, bob_root.account_id, 0x207, now)
    with pytest.raises(CryptoRefusal) as refusal:
        open_sealed(same_byte, bob_root.account_id, bob.device_id, envelope)
    assert refusal.value.reason is Reason.NOT_AUTHENTIC


def test_a_changed_envelope_is_refused(
    bob_peer: PeerPrekeys, bob_prekeys: OwnPrekeys, bob: DeviceKeys, bob_root: RootKey
) -> None:
    envelope = seal(bob_peer, b"content")
    places = (0, 1, 2, 1089, 1090, 1121, 1122, len(envelope) - 1)
    changed = [bytes(envelope[:i] + bytes([envelope[i] ^ 1]) + envelope[i + 1 :]) for i in places]
    cut = [envelope[:length] for length in range(0, len(envelope), 101)]
    for damaged in (*changed, *cut, envelope + b"\x00"):
        with pytest.raises(CryptoRefusal) as refusal:
            open_sealed(bob_prekeys, bob_root.account_id, bob.device_id, damaged)
        assert refusal.value.reason in {Reason.MALFORMED, Reason.UNKNOWN_PREKEY, Reason.NOT_AUTHENTIC}


@pytest.mark.parametrize("padded", [0, 256, 4095, 4097, 4224, 4353])
def test_a_length_that_no_padding_gives_is_refused_before_any_key_is_tried(
    bob_peer: PeerPrekeys, bob_prekeys: OwnPrekeys, padded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bob_peer.record
    info = labels.SEALED + record.account_id + record.device_id + bob_peer.record_hash
    envelope = b"\x02\x07" + bob_peer.sealing_key.seal(b"\x80".ljust(padded, b"\x00")[:padded], info)
    tried: list[bytes] = []
    monkeypatch.setattr(OwnSealingKey, "open", lambda _, sealed, __: tried.append(sealed))
    with pytest.raises(CryptoRefusal) as refusal:
        open_sealed(bob_prekeys, bob_prekeys.account_id, bob_prekeys.device_id, envelope)
    assert refusal.value.reason is Reason.MALFORMED
    assert tried == []


def test_sealed_content_without_a_padding_mark_is_refused(bob_peer: PeerPrekeys, bob_prekeys: OwnPrekeys) -> None:
    record = bob_peer.record
    info = labels.SEALED + record.account_id + record.device_id + bob_peer.record_hash
    envelope = b"\x02\x07" + bob_peer.sealing_key.seal(bytes(4096), info)
    with pytest.raises(CryptoRefusal) as refusal:
        open_sealed(bob_prekeys, bob_prekeys.account_id, bob_prekeys.device_id, envelope)
    assert refusal.value.reason is Reason.MALFORMED


def test_the_first_message_has_a_fixed_layout(first: FirstMessage, alice_list: bytes) -> None:
    packed = first.pack()
    assert FirstMessage.parse(packed) == first
    assert packed[Handshake.LENGTH :] == (
        first.root_public + len(alice_list).to_bytes(2, "big") + alice_list + b"ratchet message"
    )


def test_a_first_message_cut_short_is_refused(first: FirstMessage) -> None:
    packed = first.pack()
    for length in range(len(packed) - len(first.message) + 1):
        with pytest.raises(CryptoRefusal) as refusal:
            FirstMessage.parse(packed[:length])
        assert refusal.value.reason is Reason.MALFORMED


def test_a_handshake_that_claims_another_account_is_refused(first: FirstMessage, bob_root: RootKey) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        open_sender(dataclasses.replace(first, root_public=bob_root.public))
    assert refusal.value.reason is Reason.WRONG_ACCOUNT


def test_a_senders_list_needs_its_roots_signature(first: FirstMessage, bob_list: bytes) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        open_sender(dataclasses.replace(first, device_list=bob_list))
    assert refusal.value.reason is Reason.BAD_SIGNATURE


def test_a_sender_that_is_not_on_its_accounts_list_is_refused(first: FirstMessage, bob: DeviceKeys) -> None:
    for handshake in (
        dataclasses.replace(first.handshake, device_id=bob.device_id),
        dataclasses.replace(first.handshake, identity_key=bob.identity_public),
    ):
        with pytest.raises(CryptoRefusal) as refusal:
            open_sender(dataclasses.replace(first, handshake=handshake))
        assert refusal.value.reason is Reason.NOT_LISTED
