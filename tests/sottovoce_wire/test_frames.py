"""The relay's frames and messages: every one reads back as it was written, and nothing else is read at all."""

import contextlib
from collections.abc import Callable, Sequence
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
HASH = SendKeyHash(b"h" * 32)
KEY = frames.NewSendKey(HASH, KeyClass.CONTACT)
ITEM = frames.SendItem(QUEUE, SendKey(b"k" * 32), EnvelopeId(b"e" * 16), Ttl.WEEK, b"body")
TARGET = frames.Target(QUEUE, SendKey(b"k" * 32), EnvelopeId(b"e" * 16))

#: One frame of each kind, with its tag, which never changes.
CLIENT_FRAMES: dict[int, ClientFrame] = {
    1: frames.Hello([1]),
    2: frames.CreateQueue(1, b"o" * 32, b"s" * 64, [KEY], "let me in"),
    3: frames.OpenQueue(2, b"o" * 32, b"s" * 64),
    4: frames.AddSendKey(3, QUEUE, KEY),
    5: frames.RevokeSendKey(4, QUEUE, HASH),
    6: frames.Receive(5, QUEUE, 256, limits.MIB),
    7: frames.Ack(QUEUE, 9, [11, 12]),
    8: frames.Send(6, [ITEM]),
    9: frames.Ping(7),
    10: frames.SendMany(8, Ttl.NOW, b"body", [TARGET]),
    11: frames.DemoteSendKey(9, QUEUE, HASH),
    12: frames.DeleteQueue(10, QUEUE),
}
RELAY_FRAMES: dict[int, RelayFrame] = {
    64: frames.Welcome(1, b"n" * 32, limits.MAX_ENVELOPE, limits.MAX_MESSAGE, limits.MAX_SEND_ITEMS),
    65: frames.Done(1),
    66: frames.Failed(2, Code.UNKNOWN_QUEUE, "no such queue"),
    67: frames.Deliver(QUEUE, [frames.Delivery(1, KeyClass.STRANGER, b"body")]),
    68: frames.Acked(QUEUE, 9, [11, 12]),
    69: frames.CaughtUp(QUEUE),
    70: frames.Gap(QUEUE, 3, GapReason.EXPIRED),
    71: frames.SendResults(6, [frames.SendResult(Code.QUEUE_FULL, 1500)]),
    72: frames.Pong(7),
    73: frames.Goodbye(Code.SHUTTING_DOWN, "the relay restarts"),
    74: frames.DeliverNow(QUEUE, [frames.Passing(KeyClass.GROUP, b"body")]),
}
ALL: dict[int, ClientFrame | RelayFrame] = {**CLIENT_FRAMES, **RELAY_FRAMES}
#: Every kind of frame in one message, for each side.
COMPANIES: dict[int, list[ClientFrame | RelayFrame]] = {
    1: list(CLIENT_FRAMES.values()),
    64: list(RELAY_FRAMES.values()),
}


def decode(tag: int, data: bytes) -> Sequence[ClientFrame | RelayFrame]:
    """Read a message as the side does that this tag is said to."""
    return frames.decode_client_message(data) if tag in CLIENT_FRAMES else frames.decode_relay_message(data)


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


def alone(array: object) -> bytes:
    """The message that carries only this frame."""
    return pack([array])


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


CLIENT_FRAME = values_of(inspect.type_info(ClientFrame))
RELAY_FRAME = values_of(inspect.type_info(RelayFrame))


# --- What is accepted ---------------------------------------------------------------------------------------


def test_every_kind_of_frame_is_in_the_table() -> None:
    assert {type(frame) for frame in CLIENT_FRAMES.values()} == set(ClientFrame.__args__)
    assert {type(frame) for frame in RELAY_FRAMES.values()} == set(RelayFrame.__args__)


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_is_an_array_that_begins_with_its_tag(tag: int) -> None:
    assert fields(tag)[0] == tag


@pytest.mark.parametrize("tag", ALL)
def test_a_message_of_one_frame_is_an_array_of_one_array(tag: int) -> None:
    assert frames.message(ALL[tag]) == b"\x91" + frames.encode(ALL[tag]) == alone(fields(tag))


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_reads_back_as_it_was_written(tag: int) -> None:
    assert decode(tag, frames.message(ALL[tag])) == [ALL[tag]]


