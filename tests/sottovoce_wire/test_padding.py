"""Padding hides the length but for its class, and comes off only where it was put on."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.padding import SIZE_CLASSES, pad, padded_length, padme, unpad


def padme_of_the_paper(length: int) -> int:
    """Algorithm 1 of Nikitin et al., word for word: E = ⌊log2 L⌋, S = ⌊log2 E⌋ + 1, z = E - S low bits are cleared."""
    exponent = math.floor(math.log2(length))
    size = math.floor(math.log2(exponent)) + 1
    low = exponent - size
    return math.ceil(length / (1 << low)) * (1 << low)


@given(st.integers(2, 2**40))
def test_padme_is_the_papers_formula(length: int) -> None:
    assert padme(length) == padme_of_the_paper(length)


@given(st.integers(2, 2**40))
def test_padme_adds_at_most_an_eighth_and_never_takes_away(length: int) -> None:
    assert length <= padme(length) <= length * 9 // 8


@given(st.integers(2, 2**40))
def test_a_padme_size_is_its_own_class(length: int) -> None:
    assert padme(padme(length)) == padme(length)


def test_short_bodies_have_only_the_fixed_classes() -> None:
    assert {padded_length(length) for length in range(SIZE_CLASSES[-1])} == set(SIZE_CLASSES)


@pytest.mark.parametrize("size", SIZE_CLASSES)
def test_a_class_holds_one_byte_less_than_its_size(size: int) -> None:
    assert padded_length(size - 1) == size
    assert padded_length(size) > size


@given(st.integers(0, 2**20))
def test_a_longer_body_never_has_a_smaller_class(length: int) -> None:
    assert length < padded_length(length) <= padded_length(length + 1)


@given(st.binary(max_size=5000), st.sampled_from([0, 4096]))
def test_padding_comes_off_again(content: bytes, minimum: int) -> None:
    padded = pad(content, minimum=minimum)
    assert len(padded) == padded_length(len(content), minimum=minimum)
    assert len(padded) >= minimum
    assert unpad(padded) == content


@pytest.mark.parametrize("content", [b"\x80", b"\x80\x00\x00", b"\x00" * 300, b"", b"\x00\x80" * 200])
def test_content_that_looks_like_padding_survives(content: bytes) -> None:
    assert unpad(pad(content)) == content


@pytest.mark.parametrize("length", range(257))
def test_all_short_texts_look_alike_up_to_the_class(length: int) -> None:
    assert len(pad(b"x" * length)) == (256 if length < 256 else 384)


@pytest.mark.parametrize(
    "padded",
    [b"", b"\x00" * 256, b"no mark at all", b"text\x80\x00\x01\x00", b"text\x80\x00\x00x"],
    ids=["empty", "zeros", "no mark", "a bit in the zeros", "a byte after the zeros"],
)
def test_bytes_without_a_mark_before_zeros_are_refused(padded: bytes) -> None:
    with pytest.raises(WireError) as refused:
        unpad(padded)
    assert refused.value.code is Code.MALFORMED
