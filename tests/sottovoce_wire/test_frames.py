"""The relay's frames: every one reads back as it was written, and nothing else is read at all."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from sottovoce_wire import frames, limits
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import ClientFrame, GapReason, KeyClass, RelayFrame, Ttl
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey, SendKeyHash

QUEUE = QueueId(b"q" * 16)
KEY = frames.NewSendKey(SendKeyHash(b"h" * 32), KeyClass.CONTACT)
ITEM = frames.SendItem(QUEUE, SendKey(b"k" * 32), EnvelopeId(b"e" * 16), Ttl.WEEK, b"body")

#: One frame of each kind, with its tag, which never changes.
CLIENT_FRAMES: dict[int, ClientFrame] = {
    1: frames.Hello([1]),
    2: frames.CreateQueue(1, b"o" * 32, b"s" * 64, [KEY]),
    3: frames.OpenQueue(2, b"o" * 32, b"s" * 64),
    4: frames.AddSendKey(3, QUEUE, KEY),
    5: frames.RevokeSendKey(4, QUEUE, SendKeyHash(b"h" * 32)),
    6: frames.Receive(5, QUEUE, 256, limits.MIB),
    7: frames.Ack(QUEUE, 9, [11, 12]),
    8: frames.Send(6, [ITEM]),
    9: frames.Ping(7),
}
RELAY_FRAMES: dict[int, RelayFrame] = {
    64: frames.Welcome(1, b"n" * 32, limits.MAX_ENVELOPE, limits.MAX_FRAME, limits.MAX_SEND_ITEMS),
    65: frames.Done(1),
    66: frames.Failed(2, Code.UNKNOWN_QUEUE, "no such queue"),
    67: frames.Deliver(QUEUE, [frames.Delivery(1, KeyClass.STRANGER, b"body")]),
    68: frames.Acked(QUEUE, 9, [11, 12]),
    69: frames.CaughtUp(QUEUE),
    70: frames.Gap(QUEUE, 3, GapReason.EXPIRED),
    71: frames.SendResults(6, [frames.SendResult(Code.QUEUE_FULL, 1500)]),
    72: frames.Pong(7),
    73: frames.Goodbye(Code.SHUTTING_DOWN, "the relay restarts"),
}
ALL = CLIENT_FRAMES | RELAY_FRAMES


def decode(tag: int, data: bytes) -> ClientFrame | RelayFrame:
    return frames.decode_client_frame(data) if tag in CLIENT_FRAMES else frames.decode_relay_frame(data)


def code_of(tag: int, data: bytes) -> Code:
    with pytest.raises(WireError) as refused:
        decode(tag, data)
    return refused.value.code


def fields(tag: int) -> list[Any]:
    """The frame as the array that travels."""
    array: list[Any] = msgspec.msgpack.decode(frames.encode(ALL[tag]))
    return array


def pack(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def values_of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Every value that the type and its bounds allow; lists of at most four."""
    match kind:
        case inspect.UnionType(types=types):
            return st.one_of(*map(values_of, types))
        case inspect.StructType(cls=cls, fields=parts):
            return st.builds(cls, *(values_of(part.type) for part in parts))
        case inspect.ListType(item_type=of, min_length=least):
            return st.lists(values_of(of), min_size=least or 0, max_size=4)
        case inspect.BytesType(min_length=least, max_length=most):
            return st.binary(min_size=least or 0, max_size=most or 100)
        case inspect.StrType(max_length=most):
            return st.text(max_size=most)
        case inspect.IntType(ge=least, le=most):
            return st.integers(least, most)
        case inspect.EnumType(cls=cls):
            return st.sampled_from(cls)
    raise TypeError(kind)


# --- What is accepted ---------------------------------------------------------------------------------------


