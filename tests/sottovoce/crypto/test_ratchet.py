"""The Double Ratchet: the layout and derivation in the spec, its limits, and that a refusal changes nothing."""

import hmac
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.crypto import chain_key, ratchet
from sottovoce.crypto.agreement import SessionKeys
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.prekeys import OwnPrekeys
from sottovoce.crypto.primitives import OwnExchangeKey, PeerExchangeKey
from sottovoce.crypto.ratchet import Decrypted, Ratchet, message_session_id
from sottovoce_wire import labels, padding

Pair = tuple[Ratchet, Ratchet]
HEAD = 1 + 32 + 32 + 4 + 4 + 12


class Inbox:
    """A side of a session with its store of skipped keys."""

    def __init__(self, side: Ratchet) -> None:
        self.side = side
        self.skipped: dict[tuple[bytes, int], bytes] = {}

    def read(self, message: bytes) -> Decrypted:
        opened = self.side.decrypt(message, lambda key, n: self.skipped.get((key, n)), lambda _: None)
        self.skipped.update({(each.ratchet_key, each.n): each.key for each in opened.skipped})
        if opened.used is not None:
            del self.skipped[opened.used]
        return opened

    def refuses(self, message: bytes, *reasons: Reason) -> None:
        """The message is refused for one of the reasons, and nothing has changed."""
        before = self.side.pack()
        with pytest.raises(CryptoRefusal) as refusal:
            self.read(message)
        assert refusal.value.reason in reasons
        assert self.side.pack() == before


def talk(pair: Pair) -> tuple[Inbox, Inbox]:
    """Both sides after a message each way."""
    alice, bob = Inbox(pair[0]), Inbox(pair[1])
    bob.read(alice.side.encrypt(b"hello"))
    alice.read(bob.side.encrypt(b"hello yourself"))
    return alice, bob


def test_messages_go_both_ways(pair: Pair) -> None:
    alice, bob = talk(pair)
    for turn in range(5):
        assert bob.read(alice.side.encrypt(b"ping %d" % turn)).body == b"ping %d" % turn
        assert alice.read(bob.side.encrypt(b"")).body == b""


def test_the_first_message_is_the_one_in_the_spec(session_keys: SessionKeys, bob_prekeys: OwnPrekeys) -> None:
    message = Ratchet.initiator(session_keys, bob_prekeys.signed_prekey.public).encrypt(b"hello")
    head, ratchet_key, nonce = message[:HEAD], message[33:65], message[73:85]
    assert head == b"\x03" + session_keys.session_id + ratchet_key + bytes(4) + bytes(4) + nonce
    secret = bob_prekeys.signed_prekey.exchange(PeerExchangeKey(ratchet_key))
    extracted = hmac.digest(session_keys.root_key, secret, "sha256")
    info = labels.RATCHET_ROOT + bytes(4)
    first = hmac.digest(extracted, info + b"\x01", "sha256")
    chain = hmac.digest(extracted, first + info + b"\x02", "sha256")
    message_key = hmac.digest(chain, b"\x01", "sha256")
    body = AESGCM(message_key).decrypt(nonce, message[HEAD:], session_keys.session_id + head)
    assert body == padding.pad(b"hello")
    assert len(message) == HEAD + 256 + 16


def test_the_second_message_uses_the_next_chain_key(session_keys: SessionKeys, bob_prekeys: OwnPrekeys) -> None:
    alice = Ratchet.initiator(session_keys, bob_prekeys.signed_prekey.public)
    alice.encrypt(b"first")
    packed = alice.pack()
    chain = packed[102:134]
    message = alice.encrypt(b"second")
    assert message[69:73] == (1).to_bytes(4, "big")
    body = AESGCM(hmac.digest(chain, b"\x01", "sha256")).decrypt(
        message[73:85], message[HEAD:], session_keys.session_id + message[:HEAD]
    )
    assert body == padding.pad(b"second")
    assert alice.pack()[102:134] == hmac.digest(chain, b"\x02", "sha256")


def test_a_message_names_its_session(pair: Pair) -> None:
    assert message_session_id(pair[0].encrypt(b"")) == pair[0].session_id


def test_the_same_body_never_looks_the_same(pair: Pair, session_keys: SessionKeys, bob_prekeys: OwnPrekeys) -> None:
    copy = Ratchet.unpack(pair[0].pack())
    first, second = pair[0].encrypt(b"body"), pair[0].encrypt(b"body")
    assert first[HEAD:] != second[HEAD:]
    assert copy.encrypt(b"body") != first


