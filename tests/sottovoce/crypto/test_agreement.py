"""The handshake: both sides derive the same keys, exactly as the spec writes them, and from nothing less."""

import dataclasses
import hashlib
import hmac

import pytest

from sottovoce.crypto.agreement import Handshake, SessionKeys, initiate, respond
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.identity import DeviceKeys, RootKey
from sottovoce.crypto.prekeys import OneTimePrekey, OwnPrekeys, PeerPrekeys, open_prekeys
from sottovoce.crypto.primitives import OwnExchangeKey, PeerExchangeKey
from sottovoce_wire import labels
from sottovoce_wire.ids import AccountId, DeviceId

LENGTH = 1 + 1 + 4 + 32 + 16 + 32 + 32 + 4 + 1 + 4 + 1088


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def fields(keys: SessionKeys) -> tuple[bytes, ...]:
    return (
        keys.session_id,
        keys.root_key,
        keys.header_key_a,
        keys.tag_key_a,
        keys.header_key_b,
        keys.tag_key_b,
    )


class Meeting:
    """Alice starts sessions with Bob; Bob answers."""

    def __init__(self, alice: tuple[DeviceKeys, RootKey], bob: tuple[DeviceKeys, RootKey, OwnPrekeys, PeerPrekeys]):
        self.alice, self.alice_root = alice
        self.bob, self.bob_root, self.prekeys, self.peer = bob

    def start(self, one_time: OneTimePrekey | None = None, generation: int = 1) -> tuple[Handshake, SessionKeys]:
        handed = None if one_time is None else (one_time.id, one_time.public)
        return initiate(self.alice, self.alice_root.account_id, self.peer, self.bob.identity_public, handed, generation)

    def answer(self, handshake: Handshake, one_time: OneTimePrekey | None = None) -> SessionKeys:
        return respond(self.bob, self.bob_root.account_id, self.prekeys, one_time, handshake)


@pytest.fixture
def meeting(
    alice: DeviceKeys,
    alice_root: RootKey,
    bob: DeviceKeys,
    bob_root: RootKey,
    bob_prekeys: OwnPrekeys,
    bob_peer: PeerPrekeys,
) -> Meeting:
    return Meeting((alice, alice_root), (bob, bob_root, bob_prekeys, bob_peer))


def test_both_sides_derive_the_same_keys(meeting: Meeting) -> None:
    handshake, keys = meeting.start()
    assert fields(meeting.answer(handshake)) == fields(keys)


def test_both_sides_derive_the_same_keys_with_a_one_time_prekey(meeting: Meeting, bob_one_time: OneTimePrekey) -> None:
    handshake, keys = meeting.start(bob_one_time)
    assert handshake.one_time_id == bob_one_time.id
    assert fields(meeting.answer(Handshake.parse(handshake.pack()), bob_one_time)) == fields(keys)


def test_a_one_time_prekey_with_id_zero_is_not_an_absent_one(meeting: Meeting) -> None:
    prekey = OneTimePrekey.generate(0)
    handshake, keys = meeting.start(prekey)
    again = Handshake.parse(handshake.pack())
    assert again.one_time_id == 0
    assert fields(meeting.answer(again, prekey)) == fields(keys)


def test_six_different_keys_come_out_and_never_the_same_twice(meeting: Meeting) -> None:
    first, second = fields(meeting.start()[1]), fields(meeting.start()[1])
    assert len({*first, *second}) == 12


@pytest.mark.parametrize("with_one_time", [False, True])
def test_the_derivation_is_the_one_in_the_spec(
    meeting: Meeting, bob_one_time: OneTimePrekey, with_one_time: bool
) -> None:
    one_time = bob_one_time if with_one_time else None
    handshake, keys = meeting.start(one_time, generation=7)
    spk, ephemeral = meeting.prekeys.signed_prekey, PeerExchangeKey(handshake.ephemeral_key)
    secrets = spk.exchange(PeerExchangeKey(meeting.alice.identity_public))
    secrets += meeting.bob.identity.exchange(ephemeral) + spk.exchange(ephemeral)
    secrets += bob_one_time.key.exchange(ephemeral) if with_one_time else b""
    secrets += meeting.prekeys.pq_prekey.decapsulate(handshake.kem_ciphertext)
    transcript = b"\x01\x01" + (7).to_bytes(4, "big") + meeting.alice_root.account_id + meeting.alice.device_id
    transcript += meeting.alice.identity_public + handshake.ephemeral_key + meeting.prekeys.record_id.to_bytes(4, "big")
    transcript += b"\x01" + (41).to_bytes(4, "big") if with_one_time else bytes(5)
    transcript += handshake.kem_ciphertext + meeting.bob_root.account_id + meeting.bob.device_id
    transcript += meeting.bob.identity_public + meeting.prekeys.record
    transcript += bob_one_time.public if with_one_time else bytes(32)
    session_id = hashlib.sha256(labels.SESSION_ID + transcript).digest()
    block, output = b"", b""
    extracted = hmac.digest(bytes(32), secrets, "sha256")
    for counter in range(1, 6):
        block = hmac.digest(extracted, block + labels.SESSION + session_id + bytes([counter]), "sha256")
        output += block
    assert b"".join(fields(keys)) == session_id + output