def test_every_kind_of_frame_is_in_the_table() -> None:
    assert {type(frame) for frame in CLIENT_FRAMES.values()} == set(ClientFrame.__args__)
    assert {type(frame) for frame in RELAY_FRAMES.values()} == set(RelayFrame.__args__)


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_is_an_array_that_begins_with_its_tag(tag: int) -> None:
    assert fields(tag)[0] == tag


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_reads_back_as_it_was_written(tag: int) -> None:
    assert decode(tag, frames.encode(ALL[tag])) == ALL[tag]


@given(values_of(inspect.type_info(ClientFrame)))
def test_every_client_frame_within_the_limits_reads_back(frame: ClientFrame) -> None:
    assert frames.decode_client_frame(frames.encode(frame)) == frame


@given(values_of(inspect.type_info(RelayFrame)))
def test_every_relay_frame_within_the_limits_reads_back(frame: RelayFrame) -> None:
    assert frames.decode_relay_frame(frames.encode(frame)) == frame


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(Ttl.HOUR, 3600), (Ttl.SIX_HOURS, 21600), (Ttl.DAY, 86400), (Ttl.WEEK, 604800), (Ttl.MONTH, 2592000)],
)
def test_a_time_to_live_has_its_seconds(ttl: Ttl, seconds: int) -> None:
    assert ttl.seconds == seconds


def test_there_are_five_times_to_live() -> None:
    assert len(Ttl) == 5


def test_the_largest_allowed_frame_is_read() -> None:
    full = [frames.Delivery(1, KeyClass.GROUP, bytes(limits.MAX_ENVELOPE))] * 15
    room = limits.MAX_FRAME - len(
        frames.encode(frames.Deliver(QUEUE, [*full, frames.Delivery(1, KeyClass.GROUP, b"")]))
    )
    frame = frames.Deliver(
        QUEUE, [*full, frames.Delivery(1, KeyClass.GROUP, bytes(room - 1))]
    )  # its length: 1 byte more
    data = frames.encode(frame)
    assert len(data) == limits.MAX_FRAME
    assert frames.decode_relay_frame(data) == frame


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_cut_short_at_any_length_is_refused(tag: int) -> None:
    data = frames.encode(ALL[tag])
    assert {code_of(tag, data[:length]) for length in range(len(data))} == {Code.MALFORMED}


@pytest.mark.parametrize("tag", ALL)
@pytest.mark.parametrize("tail", [b"\x00", b"\xc0", b"\xff" * 9], ids=["zero", "nil", "many"])
def test_a_frame_with_a_tail_is_refused(tag: int, tail: bytes) -> None:
    assert code_of(tag, frames.encode(ALL[tag]) + tail) is Code.TRAILING_BYTES


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_sent_twice_in_one_message_is_refused(tag: int) -> None:
    assert code_of(tag, frames.encode(ALL[tag]) * 2) is Code.TRAILING_BYTES


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_without_its_last_fields_is_refused(tag: int) -> None:
    array = fields(tag)
    assert {code_of(tag, pack(array[:length])) for length in range(len(array))} == {Code.MISSING_FIELD}


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_with_one_field_more_is_refused(tag: int) -> None:
    assert code_of(tag, pack([*fields(tag), 0])) is Code.WRONG_LENGTH


@pytest.mark.parametrize("tag", ALL)
@pytest.mark.parametrize("other", [0, 10, 63, 74, 127, 255, 2**32, -1])
def test_an_unknown_tag_is_refused(tag: int, other: int) -> None:
    assert code_of(tag, pack([other, *fields(tag)[1:]])) is Code.UNKNOWN_TAG


@pytest.mark.parametrize("tag", CLIENT_FRAMES)
def test_a_relay_does_not_say_what_a_client_says(tag: int) -> None:
    with pytest.raises(WireError) as refused:
        frames.decode_relay_frame(frames.encode(ALL[tag]))
    assert refused.value.code is Code.UNKNOWN_TAG


