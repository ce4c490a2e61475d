"""Attachments: the pointer, the container in one pass, what is given out before it is known to be whole, and ranges."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.crypto import attachment
from sottovoce.crypto.attachment import Decryptor, Encryptor, Pointer, Seeker, open_attachment, read_range
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce_wire import labels
from tests.random_input import examples

CHUNK = 16 * 1024
HEADER = 56
SEALED_CHUNK = CHUNK + 16
#: Around the minimum, around the ends of chunks, and so that padding takes up chunks of its own.
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 40_000, 1_048_577]


def content_of(size: int) -> bytes:
    """Bytes that are nowhere zero, and different in every chunk."""
    return b"".join((place % 251 + 1).to_bytes(1, "big") * 101 for place in range(size // 101 + 1))[:size]


def encrypt(content: bytes) -> tuple[Pointer, bytes]:
    encryptor = Encryptor()
    container = bytes(encryptor.update(content)) + b"".join(map(bytes, encryptor.finish()))
    return encryptor.pointer, container


def container_by_hand(padded: bytes, size: int, context: bytes = labels.ATTACHMENT) -> tuple[Pointer, bytes]:
    """What a sender makes who does not keep to the rules."""
    key = Cobblestone256Encryptor.generate_key()
    encryptor = Cobblestone256Encryptor(key, context)
    container = encryptor.update(padded) + encryptor.finalize()
    return Pointer(key, hashlib.sha256(container).digest(), size, len(padded)), container


def decrypt(pointer: Pointer, container: bytes, length: int = 70_001) -> bytes:
    decryptor = Decryptor(pointer)
    pieces = [container[start : start + length] for start in range(0, len(container), length)]
    return b"".join([*(bytes(decryptor.update(piece)) for piece in pieces), decryptor.finish()])


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def refused(call: Callable[[], object]) -> Reason:
    with pytest.raises(CryptoRefusal) as refusal:
        call()
    return refusal.value.reason


@pytest.fixture(scope="module")
def sealed() -> tuple[Pointer, bytes]:
    """40,000 bytes in three chunks, the last of them partly padding."""
    return encrypt(content_of(40_000))


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out(size: int) -> None:
    pointer, container = encrypt(content_of(size))
    assert decrypt(pointer, container) == content_of(size)
    assert open_attachment(pointer, container) == content_of(size)


@given(cuts=st.lists(st.integers(0, 50_000), max_size=8), size=st.integers(0, 50_000), length=st.integers(900, 60_000))
@examples(60)
def test_pieces_of_any_length_give_the_same(cuts: list[int], size: int, length: int) -> None:
    content, encryptor = content_of(size), Encryptor()
    places = [0, *sorted(cuts), size + 50_000]
    pieces = [content[start:end] for start, end in itertools.pairwise(places)]
    container = b"".join([*(bytes(encryptor.update(piece)) for piece in pieces), *map(bytes, encryptor.finish())])
    assert decrypt(encryptor.pointer, container, length) == content


def test_a_container_fed_byte_by_byte_opens(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    assert decrypt(pointer, container, 1) == content_of(40_000)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_is_taken(kind: Callable[[bytes], bytes], sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    encryptor = Encryptor()
    encryptor.update(kind(b"content"))
    assert open_attachment(pointer, kind(container)) == content_of(40_000)


def test_a_container_is_the_published_construction_under_its_label(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    decryptor = Cobblestone256Decryptor(pointer.key, labels.ATTACHMENT)
    padded = decryptor.update(container) + decryptor.finalize()
    assert padded == content_of(40_000).ljust(pointer.padded_size, b"\x00")


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        (0, 16384),
        (1, 16384),
        (16384, 16384),
        (16385, 17408),
        (40_000, 40960),
        (1_048_577, 1_081_344),
        (2**30 + 1, 1107296256),
    ],
)
def test_lengths_tell_only_the_size_class(size: int, padded: int) -> None:
    assert attachment.padded_size(size) == padded


@pytest.mark.parametrize("size", SIZES)
def test_the_pointer_says_how_long_the_container_is_and_which(size: int) -> None:
    pointer, container = encrypt(content_of(size))
    assert pointer.container_size == len(container)
    assert (pointer.size, pointer.padded_size) == (size, attachment.padded_size(size))
    assert pointer.digest == hashlib.sha256(container).digest()


def test_two_containers_of_one_content_share_nothing() -> None:
    (one, first), (other, second) = encrypt(b"content"), encrypt(b"content")
    assert one.key != other.key
    assert first[:HEADER] != second[:HEADER]
    assert one.digest != other.digest


def test_padding_never_stands_in_memory_at_once() -> None:
    encryptor, mebibyte = Encryptor(), bytes(2**20)
    for _ in range(32):
        encryptor.update(mebibyte)
    encryptor.update(b"c")
    pieces = [len(piece) for piece in encryptor.finish()]
    assert sum(pieces) > 2**20
    assert max(pieces) <= 2**18 + 2 * SEALED_CHUNK


def test_more_than_a_container_holds_is_refused() -> None:
    encryptor = Encryptor()
    encryptor._size = 2**52 - 2**45
    assert refused(lambda: encryptor.update(b"c")) is Reason.MALFORMED


def test_nothing_is_encrypted_after_the_end() -> None:
    encryptor = Encryptor()
    rest = encryptor.finish()
    for call in (lambda: encryptor.update(b"c"), encryptor.finish, lambda: encryptor.pointer):
        with pytest.raises(RuntimeError):
            call()
    assert b"".join(rest)
    assert encryptor.pointer.size == 0


def test_a_pointer_has_a_fixed_layout() -> None:
    packed = b"k" * 32 + b"d" * 32 + (40_000).to_bytes(8, "big") + (40_960).to_bytes(8, "big")
    pointer = Pointer(b"k" * 32, b"d" * 32, 40_000, 40_960)
    assert pointer.pack() == packed
    assert Pointer.parse(packed) == pointer
    assert len(packed) == Pointer.LENGTH


def test_a_pointer_cut_short_or_with_a_tail_is_refused(sealed: tuple[Pointer, bytes]) -> None:
    packed = sealed[0].pack()
    for bad in (*(packed[:length] for length in range(len(packed))), packed + b"\x00"):
        assert refused(lambda bad=bad: Pointer.parse(bad)) is Reason.MALFORMED  # type: ignore[misc]


@pytest.mark.parametrize("bit", range(64))
def test_a_pointer_with_another_padded_size_is_refused(bit: int) -> None:
    pointer = Pointer(bytes(32), bytes(32), 40_000, 40_960 ^ 1 << bit)
    assert refused(lambda: Pointer.parse(pointer.pack())) is Reason.MALFORMED


@pytest.mark.parametrize(("size", "padded"), [(40_961, 40_960), (2**52, 2**52), (2**64 - 1, 2**64 - 1), (0, 0)])
def test_a_pointer_to_what_no_container_holds_is_refused(size: int, padded: int) -> None:
    assert refused(lambda: Pointer.parse(Pointer(bytes(32), bytes(32), size, padded).pack())) is Reason.MALFORMED


def test_a_pointer_to_the_largest_container_parses() -> None:
    size = 2**52 - 2**45
    assert Pointer.parse(Pointer(bytes(32), bytes(32), size, size).pack()).size == size


@pytest.mark.parametrize("place", [0, 23, 24, 55, 56, HEADER + CHUNK, HEADER + SEALED_CHUNK, -17, -16, -1])
def test_a_changed_container_is_refused(place: int, sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    changed = flipped(container, place % len(container))
    assert refused(lambda: open_attachment(pointer, changed)) is Reason.NOT_AUTHENTIC
    assert refused(lambda: decrypt(pointer, changed, CHUNK)) is Reason.NOT_AUTHENTIC


@pytest.mark.parametrize(
    "length",
    [0, 1, HEADER - 1, HEADER, HEADER + SEALED_CHUNK, HEADER + 2 * SEALED_CHUNK, HEADER + 2 * SEALED_CHUNK + 16],
)
def test_a_container_cut_short_is_refused(length: int, sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    for cut in (container[:length], container[:-1]):
        assert refused(lambda cut=cut: open_attachment(pointer, cut)) is Reason.MALFORMED  # type: ignore[misc]


def test_a_container_with_a_tail_is_refused_when_the_tail_arrives(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    decryptor = Decryptor(pointer)
    decryptor.update(container)
    assert refused(lambda: decryptor.update(b"\x00")) is Reason.MALFORMED


def test_chunks_in_another_order_are_refused(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    second, third = HEADER + SEALED_CHUNK, HEADER + 2 * SEALED_CHUNK
    swapped = container[:HEADER] + container[second:third] + container[HEADER:second] + container[third:]
    assert refused(lambda: open_attachment(pointer, swapped)) is Reason.NOT_AUTHENTIC


def test_a_container_made_for_another_purpose_is_refused() -> None:
    pointer, container = container_by_hand(bytes(CHUNK), 1, b"another purpose")
    assert refused(lambda: open_attachment(pointer, container)) is Reason.NOT_AUTHENTIC
    assert refused(lambda: Seeker(pointer, container[:HEADER])) is Reason.NOT_AUTHENTIC


def test_another_container_under_the_same_key_is_refused_at_the_end_and_not_before(
    sealed: tuple[Pointer, bytes],
) -> None:
    pointer, _ = sealed
    encryptor = Cobblestone256Encryptor(pointer.key, labels.ATTACHMENT)
    other = encryptor.update(b"x" * 40_000 + bytes(960)) + encryptor.finalize()
    decryptor = Decryptor(pointer)
    assert bytes(decryptor.update(other)) == b"x" * 2 * CHUNK
    assert refused(decryptor.finish) is Reason.NOT_AUTHENTIC
    assert refused(lambda: open_attachment(pointer, other)) is Reason.NOT_AUTHENTIC


@pytest.mark.parametrize("place", [40_000, 40_959])
def test_padding_that_is_not_zeros_is_refused(place: int) -> None:
    pointer, container = container_by_hand(flipped(content_of(40_000) + bytes(960), place), 40_000)
    assert refused(lambda: open_attachment(pointer, container)) is Reason.MALFORMED


def test_padding_in_chunks_of_its_own_is_checked_as_well() -> None:
    pointer, container = container_by_hand(flipped(content_of(1_048_577) + bytes(32_767), 1_065_000), 1_048_577)
    assert refused(lambda: decrypt(pointer, container, CHUNK)) is Reason.MALFORMED


def test_a_chunk_is_given_out_only_when_it_is_complete(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    decryptor = Decryptor(pointer)
    assert not bytes(decryptor.update(container[: HEADER + SEALED_CHUNK - 1]))
    assert bytes(decryptor.update(container[HEADER + SEALED_CHUNK - 1 : HEADER + SEALED_CHUNK])) == content_of(CHUNK)


def test_a_refusal_leaves_nothing_behind_that_was_not_authentic(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    decryptor = Decryptor(pointer)
    kept = decryptor.update(container[: HEADER + SEALED_CHUNK])
    changed = flipped(container, HEADER + 2 * SEALED_CHUNK - 1)[HEADER + SEALED_CHUNK : HEADER + 2 * SEALED_CHUNK]
    assert refused(lambda: decryptor.update(changed)) is Reason.NOT_AUTHENTIC
    assert not any(kept)


def test_nothing_is_decrypted_after_a_refusal_or_the_end(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    broken, whole = Decryptor(pointer), Decryptor(pointer)
    assert refused(broken.finish) is Reason.MALFORMED
    whole.update(container)
    whole.finish()
    for decryptor in (broken, whole):
        for call in (lambda each=decryptor: each.update(container), decryptor.finish):
            with pytest.raises(RuntimeError):
                call()


@pytest.mark.parametrize("size", SIZES)
def test_every_range_around_the_ends_of_chunks_can_be_read(size: int) -> None:
    pointer, container = encrypt(content_of(size))
    places = sorted({place for edge in (0, CHUNK, 2 * CHUNK, size) for place in (edge - 1, edge, edge + 1)})
    inside = [place for place in places if 0 <= place <= size]
    for start in inside:
        for end in (end for end in inside if end >= start):
            read = read_range(pointer, lambda offset, length: container[offset : offset + length], start, end)
            assert read == content_of(size)[start:end]


def test_a_range_is_read_from_its_chunks_alone(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    asked: list[tuple[int, int]] = []

    def read_at(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return container[offset : offset + length]

    read_range(pointer, read_at, CHUNK + 5, CHUNK + 6)
    assert asked == [(0, HEADER), (HEADER + SEALED_CHUNK, SEALED_CHUNK)]
    assert Seeker(pointer, container[:HEADER]).span(2 * CHUNK, 40_000) == (
        HEADER + 2 * SEALED_CHUNK,
        len(container) - HEADER - 2 * SEALED_CHUNK,
    )


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (1, 0), (0, 40_001), (40_000, 40_001)])
def test_a_range_outside_is_refused(start: int, end: int, sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    seeker = Seeker(pointer, container[:HEADER])
    assert refused(lambda: seeker.span(start, end)) is Reason.MALFORMED
    assert refused(lambda: seeker.open(start, end, b"")) is Reason.MALFORMED


def test_a_range_of_a_changed_or_moved_chunk_is_refused(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    seeker, first, second = Seeker(pointer, container[:HEADER]), HEADER, HEADER + SEALED_CHUNK
    chunk = container[second : second + SEALED_CHUNK]
    for bad in (flipped(chunk, 0), flipped(chunk, CHUNK), container[first:second]):
        assert refused(lambda bad=bad: seeker.open(CHUNK, CHUNK + 1, bad)) is Reason.NOT_AUTHENTIC  # type: ignore[misc]
    for bad in (b"", chunk[:-1], chunk + b"\x00"):
        assert refused(lambda bad=bad: seeker.open(CHUNK, CHUNK + 1, bad)) is Reason.MALFORMED  # type: ignore[misc]


def test_a_pointer_that_shortens_a_container_reads_nothing_of_its_last_chunk(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    shorter = dataclasses.replace(pointer, size=20_000, padded_size=attachment.padded_size(20_000))
    seeker = Seeker(shorter, container[:HEADER])
    offset, length = seeker.span(CHUNK, 20_000)
    assert refused(lambda: seeker.open(CHUNK, 20_000, container[offset : offset + length])) is Reason.NOT_AUTHENTIC


@pytest.mark.parametrize("place", [0, 23, 24, 55])
def test_seeking_needs_the_containers_own_header(place: int, sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    for header in (flipped(container[:HEADER], place), container[:place], container[: HEADER + 1]):
        assert refused(lambda header=header: Seeker(pointer, header)) is Reason.NOT_AUTHENTIC  # type: ignore[misc]


def test_a_key_of_another_length_is_refused(sealed: tuple[Pointer, bytes]) -> None:
    pointer = dataclasses.replace(sealed[0], key=b"k" * 31)
    assert refused(lambda: Decryptor(pointer)) is Reason.BAD_KEY
    assert refused(lambda: Seeker(pointer, sealed[1][:HEADER])) is Reason.BAD_KEY


def test_no_holder_of_the_key_shows_it(sealed: tuple[Pointer, bytes]) -> None:
    pointer, container = sealed
    for holder in (pointer, Encryptor(), Decryptor(pointer), Seeker(pointer, container[:HEADER])):
        shown = repr(holder)
        assert shown.endswith(">")
        assert pointer.key.hex() not in shown
        assert "b'" not in shown


@given(data=st.binary(max_size=200))
@examples(200)
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    pointer = Pointer(bytes(32), bytes(32), 0, CHUNK)
    for call in (lambda: Pointer.parse(data), lambda: open_attachment(pointer, data), lambda: Seeker(pointer, data)):
        refused(call)
