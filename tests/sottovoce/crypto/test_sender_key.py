"""Sender keys: the layout and derivation in the spec, what a receiver refuses, and that a refusal changes nothing."""

import hashlib
import hmac
from collections.abc import Callable, Collection
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from sottovoce.crypto import chain_key, ratchet, sender_key
from sottovoce.crypto import message as layout
from sottovoce.crypto.chain_key import Passed, ReceivingChain
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.message import MAX_CHAIN, Expected
from sottovoce.crypto.primitives import SigningKey
from sottovoce.crypto.sender_key import OwnSenderKey, PeerSenderKey, membership_hash
from sottovoce_wire import labels, padding
from sottovoce_wire.ids import AccountId, DeviceId, GroupId
from tests.random_input import examples

from .members import (
    DEVICE,
    EPOCH,
    GROUP,
    MEMBERS,
    NOW,
    Member,
    Speaker,
    forge,
    hash_of,
    jump,
    make_group,
    numbers,
    statement,
)
from .sides import make_pair, tag_of_the_spec
from .windows import announced

HEAD = 81


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def route_keys(secret: bytes, chain_id: bytes) -> tuple[bytes, bytes]:
    """Header key and tag key, by the formula of the specification (HKDF by hand)."""
    extracted, info = hmac_sha256(bytes(32), secret), labels.label("group route") + chain_id
    first = hmac_sha256(extracted, info + b"\x01")
    return first, hmac_sha256(extracted, first + info + b"\x02")


def refused(reason: Reason, act: Callable[[], object]) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        act()
    assert refusal.value.reason == reason


# --- The formulas -------------------------------------------------------------------------------------------------


def test_the_message_is_the_one_in_the_spec() -> None:
    speaker = Speaker()
    speaker.whisper()
    speaker.send(b"one")
    handed = speaker.key.distribution()
    message = speaker.send(b"hello", EPOCH + 1)
    group, epoch, signing_key, route_secret = handed[:32], handed[32:36], handed[36:68], handed[68:100]
    ck, n, w = handed[100:132], handed[132:136], handed[168:172]
    assert (group, epoch, n, w) == (GROUP, numbers(EPOCH), numbers(1), numbers(1))
    chain_id = hashlib.sha256(labels.label("group chain") + GROUP + DEVICE + signing_key).digest()
    header_key, tag_key = route_keys(route_secret, chain_id)
    assert message[1:9] == tag_of_the_spec(tag_key, 1)
    start, nonce = message[:9], message[9:21]
    header = AESGCM(header_key).decrypt(nonce, message[21:HEAD], start)
    assert header == chain_id + numbers(EPOCH + 1) + n + w
    padded = AESGCM(hmac_sha256(ck, b"\x01")).decrypt(nonce, message[HEAD:], chain_id + message[:HEAD])
    body = padding.unpad(padded)
    signed = statement(EPOCH + 1, 1, 1, nonce, b"hello")
    assert VerifyKey(signing_key).verify(signed, body[:64]) == signed
    assert body[64:] == b"hello"
    assert speaker.key.distribution()[100:132] == hmac_sha256(ck, b"\x02")


def test_the_ephemeral_message_is_the_one_in_the_spec() -> None:
    speaker = Speaker()
    handed = speaker.key.distribution()
    message = speaker.whisper(b"typing")
    chain_id, eck = speaker.key.chain_id, handed[136:168]
    header_key, _ = route_keys(handed[68:100], chain_id)
    header = AESGCM(header_key).decrypt(message[9:21], message[21:HEAD], message[:9])
    assert header == chain_id + numbers(EPOCH, 0, 0)
    padded = AESGCM(hmac_sha256(eck, b"\x01")).decrypt(message[9:21], message[HEAD:], chain_id + message[:HEAD])
    signed = statement(EPOCH, 0, 0, message[9:21], b"typing", is_ephemeral=True)
    assert VerifyKey(handed[36:68]).verify(signed, padding.unpad(padded)[:64]) == signed


