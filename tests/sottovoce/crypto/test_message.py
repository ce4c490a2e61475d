"""The layout of a message, taken apart with the library's own objects, and what is no message."""

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.crypto import message as layout
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.message import MAX_CHAIN, Expected, Route
from tests.random_input import examples
from tests.sottovoce.crypto.sides import tag_of_the_spec

ROUTE = Route(b"h" * 32 + b"t" * 32)
TAG, HEADER, CONTEXT, BODY = b"T" * 8, bytes(range(44)), b"c" * 32, b"p" * 200
PADDED = BODY + b"\x80" + bytes(55)


def sealed() -> bytes:
    return ROUTE.seal(TAG, HEADER, b"m" * 32, CONTEXT, PADDED)


def test_the_tag_is_the_formula_with_a_domain_for_each_kind_of_chain() -> None:
    for number in (0, 1, 2**20 - 1):
        for is_ephemeral in (False, True):
            expected = tag_of_the_spec(b"t" * 32, number, is_ephemeral=is_ephemeral)
            assert ROUTE.tag(number, is_ephemeral=is_ephemeral) == expected


STRETCHES = (
    (0, 8),
    (5, 5),
    (9, 5),
    (11, 12),
    (11, 20),
    (30, 5),
    (MAX_CHAIN - 1, MAX_CHAIN + 8),
    (MAX_CHAIN, MAX_CHAIN + 8),
)


@pytest.mark.parametrize("is_ephemeral", [False, True])
def test_a_stretch_of_tags_ends_with_the_chain(is_ephemeral: bool) -> None:
    for first, end in STRETCHES:
        numbers = range(first, min(end, 2**20))
        tags = tuple(tag_of_the_spec(b"t" * 32, number, is_ephemeral=is_ephemeral) for number in numbers)
        assert ROUTE.tags(first, end, is_ephemeral=is_ephemeral) == tags
        window = ROUTE.announce(3, first, end, is_ephemeral=is_ephemeral)
        assert window.tags == tags
        assert [window.find(tag) for tag in tags] == [Expected(3, number, is_ephemeral) for number in numbers]


def test_a_message_is_laid_out_as_in_the_spec() -> None:
    message = sealed()
    nonce = message[9:21]
    assert message[:9] == b"\x01" + TAG
    assert AESGCM(b"h" * 32).decrypt(nonce, message[21:81], message[:9]) == HEADER
    assert AESGCM(b"m" * 32).decrypt(nonce, message[81:], CONTEXT + message[:81]) == PADDED
    assert len(message) == layout.SHORTEST == 81 + 256 + 16


def test_a_message_is_opened_in_two_steps() -> None:
    message = sealed()
    assert layout.routing_tag(message) == TAG
    assert layout.head(message) == message[:81]
    assert ROUTE.open_header(message) == HEADER
    assert layout.open_body(message, b"m" * 32, CONTEXT) == BODY


def test_the_nonce_is_another_each_time() -> None:
    messages = [sealed() for _ in range(50)]
    assert len({message[9:21] for message in messages}) == 50
    assert len({layout.head(message) for message in messages}) == 50


def test_the_header_opens_under_its_key_and_beside_its_tag_only() -> None:
    message = sealed()
    for route, changed in (
        (Route(b"x" * 32 + b"t" * 32), message),
        (ROUTE, message[:1] + b"t" + message[2:]),
        (ROUTE, b"\x02" + message[1:]),
    ):
        with pytest.raises(CryptoRefusal) as refusal:
            route.open_header(changed)
        assert refusal.value.reason is Reason.NOT_AUTHENTIC


@pytest.mark.parametrize("place", range(81))
def test_the_body_is_bound_to_every_byte_before_it(place: int) -> None:
    message = sealed()
    changed = message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]
    with pytest.raises(CryptoRefusal) as refusal:
        layout.open_body(changed, b"m" * 32, CONTEXT)
    assert refusal.value.reason is Reason.NOT_AUTHENTIC


def test_the_body_is_bound_to_the_session() -> None:
    message = sealed()
    with pytest.raises(CryptoRefusal):
        layout.open_body(message, b"m" * 32, b"d" * 32)
    with pytest.raises(InvalidTag):
        AESGCM(b"m" * 32).decrypt(message[9:21], message[81:], message[:81])


def test_what_is_too_short_or_of_another_kind_is_no_message() -> None:
    message = sealed()
    for other in (
        *(message[:length] for length in range(len(message))),
        *(bytes([kind]) + message[1:] for kind in (0, 2, 3, 255)),
    ):
        with pytest.raises(CryptoRefusal) as refusal:
            layout.routing_tag(other)
        assert refusal.value.reason is Reason.MALFORMED


def test_a_body_without_the_mark_of_its_padding_is_malformed() -> None:
    for padded in (bytes(256), BODY + bytes(56), PADDED[:-1] + b"\x01"):
        with pytest.raises(CryptoRefusal) as refusal:
            layout.open_body(ROUTE.seal(TAG, HEADER, b"m" * 32, CONTEXT, padded), b"m" * 32, CONTEXT)
        assert refusal.value.reason is Reason.MALFORMED


@given(data=st.binary(max_size=400))
@examples(200)
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for message in (data, b"\x01" + data):
        with pytest.raises(CryptoRefusal):
            ROUTE.open_header(message)
        with pytest.raises(CryptoRefusal):
            layout.open_body(message, b"m" * 32, CONTEXT)