def test_the_handshake_travels_in_a_fixed_layout(meeting: Meeting, bob_one_time: OneTimePrekey) -> None:
    handshake, _ = meeting.start(bob_one_time)
    packed = handshake.pack()
    assert len(packed) == Handshake.LENGTH == LENGTH
    assert Handshake.parse(packed) == handshake
    assert handshake.digest == hashlib.sha256(labels.HANDSHAKE_HASH + packed).digest()


def test_a_handshake_cut_short_or_with_a_tail_is_refused(meeting: Meeting) -> None:
    packed = meeting.start()[0].pack()
    for damaged in (*(packed[:length] for length in range(len(packed))), packed + b"\x00"):
        with pytest.raises(CryptoRefusal) as refusal:
            Handshake.parse(damaged)
        assert refusal.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (0, 2, Reason.UNSUPPORTED_VERSION),
        (0, 0, Reason.UNSUPPORTED_VERSION),
        (1, 2, Reason.UNSUPPORTED_VERSION),
        (122, 2, Reason.MALFORMED),
        (126, 1, Reason.MALFORMED),
    ],
)
def test_a_handshake_with_an_impossible_field_is_refused(
    meeting: Meeting, place: int, value: int, reason: Reason
) -> None:
    packed = bytearray(meeting.start()[0].pack())
    packed[place] = value
    with pytest.raises(CryptoRefusal) as refusal:
        Handshake.parse(bytes(packed))
    assert refusal.value.reason is reason


def test_a_handshake_changed_anywhere_gives_another_session(meeting: Meeting, bob_one_time: OneTimePrekey) -> None:
    handshake, keys = meeting.start(bob_one_time)
    changes = [
        dataclasses.replace(handshake, generation=2),
        dataclasses.replace(handshake, account_id=AccountId(bytes(32))),
        dataclasses.replace(handshake, device_id=DeviceId(bytes(16))),
        dataclasses.replace(handshake, identity_key=meeting.bob.identity_public),
        dataclasses.replace(handshake, ephemeral_key=meeting.bob.identity_public),
        dataclasses.replace(handshake, kem_ciphertext=flipped(handshake.kem_ciphertext)),
    ]
    for changed in changes:
        answered = meeting.answer(changed, bob_one_time)
        assert not set(fields(answered)) & set(fields(keys))


def test_the_session_hangs_on_the_accounts_that_each_side_believes_in(meeting: Meeting) -> None:
    handshake, keys = meeting.start()
    theirs = OwnPrekeys.generate(meeting.bob, meeting.alice_root.account_id, 0x107, 1_800_000_000)
    answered = respond(meeting.bob, meeting.alice_root.account_id, theirs, None, handshake)
    assert answered.session_id != keys.session_id


def test_only_the_owner_of_the_identity_key_can_have_started_the_session(meeting: Meeting) -> None:
    thief = DeviceKeys.generate()
    forged, keys = initiate(thief, meeting.alice_root.account_id, meeting.peer, meeting.bob.identity_public, None, 1)
    claimed = dataclasses.replace(forged, device_id=meeting.alice.device_id, identity_key=meeting.alice.identity_public)
    assert meeting.answer(claimed).root_key != keys.root_key


def posing_as(victim: DeviceKeys) -> DeviceKeys:
    """A device that says what the victim's says, with a secret of its own behind it."""
    thief = DeviceKeys.generate()
    claimed = OwnExchangeKey.restore(thief.identity.secret, victim.identity_public)
    for name, value in (("identity", claimed), ("device_id", victim.device_id)):
        object.__setattr__(thief, name, value)
    return thief