def test_the_membership_hash_is_the_one_in_the_spec_whatever_the_order() -> None:
    listed = b"".join(account + bytes([role]) for account, role in MEMBERS)
    expected = hashlib.sha256(labels.label("members") + GROUP + numbers(EPOCH) + listed).digest()
    assert membership_hash(GROUP, EPOCH, MEMBERS) == expected
    assert membership_hash(GROUP, EPOCH, reversed(MEMBERS)) == expected


def test_the_membership_hash_differs_with_each_thing_in_it() -> None:
    changed = [(MEMBERS[0][0], 0), *MEMBERS[1:]]
    other = GroupId(b"h" * 32)
    hashes = {
        membership_hash(GROUP, EPOCH, MEMBERS),
        membership_hash(GROUP, EPOCH + 1, MEMBERS),
        membership_hash(other, EPOCH, MEMBERS),
        membership_hash(GROUP, EPOCH, MEMBERS[1:]),
        membership_hash(GROUP, EPOCH, changed),
    }
    assert len(hashes) == 5


def test_an_account_that_is_a_member_twice_is_refused() -> None:
    twice = [*MEMBERS, (AccountId(b"a" * 32), 0)]
    refused(Reason.BAD_RECORD, lambda: membership_hash(GROUP, EPOCH, twice))


def test_a_group_message_is_as_long_as_a_pairwise_one() -> None:
    pairwise, group = make_pair()[0], Speaker()
    for length in range(0, 151, 10):
        assert len(group.send(bytes(length))) == len(pairwise.send(bytes(length))) == layout.SHORTEST
        assert len(group.whisper(bytes(length))) == layout.SHORTEST


# --- Reading ------------------------------------------------------------------------------------------------------


@examples(25)
@given(contents=st.lists(st.binary(max_size=3000), min_size=1, max_size=10))
def test_what_is_said_is_read(contents: list[bytes]) -> None:
    speaker, member = make_group()
    for content in contents:
        assert member.read(speaker.send(content)).body == content
        opened = member.read(speaker.whisper(content))
        assert (opened.body, opened.is_ephemeral) == (content, True)
    member.check_table()
    assert member.searches == 0


def test_messages_in_reverse_are_all_read_once() -> None:
    speaker, member = make_group()
    messages = [speaker.send(b"%d" % n) for n in range(200)]
    for n in reversed(range(200)):
        assert member.read(messages[n]).body == b"%d" % n
        member.check_table()
    assert (member.skipped, member.searches) == ({}, 1)
    for message in messages:
        member.refuses(message, Reason.ALREADY_USED)


def test_a_message_read_twice_is_refused_and_is_no_sign_of_a_copy() -> None:
    speaker, member = make_group()
    message, whisper = speaker.send(b"once"), speaker.whisper(b"once")
    at = member.find(message), member.find(whisper)
    member.read(message)
    member.read(whisper)
    member.refuses(message, Reason.ALREADY_USED)
    member.refuses(message, Reason.ALREADY_USED, expected=at[0])
    member.refuses(whisper, Reason.ALREADY_USED, expected=at[1])
    # Another message under the used number, as a fellow member can write it.
    jump(speaker, 0)
    member.refuses(forge(speaker, body=bytes(64)), Reason.ALREADY_USED)


def test_the_newest_2000_overtaken_keys_are_kept() -> None:
    speaker, member = make_group()
    messages = [speaker.send() for _ in range(chain_key.MAX_SKIPPED + 12)]
    opened = member.read(messages[-1])
    assert [key.number for key in opened.skipped] == list(range(11, chain_key.MAX_SKIPPED + 11))
    member.check_table()
    member.refuses(messages[10], Reason.ALREADY_USED)
    member.read(messages[11])
    member.check_table()