@pytest.mark.parametrize("tag", COMPANIES)
def test_all_kinds_of_frames_read_back_from_one_message_in_their_order(tag: int) -> None:
    company = COMPANIES[tag]
    assert decode(tag, frames.message(*company)) == company
    assert decode(tag, frames.message(*company[::-1])) == company[::-1]


@given(CLIENT_FRAME)
def test_every_client_frame_within_the_limits_reads_back_alone(frame: ClientFrame) -> None:
    assert frames.decode_client_message(frames.message(frame)) == [frame]


@given(RELAY_FRAME)
def test_every_relay_frame_within_the_limits_reads_back_alone(frame: RelayFrame) -> None:
    assert frames.decode_relay_message(frames.message(frame)) == [frame]


@given(st.lists(CLIENT_FRAME, min_size=1, max_size=20))
def test_client_frames_read_back_in_company_and_joined_they_are_the_same_bytes(company: list[ClientFrame]) -> None:
    data = frames.message(*company)
    assert frames.join([frames.encode(frame) for frame in company]) == data
    assert frames.decode_client_message(data) == company


@given(st.lists(RELAY_FRAME, min_size=1, max_size=20))
def test_relay_frames_read_back_in_company_and_joined_they_are_the_same_bytes(company: list[RelayFrame]) -> None:
    data = frames.message(*company)
    assert frames.join([frames.encode(frame) for frame in company]) == data
    assert frames.decode_relay_message(data) == company


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 255, 256, limits.MAX_FRAMES])
def test_joined_frames_are_the_message_of_these_frames_whatever_their_number(count: int) -> None:
    company = [frames.Ping(number) for number in range(count)]
    data = frames.join([frames.encode(frame) for frame in company])
    assert data == frames.message(*company)
    assert frames.decode_client_message(data) == company


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (Ttl.NOW, 0),
        (Ttl.HOUR, 3600),
        (Ttl.SIX_HOURS, 21600),
        (Ttl.DAY, 86400),
        (Ttl.WEEK, 604800),
        (Ttl.MONTH, 2592000),
    ],
)
def test_a_time_to_live_has_its_seconds(ttl: Ttl, seconds: int) -> None:
    assert ttl.seconds == seconds


def test_there_are_five_times_to_live_and_none() -> None:
    assert [ttl.value for ttl in Ttl] == [0, 1, 2, 3, 4, 5]


def test_the_numbers_of_reasons_and_classes_never_change() -> None:
    assert [(reason.value, reason.name) for reason in GapReason] == [(1, "EXPIRED"), (2, "QUOTA")]
    classes = [(1, "STRANGER"), (2, "INVITE"), (3, "CONTACT"), (4, "GROUP")]
    assert [(key_class.value, key_class.name) for key_class in KeyClass] == classes


def test_the_specification_lists_the_values_of_every_enumeration(spec_rows: Callable[[str], list[list[str]]]) -> None:
    table = [row for row in spec_rows("relay.md") if row[0].isdigit() and not row[1].isidentifier()]
    seconds = {"ephemeral": 0, "1 hour": 3600, "6 hours": 21600, "1 day": 86400, "7 days": 604800, "30 days": 2592000}
    lives = {int(number): seconds[ttl.split(":")[0]] for number, ttl, _, _ in table}
    classes = {int(number): key_class for number, _, key_class, _ in table if key_class}
    reasons = {int(number): reason.split(":")[0] for number, _, _, reason in table if reason}
    assert lives == {ttl.value: ttl.seconds for ttl in Ttl}
    assert classes == {key_class.value: key_class.name.lower() for key_class in KeyClass}
    assert reasons == {reason.value: reason.name.lower() for reason in GapReason}


def pages(last: int) -> list[frames.Deliver]:
    """Fifteen frames with an envelope of the largest size each, and one with this many bytes."""
    full = frames.Deliver(QUEUE, [frames.Delivery(1, KeyClass.GROUP, bytes(limits.MAX_ENVELOPE))])
    return [full] * 15 + [frames.Deliver(QUEUE, [frames.Delivery(1, KeyClass.GROUP, bytes(last))])]


