"""The Double Ratchet: the derivation in the spec, every check of a receiver, its limits, and that a refusal changes
nothing. The layout of a message is tested in `test_message`, any order of events in `test_ratchet_machine`."""

import hmac
import itertools
from collections.abc import Callable
from typing import NoReturn

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.crypto import chain_key, pq_ratchet, primitives, ratchet
from sottovoce.crypto import message as layout
from sottovoce.crypto.agreement import SessionKeys
from sottovoce.crypto.chain_key import ReceivingChain
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.message import MAX_CHAIN, Expected
from sottovoce.crypto.pq_ratchet import Answering, Due, Offering, Resting, Waiting
from sottovoce.crypto.primitives import OwnExchangeKey, PeerExchangeKey
from sottovoce.crypto.ratchet import Ratchet
from sottovoce.crypto.ratchet_state import StepDue, pack_receiving, pack_sending
from sottovoce_wire import labels, limits, padding
from tests.random_input import examples
from tests.sottovoce.crypto.sides import (
    KEYS,
    NOW,
    SIGNED_PREKEY,
    Side,
    epoch_state,
    field,
    forge,
    jump,
    lose,
    make_pair,
    receiving_of,
    sending_of,
    tag_of_the_spec,
    talk,
)

Pair = tuple[Side, Side]


# What the spec says


def test_messages_go_both_ways(pair: Pair) -> None:
    alice, bob = pair
    for turn in range(5):
        assert bob.read(alice.send(b"ping %d" % turn)).body == b"ping %d" % turn
        assert alice.read(bob.send(b"")).body == b""
    assert alice.searches == bob.searches == 0


def test_the_first_messages_are_those_of_the_spec(pair: Pair) -> None:
    alice, _ = pair
    root = KEYS.root_key
    for number in range(2):
        message = alice.send(b"hello")
        assert message[:9] == b"\x01" + tag_of_the_spec(KEYS.tag_key_a, number)
        nonce = message[9:21]
        header = AESGCM(KEYS.header_key_a).decrypt(nonce, message[21:81], message[:9])
        assert header[32:] == bytes(4) + number.to_bytes(4, "big") + bytes(4)
        secret = SIGNED_PREKEY.exchange(PeerExchangeKey(header[:32]))
        chain = primitives.hkdf_sha256(secret, labels.RATCHET_ROOT + bytes(4), 160, salt=root)[32:64]
        for _ in range(number):
            chain = hmac.digest(chain, b"\x02", "sha256")
        message_key = hmac.digest(chain, b"\x01", "sha256")
        body = AESGCM(message_key).decrypt(nonce, message[81:], KEYS.session_id + message[:81])
        assert body == padding.pad(b"\x00hello")


def test_an_ephemeral_message_is_the_one_of_the_spec(pair: Pair) -> None:
    alice, _ = pair
    first, second = alice.send(b""), alice.whisper(b"typing")
    header = AESGCM(KEYS.header_key_a).decrypt(second[9:21], second[21:81], second[:9])
    secret = SIGNED_PREKEY.exchange(PeerExchangeKey(header[:32]))
    output = primitives.hkdf_sha256(secret, labels.RATCHET_ROOT + bytes(4), 160, salt=KEYS.root_key)
    message_key = hmac.digest(output[128:], b"\x01", "sha256")
    body = AESGCM(message_key).decrypt(second[9:21], second[81:], KEYS.session_id + second[:81])
    assert body == padding.pad(b"\x00typing")
    assert second[1:9] == tag_of_the_spec(KEYS.tag_key_a, 0, is_ephemeral=True)
    assert len(first) == len(second)


def test_each_chain_has_a_ratchet_key_and_a_route_of_its_own(pair: Pair) -> None:
    alice, bob = pair
    seen = []
    for _ in range(4):
        talk(alice, bob)
        for side in pair:
            receiving = receiving_of(side)
            seen.append((receiving.head[:32], receiving.route.keys[:32], receiving.route.keys[32:]))
    assert all(len(set(column)) == 8 for column in zip(*seen, strict=True))


def test_the_responder_sends_nothing_before_it_has_read(pair: Pair) -> None:
    before = pair[1].memory
    with pytest.raises(CryptoRefusal) as refusal:
        pair[1].send(b"")
    assert refusal.value.reason is Reason.NOTHING_RECEIVED
    assert pair[1].memory == before