def test_25000_steps_ahead_are_walked_and_one_more_is_refused() -> None:
    speaker, member = make_group()
    chain = speaker.key._chain
    for _ in range(ratchet.MAX_STEPS):
        chain = chain.after()
    speaker.key._chain = chain
    message = speaker.send(b"far")
    member.refuses(speaker.send(b"farther"), Reason.TOO_FAR_AHEAD)
    assert member.walked == []
    assert member.read(message).body == b"far"
    assert member.walked == [ratchet.MAX_STEPS]


def test_the_caller_is_asked_before_a_walk_and_may_refuse_it() -> None:
    speaker, member = make_group()
    speaker.send()
    speaker.whisper()
    message = speaker.send()

    def spend(steps: int) -> None:
        raise CryptoRefusal(Reason.TOO_FAR_AHEAD, f"{steps}")

    before = member.memory
    for _ in range(2):
        with pytest.raises(CryptoRefusal, match=r": 1$"):
            member.key.decrypt(message, member.find(message), member.log.get, lambda *_: None, spend)
    assert member.memory == before
    assert member.read(message).body == b""
    assert member.walked == [1, 1]


def forge_far(speaker: Speaker, number: int) -> bytes:
    """A forged message with a genuine header and any number, as a fellow member writes it."""
    return seal_under(speaker, b"k" * 32, bytes(64), number)


def test_what_fellow_members_forge_is_walked_once_and_leaves_the_speaker_its_steps() -> None:
    speaker, member = make_group()
    for number in (ratchet.MAX_STEPS, 3_000, ratchet.MAX_STEPS, 24_999, 700, 1):
        member.refuses(forge_far(speaker, number), Reason.NOT_AUTHENTIC)
    assert member.walked == [ratchet.MAX_STEPS]
    lost = [speaker.send(b"%d" % n) for n in range(1_500)]
    assert member.read(lost[-1]).body == b"1499"
    assert member.walked == [ratchet.MAX_STEPS]
    member.check_table()
    assert [member.read(message).body for message in lost[:3]] == [b"0", b"1", b"2"]
    member.refuses(forge_far(speaker, 1_500 + ratchet.MAX_STEPS), Reason.NOT_AUTHENTIC)
    assert sum(member.walked) == 1_500 + ratchet.MAX_STEPS


def test_a_walk_that_was_made_for_a_forger_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker, member = make_group()
    member.refuses(forge_far(speaker, 20_000), Reason.NOT_AUTHENTIC)
    steps: list[int] = []
    walk = ReceivingChain.walk

    def count(chain: ReceivingChain, number: int) -> tuple[ReceivingChain, Collection[Passed]]:
        steps.append(number - chain.number)
        return walk(chain, number)

    monkeypatch.setattr(ReceivingChain, "walk", count)
    for number in (20_000, 19_999, 10_000, 256, 255):
        steps.clear()
        member.refuses(forge_far(speaker, number), Reason.NOT_AUTHENTIC)
        assert sum(steps) < 256
    assert steps == [255], "walks are counted"


def test_places_of_a_walk_are_few_however_it_was_made() -> None:
    speaker, member = make_group()
    for number in range(1, 2_000):
        member.refuses(forge_far(speaker, number), Reason.NOT_AUTHENTIC)
    assert member.walked == [1] * 1_999
    assert len(member.key._places) < 20
    jump_to = [0, *(place.number for place in member.key._places)]
    assert all(0 < second - first <= 256 for first, second in pairwise(jump_to))


def test_places_that_the_chain_has_passed_are_forgotten() -> None:
    """They would give the keys of messages that were read."""
    speaker, member = make_group()
    member.refuses(forge_far(speaker, 3), Reason.NOT_AUTHENTIC)
    messages = [speaker.send() for _ in range(600)]
    for message in messages[:4]:
        member.read(message)
    assert member.key._places == []
    member.refuses(forge_far(speaker, 1_000), Reason.NOT_AUTHENTIC)
    member.read(messages[-1])
    assert [place.number for place in member.key._places] == [772, 1_000]
    assert member.read(speaker.send(b"next")).body == b"next"


