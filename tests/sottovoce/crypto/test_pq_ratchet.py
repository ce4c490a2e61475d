"""The post-quantum part on its own: fragments, both sides of an agreement under loss, and its stored form."""

import hashlib
import hmac
import itertools
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.crypto import pq_ratchet
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.pq_ratchet import (
    EPOCH_MESSAGES,
    EPOCH_SECONDS,
    NO_FRAGMENT,
    Answering,
    Collected,
    Due,
    Fragment,
    Offering,
    Resting,
    Sending,
    State,
    begin,
    give,
    pack,
    split,
    take,
    unpack,
)
from sottovoce.crypto.primitives import OwnKemKey, PeerKemKey
from sottovoce_wire.padding import padded_length
from tests.random_input import examples
from tests.sottovoce.crypto.sides import NOW, field

KEY, CIPHERTEXT = 1184, 1088
ROOM = 254  # of an empty body in the smallest class


def offering() -> State:
    """An initiator that opens epoch 1 with the next message."""
    return Resting(NOW)


def carrying(epoch: int, first: int, data: bytes) -> bytes:
    """The field with these blocks."""
    return field(len(data) // 32, epoch, first) + data


def agree(loss: float, seed: int) -> tuple[Offering, Answering, Due, int]:
    """Both sides send in turn until the initiator holds the secret: its offer, both ends, and how many rounds."""
    chance = random.Random(seed)  # noqa: S311 - which messages are lost
    initiator, responder = offering(), begin(NOW, is_initiator=False)
    offer: State = initiator
    for rounds in itertools.count(1):
        carried, initiator = give(initiator, 0, EPOCH_MESSAGES, ROOM, NOW)
        offer = initiator if isinstance(initiator, Offering) else offer
        if chance.random() >= loss:
            responder = take(responder, 0, carried, NOW)
        carried, responder = give(responder, 0, 0, ROOM, NOW)
        if chance.random() >= loss:
            initiator = take(initiator, 0, carried, NOW)
        if isinstance(initiator, Due):
            assert isinstance(offer, Offering)
            assert isinstance(responder, Answering)
            return offer, responder, initiator, rounds
    raise AssertionError


# The field


def test_a_body_begins_with_its_fragment() -> None:
    carried = carrying(7, 3, b"a" * 32 + b"b" * 32)
    assert split(carried + b"body") == (carried, b"body")
    assert Fragment.read(carried) == Fragment(7, 3, b"a" * 32 + b"b" * 32)
    assert split(b"\x00body") == (NO_FRAGMENT, b"body")
    assert split(NO_FRAGMENT) == (NO_FRAGMENT, b"")


def test_a_field_that_is_cut_short_is_refused_at_each_length() -> None:
    content = field(2, 7, 3) + bytes(64)
    for length in range(len(content)):
        with pytest.raises(CryptoRefusal) as refusal:
            split(content[:length])
        assert refusal.value.reason is Reason.MALFORMED


@given(body=st.integers(0, 3_000), state=st.sampled_from(["offer", "answer"]), cursor=st.integers(0, 33))
@examples(300)
def test_a_fragment_fills_the_size_class_and_never_enlarges_it(body: int, state: str, cursor: int) -> None:
    material = Sending(bytes(KEY if state == "offer" else CIPHERTEXT), cursor, NOW)
    size = padded_length(body + 1)
    carried = material.next(1, size - body - 2, NOW)
    assert padded_length(len(carried) + body) == size
    left = size - body - 1 - len(carried)  # the mark takes one
    assert left < 37 or material.cursor == 0
    assert len(split(carried + bytes(body))[1]) == body


def test_blocks_are_sent_round_and_round() -> None:
    material, seen = Sending(bytes(range(34)) * 32, 0, NOW), []
    for _ in range(10):
        fragment = Fragment.read(material.next(1, ROOM, NOW))
        assert fragment.data == material.data[fragment.first * 32 :][: len(fragment.data)]
        seen.append((fragment.first, len(fragment.data) // 32))
    assert seen == [(0, 7), (7, 7), (14, 7), (21, 7), (28, 6)] * 2


def test_where_there_is_no_room_nothing_is_sent() -> None:
    material = Sending(bytes(KEY), 5, NOW)
    assert material.next(1, 36, NOW) == NO_FRAGMENT
    assert material.cursor == 5
    assert len(material.next(1, 37, NOW)) == 38


def test_after_a_day_everything_goes_at_once_and_once() -> None:
    material = Sending(bytes(range(32)) * 37, 5, NOW)
    assert len(material.next(1, 0, NOW + EPOCH_SECONDS - 1)) == 1
    carried = material.next(1, 0, NOW + EPOCH_SECONDS)
    assert carried == carrying(1, 0, material.data)
    assert (material.cursor, material.since) == (0, NOW + EPOCH_SECONDS)
    assert material.next(1, 0, NOW + EPOCH_SECONDS) == NO_FRAGMENT


# What is collected


@given(order=st.permutations(range(34)), sizes=st.lists(st.integers(1, 5), min_size=34, max_size=34))
@examples(100)
def test_blocks_arrive_in_any_order_and_more_than_once(order: list[int], sizes: list[int]) -> None:
    data = bytes(range(34)) * 32
    collected, have = Collected.empty(CIPHERTEXT), set[int]()
    for first, size in zip(order, sizes, strict=True):
        end = min(first + size, 34)
        assert collected.is_complete == (len(have) == 34)
        collected = collected.take(Fragment(1, first, data[first * 32 : end * 32]))
        have |= set(range(first, end))
        assert collected.have == sum(1 << each for each in have)
    assert collected.is_complete
    assert collected.data == data


@pytest.mark.parametrize(("first", "blocks"), [(34, 1), (33, 2), (255, 1), (0, 35)])
def test_a_fragment_beyond_the_end_is_refused(first: int, blocks: int) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        Collected.empty(CIPHERTEXT).take(Fragment(1, first, bytes(blocks * 32)))
    assert refusal.value.reason is Reason.MALFORMED


# The agreement


def test_both_sides_hold_the_secret_of_the_formula() -> None:
    offer, responder, due, rounds = agree(0, 1)
    shared = offer.own.decapsulate(responder.sending.data)
    extracted = hmac.digest(bytes(32), shared, "sha256")
    bound = hashlib.sha256(offer.sending.data + responder.sending.data).digest()
    label = b"Sottovoce v1 pq epoch"
    expected = hmac.digest(extracted, bytes([len(label)]) + label + bound + b"\x01", "sha256")
    assert responder.secret == due.secret == expected
    assert rounds == 6 + 5 - 1  # 37 and 34 blocks, seven to a short message, and the answer begins in the same round


@pytest.mark.parametrize("seed", range(5))
def test_loss_delays_an_agreement_and_nothing_more(seed: int) -> None:
    _, responder, due, rounds = agree(0.5, seed)
    assert responder.secret == due.secret
    assert rounds > 10


def test_the_initiator_opens_an_epoch_after_fifty_messages() -> None:
    state = begin(NOW, is_initiator=True)
    assert give(state, 0, 49, ROOM, NOW) == (NO_FRAGMENT, state)
    assert take(state, 0, carrying(1, 0, bytes(32)), NOW) is state
    carried, offered = give(state, 0, 50, ROOM, NOW)
    assert isinstance(offered, Offering)
    assert len(carried) == 6 + 7 * 32


def test_the_initiator_opens_an_epoch_after_a_day() -> None:
    state = begin(NOW, is_initiator=True)
    assert isinstance(give(state, 0, 0, ROOM, NOW + EPOCH_SECONDS - 1)[1], Resting)
    carried, offered = give(state, 0, 0, ROOM, NOW + EPOCH_SECONDS)
    assert isinstance(offered, Offering)
    assert len(carried) == 6 + 7 * 32  # the key is a moment old: nothing is enlarged yet


def test_the_responder_never_opens_one() -> None:
    state = begin(NOW, is_initiator=False)
    for _ in range(200):
        carried, state = give(state, 0, 1_000, ROOM, NOW + 10 * EPOCH_SECONDS)
        assert carried == NO_FRAGMENT
    assert state == begin(NOW, is_initiator=False)


def test_the_key_is_sent_until_the_first_block_of_the_answer_comes() -> None:
    _, state = give(offering(), 0, EPOCH_MESSAGES, ROOM, NOW)
    for _ in range(30):
        carried, state = give(state, 0, 0, ROOM, NOW)
        assert carried != NO_FRAGMENT
    state = take(state, 0, carrying(1, 12, bytes(32)), NOW)
    for later in (NOW, NOW + EPOCH_SECONDS):
        assert give(state, 0, 0, ROOM, later) == (NO_FRAGMENT, state)


def test_a_key_is_answered_once_with_one_ciphertext() -> None:
    own = OwnKemKey.generate()
    answering = take(begin(NOW, is_initiator=False), 0, carrying(1, 0, own.public), NOW)
    assert isinstance(answering, Answering)
    assert take(answering, 0, carrying(1, 0, own.public), NOW) is answering
    assert take(answering, 0, carrying(1, 0, OwnKemKey.generate().public), NOW) is answering


def test_who_holds_the_secret_sends_no_more_and_takes_no_more() -> None:
    _, _, due, _ = agree(0, 1)
    assert give(due, 0, 0, ROOM, NOW + EPOCH_SECONDS) == (NO_FRAGMENT, due)
    assert take(due, 0, carrying(1, 0, bytes(32)), NOW) is due


@pytest.mark.parametrize("epoch", [0, 3, 4, 6, 2**32 - 1])
def test_fragments_of_another_epoch_than_the_next_are_ignored(epoch: int) -> None:
    _, offered = give(offering(), 4, EPOCH_MESSAGES, ROOM, NOW)
    for state in (offered, begin(NOW, is_initiator=False)):
        assert take(state, 4, carrying(epoch, 0, b"x" * 32), NOW) is state
        assert take(state, 4, carrying(5, 0, b"x" * 32), NOW) != state


def test_a_key_outside_the_modulus_is_refused() -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        take(begin(NOW, is_initiator=False), 0, carrying(1, 0, b"\xff" * KEY), NOW)
    assert refusal.value.reason is Reason.BAD_KEY


def test_a_wrong_ciphertext_gives_another_secret_and_no_error() -> None:
    _, offered = give(offering(), 0, EPOCH_MESSAGES, ROOM, NOW)
    assert isinstance(offered, Offering)
    _, ciphertext = PeerKemKey(offered.sending.data).encapsulate()
    right = take(offered, 0, carrying(1, 0, ciphertext), NOW)
    wrong = take(offered, 0, carrying(1, 0, ciphertext[:-1] + bytes([ciphertext[-1] ^ 1])), NOW)
    assert isinstance(right, Due)
    assert isinstance(wrong, Due)
    assert right.secret != wrong.secret


def test_the_limits_are_those_of_the_spec() -> None:
    assert (EPOCH_MESSAGES, EPOCH_SECONDS, pq_ratchet.BLOCK) == (50, 86_400, 32)


# The stored form


def states() -> list[State]:
    """Every state there is; those that collect, with nothing and with something."""
    offer, responder, due, _ = agree(0, 1)
    waiting = begin(NOW, is_initiator=False)
    return [
        begin(NOW, is_initiator=True),
        offer._replace(answer=Collected.empty(CIPHERTEXT)),
        take(offer._replace(answer=Collected.empty(CIPHERTEXT)), 0, carrying(1, 33, b"x" * 32), NOW),
        due,
        waiting,
        take(waiting, 0, carrying(1, 36, b"x" * 32), NOW),
        responder,
    ]


def test_every_state_comes_back_from_the_store() -> None:
    lengths = []
    for state in states():
        assert type(unpack(pack(state))) is type(state)
        assert pack(unpack(pack(state))) == pack(state)
        lengths.append(len(pack(state)))
    assert (min(lengths), max(lengths)) == (9, 2_354)


def test_a_stored_form_cut_short_or_with_a_tail_is_refused() -> None:
    for state in states():
        packed = pack(state)
        for damaged in (*(packed[:length] for length in range(len(packed))), packed + b"\x00"):
            with pytest.raises((CryptoRefusal, struct.error)):
                unpack(damaged)


def test_a_stored_form_that_goes_on_behind_its_end_is_refused() -> None:
    offer, answering, _, _ = agree(0, 1)
    for state, blocks in ((offer, 37), (answering, 34)):
        for cursor in range(256):
            state.sending.cursor = cursor
            if cursor < blocks:
                assert pack(unpack(pack(state))) == pack(state)
            else:
                with pytest.raises(CryptoRefusal) as refusal:
                    unpack(pack(state))
                assert refusal.value.reason is Reason.BAD_RECORD


def test_a_stored_form_of_no_known_state_is_refused() -> None:
    waiting = pack(begin(NOW, is_initiator=False))
    for damaged in (
        *(bytes([kind]) + packed[1:] for kind in (0, 6, 255) for packed in map(pack, states())),
        waiting[:1] + (1 << 37).to_bytes(8, "big") + bytes(KEY),  # a block that the key does not have
        waiting + bytes(KEY),  # blocks that are said not to be there
    ):
        with pytest.raises(CryptoRefusal) as refusal:
            unpack(damaged)
        assert refusal.value.reason is Reason.BAD_RECORD