@pytest.mark.parametrize("tag", RELAY_FRAMES)
def test_a_client_does_not_say_what_a_relay_says(tag: int) -> None:
    with pytest.raises(WireError) as refused:
        frames.decode_client_frame(frames.encode(ALL[tag]))
    assert refused.value.code is Code.UNKNOWN_TAG


WRONG: list[object] = [None, True, 1.0, "text", "q" * 16, {}, {"a": 1}, msgspec.msgpack.Ext(1, b"x"), -1, 2**63, [[]]]


@pytest.mark.parametrize("tag", ALL)
@pytest.mark.parametrize(
    "value",
    WRONG,
    ids=lambda value: (
        f"{type(value).__name__} {str(value)[:8]}" if not isinstance(value, msgspec.msgpack.Ext) else "Ext"
    ),
)
def test_no_field_takes_a_value_of_another_type(tag: int, value: object) -> None:
    array = fields(tag)
    for place in range(1, len(array)):
        if isinstance(array[place], str) and isinstance(value, str):
            continue
        changed = [*array[:place], value, *array[place + 1 :]]
        assert code_of(tag, pack(changed)) in {
            Code.MALFORMED,
            Code.UNKNOWN_TAG,
            Code.WRONG_LENGTH,
            Code.MISSING_FIELD,  # an empty array where a part stands
        }


@pytest.mark.parametrize("tag", ALL)
def test_a_byte_string_of_another_length_is_refused(tag: int) -> None:
    array = fields(tag)
    places = [place for place, value in enumerate(array) if isinstance(value, bytes)]
    for place in places:
        for value in (b"", array[place][:-1], array[place] + b"x"):
            assert code_of(tag, pack([*array[:place], value, *array[place + 1 :]])) is Code.WRONG_LENGTH


def send(*items: object) -> bytes:
    return pack([8, 1, list(items)])


GOOD_ITEM = [QUEUE, b"k" * 32, b"e" * 16, 4, b"body"]


def item(place: int, value: object) -> bytes:
    return send([*GOOD_ITEM[:place], value, *GOOD_ITEM[place + 1 :]])