def test_a_w_that_a_fellow_member_wrote_is_asked_nothing_for() -> None:
    speaker, member = make_group()
    member.refuses(forge(speaker, body=bytes(70), whispers=20_000), Reason.BAD_SIGNATURE)
    assert member.walked == []


def test_a_chain_ends_after_as_many_messages_as_it_may_have() -> None:
    speaker = Speaker()
    jump(speaker, MAX_CHAIN - 1)
    member = Member(speaker)
    assert member.read(speaker.send(b"last")).body == b"last"
    member.check_table()
    refused(Reason.CHAIN_ENDED, speaker.send)
    beyond = forge(speaker)
    assert member.key.recognise(beyond) is None
    member.refuses(beyond, Reason.CHAIN_ENDED, expected=Expected(1, MAX_CHAIN))


def test_an_ephemeral_chain_ends_after_25000_messages() -> None:
    speaker = Speaker()
    jump(speaker, sender_key.MAX_WHISPERS - 1, is_ephemeral=True)
    member = Member(speaker)
    assert member.read(speaker.whisper(b"last")).body == b"last"
    refused(Reason.CHAIN_ENDED, speaker.whisper)
    beyond = forge(speaker, is_ephemeral=True)
    assert member.key.recognise(beyond) is None
    member.refuses(beyond, Reason.CHAIN_ENDED)
    member.refuses(forge(speaker, whispers=sender_key.MAX_WHISPERS + 1), Reason.CHAIN_ENDED)


# --- Handing the chain over ---------------------------------------------------------------------------------------


def test_a_newcomer_reads_what_follows_and_nothing_before() -> None:
    speaker, member = make_group()
    before = [speaker.send(b"%d" % n) for n in range(5)]
    whispered = speaker.whisper(b"before")
    newcomer = Member(speaker)
    after = speaker.send(b"after")
    assert newcomer.read(after).body == b"after"
    newcomer.check_table()
    for message in before:
        newcomer.refuses(message, Reason.ALREADY_USED)
    newcomer.refuses(whispered, Reason.ALREADY_USED)
    assert [member.read(message).body for message in (*before, after)] == [b"0", b"1", b"2", b"3", b"4", b"after"]


def test_no_earlier_key_can_be_had_from_what_is_handed_over() -> None:
    speaker = Speaker()
    earlier = [speaker.key._chain.key, speaker.key._whispers.key]
    speaker.send()
    speaker.whisper()
    assert not any(key in speaker.key.distribution() for key in earlier)


def test_every_chain_is_fresh_in_all_its_keys() -> None:
    chains = [Speaker().key.distribution() for _ in range(2)]
    keys = [chain[at : at + 32] for chain in chains for at in (36, 68, 100, 136)]
    assert len(set(keys)) == 8


def test_a_distribution_of_another_length_is_refused() -> None:
    handed = Speaker().key.distribution()
    for length in range(len(handed)):
        refused(Reason.MALFORMED, lambda cut=handed[:length]: PeerSenderKey.accept(cut, DEVICE))  # type: ignore[misc]
    refused(Reason.MALFORMED, lambda: PeerSenderKey.accept(handed + b"\x00", DEVICE))


@pytest.mark.parametrize(
    "signing_key",
    [bytes(32), b"\x01" + bytes(31), b"\xff" * 32, (2**255 - 19).to_bytes(32, "little")],
    ids=["order 4", "order 1", "not canonical", "zero, not canonical"],
)
def test_a_signing_key_that_is_not_valid_is_refused(signing_key: bytes) -> None:
    handed = Speaker().key.distribution()
    refused(Reason.BAD_KEY, lambda: PeerSenderKey.accept(handed[:36] + signing_key + handed[68:], DEVICE))


@pytest.mark.parametrize(("at", "limit"), [(132, MAX_CHAIN), (168, sender_key.MAX_WHISPERS)])
def test_a_distribution_beyond_the_end_of_a_chain_is_refused(at: int, limit: int) -> None:
    handed = Speaker().key.distribution()
    PeerSenderKey.accept(handed[:at] + numbers(limit) + handed[at + 4 :], DEVICE)
    refused(Reason.MALFORMED, lambda: PeerSenderKey.accept(handed[:at] + numbers(limit + 1) + handed[at + 4 :], DEVICE))