def test_a_restored_copy_reuses_a_key_but_no_nonce(pair: Pair) -> None:
    alice, _ = talk(pair)
    alice.side.encrypt(b"begin the chain")
    copy = Ratchet.unpack(alice.side.pack())
    first, second = alice.side.encrypt(b"body"), copy.encrypt(b"body")
    assert first[:73] == second[:73]
    assert first[73:85] != second[73:85]
    assert first[HEAD:] != second[HEAD:]


def test_the_responder_sends_nothing_before_it_has_read(pair: Pair) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        pair[1].encrypt(b"")
    assert refusal.value.reason is Reason.NOTHING_RECEIVED


def test_the_sending_half_waits_for_the_next_message(pair: Pair) -> None:
    alice, bob = talk(pair)
    before = alice.side.pack()
    bob_key = bob.side.encrypt(b"more")[33:65]
    assert alice.side.pack() == before
    first, second = alice.side.encrypt(b"a"), alice.side.encrypt(b"b")
    assert first[33:65] == second[33:65] != bob_key
    assert first[65:69] == (1).to_bytes(4, "big")


def test_messages_in_any_order_are_read_once(pair: Pair) -> None:
    alice, bob = talk(pair)
    messages = [alice.side.encrypt(b"%d" % n) for n in range(20)]
    alice.read(bob.side.encrypt(b"turn"))
    messages += [alice.side.encrypt(b"%d" % n) for n in range(20, 40)]
    for n in reversed(range(40)):
        assert bob.read(messages[n]).body == b"%d" % n
    assert bob.skipped == {}
    for message in messages:
        bob.refuses(message, Reason.ALREADY_USED, Reason.NOT_AUTHENTIC)


def test_a_chain_that_ended_leaves_its_missing_keys(pair: Pair) -> None:
    alice, bob = talk(pair)
    lost = [alice.side.encrypt(b"lost %d" % n) for n in range(3)]
    alice.read(bob.side.encrypt(b"turn"))
    opened = bob.read(alice.side.encrypt(b"next chain"))
    assert [(each.ratchet_key, each.n) for each in opened.skipped] == [(lost[0][33:65], n) for n in range(3)]
    late = bob.read(lost[1])
    assert (late.body, late.skipped, late.used) == (b"lost 1", (), (lost[1][33:65], 1))


def test_a_late_message_leaves_the_state_alone(pair: Pair) -> None:
    alice, bob = talk(pair)
    late, early = alice.side.encrypt(b"late"), alice.side.encrypt(b"early")
    bob.read(early)
    before = bob.side.pack()
    bob.read(late)
    assert bob.side.pack() == before


def test_a_replay_is_already_used(pair: Pair) -> None:
    alice, bob = talk(pair)
    message = alice.side.encrypt(b"once")
    bob.read(message)
    bob.refuses(message, Reason.ALREADY_USED)


def test_every_changed_bit_of_the_head_and_any_of_the_body_is_refused(pair: Pair) -> None:
    alice, bob = talk(pair)
    message = alice.side.encrypt(b"body")
    for place in (*range(HEAD), HEAD, HEAD + 100, len(message) - 1):
        for bit in (0x01, 0x80):
            changed = message[:place] + bytes([message[place] ^ bit]) + message[place + 1 :]
            bob.refuses(
                changed,
                Reason.NOT_AUTHENTIC,
                Reason.MALFORMED,
                Reason.TOO_FAR_AHEAD,
                Reason.CHAIN_ENDED,
                Reason.ALREADY_USED,
                Reason.BAD_KEY,
            )
    assert bob.read(message).body == b"body"


def test_a_message_cut_short_or_with_a_tail_is_refused(pair: Pair) -> None:
    alice, bob = talk(pair)
    message = alice.side.encrypt(b"body")
    for length in range(len(message)):
        bob.refuses(message[:length], Reason.MALFORMED)
    bob.refuses(message + b"\x00", Reason.NOT_AUTHENTIC)
    assert bob.read(message).body == b"body"


def test_a_message_of_another_kind_is_refused(pair: Pair) -> None:
    message = pair[0].encrypt(b"body")
    for kind in (0, 1, 2, 4, 255):
        with pytest.raises(CryptoRefusal) as refusal:
            message_session_id(bytes([kind]) + message[1:])
        assert refusal.value.reason is Reason.MALFORMED