def test_a_handshake_in_a_known_name_gives_keys_that_its_maker_does_not_have(meeting: Meeting) -> None:
    thief, account = posing_as(meeting.alice), meeting.alice_root.account_id
    handshake, keys = initiate(thief, account, meeting.peer, meeting.bob.identity_public, None, 1)
    assert (handshake.device_id, handshake.identity_key) == (meeting.alice.device_id, meeting.alice.identity_public)
    answered = meeting.answer(handshake)
    assert answered.session_id == keys.session_id  # it hangs on nothing secret
    for name in ("root_key", "header_key_a", "tag_key_a", "header_key_b", "tag_key_b"):
        assert getattr(answered, name) != getattr(keys, name)


def test_a_device_starts_no_session_with_itself(meeting: Meeting, now: int) -> None:
    entry = meeting.bob.consent(meeting.bob_root.account_id)
    peer = open_prekeys(entry, meeting.bob_root.account_id, meeting.prekeys.record, now)
    with pytest.raises(CryptoRefusal) as refusal:
        initiate(meeting.bob, meeting.bob_root.account_id, peer, meeting.bob.identity_public, None, 1)
    assert refusal.value.reason is Reason.OWN_DEVICE


def test_a_handshake_from_ones_own_device_is_refused(meeting: Meeting) -> None:
    handshake, _ = meeting.start()
    with pytest.raises(CryptoRefusal) as refusal:
        meeting.answer(dataclasses.replace(handshake, device_id=meeting.bob.device_id))
    assert refusal.value.reason is Reason.OWN_DEVICE


def test_prekeys_of_another_device_or_account_answer_nothing(meeting: Meeting) -> None:
    handshake, _ = meeting.start()
    for device, account in [
        (DeviceKeys.generate(), meeting.bob_root.account_id),
        (meeting.bob, meeting.alice_root.account_id),
    ]:
        with pytest.raises(CryptoRefusal) as refusal:
            respond(device, account, meeting.prekeys, None, handshake)
        assert refusal.value.reason is Reason.WRONG_RECIPIENT


def test_a_handshake_is_answered_with_the_prekeys_it_names_only(meeting: Meeting, bob_one_time: OneTimePrekey) -> None:
    with_one_time, _ = meeting.start(bob_one_time)
    without, _ = meeting.start()
    refused: list[tuple[Handshake, OneTimePrekey | None]] = [
        (with_one_time, None),
        (with_one_time, OneTimePrekey.generate(42)),
        (without, bob_one_time),
        (dataclasses.replace(without, record_id=7), None),
    ]
    for handshake, one_time in refused:
        with pytest.raises(CryptoRefusal) as refusal:
            meeting.answer(handshake, one_time)
        assert refusal.value.reason is Reason.UNKNOWN_PREKEY


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_invalid_keys_are_refused_on_both_sides(meeting: Meeting, key: bytes) -> None:
    handshake, _ = meeting.start()
    for changed in (
        dataclasses.replace(handshake, identity_key=key),
        dataclasses.replace(handshake, ephemeral_key=key),
    ):
        with pytest.raises(CryptoRefusal) as refusal:
            meeting.answer(changed)
        assert refusal.value.reason is Reason.BAD_KEY
    with pytest.raises(CryptoRefusal) as refusal:
        initiate(meeting.alice, meeting.alice_root.account_id, meeting.peer, key, None, 1)
    assert refusal.value.reason is Reason.BAD_KEY
    with pytest.raises(CryptoRefusal) as refusal:
        initiate(meeting.alice, meeting.alice_root.account_id, meeting.peer, meeting.bob.identity_public, (1, key), 1)
    assert refusal.value.reason is Reason.BAD_KEY


@pytest.mark.parametrize("number", [-1, 2**32])
def test_a_number_that_is_no_u32_is_refused(meeting: Meeting, bob_one_time: OneTimePrekey, number: int) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        meeting.start(generation=number)
    assert refusal.value.reason is Reason.MALFORMED
    with pytest.raises(CryptoRefusal) as refusal:
        meeting.start(OneTimePrekey(number, bob_one_time.key))
    assert refusal.value.reason is Reason.MALFORMED