def test_a_chain_says_when_it_is_worn() -> None:
    speaker = Speaker()
    assert not speaker.key.is_worn(NOW + sender_key.WORN_AGE - 1)
    assert speaker.key.is_worn(NOW + sender_key.WORN_AGE)
    for number, is_ephemeral in ((sender_key.WORN_MESSAGES, False), (sender_key.WORN_WHISPERS, True)):
        speaker = Speaker()
        jump(speaker, number - 1, is_ephemeral=is_ephemeral)
        assert not speaker.key.is_worn(NOW)
        jump(speaker, number, is_ephemeral=is_ephemeral)
        assert speaker.key.is_worn(NOW)
        speaker.stored = speaker.key.pack()
        speaker.restart()
        assert speaker.key.is_worn(NOW)


# --- A member that lies -------------------------------------------------------------------------------------------


def test_what_the_forger_writes_is_read_if_it_tells_the_truth() -> None:
    for is_ephemeral in (False, True):
        speaker, member = make_group()
        assert member.read(forge(speaker, is_ephemeral=is_ephemeral)).body == b"content"


def test_a_member_with_all_keys_but_the_signing_key_writes_nothing() -> None:
    speaker, member = make_group()
    own = SigningKey.generate()
    for is_ephemeral in (False, True):
        member.refuses(forge(speaker, signing_key=own, is_ephemeral=is_ephemeral), Reason.BAD_SIGNATURE)
        member.refuses(forge(speaker, body=bytes(64) + b"content", is_ephemeral=is_ephemeral), Reason.BAD_SIGNATURE)


def test_a_forged_message_uses_up_no_key() -> None:
    speaker, member = make_group()
    overtaken, newest = speaker.send(b"overtaken"), speaker.send(b"newest")
    member.read(newest)
    kept = member.skipped[1, 0]
    member.refuses(seal_under(speaker, kept.key, bytes(64) + b"forged", 0), Reason.BAD_SIGNATURE)
    assert member.read(overtaken).body == b"overtaken"


def seal_under(
    speaker: Speaker, key: bytes, body: bytes, number: int, *, whispers: int = 0, nonce: bytes = b"n" * 12
) -> bytes:
    """A message with this body under a message key that a fellow member holds."""
    header = speaker.key.chain_id + numbers(EPOCH, number, whispers)
    route = speaker.key._route
    return route.seal(route.tag(number), header, key, speaker.key.chain_id, padding.pad(body), nonce)


def test_a_fellow_member_moves_no_message_to_another_number_or_nonce() -> None:
    speaker, member = make_group()
    keys, chain = [], speaker.key._chain
    for _ in range(3):
        keys.append(chain.message_key())
        chain = chain.after()
    genuine = speaker.send(b"yes")
    opened = layout.open_body(genuine, keys[0], speaker.key.chain_id)
    nonce = genuine[layout.NONCE]
    member.refuses(seal_under(speaker, keys[0], opened, 0), Reason.BAD_SIGNATURE)
    member.refuses(seal_under(speaker, keys[1], opened, 1, nonce=nonce), Reason.BAD_SIGNATURE)
    member.refuses(seal_under(speaker, keys[2], opened, 2), Reason.BAD_SIGNATURE)
    assert member.read(seal_under(speaker, keys[0], opened, 0, nonce=nonce)).body == b"yes"


def test_a_fellow_member_moves_nobodys_ephemeral_window() -> None:
    speaker, member = make_group()
    key = speaker.key._chain.message_key()
    genuine = speaker.send(b"yes")
    opened = layout.open_body(genuine, key, speaker.key.chain_id)
    nonce = genuine[layout.NONCE]
    member.refuses(seal_under(speaker, key, opened, 0, whispers=20_000, nonce=nonce), Reason.BAD_SIGNATURE)
    assert member.read(speaker.whisper(b"typing")).body == b"typing"