def test_a_message_of_another_session_is_refused(pair: Pair, bob_prekeys: OwnPrekeys) -> None:
    other = SessionKeys(b"o" * 32, b"r" * 32, *(bytes(32),) * 4)
    message = Ratchet.initiator(other, bob_prekeys.signed_prekey.public).encrypt(b"")
    Inbox(pair[1]).refuses(message, Reason.NOT_AUTHENTIC)
    asked: list[int] = []
    with pytest.raises(CryptoRefusal):
        pair[1].decrypt(message, lambda key, n: asked.append(n), lambda _: None)
    assert asked == []


def test_a_low_order_ratchet_key_is_refused(pair: Pair) -> None:
    alice, bob = talk(pair)
    message = alice.side.encrypt(b"")
    bob.refuses(message[:33] + bytes(32) + message[65:], Reason.BAD_KEY)
    with pytest.raises(CryptoRefusal) as refusal:
        Ratchet.initiator(SessionKeys(*(bytes(32),) * 6), bytes(32))
    assert refusal.value.reason is Reason.BAD_KEY


def test_the_initiator_reads_nothing_before_it_has_sent(pair: Pair, session_keys: SessionKeys) -> None:
    forged = b"\x03" + session_keys.session_id + OwnExchangeKey.generate().public + bytes(8 + 12 + 256 + 16)
    Inbox(pair[0]).refuses(forged, Reason.NOT_AUTHENTIC)


def test_a_new_chain_that_answers_nothing_is_refused(pair: Pair) -> None:
    alice, bob = talk(pair)
    bob.read(alice.side.encrypt(b"newest"))
    message = alice.side.encrypt(b"")
    bob.refuses(message[:33] + OwnExchangeKey.generate().public + message[65:], Reason.NOT_AUTHENTIC)


def test_an_impossible_length_of_the_chain_before_is_refused(pair: Pair, session_keys: SessionKeys) -> None:
    first = pair[0].encrypt(b"")
    Inbox(pair[1]).refuses(first[:65] + (1).to_bytes(4, "big") + first[69:], Reason.MALFORMED)
    alice, bob = talk(pair)
    alice.read(bob.side.encrypt(b"turn"))
    message = alice.side.encrypt(b"")
    bob.refuses(message[:65] + bytes(4) + message[69:], Reason.MALFORMED)
    assert bob.read(message).body == b""


def test_a_message_with_no_padding_mark_is_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = talk(pair)
    monkeypatch.setattr(padding, "pad", lambda body: bytes(256))
    message = alice.side.encrypt(b"")
    bob.refuses(message, Reason.MALFORMED)


# Limits


def send_and_lose(side: Ratchet, count: int) -> None:
    for _ in range(count):
        side.encrypt(b"")


@pytest.mark.parametrize("known_chain", [False, True])
def test_25000_steps_ahead_is_read_and_leaves_the_newest_2000_keys_and_one_more_is_refused(
    pair: Pair, known_chain: bool
) -> None:
    alice, bob = talk(pair)
    first = alice.side.encrypt(b"")
    if known_chain:
        bob.read(first)
    send_and_lose(alice.side, ratchet.MAX_STEPS - 1 + known_chain)
    far = alice.side.encrypt(b"far")
    bob.refuses(alice.side.encrypt(b"too far"), Reason.TOO_FAR_AHEAD)
    opened = bob.read(far)
    assert opened.body == b"far"
    end = ratchet.MAX_STEPS + known_chain
    expected = [(first[33:65], n) for n in range(end - chain_key.MAX_SKIPPED, end)]
    assert [(each.ratchet_key, each.n) for each in opened.skipped] == expected


def walked(chain: chain_key.ReceivingChain, number: int) -> NoReturn:
    raise AssertionError("the chain was walked")


def test_a_forged_length_of_the_chain_before_is_refused_before_it_is_walked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = talk(pair)
    bob.read(alice.side.encrypt(b""))
    alice.read(bob.side.encrypt(b"turn"))
    message = alice.side.encrypt(b"")
    forged = message[:65] + chain_key.MAX_CHAIN.to_bytes(4, "big") + message[69:]
    monkeypatch.setattr(chain_key.ReceivingChain, "walk", walked)
    bob.refuses(forged, Reason.TOO_FAR_AHEAD)


def test_the_steps_of_both_chains_count_together(pair: Pair) -> None:
    alice, bob = talk(pair)
    bob.read(alice.side.encrypt(b""))
    send_and_lose(alice.side, 13_000)
    alice.read(bob.side.encrypt(b"turn"))
    send_and_lose(alice.side, 12_000)
    last_readable = alice.side.encrypt(b"last")
    bob.refuses(alice.side.encrypt(b"too far"), Reason.TOO_FAR_AHEAD)
    opened = bob.read(last_readable)
    assert opened.body == b"last"
    assert {each.ratchet_key for each in opened.skipped} == {last_readable[33:65]}