def test_a_message_of_the_largest_size_is_read_and_one_byte_more_is_not_even_parsed() -> None:
    room = limits.MAX_MESSAGE - len(frames.message(*pages(1_000))) + 1_000
    data = frames.message(*pages(room))
    assert len(data) == limits.MAX_MESSAGE
    assert frames.decode_relay_message(data) == pages(room)
    assert code_of(67, frames.message(*pages(room + 1))) is Code.FRAME_TOO_LARGE


def test_the_fullest_lists_are_read() -> None:
    largest: list[ClientFrame] = [
        frames.Hello([1] * 16),
        frames.CreateQueue(1, b"o" * 32, b"s" * 64, [KEY] * 256, "é" * 128),
        frames.Ack(QUEUE, 0, list(range(256))),
        frames.Send(1, [ITEM] * 256),
        frames.SendMany(1, Ttl.HOUR, b"body", [TARGET] * 1024),
    ]
    assert frames.decode_client_message(frames.message(*largest)) == largest
    results = frames.SendResults(1, [frames.SendResult(Code.ACCEPTED, 0)] * 1024)
    passing = frames.DeliverNow(QUEUE, [frames.Passing(KeyClass.GROUP, b"x")] * 256)
    assert frames.decode_relay_message(frames.message(results, passing)) == [results, passing]


# --- What is shown --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [2, 8, 10])
@pytest.mark.parametrize("secret", ["let me in", "o" * 32, "s" * 64, "k" * 32, "e" * 16, "body"])
def test_a_frame_that_opens_a_door_shows_no_code_key_id_or_body(tag: int, secret: str) -> None:
    assert secret not in repr(ALL[tag])


def test_the_parts_of_a_frame_that_opens_a_door_show_nothing() -> None:
    assert [repr(ITEM), repr(TARGET)] == ["SendItem(…)", "Target(…)"]


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ALL)
def test_a_message_cut_short_at_any_length_is_refused(tag: int) -> None:
    data = frames.message(ALL[tag])
    assert {code_of(tag, data[:length]) for length in range(len(data))} == {Code.MALFORMED}


@pytest.mark.parametrize("tag", COMPANIES)
def test_a_message_of_many_frames_cut_short_at_any_length_is_refused(tag: int) -> None:
    data = frames.message(*COMPANIES[tag])
    assert {code_of(tag, data[:length]) for length in range(len(data))} == {Code.MALFORMED}


@pytest.mark.parametrize("tag", ALL)
@pytest.mark.parametrize("tail", [b"\x00", b"\xc0", b"\xff" * 9], ids=["zero", "nil", "many"])
def test_a_message_with_a_tail_is_refused(tag: int, tail: bytes) -> None:
    assert code_of(tag, frames.message(ALL[tag]) + tail) is Code.TRAILING_BYTES


@pytest.mark.parametrize("tag", ALL)
def test_two_messages_in_one_are_refused(tag: int) -> None:
    assert code_of(tag, frames.message(ALL[tag]) * 2) is Code.TRAILING_BYTES


@pytest.mark.parametrize("tag", ALL)
def test_a_message_with_more_frames_than_it_says_is_refused(tag: int) -> None:
    assert code_of(tag, b"\x91" + frames.encode(ALL[tag]) * 2) is Code.TRAILING_BYTES


@pytest.mark.parametrize("tag", ALL)
def test_a_message_with_fewer_frames_than_it_says_is_refused(tag: int) -> None:
    assert code_of(tag, b"\x93" + frames.encode(ALL[tag]) * 2) is Code.MALFORMED


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_that_no_message_carries_is_refused(tag: int) -> None:
    assert code_of(tag, frames.encode(ALL[tag])) is Code.MALFORMED


@pytest.mark.parametrize("tag", ALL)
def test_a_message_within_a_message_is_refused(tag: int) -> None:
    assert code_of(tag, b"\x91" + frames.message(ALL[tag])) is Code.MALFORMED
    assert code_of(tag, b"\x92" + frames.encode(ALL[tag]) + frames.message(ALL[tag])) is Code.MALFORMED