def test_a_fellow_member_makes_no_ephemeral_message_into_one_that_is_kept() -> None:
    speaker, member = make_group()
    key = speaker.key._whispers.message_key()
    whisper = speaker.whisper(b"typing")
    opened = layout.open_body(whisper, key, speaker.key.chain_id)
    # The same number, nonce and w: nothing but the kind tells the two statements apart.
    moved = seal_under(speaker, speaker.key._chain.message_key(), opened, 0, nonce=whisper[layout.NONCE])
    member.refuses(moved, Reason.BAD_SIGNATURE)


@pytest.mark.parametrize(
    "other",
    [
        {"group": b"h" * 32},
        {"device": b"another's device"},
        {"membership": bytes(32)},
        {"membership": hash_of(EPOCH + 1)},
        {"is_ephemeral": True},
    ],
    ids=["group", "device", "members", "members of the next epoch", "kind"],
)
def test_a_signature_over_anything_else_is_refused(other: dict[str, bytes]) -> None:
    speaker, member = make_group()
    signed = statement(EPOCH, 0, 0, b"n" * 12, b"content", **other)  # type: ignore[arg-type]
    member.refuses(forge(speaker, signed=signed), Reason.BAD_SIGNATURE)


@pytest.mark.parametrize(
    "values",
    [(EPOCH + 1, 0, 0, b"n" * 12), (EPOCH, 1, 0, b"n" * 12), (EPOCH, 0, 1, b"n" * 12), (EPOCH, 0, 0, b"m" * 12)],
    ids=["epoch", "number", "whispers", "nonce"],
)
def test_a_signature_over_another_header_is_refused(values: tuple[int, int, int, bytes]) -> None:
    speaker, member = make_group()
    member.refuses(forge(speaker, signed=statement(*values, b"content")), Reason.BAD_SIGNATURE)


def test_another_members_words_are_refused_under_ones_own_name() -> None:
    """A member hands out another one's signing key as its own, and sends that one's messages on."""
    speaker = Speaker()
    thief = Member(speaker, device_id=DeviceId(b"another's device"))
    thief.refuses(speaker.send(b"words"), Reason.NOT_AUTHENTIC, expected=Expected(1, 0))
    thief.refuses(forge(speaker, chain_id=thief.key.chain_id), Reason.NOT_AUTHENTIC, expected=Expected(1, 1))


def test_a_fellow_member_who_hands_out_anothers_route_as_its_own_takes_none_of_its_messages() -> None:
    """Everything of the speaker's chain, with a signing key and a device of the thief's own."""
    speaker, member = make_group()
    handed = speaker.key.distribution()
    own = handed[:36] + SigningKey.generate().public + handed[68:]
    thief = PeerSenderKey.accept(own, DeviceId(b"another's device"))
    assert not set(announced(thief.expected())) & set(member.table)
    message = speaker.send(b"still heard")
    assert thief.recognise(message) is None
    assert member.read(message).body == b"still heard"


def test_members_who_are_told_of_other_members_refuse_the_message() -> None:
    speaker, member = make_group()
    message = speaker.send(b"among us")
    member.log[EPOCH] = membership_hash(GROUP, EPOCH, MEMBERS[1:])
    member.refuses(message, Reason.BAD_SIGNATURE)
    member.log[EPOCH] = hash_of(EPOCH)
    assert member.read(message).body == b"among us"


def test_an_epoch_that_is_not_known_is_refused_until_it_is() -> None:
    speaker, member = make_group()
    message = speaker.send(b"later", EPOCH + 1)
    known = member.log.pop(EPOCH + 1)
    member.refuses(message, Reason.WRONG_EPOCH)
    member.log[EPOCH + 1] = known
    assert member.read(message).body == b"later"