def test_the_newest_skipped_keys_come_from_both_chains(pair: Pair) -> None:
    alice, bob = talk(pair)
    bob.read(alice.side.encrypt(b""))
    send_and_lose(alice.side, 1_500)
    alice.read(bob.side.encrypt(b"turn"))
    send_and_lose(alice.side, 1_500)
    opened = bob.read(alice.side.encrypt(b"last"))
    assert [each.n for each in opened.skipped] == [*range(1_001, 1_501), *range(1_500)]


def at_the_end_of_its_chain(side: Ratchet) -> Ratchet:
    """The side with its sending chain set to the last number."""
    packed = bytearray(side.pack())
    packed[134:138] = (chain_key.MAX_CHAIN - 1).to_bytes(4, "big")
    return Ratchet.unpack(bytes(packed))


def test_a_chain_ends_after_2_to_the_20_messages(pair: Pair) -> None:
    pair[0].encrypt(b"")
    alice = at_the_end_of_its_chain(pair[0])
    alice.encrypt(b"the last")
    with pytest.raises(CryptoRefusal) as refusal:
        alice.encrypt(b"one more")
    assert refusal.value.reason is Reason.CHAIN_ENDED


@pytest.mark.parametrize("place", [65, 69])
def test_a_number_beyond_the_end_of_a_chain_is_refused(pair: Pair, place: int) -> None:
    message = pair[0].encrypt(b"")
    number = (chain_key.MAX_CHAIN + 1).to_bytes(4, "big")
    Inbox(pair[1]).refuses(message[:place] + number + message[place + 4 :], Reason.CHAIN_ENDED)


# The packed state


def states(pair: Pair) -> list[Ratchet]:
    """A session in each of its states: both at the start, both after the first message, and answered."""
    alice, bob = pair
    fresh = [Ratchet.unpack(alice.pack()), Ratchet.unpack(bob.pack())]
    bob.decrypt(alice.encrypt(b""), lambda key, n: None, lambda _: None)
    after = [Ratchet.unpack(alice.pack()), Ratchet.unpack(bob.pack())]
    alice.decrypt(bob.encrypt(b""), lambda key, n: None, lambda _: None)
    return [*fresh, *after, alice, bob]


def test_every_state_comes_back_from_the_store(pair: Pair) -> None:
    lengths = set()
    for side in states(pair):
        packed = side.pack()
        assert Ratchet.unpack(packed).pack() == packed
        lengths.add(len(packed))
    assert (min(lengths), max(lengths)) == (99, 207)


def test_a_session_goes_on_after_a_restart(pair: Pair) -> None:
    alice, bob = talk(pair)
    for turn in range(4):
        alice.side, bob.side = Ratchet.unpack(alice.side.pack()), Ratchet.unpack(bob.side.pack())
        assert bob.read(alice.side.encrypt(b"%d" % turn)).body == b"%d" % turn
        alice.side, bob.side = Ratchet.unpack(alice.side.pack()), Ratchet.unpack(bob.side.pack())
        alice.read(bob.side.encrypt(b""))


def test_a_packed_state_cut_short_or_with_a_tail_is_refused(pair: Pair) -> None:
    for side in states(pair):
        packed = side.pack()
        for damaged in (*(packed[:length] for length in range(len(packed))), packed + b"\x00"):
            with pytest.raises(CryptoRefusal) as refusal:
                Ratchet.unpack(damaged)
            assert refusal.value.reason is Reason.BAD_RECORD


def test_a_packed_state_that_is_none_is_refused(pair: Pair) -> None:
    pair[1].decrypt(pair[0].encrypt(b""), lambda key, n: None, lambda _: None)
    packed = pair[1].pack()
    for place in (0, 65, 102):
        for value in (0, 9):
            with pytest.raises(CryptoRefusal) as refusal:
                Ratchet.unpack(packed[:place] + bytes([value]) + packed[place + 1 :])
            assert refusal.value.reason is Reason.BAD_RECORD


@given(data=st.binary(max_size=600))
@settings(derandomize=True, deadline=None, database=None, max_examples=200)
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    keys = SessionKeys(bytes(32), b"r" * 32, *(bytes(32),) * 4)
    side = Ratchet.responder(keys, OwnExchangeKey(b"k" * 32))
    for message in (data, b"\x03" + bytes(32) + data):
        with pytest.raises(CryptoRefusal):
            side.decrypt(message, lambda key, n: None, lambda _: None)
    with pytest.raises(CryptoRefusal):
        Ratchet.unpack(b"\x01" + data)