@pytest.mark.parametrize("tag", [9, 72])
@pytest.mark.parametrize("count", [0, limits.MAX_FRAMES + 1, 70_000])
def test_a_message_of_no_frame_or_of_too_many_is_refused(tag: int, count: int) -> None:
    assert code_of(tag, pack([fields(tag)] * count)) is Code.WRONG_LENGTH


@pytest.mark.parametrize("tag", [9, 72])
@pytest.mark.parametrize("claim", [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdc\x04\x01"])
def test_a_message_that_claims_too_many_frames_is_refused_before_they_are_read(tag: int, claim: bytes) -> None:
    assert code_of(tag, claim + frames.encode(ALL[tag])) is Code.WRONG_LENGTH


NO_FRAME: dict[str, tuple[object, Code]] = {
    "nil": (None, Code.MALFORMED),
    "a number": (9, Code.MALFORMED),
    "text": ("Ping", Code.MALFORMED),
    "bytes": (pack([9, 7]), Code.MALFORMED),
    "a map": ({"number": 7}, Code.MALFORMED),
    "an empty array": ([], Code.MISSING_FIELD),
    "an array in an array": ([[9, 7]], Code.MALFORMED),
    "a tag as text": (["9", 7], Code.MALFORMED),
    "a tag as bytes": ([b"\x09", 7], Code.MALFORMED),
    "a tag that is true": ([True, 7], Code.MALFORMED),
    "a tag that is a float": ([9.5, 7], Code.MALFORMED),
}


@pytest.mark.parametrize("tag", [9, 72])
@pytest.mark.parametrize("what", NO_FRAME)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_something_that_is_no_frame_is_refused_wherever_it_stands(tag: int, what: str, before: int) -> None:
    value, code = NO_FRAME[what]
    company = [fields(tag)] * before + [value] + [fields(tag)] * (2 - before)
    assert code_of(tag, pack(company)) is code
    if before == 0:
        assert code_of(tag, alone(value)) is code


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_without_its_last_fields_is_refused(tag: int) -> None:
    array = fields(tag)
    assert {code_of(tag, alone(array[:length])) for length in range(len(array))} == {Code.MISSING_FIELD}


@pytest.mark.parametrize("tag", ALL)
def test_a_frame_with_one_field_more_is_refused(tag: int) -> None:
    assert code_of(tag, alone([*fields(tag), 0])) is Code.WRONG_LENGTH


@pytest.mark.parametrize("tag", ALL)
@pytest.mark.parametrize("other", [0, 13, 63, 75, 127, 255, 2**32, -1])
def test_an_unknown_tag_is_refused(tag: int, other: int) -> None:
    assert code_of(tag, alone([other, *fields(tag)[1:]])) is Code.UNKNOWN_TAG


@pytest.mark.parametrize("tag", CLIENT_FRAMES)
def test_a_relay_does_not_say_what_a_client_says(tag: int) -> None:
    assert code_of(64, frames.message(ALL[tag])) is Code.UNKNOWN_TAG
    assert code_of(64, frames.message(frames.Pong(1), ALL[tag])) is Code.UNKNOWN_TAG


@pytest.mark.parametrize("tag", RELAY_FRAMES)
def test_a_client_does_not_say_what_a_relay_says(tag: int) -> None:
    assert code_of(1, frames.message(ALL[tag])) is Code.UNKNOWN_TAG
    assert code_of(1, frames.message(frames.Ping(1), ALL[tag])) is Code.UNKNOWN_TAG


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
        assert code_of(tag, alone(changed)) in {
            Code.MALFORMED,
            Code.UNKNOWN_TAG,
            Code.WRONG_LENGTH,
            Code.MISSING_FIELD,  # an empty array where a part stands
        }


@pytest.mark.parametrize("tag", ALL)
def test_an_id_a_key_or_a_signature_of_another_length_is_refused(tag: int) -> None:
    array = fields(tag)
    places = [place for place, value in enumerate(array) if isinstance(value, bytes) and value != b"body"]
    for place in places:
        for value in (b"", array[place][:-1], array[place] + b"x"):
            assert code_of(tag, alone([*array[:place], value, *array[place + 1 :]])) is Code.WRONG_LENGTH


GOOD_ITEM = [QUEUE, b"k" * 32, b"e" * 16, 4, b"body"]
GOOD_TARGET = GOOD_ITEM[:3]


def send(*items: object) -> bytes:
    return pack([8, 1, list(items)])


def item(place: int, value: object) -> bytes:
    return send([*GOOD_ITEM[:place], value, *GOOD_ITEM[place + 1 :]])


def send_many(*targets: object, ttl: object = 4, body: object = b"body") -> bytes:
    return pack([10, 1, ttl, body, list(targets)])


def target(place: int, value: object) -> bytes:
    return send_many([*GOOD_TARGET[:place], value, *GOOD_TARGET[place + 1 :]])


def create(keys: object = (), code: object = "") -> bytes:
    return pack([2, 1, b"o" * 32, b"s" * 64, keys, code])


#: Frames that break a rule: the tag of one that goes the same way, the frame's bytes, the rule's code.
REFUSED: dict[str, tuple[int, bytes, Code]] = {
    "no version": (1, pack([1, []]), Code.WRONG_LENGTH),
    "17 versions": (1, pack([1, [1] * 17]), Code.WRONG_LENGTH),
    "a version beyond 32 bits": (1, pack([1, [2**32]]), Code.MALFORMED),
    "a request number beyond 32 bits": (9, pack([9, 2**32]), Code.MALFORMED),
    "too many send keys": (2, create([[b"h" * 32, 1]] * 257), Code.WRONG_LENGTH),
    "a code of 129 characters": (2, create(code="a" * 129), Code.WRONG_LENGTH),
    "a code that is bytes": (2, create(code=b"let me in"), Code.MALFORMED),
    "a code that is not UTF-8": (2, create(code="a")[:-1] + b"\xff", Code.MALFORMED),
    "no code": (2, pack([2, 1, b"o" * 32, b"s" * 64, []]), Code.MISSING_FIELD),
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
    "a time to live of -1": (8, item(3, -1), Code.UNKNOWN_TAG),
    "a time to live of 6": (8, item(3, 6), Code.UNKNOWN_TAG),
    "a time to live in seconds": (8, item(3, 86400), Code.UNKNOWN_TAG),
    "a short envelope id": (8, item(2, b"e" * 15), Code.WRONG_LENGTH),
    "a long send key": (8, item(1, b"k" * 33), Code.WRONG_LENGTH),
    "a queue that is a number": (8, item(0, 7), Code.MALFORMED),
    "no target": (10, send_many(), Code.WRONG_LENGTH),
    "1,025 targets": (10, send_many(*[GOOD_TARGET] * 1025), Code.WRONG_LENGTH),
    "a target with a body of its own": (10, send_many([*GOOD_TARGET, b"body"]), Code.WRONG_LENGTH),
    "a target without an envelope id": (10, send_many(GOOD_TARGET[:2]), Code.MISSING_FIELD),
    "a target with a short queue id": (10, target(0, b"q" * 15), Code.WRONG_LENGTH),
    "a target with a short send key": (10, target(1, b"k" * 31), Code.WRONG_LENGTH),
    "a target with a long envelope id": (10, target(2, b"e" * 17), Code.WRONG_LENGTH),
    "a shared body that is empty": (10, send_many(GOOD_TARGET, body=b""), Code.WRONG_LENGTH),
    "a shared body that is text": (10, send_many(GOOD_TARGET, body="body"), Code.MALFORMED),
    "a shared body's time to live of 6": (10, send_many(GOOD_TARGET, ttl=6), Code.UNKNOWN_TAG),
    "a short hash of a key to demote": (11, pack([11, 1, QUEUE, b"h" * 31]), Code.WRONG_LENGTH),
    "a long id of a queue to delete": (12, pack([12, 1, QUEUE + b"q"]), Code.WRONG_LENGTH),
    "an unknown code": (66, pack([66, 1, 99, "?"]), Code.UNKNOWN_TAG),
    "a detail of 201 characters": (66, pack([66, 1, 100, "a" * 201]), Code.WRONG_LENGTH),
    "a detail that is not UTF-8": (66, b"\x94\x42\x01\x64\xa1\xff", Code.MALFORMED),
    "an empty delivery": (67, pack([67, QUEUE, []]), Code.WRONG_LENGTH),
    "257 deliveries": (67, pack([67, QUEUE, [[1, 1, b"x"]] * 257]), Code.WRONG_LENGTH),
    "a delivery above 64 KiB": (67, pack([67, QUEUE, [[1, 1, bytes(limits.MAX_ENVELOPE + 1)]]]), Code.WRONG_LENGTH),
    "a gap for no known reason": (70, pack([70, QUEUE, 1, 3]), Code.UNKNOWN_TAG),
    "a result that is only a number": (71, pack([71, 1, [0]]), Code.MALFORMED),
    "1,025 results": (71, pack([71, 1, [[0, 0]] * 1025]), Code.WRONG_LENGTH),
    "nothing that passes": (74, pack([74, QUEUE, []]), Code.WRONG_LENGTH),
    "257 that pass": (74, pack([74, QUEUE, [[1, b"x"]] * 257]), Code.WRONG_LENGTH),
    "a numbered envelope that passes": (74, pack([74, QUEUE, [[1, 1, b"x"]]]), Code.MALFORMED),
    "an empty envelope that passes": (74, pack([74, QUEUE, [[1, b""]]]), Code.WRONG_LENGTH),
    "one that passes above 64 KiB": (74, pack([74, QUEUE, [[1, bytes(limits.MAX_ENVELOPE + 1)]]]), Code.WRONG_LENGTH),
    "nothing at all": (8, b"", Code.MALFORMED),
    "a map": (8, pack({"tag": 8}), Code.MALFORMED),
    "an array that claims 2^32 - 1 elements": (8, b"\xdd\xff\xff\xff\xff\x08", Code.MALFORMED),
    "a batch that claims 2^32 - 1 items": (8, b"\x93\x08\x01\xdd\xff\xff\xff\xff", Code.WRONG_LENGTH),
    "a list that claims 2^32 - 1 targets": (10, b"\x95\x0a\x01\x04\xc4\x01x\xdd\xff\xff\xff\xff", Code.WRONG_LENGTH),
    "a byte string that claims 4 GiB": (9, b"\x92\x09\xc6\xff\xff\xff\xff", Code.MALFORMED),
    "a hundred thousand nested arrays": (8, b"\x91" * 100_000, Code.MALFORMED),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_frame_that_breaks_a_rule_is_refused_with_the_rules_code(what: str) -> None:
    tag, broken, code = REFUSED[what]
    assert code_of(tag, frames.join([broken])) is code


@pytest.mark.parametrize("what", REFUSED)
def test_good_frames_around_a_broken_one_do_not_save_it_nor_does_it_leave_them_standing(what: str) -> None:
    tag, broken, code = REFUSED[what]
    good = frames.encode(frames.Ping(1) if tag in CLIENT_FRAMES else frames.Pong(1))
    for company in ([good, broken], [broken, good], [good, broken, good]):
        assert code_of(tag, frames.join(company)) is code


@pytest.mark.parametrize("tag", [8, 67])
def test_a_message_above_the_limit_is_not_even_parsed(tag: int) -> None:
    assert code_of(tag, b"\x00" * (limits.MAX_MESSAGE + 1)) is Code.FRAME_TOO_LARGE


@given(st.binary(max_size=200))
def test_no_bytes_make_a_decoder_fail_otherwise(data: bytes) -> None:
    for tag in (8, 67):
        with contextlib.suppress(WireError):
            decode(tag, data)
        with contextlib.suppress(WireError):
            decode(tag, b"\x91" + data)


@given(st.sampled_from(sorted(ALL)), st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_makes_a_decoder_fail_otherwise(tag: int, place: int, change: int) -> None:
    data = bytearray(frames.message(ALL[tag], ALL[tag]))
    data[place % len(data)] ^= change
    with contextlib.suppress(WireError):
        decode(tag, bytes(data))


def test_an_error_repeats_none_of_the_bytes() -> None:
    secret = b"the key of the house"
    with pytest.raises(WireError) as refused:
        frames.decode_client_message(frames.join([item(1, secret)]))
    assert secret.decode() not in str(refused.value)
    assert refused.value.__suppress_context__