def test_an_epoch_before_the_chain_was_begun_is_refused_by_both_sides() -> None:
    speaker, member = make_group()
    refused(Reason.WRONG_EPOCH, lambda: speaker.send(b"", EPOCH - 1))
    for is_ephemeral in (False, True):
        member.refuses(forge(speaker, epoch=EPOCH - 1, is_ephemeral=is_ephemeral), Reason.WRONG_EPOCH)


def test_a_refused_epoch_uses_up_no_number_of_the_senders() -> None:
    speaker = Speaker()
    before = speaker.key.pack(), speaker.key.distribution()
    refused(Reason.WRONG_EPOCH, lambda: speaker.key.encrypt(b"", EPOCH - 1, hash_of(EPOCH - 1)))
    refused(Reason.WRONG_EPOCH, lambda: speaker.key.encrypt_ephemeral(b"", EPOCH - 1, hash_of(EPOCH - 1)))
    assert (speaker.key.pack(), speaker.key.distribution()) == before


def test_a_header_of_another_chain_or_number_is_refused() -> None:
    speaker, member = make_group()
    member.refuses(forge(speaker, chain_id=bytes(32)), Reason.MALFORMED)
    member.refuses(forge(speaker, number=1), Reason.MALFORMED)
    member.refuses(forge(speaker, tag_number=1), Reason.MALFORMED)
    member.refuses(forge(speaker, whispers=1, is_ephemeral=True), Reason.MALFORMED)


def test_a_message_of_another_chain_is_not_recognised() -> None:
    speaker, member = make_group()
    assert member.key.recognise(Speaker().send()) is None
    assert member.key.recognise(forge(speaker, tag_number=1)) is None
    assert member.key.recognise(forge(speaker, chain_id=bytes(32))) is None
    member.refuses(Speaker().send(), Reason.NOT_AUTHENTIC, expected=Expected(1, 0))


def test_a_body_without_a_signature_or_its_padding_is_refused() -> None:
    speaker, member = make_group()
    for length in (0, 1, 63):
        member.refuses(forge(speaker, body=bytes(length)), Reason.BAD_SIGNATURE)
    member.refuses(forge(speaker, padded=bytes(256)), Reason.MALFORMED)


@pytest.mark.parametrize("is_ephemeral", [False, True])
def test_a_bit_flipped_in_any_byte_is_refused(is_ephemeral: bool) -> None:
    speaker, member = make_group()
    message = speaker.whisper(b"hello") if is_ephemeral else speaker.send(b"hello")
    expected = member.find(message)
    for at in range(len(message)):
        damaged = bytearray(message)
        damaged[at] ^= 1 << at % 8
        member.refuses(bytes(damaged), Reason.NOT_AUTHENTIC, Reason.MALFORMED, expected=expected)
    assert member.read(message).body == b"hello"


def test_a_message_cut_short_or_with_a_tail_is_refused() -> None:
    speaker, member = make_group()
    message = speaker.send(b"hello")
    expected = member.find(message)
    for length in range(len(message)):
        member.refuses(message[:length], Reason.NOT_AUTHENTIC, Reason.MALFORMED, expected=expected)
    member.refuses(message + b"\x00", Reason.NOT_AUTHENTIC, expected=expected)


def test_an_overtaken_message_that_was_changed_is_refused() -> None:
    speaker, member = make_group()
    overtaken = speaker.send(b"overtaken")
    member.read(speaker.send())
    for at in (0, 8, 20, 80, 100, len(overtaken) - 1):
        damaged = bytearray(overtaken)
        damaged[at] ^= 1
        member.refuses(bytes(damaged), Reason.NOT_AUTHENTIC, Reason.MALFORMED, expected=Expected(1, 0))
    assert member.read(overtaken).used == Expected(1, 0)


# --- Ephemeral messages -------------------------------------------------------------------------------------------


def test_ephemeral_messages_leave_no_holes_and_no_keys() -> None:
    speaker, member = make_group()
    whispers = [speaker.whisper(b"%d" % n) for n in range(8)]
    assert member.read(whispers[7]).body == b"7"
    assert member.skipped == {}
    assert member.read(speaker.send(b"next")).body == b"next"
    member.refuses(whispers[6], Reason.ALREADY_USED)
    member.check_table()