REFUSED: dict[str, tuple[int, bytes, Code]] = {
    "no version": (1, pack([1, []]), Code.WRONG_LENGTH),
    "17 versions": (1, pack([1, [1] * 17]), Code.WRONG_LENGTH),
    "a version beyond 32 bits": (1, pack([1, [2**32]]), Code.MALFORMED),
    "a request number beyond 32 bits": (9, pack([9, 2**32]), Code.MALFORMED),
    "too many send keys": (2, pack([2, 1, b"o" * 32, b"s" * 64, [[b"h" * 32, 1]] * 257]), Code.WRONG_LENGTH),
    "a send key of class 0": (4, pack([4, 1, QUEUE, [b"h" * 32, 0]]), Code.UNKNOWN_TAG),
    "a send key of class 5": (4, pack([4, 1, QUEUE, [b"h" * 32, 5]]), Code.UNKNOWN_TAG),
    "a short send key hash": (4, pack([4, 1, QUEUE, [b"h" * 31, 1]]), Code.WRONG_LENGTH),
    "no credit": (6, pack([6, 1, QUEUE, 0, limits.MIB]), Code.MALFORMED),
    "credit for 257": (6, pack([6, 1, QUEUE, 257, limits.MIB]), Code.MALFORMED),
    "credit below one envelope": (6, pack([6, 1, QUEUE, 1, limits.MAX_ENVELOPE - 1]), Code.MALFORMED),
    "credit above 4 MiB": (6, pack([6, 1, QUEUE, 1, 4 * limits.MIB + 1]), Code.MALFORMED),
    "257 single acks": (7, pack([7, QUEUE, 0, list(range(257))]), Code.WRONG_LENGTH),
    "an ack beyond 2^53": (7, pack([7, QUEUE, 2**53, []]), Code.MALFORMED),
    "a single ack beyond 2^53": (7, pack([7, QUEUE, 0, [2**53]]), Code.MALFORMED),
    "an empty batch": (8, send(), Code.WRONG_LENGTH),
    "257 items": (8, send(*[GOOD_ITEM] * 257), Code.WRONG_LENGTH),
    "an item without a body": (8, send(GOOD_ITEM[:4]), Code.MISSING_FIELD),
    "an item with one field more": (8, send([*GOOD_ITEM, 0]), Code.WRONG_LENGTH),
    "an item with an empty body": (8, item(4, b""), Code.WRONG_LENGTH),
    "an item whose body is text": (8, item(4, "body"), Code.MALFORMED),
    "a time to live of 0": (8, item(3, 0), Code.UNKNOWN_TAG),
    "a time to live of 6": (8, item(3, 6), Code.UNKNOWN_TAG),
    "a time to live in seconds": (8, item(3, 86400), Code.UNKNOWN_TAG),
    "a short envelope id": (8, item(2, b"e" * 15), Code.WRONG_LENGTH),
    "a long send key": (8, item(1, b"k" * 33), Code.WRONG_LENGTH),
    "a queue that is a number": (8, item(0, 7), Code.MALFORMED),
    "an unknown code": (66, pack([66, 1, 99, "?"]), Code.UNKNOWN_TAG),
    "a detail of 201 characters": (66, pack([66, 1, 100, "a" * 201]), Code.WRONG_LENGTH),
    "a detail that is not UTF-8": (66, b"\x94\x42\x01\x64\xa1\xff", Code.MALFORMED),
    "an empty delivery": (67, pack([67, QUEUE, []]), Code.WRONG_LENGTH),
    "257 deliveries": (67, pack([67, QUEUE, [[1, 1, b"x"]] * 257]), Code.WRONG_LENGTH),
    "a gap for no known reason": (70, pack([70, QUEUE, 1, 9]), Code.UNKNOWN_TAG),
    "a result that is only a number": (71, pack([71, 1, [0]]), Code.MALFORMED),
    "nothing at all": (8, b"", Code.MALFORMED),
    "a map": (8, pack({"tag": 8}), Code.MALFORMED),
    "an array that claims 2^32 - 1 elements": (8, b"\xdd\xff\xff\xff\xff\x08", Code.MALFORMED),
    "a batch that claims 2^32 - 1 items": (8, b"\x93\x08\x01\xdd\xff\xff\xff\xff", Code.WRONG_LENGTH),
    "a byte string that claims 4 GiB": (9, b"\x92\x09\xc6\xff\xff\xff\xff", Code.MALFORMED),
    "a hundred thousand nested arrays": (8, b"\x91" * 100_000, Code.MALFORMED),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_frame_that_breaks_a_rule_is_refused_with_the_rules_code(what: str) -> None:
    tag, data, code = REFUSED[what]
    assert code_of(tag, data) is code


@pytest.mark.parametrize("tag", [8, 67])
def test_a_frame_above_the_limit_is_not_even_parsed(tag: int) -> None:
    assert code_of(tag, b"\x00" * (limits.MAX_FRAME + 1)) is Code.FRAME_TOO_LARGE


@given(st.binary(max_size=200))
def test_no_bytes_make_a_decoder_fail_otherwise(data: bytes) -> None:
    for tag in (8, 67):
        with contextlib.suppress(WireError):
            decode(tag, data)


@given(st.sampled_from(sorted(ALL)), st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_makes_a_decoder_fail_otherwise(tag: int, place: int, change: int) -> None:
    data = bytearray(frames.encode(ALL[tag]))
    data[place % len(data)] ^= change
    with contextlib.suppress(WireError):
        decode(tag, bytes(data))


def test_an_error_repeats_none_of_the_bytes() -> None:
    secret = b"the key of the house"
    with pytest.raises(WireError) as refused:
        frames.decode_client_frame(item(1, secret))
    assert secret.decode() not in str(refused.value)
    assert refused.value.__suppress_context__