def test_the_sending_half_waits_for_the_next_message(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    assert isinstance(alice.ratchet._sending, StepDue)
    bob.read(alice.send(b"a"))
    key = receiving_of(bob).head
    bob.read(alice.send(b"b"))
    assert receiving_of(bob).head == key
    assert key[32:] == (1).to_bytes(4, "big")  # the chain before had one message


def test_the_same_body_never_looks_the_same(pair: Pair) -> None:
    alice, _ = pair
    messages = [alice.send(b"body") for _ in range(10)]
    for start, end in itertools.pairwise((1, 9, 21, 81, 353)):
        assert len({message[start:end] for message in messages}) == 10


# Any order


def test_messages_in_any_order_are_read_once(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    messages = [alice.send(b"%d" % n) for n in range(20)]
    alice.read(bob.send(b"turn"))
    messages += [alice.send(b"%d" % n) for n in range(20, 40)]
    for n in reversed(range(40)):
        assert bob.read(messages[n]).body == b"%d" % n
        bob.check_table()
    assert bob.skipped == {}
    for message in messages:
        bob.refuses(message, Reason.CLONE_SUSPECTED, Reason.NOT_AUTHENTIC)


def test_a_chain_that_ended_leaves_its_missing_keys(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    lost = [alice.send(b"lost %d" % n) for n in range(3)]
    bob.send(b"")
    alice.read(bob.send(b"turn"))
    opened = bob.read(lost[0])
    assert opened.skipped == ()
    opened = bob.read(alice.send(b"next chain"))
    assert [(key.chain, key.number) for key in opened.skipped] == [(2, 1), (2, 2)]
    late = bob.read(lost[1])
    assert (late.body, late.skipped, late.used) == (b"lost 1", (), Expected(2, 1))


def test_a_late_message_moves_neither_chain(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    late, early = alice.send(b"late"), alice.send(b"early")
    bob.read(early)
    before = receiving_of(bob).chain.key
    bob.read(late)
    assert receiving_of(bob).chain.key == before


def test_3000_lost_messages_and_500_lost_ephemeral_ones_cost_one_search(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    bob.read(alice.send(b"the last that arrives"))
    for _ in range(500):
        alice.whisper(b"typing")
    for _ in range(3_000):
        alice.send(b"lost")
    assert bob.read(alice.send(b"here again")).body == b"here again"
    assert bob.searches == 1
    assert bob.walked == [3_000]
    assert len(bob.skipped) == chain_key.MAX_SKIPPED
    for _ in range(40):
        bob.read(alice.send(b"and on"))
    talk(alice, bob)
    bob.read(alice.send(b"a new chain"))
    assert bob.read(alice.whisper(b"typing")).body == b"typing"
    assert bob.searches == 1
    bob.check_table()


def test_a_whole_chain_that_was_lost_costs_one_search_too(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    for _ in range(3_000):
        alice.send(b"lost")
    assert bob.read(alice.send(b"here again")).body == b"here again"
    assert bob.searches == 1
    bob.check_table()


def test_1000_messages_in_reverse_cost_one_search_and_none_is_lost(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    messages = [alice.send(b"%d" % n) for n in range(1_000)]
    assert [bob.read(message).body for message in reversed(messages)] == [b"%d" % n for n in reversed(range(1_000))]
    assert bob.searches == 1
    assert bob.skipped == {}
    bob.check_table()


@pytest.mark.parametrize("gap", [7, 31])
def test_a_gap_within_the_look_ahead_costs_no_search(pair: Pair, gap: int) -> None:
    """Eight tags on a silent chain, thirty-two on a lively one."""
    alice, bob = pair
    talk(alice, bob)
    for _ in range(0 if gap == 7 else 5):
        bob.read(alice.send(b""))
    lose(alice, gap)
    following = alice.send(b"")
    bob.read(following)
    assert bob.searches == 0
    lose(alice, gap + 1 if gap == 31 else 40)
    bob.read(alice.send(b""))
    assert bob.searches == 1


def test_a_session_holds_a_bounded_number_of_tags(pair: Pair) -> None:
    alice, bob = pair
    for _ in range(5):
        talk(alice, bob)
        for _ in range(50):
            bob.read(alice.send(b""))
    others = 8 + 8  # the next chain, and the ephemeral messages of this one
    assert others + 32 <= len(bob.table) <= others + 39


def test_the_window_of_tags_ends_where_the_chain_does(pair: Pair) -> None:
    alice, bob = on_a_chain(pair)
    jump(alice, bob, MAX_CHAIN - 40)
    for _ in range(40):
        bob.read(alice.send(b""))
        bob.check_table()


# Ephemeral messages


def test_ephemeral_messages_that_are_lost_leave_nothing_behind(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    bob.read(alice.send(b""))
    first, *lost, last = [alice.whisper(b"%d" % n) for n in range(8)]
    assert bob.read(last).body == b"7"
    for message in (first, *lost, last):
        bob.refuses(message, Reason.ALREADY_USED)
    opened = bob.read(alice.whisper(b"next"))
    assert (opened.is_ephemeral, opened.skipped, opened.used) == (True, (), None)
    assert bob.skipped == {}
    bob.check_table()


def test_an_ephemeral_message_beyond_the_window_is_refused(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    bob.read(alice.send(b""))
    ninth = [alice.whisper(b"") for _ in range(9)][-1]
    bob.refuses(ninth, Reason.TOO_FAR_AHEAD)


def test_an_ephemeral_message_of_a_chain_that_has_not_begun_or_has_ended_is_refused(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    alice.send(b"on its way")
    early = alice.whisper(b"")
    bob.refuses(early, Reason.ALREADY_USED)
    bob.read(alice.send(b""))
    late = alice.whisper(b"")
    alice.read(bob.send(b""))
    bob.read(alice.send(b"the next chain"))
    bob.refuses(late, Reason.NOT_AUTHENTIC)
    bob.refuses_as(late, Expected(2, 0, is_ephemeral=True), Reason.ALREADY_USED)


def test_an_ephemeral_message_goes_on_the_old_chain_while_a_step_is_due(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    assert isinstance(alice.ratchet._sending, StepDue)
    assert bob.read(alice.whisper(b"typing")).body == b"typing"
    assert isinstance(alice.ratchet._sending, StepDue)


def test_an_ephemeral_message_follows_one_that_is_not(pair: Pair) -> None:
    for side in pair:
        with pytest.raises(CryptoRefusal) as refusal:
            side.whisper(b"")
        assert refusal.value.reason is Reason.NOTHING_SENT


def test_no_ephemeral_number_is_used_twice_whenever_the_device_stops(pair: Pair) -> None:
    """The state is stored once in eight, and runs ahead of what was used."""
    alice, _ = pair
    alice.send(b"")
    tags = []
    for count in range(20):
        tags += [alice.whisper(b"")[1:9] for _ in range(count)]
        alice.restart()
    assert len(set(tags)) == len(tags) == 190


def test_the_state_is_stored_once_for_eight_ephemeral_messages(pair: Pair) -> None:
    alice, _ = pair
    alice.send(b"")
    assert [alice.ratchet.encrypt_ephemeral(b"")[1] for _ in range(24)] == ([True] + [False] * 7) * 3


def test_a_fragment_in_an_ephemeral_message_is_ignored(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    bob.read(alice.send())
    for first, blocks in ((0, 37), (36, 2), (255, 1)):  # the whole key, and what lies beyond its end
        content = field(blocks, bob.ratchet.epoch + 1, first) + b"\xff" * (32 * blocks) + b"typing"
        before = pq_ratchet.pack(bob.ratchet._agreement)
        assert bob.read(forge(alice, content=content, is_ephemeral=True)).body == b"typing"
        assert pq_ratchet.pack(bob.ratchet._agreement) == before
        alice.whisper()


def test_no_tag_vanishes_twice(pair: Pair) -> None:
    alice, bob = pair
    for number in (0, 3, 1, 60, 61):  # of this chain and the next
        for _ in range(2):
            messages = [alice.send() for _ in range(number + 1)]
            gone = bob.read(messages[-1]).vanished
            assert len(gone) == len(set(gone))
        alice.read(bob.send())


def test_an_ephemeral_message_never_touches_the_ordinary_chain(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    bob.read(alice.send(b""))
    before = sending_of(alice).chain.key, receiving_of(bob).chain.key
    for _ in range(5):
        bob.read(alice.whisper(b"typing"))
    assert (sending_of(alice).chain.key, receiving_of(bob).chain.key) == before


# Every check of a receiver


Case = tuple[Side, bytes]


@pytest.fixture(params=["next", "ahead", "turn", "first", "late", "late on an old chain", "ephemeral"])
def case(request: pytest.FixtureRequest, pair: Pair) -> Case:
    """A reader and a message, for each way in which one is opened."""
    (alice, bob), name = pair, request.param
    if name != "first":
        talk(alice, bob)
    if name not in ("first", "turn"):
        bob.read(alice.send(b"begun"))
    if name == "ahead":
        lose(alice, 3)
    message = alice.whisper(b"body") if name == "ephemeral" else alice.send(b"body")
    if name.startswith("late"):
        bob.read(alice.send(b"overtakes"))
    if name == "late on an old chain":
        alice.read(bob.send(b"turn"))
        bob.read(alice.send(b"another chain"))
    return bob, message


def test_every_changed_bit_is_refused(case: Case) -> None:
    reader, message = case
    expected = reader.find(message)
    before = reader.memory
    for place in range(len(message)):
        for bit in range(8):
            changed = message[:place] + bytes([message[place] ^ 1 << bit]) + message[place + 1 :]
            with pytest.raises(CryptoRefusal):
                reader.decrypt(changed, expected)
            if place < 9:
                with pytest.raises(CryptoRefusal):
                    reader.read(changed)
        assert reader.memory == before
    assert reader.read(message).body == b"body"


def test_a_message_cut_short_or_with_a_tail_is_refused(case: Case) -> None:
    reader, message = case
    expected = reader.find(message)
    for length in range(len(message)):
        reader.refuses_as(message[:length], expected, Reason.MALFORMED)
    reader.refuses_as(message + b"\x00", expected, Reason.NOT_AUTHENTIC)
    reader.refuses_as(message + message, expected, Reason.NOT_AUTHENTIC)


def test_a_message_that_is_taken_for_another_is_refused(case: Case) -> None:
    reader, message = case
    real = reader.find(message)
    for other in reader.table.values():
        if other != real:
            before = reader.memory
            with pytest.raises(CryptoRefusal):
                reader.decrypt(message, other)
            assert reader.memory == before


def test_a_message_of_another_session_is_refused(case: Case) -> None:
    reader, message = case
    # The same keys but another session id: only the body's associated data can tell.
    packed = reader.ratchet.pack()
    other = Side(Ratchet.unpack(packed[:1] + b"o" * 32 + packed[33:]))
    other.skipped, other.table = dict(reader.skipped), dict(reader.table)
    other.refuses(message, Reason.NOT_AUTHENTIC)


def test_a_replay_is_refused(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    message = alice.send(b"once")
    bob.read(message)
    bob.refuses(message, Reason.CLONE_SUSPECTED)  # the caller, who knows its head, takes it for a repeat
    bob.read(alice.send(b"more"))
    bob.refuses(message, Reason.CLONE_SUSPECTED)


def test_a_message_comes_back_to_its_sender_in_vain(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    alice.refuses(alice.send(b""), Reason.NOT_AUTHENTIC)


def on_a_chain(pair: Pair) -> Pair:
    """Bob knows Alice's present chain."""
    talk(*pair)
    pair[1].read(pair[0].send(b""))
    return pair


def before_a_turn(pair: Pair) -> Pair:
    """Alice's next message begins a chain."""
    talk(*pair)
    return pair


@pytest.mark.parametrize("prepare", [on_a_chain, before_a_turn])
def test_a_header_whose_number_is_not_that_of_its_tag_is_refused(pair: Pair, prepare: Callable[[Pair], Pair]) -> None:
    alice, bob = prepare(pair)
    lose(alice, 1)
    number = sending_of(alice).chain.number
    for tag_number, header_number in ((number, number + 1), (number, number - 1), (number + 1, number)):
        message = forge(alice, tag_number=tag_number, number=header_number)
        bob.refuses(message, Reason.MALFORMED)
        assert bob.ratchet.recognise(message) is None
    assert bob.read(forge(alice)).body == b"body"


def test_a_late_header_whose_number_is_not_that_of_its_tag_is_refused(pair: Pair) -> None:
    alice, bob = on_a_chain(pair)
    late = forge(alice, number=5)
    sending_of(alice).chain = sending_of(alice).chain.after()
    alice.read(bob.send(b""))
    bob.read(alice.send(b""))
    bob.refuses(late, Reason.MALFORMED)


def test_a_header_that_differs_from_its_chains_is_refused(pair: Pair) -> None:
    """Only a sender with two states writes one: it is a copy, or it lies."""
    alice, bob = on_a_chain(pair)
    for is_ephemeral in (False, True):
        for message in (
            forge(alice, is_ephemeral=is_ephemeral, ratchet_key=b"\x09" + bytes(31)),
            forge(alice, is_ephemeral=is_ephemeral, previous_length=2),
            forge(alice, is_ephemeral=is_ephemeral, epoch=1),
        ):
            bob.refuses(message, Reason.CLONE_SUSPECTED)
    assert bob.read(forge(alice)).body == b"body"


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_a_ratchet_key_that_is_not_valid_is_refused(pair: Pair, key: bytes) -> None:
    alice, bob = before_a_turn(pair)
    bob.refuses(forge(alice, ratchet_key=key), Reason.BAD_KEY)
    with pytest.raises(CryptoRefusal) as refusal:
        Ratchet.initiator(KEYS, key, NOW)
    assert refusal.value.reason is Reason.BAD_KEY


def test_an_impossible_length_of_the_chain_before_is_refused(pair: Pair) -> None:
    alice, bob = pair
    bob.refuses(forge(alice, previous_length=1), Reason.MALFORMED)  # there is none before the first
    talk(alice, bob, turns=2)
    bob.read(alice.send(b""))
    bob.read(alice.send(b""))
    alice.read(bob.send(b""))
    bob.refuses(forge(alice, previous_length=1), Reason.MALFORMED)  # two have come
    assert bob.read(forge(alice, previous_length=2)).body == b"body"


def test_a_chain_that_answers_nothing_is_refused(pair: Pair) -> None:
    """The peer may not take a second step before it has seen an answer: its first would be skipped for ever."""
    alice, bob = on_a_chain(pair)
    bob.send(b"")
    bob.read(alice.send(b""))
    before = receiving_of(bob)
    alice.read(bob.send(b""))
    bob.read(alice.send(b""))
    assert receiving_of(bob).nth == before.nth + 1
    alice.ratchet._sending = StepDue(PeerExchangeKey(receiving_of(alice).head[:32]), 1, None)
    bob.refuses(forge(alice), Reason.NOT_AUTHENTIC)


def test_the_initiator_reads_nothing_before_it_has_sent(pair: Pair) -> None:
    alice, bob = pair
    bob.read(Side(Ratchet.initiator(KEYS, SIGNED_PREKEY.public, NOW)).send(b""))  # another copy of Alice
    alice.refuses(bob.send(b""), Reason.NOT_AUTHENTIC)


def test_the_padding_must_have_its_mark(pair: Pair) -> None:
    alice, bob = on_a_chain(pair)
    bob.refuses(forge(alice, padded=bytes(256)), Reason.MALFORMED)
    bob.refuses(forge(alice, padded=b"\x00body".ljust(255, b"\x00") + b"\x01"), Reason.MALFORMED)


@pytest.mark.parametrize("prepare", [on_a_chain, before_a_turn])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        field(1, 1, 0)[:5],
        field(1, 1, 0) + bytes(31),
        field(255, 1, 0) + bytes(100),
        field(1, 1, 37) + bytes(32),
        field(2, 1, 36) + bytes(64),
    ],
    ids=["no field", "half a field", "half a block", "many blocks", "beyond the end", "over the end"],
)
def test_a_fragment_that_is_malformed_is_refused(pair: Pair, prepare: Callable[[Pair], Pair], content: bytes) -> None:
    alice, bob = prepare(pair)
    bob.refuses(forge(alice, content=content), Reason.MALFORMED)
    assert bob.read(forge(alice, content=field(1, 1, 36) + bytes(32) + b"body")).body == b"body"


# The post-quantum epoch


def talk_until(alice: Side, bob: Side, side: Side, state: type) -> None:
    """Messages in turn until the side's post-quantum part is in this state."""
    for _ in range(200):
        if epoch_state(side) is state:
            return
        talk(alice, bob)
    raise AssertionError(f"never {state}")


def talk_until_epoch(alice: Side, bob: Side, epoch: int) -> None:
    for _ in range(200):
        if alice.ratchet.epoch == bob.ratchet.epoch == epoch:
            return
        talk(alice, bob)
    raise AssertionError(f"never epoch {epoch}")


def test_epochs_follow_each_other_while_both_talk(pair: Pair) -> None:
    alice, bob = pair
    for epoch in range(1, 4):
        talk_until_epoch(alice, bob, epoch)
        assert (epoch_state(alice), epoch_state(bob)) == (Resting, Waiting)
    assert alice.searches == bob.searches == 0


def test_the_secret_of_an_epoch_goes_into_the_root_key(pair: Pair) -> None:
    alice, bob = pair
    talk_until(alice, bob, alice, Due)
    bob_agreement = bob.ratchet._agreement
    assert isinstance(bob_agreement, Answering)
    assert isinstance(alice.ratchet._agreement, Due)
    assert alice.ratchet._agreement.secret == bob_agreement.secret
    root = alice.ratchet._root.key
    message = alice.send(b"")
    header = bob.ratchet._next_receiving.open_header(message)
    assert header[40:] == (1).to_bytes(4, "big")
    shared = sending_of(bob).own.exchange(PeerExchangeKey(header[:32]))
    info = labels.RATCHET_ROOT + (1).to_bytes(4, "big")
    expected = primitives.hkdf_sha256(shared + bob_agreement.secret, info, 160, salt=root)
    bob.read(message)
    assert alice.ratchet._root.key == bob.ratchet._root.key == expected[:32]
    assert (alice.ratchet.epoch, bob.ratchet.epoch) == (1, 1)
    assert (epoch_state(alice), epoch_state(bob)) == (Resting, Waiting)


@pytest.mark.parametrize("epoch", [0, 2, 3, 2**32 - 1])
def test_a_new_chain_of_an_epoch_that_is_not_agreed_is_refused_by_both_sides(pair: Pair, epoch: int) -> None:
    alice, bob = pair
    talk_until_epoch(alice, bob, 1)
    talk(alice, bob)
    for sender, reader in ((alice, bob), (bob, alice)):
        # The sender believes in it: only the receiver's rule can stop it.
        liar = Side(Ratchet.unpack(sender.ratchet.pack()))
        if isinstance(liar.ratchet._sending, StepDue):
            liar.ratchet.epoch = epoch
            reader.refuses(liar.send(b""), Reason.WRONG_EPOCH)
        reader.read(sender.send(b""))


def test_the_next_epoch_is_refused_from_whom_it_was_not_agreed_with(pair: Pair) -> None:
    """It is the initiator that mixes. A responder that names the next epoch, with the right secret, is refused."""
    alice, bob = pair
    talk_until(alice, bob, alice, Due)
    agreement = bob.ratchet._agreement
    assert isinstance(agreement, Answering)
    alice.ratchet._agreement = Resting(NOW)  # for one message, that it may answer without mixing
    bob.read(alice.send(b""))
    alice.ratchet._agreement = bob.ratchet._agreement = Due(agreement.secret)
    alice.refuses(bob.send(b""), Reason.WRONG_EPOCH)


def test_the_next_epoch_is_refused_before_its_secret_is_held(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    alice.ratchet._agreement = Due(b"")  # names epoch 1 and mixes nothing
    assert epoch_state(bob) is Waiting
    bob.refuses(alice.send(b""), Reason.WRONG_EPOCH)


def test_an_epoch_cannot_be_left_out(pair: Pair) -> None:
    alice, bob = pair
    talk_until(alice, bob, alice, Due)
    assert epoch_state(bob) is Answering
    liar = Side(Ratchet.unpack(alice.ratchet.pack()))
    liar.ratchet.epoch = 1
    bob.refuses(liar.send(b""), Reason.WRONG_EPOCH)  # names epoch 2, with the secret of epoch 1
    assert bob.read(alice.send(b"")).body == b""


def test_a_late_message_of_the_epoch_before_is_read(pair: Pair) -> None:
    alice, bob = pair
    talk_until(alice, bob, alice, Due)
    bob.read(alice.send(b""))
    late = bob.send(b"late")
    alice.read(bob.send(b"early"))
    bob.read(alice.send(b""))
    alice.read(bob.send(b""))
    assert (alice.ratchet.epoch, bob.ratchet.epoch) == (1, 1)
    assert alice.read(late).body == b"late"


def test_one_way_talk_delays_an_epoch_and_wedges_nothing(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    for n in range(200):
        assert bob.read(alice.send(b"%d" % n)).body == b"%d" % n
    assert (epoch_state(alice), epoch_state(bob)) == (Offering, Answering)
    for _ in range(5):
        alice.read(bob.send(b""))
    assert epoch_state(alice) is Due
    bob.read(alice.send(b""))
    assert alice.ratchet.epoch == bob.ratchet.epoch == 1


# What the lengths tell


def conversation(alice: Side, bob: Side, *, with_epochs: bool) -> dict[tuple[str, int], set[int]]:
    """The lengths on the wire of texts, receipts and typing, in each state of the post-quantum part that occurs."""
    lengths: dict[tuple[str, int], set[int]] = {}
    for size in range(151):
        for sender, reader in ((alice, bob), (bob, alice)):
            message = sender.send(b"x" * size)
            lengths.setdefault(("ordinary", size), set()).add(len(message))
            reader.read(message)
            lengths.setdefault(("ephemeral", size), set()).add(len(sender.whisper(b"x" * size)))
        if not with_epochs:
            alice.ratchet._messages = 0
    return lengths


def test_lengths_do_not_tell_whether_an_epoch_is_being_agreed(pair: Pair) -> None:
    alice, bob = pair
    without = conversation(*make_pair(), with_epochs=False)
    with_epochs = conversation(alice, bob, with_epochs=True)
    assert alice.ratchet.epoch >= 2
    assert with_epochs == without
    assert set().union(*without.values()) == {layout.SHORTEST}


@pytest.mark.parametrize("size", [0, 40, 150, 219, 254, 255, 300, 382, 1_000, 2_046, 2_047, 5_000])
def test_a_message_is_as_long_as_its_size_class_in_every_state(pair: Pair, size: int) -> None:
    alice, bob = pair
    wanted = layout.HEAD_LENGTH + padding.padded_length(size + 1) + 16
    states = set()
    for _ in range(60):
        for sender, reader in ((alice, bob), (bob, alice)):
            message = sender.send(b"x" * size)
            states.add(epoch_state(sender))
            assert len(message) == wanted
            assert reader.read(message).body == b"x" * size
            states.add(epoch_state(reader))
            assert len(sender.whisper(b"x" * size)) == wanted
    assert states >= {Resting, Offering, Waiting}


def test_an_epoch_that_is_open_for_a_day_sends_the_rest_at_once_and_only_once(pair: Pair) -> None:
    alice, bob = pair
    talk(alice, bob)
    later, next_day = NOW + limits.DAY, NOW + 2 * limits.DAY
    assert len(alice.send(b"lost", later)) == layout.SHORTEST
    sizes = [len(message) for message in (alice.send(b"lost", next_day), alice.send(b"", next_day))]
    assert sizes == [layout.HEAD_LENGTH + 1_536 + 16, layout.SHORTEST]


# A state that was copied


class Watch:
    """Every (key, nonce) under which anything was encrypted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: list[tuple[bytes, bytes]] = []
        of_header, of_body = primitives.AeadKey.encrypt, primitives.encrypt

        def header(held: primitives.AeadKey, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
            self.used.append((held.key, nonce))
            return of_header(held, nonce, plaintext, associated_data)

        def body(key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
            self.used.append((key, nonce))
            return of_body(key, nonce, plaintext, associated_data)

        monkeypatch.setattr(primitives.AeadKey, "encrypt", header)
        monkeypatch.setattr(primitives, "encrypt", body)


def put_back(side: Side, stored: bytes) -> None:
    """The store of the side is an old copy again."""
    side.stored = stored
    side.restart()


@pytest.mark.parametrize("at", ["on a chain", "with a step due"])
def test_a_copy_put_back_uses_no_key_with_a_nonce_twice_and_is_suspected(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    alice, bob = pair
    talk(alice, bob)
    if at == "on a chain":
        bob.read(alice.send(b"begins the chain"))
    watch = Watch(monkeypatch)
    copy = alice.stored
    for _ in range(5):
        bob.read(alice.send(b"body"))
        bob.read(alice.whisper(b"body"))
    put_back(alice, copy)
    again = [alice.send(b"body") for _ in range(5)]
    whispers = [alice.whisper(b"body") for _ in range(5)]
    keys = [key for key, _ in watch.used]
    assert len(set(watch.used)) == len(watch.used) == 2 * 20
    assert len(set(keys)) < len(keys)
    for message in again:
        bob.refuses(message, Reason.CLONE_SUSPECTED)
    for message in whispers:
        bob.refuses(message, Reason.ALREADY_USED, Reason.CLONE_SUSPECTED)


def test_a_copy_put_back_repeats_keys_and_no_nonce(pair: Pair) -> None:
    alice, bob = on_a_chain(pair)
    copy = alice.stored
    first = alice.send(b"body")
    put_back(alice, copy)
    second = alice.send(b"body")
    assert first[:9] == second[:9]
    for start, end in itertools.pairwise((9, 21, 81, 353)):
        assert first[start:end] != second[start:end]
    assert bob.read(first).body == b"body"
    bob.refuses(second, Reason.CLONE_SUSPECTED)


# Limits


@pytest.mark.parametrize("known_chain", [False, True])
def test_25000_steps_ahead_is_read_and_leaves_the_newest_2000_keys_and_one_more_is_refused(
    pair: Pair, known_chain: bool
) -> None:
    alice, bob = on_a_chain(pair) if known_chain else before_a_turn(pair)
    chain = 2
    lose(alice, ratchet.MAX_STEPS)
    end = sending_of(alice).chain.number
    far, too_far = alice.send(b"far"), alice.send(b"too far")
    bob.refuses(too_far, Reason.TOO_FAR_AHEAD)
    opened = bob.read(far)
    assert opened.body == b"far"
    numbers = [(key.chain, key.number) for key in opened.skipped]
    assert numbers == [(chain, n) for n in range(end - chain_key.MAX_SKIPPED, end)]
    bob.check_table()


def must_not_walk(chain: ReceivingChain, number: int) -> NoReturn:
    raise AssertionError("the chain was walked")


def test_a_forged_length_of_the_chain_before_is_refused_before_it_is_walked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = before_a_turn(pair)
    message = forge(alice, previous_length=MAX_CHAIN)
    monkeypatch.setattr(ReceivingChain, "walk", must_not_walk)
    bob.refuses(message, Reason.TOO_FAR_AHEAD)
    assert bob.walked == []  # nothing was spent on it


def test_the_steps_of_both_chains_count_together(pair: Pair) -> None:
    alice, bob = on_a_chain(pair)
    lose(alice, 13_000)
    alice.read(bob.send(b"turn"))
    lose(alice, 12_000)
    last_readable = alice.send(b"last")
    bob.refuses(alice.send(b"too far"), Reason.TOO_FAR_AHEAD)
    opened = bob.read(last_readable)
    assert opened.body == b"last"
    assert {key.chain for key in opened.skipped} == {3}


def test_the_newest_skipped_keys_come_from_both_chains(pair: Pair) -> None:
    alice, bob = on_a_chain(pair)
    lose(alice, 1_500)
    alice.read(bob.send(b"turn"))
    lose(alice, 1_500)
    opened = bob.read(alice.send(b"last"))
    wanted = [*((2, n) for n in range(1_001, 1_501)), *((3, n) for n in range(1_500))]
    assert [(key.chain, key.number) for key in opened.skipped] == wanted
    bob.check_table()


def test_the_caller_is_asked_before_a_walk_and_may_refuse_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = on_a_chain(pair)
    alice.send(b"lost")
    ahead = alice.send(b"ahead")
    bob.send(b"")
    alice.read(bob.send(b"turn"))
    lose(alice, 4)
    turn = alice.send(b"turn")
    monkeypatch.setattr(ReceivingChain, "walk", must_not_walk)
    for message, steps in ((ahead, 1), (turn, 6)):
        asked: list[int] = []

        def refuse(wanted: int, asked: list[int] = asked) -> None:
            asked.append(wanted)
            raise CryptoRefusal(Reason.TOO_FAR_AHEAD, "spent")

        before = bob.memory
        with pytest.raises(CryptoRefusal):
            bob.ratchet.decrypt(message, bob.find(message), lambda *_: None, refuse, NOW)
        assert asked == [steps]
        assert bob.memory == before


def test_a_chain_ends_after_2_to_the_20_messages(pair: Pair) -> None:
    alice, bob = on_a_chain(pair)
    jump(alice, bob, MAX_CHAIN - 1)
    assert bob.read(alice.send(b"the last")).body == b"the last"
    bob.check_table()
    before = alice.memory
    with pytest.raises(CryptoRefusal) as refusal:
        alice.send(b"one more")
    assert refusal.value.reason is Reason.CHAIN_ENDED
    assert alice.memory == before
    bob.refuses(forge(alice, number=MAX_CHAIN, tag_number=MAX_CHAIN), Reason.NOT_AUTHENTIC)  # no such tag is known
    alice.read(bob.send(b"turn"))
    assert bob.read(alice.send(b"a new chain")).body == b"a new chain"


def test_an_ephemeral_chain_ends_there_too(pair: Pair) -> None:
    alice, _ = on_a_chain(pair)
    line = sending_of(alice).whispers
    line.chain = type(line.chain)(b"k" * 32, MAX_CHAIN - 1)
    line.reserve = line.chain
    alice.whisper(b"the last")
    with pytest.raises(CryptoRefusal) as refusal:
        alice.whisper(b"one more")
    assert refusal.value.reason is Reason.CHAIN_ENDED


def test_a_number_beyond_the_end_of_a_chain_is_refused(pair: Pair) -> None:
    alice, bob = before_a_turn(pair)
    bob.refuses(forge(alice, previous_length=MAX_CHAIN + 1), Reason.CHAIN_ENDED)
    beyond = forge(alice, number=MAX_CHAIN, tag_number=MAX_CHAIN)
    assert bob.ratchet.recognise(beyond) is None
    bob.refuses_as(beyond, Expected(2, MAX_CHAIN), Reason.CHAIN_ENDED)


def test_the_limits_are_those_of_the_spec() -> None:
    assert (ratchet.MAX_STEPS, layout.RUN, layout.LOOK_AHEAD_LIVE) == (25_000, 8, 32)


# The packed state


def states() -> dict[str, Ratchet]:
    """A session in each state of its halves and of its post-quantum part."""
    found: dict[str, Ratchet] = {}

    def note(*sides: Side) -> None:
        for side in sides:
            it = side.ratchet
            names = [type(half).__name__ for half in (it._sending, it._receiving, it._agreement)]
            found.setdefault(" ".join(names), Ratchet.unpack(it.pack()))

    alice, bob = make_pair()
    note(alice, bob)
    for _ in range(35):
        bob.read(alice.send(b""))
        note(alice, bob)
        alice.read(bob.send(b""))
        note(alice, bob)
    return found


def test_every_state_comes_back_from_the_store() -> None:
    packed = {name: side.pack() for name, side in states().items()}
    assert {name: Ratchet.unpack(state).pack() for name, state in packed.items()} == packed
    assert sorted(packed) == [
        "Sending NothingReceived Resting",
        "Sending Receiving Answering",
        "Sending Receiving Offering",
        "Sending Receiving Resting",
        "Sending Receiving Waiting",
        "StepDue NothingReceived Resting",
        "StepDue Receiving Answering",
        "StepDue Receiving Due",
        "StepDue Receiving Offering",
        "StepDue Receiving Resting",
        "StepDue Receiving Waiting",
        "Unanswered NothingReceived Waiting",
    ]


def test_a_session_goes_on_after_a_restart(pair: Pair) -> None:
    alice, bob = pair
    for turn in range(80):
        for sender, reader in ((alice, bob), (bob, alice)):
            message = sender.send(b"%d" % turn)
            sender.restart()
            reader.restart()
            assert reader.read(message).body == b"%d" % turn
            reader.restart()
            reader.check_table()
    assert alice.ratchet.epoch == 2


def test_a_packed_state_cut_short_or_with_a_tail_is_refused() -> None:
    for side in states().values():
        packed = side.pack()
        for damaged in (*(packed[:length] for length in range(len(packed))), packed + b"\x00"):
            with pytest.raises(CryptoRefusal) as refusal:
                Ratchet.unpack(damaged)
            assert refusal.value.reason is Reason.BAD_RECORD


def test_a_packed_state_that_is_none_is_refused() -> None:
    for side in states().values():
        packed = side.pack()
        agreement = len(packed) - len(pq_ratchet.pack(side._agreement))
        receiving = agreement - len(pack_receiving(side._receiving))
        sending = receiving - len(pack_sending(side._sending))
        for place in (0, sending, receiving, agreement):
            for value in (0, 9, 255):
                with pytest.raises(CryptoRefusal) as refusal:
                    Ratchet.unpack(packed[:place] + bytes([value]) + packed[place + 1 :])
                assert refusal.value.reason is Reason.BAD_RECORD


@given(data=st.binary(max_size=900))
@examples(200)
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    side = Side(Ratchet.responder(SessionKeys(*(bytes(32),) * 6), OwnExchangeKey(b"k" * 32), NOW))
    for message in (data, b"\x01" + data, b"\x01" + next(iter(side.table)) + data):
        side.refuses(message, Reason.MALFORMED, Reason.NOT_AUTHENTIC)
    for packed in (data, b"\x02" + data):
        with pytest.raises(CryptoRefusal):
            Ratchet.unpack(packed)