def test_an_ephemeral_message_beyond_the_window_is_refused() -> None:
    speaker, member = make_group()
    for _ in range(8):
        speaker.whisper()
    member.refuses(speaker.whisper(), Reason.TOO_FAR_AHEAD)


def test_who_missed_many_ephemeral_messages_reads_them_again_after_the_next_message() -> None:
    speaker, member = make_group()
    for _ in range(500):
        speaker.whisper()
    assert member.read(speaker.send(b"back")).body == b"back"
    assert member.walked == [500]
    member.check_table()
    assert member.read(speaker.whisper(b"typing")).body == b"typing"
    assert member.searches == 0


def test_an_overtaken_message_does_not_move_the_ephemeral_window_back() -> None:
    speaker, member = make_group()
    overtaken = speaker.send()
    for _ in range(20):
        speaker.whisper()
    member.read(speaker.send())
    member.read(overtaken)
    assert member.read(speaker.whisper(b"typing")).body == b"typing"
    late = speaker.send()
    member.read(speaker.whisper())
    member.read(late)
    member.check_table()


def test_a_message_that_ephemeral_ones_overtook_leaves_their_window_where_it_is() -> None:
    speaker, member = make_group()
    lost, overtaken = speaker.send(), speaker.send()
    for _ in range(2):
        member.read(speaker.whisper())
    member.read(overtaken)  # one that was written before is missing, and its w is behind
    member.check_table()
    assert member.read(speaker.whisper(b"typing")).body == b"typing"
    member.read(lost)
    member.check_table()


def test_no_ephemeral_number_is_used_twice_whenever_the_speaker_stops() -> None:
    for used in range(20):
        speaker, tags = Speaker(), set()
        for _ in range(used):
            tags.add(layout.routing_tag(speaker.whisper()))
        speaker.restart()
        tags.add(layout.routing_tag(speaker.whisper()))
        assert len(tags) == used + 1


# --- The stored form ----------------------------------------------------------------------------------------------


def test_a_speaker_goes_on_after_a_restart() -> None:
    speaker, member = make_group()
    for n in range(20):
        speaker.restart()
        member.restart()
        assert member.read(speaker.send(b"%d" % n)).body == b"%d" % n
        member.check_table()


@pytest.mark.parametrize(
    ("packed", "unpack"),
    [(Speaker().stored, OwnSenderKey.unpack), (make_group()[1].key.pack(), PeerSenderKey.unpack)],
    ids=["own", "peer"],
)
def test_a_packed_state_of_another_length_or_version_is_refused(
    packed: bytes, unpack: Callable[[bytes], object]
) -> None:
    for wrong in (b"", packed[:-1], packed + b"\x00", b"\x00" + packed[1:], b"\x02" + packed[1:]):
        refused(Reason.BAD_RECORD, lambda wrong=wrong: unpack(wrong))  # type: ignore[misc]


def test_a_copy_put_back_uses_no_key_with_a_nonce_twice() -> None:
    speaker = Speaker()
    copy = speaker.stored
    first = speaker.send(b"one")
    speaker.stored = copy
    speaker.restart()
    second = speaker.send(b"two")
    assert layout.routing_tag(first) == layout.routing_tag(second)
    assert first[layout.NONCE] != second[layout.NONCE]


def test_nothing_of_a_sender_key_is_shown() -> None:
    speaker, member = make_group()
    secrets = [speaker.key._chain.key, speaker.key._signing_key.seed, speaker.key._route.keys]
    secrets.append(speaker.key._route_secret)
    for shown in (repr(speaker.key), repr(member.key), repr(member.key._at), str([member.key._at])):
        assert not any(secret.hex() in shown or repr(secret)[2:-1] in shown for secret in secrets)
        assert "b'" not in shown
        assert 'b"' not in shown
