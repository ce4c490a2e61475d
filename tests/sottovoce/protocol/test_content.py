"""Message bodies: they round-trip, and nothing but their exact form is taken."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.protocol import content
from sottovoce.protocol.content import (
    MAX_RECEIPT,
    Acknowledgement,
    Body,
    ContactAddress,
    Receipt,
    ReceiptKind,
    Text,
    decode_body,
    encode_body,
)
from sottovoce_wire import limits, padding
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import MessageId, QueueId, SendKey

CONTACT = ContactAddress("https://relay.example", QueueId(bytes(16)), SendKey(b"k" * 32))
BODY = Body(1, bytes(8), CONTACT, Text(MessageId(bytes(16)), 1_700_000_000_000, "hello"))


@given(st.text(), st.none() | st.just(CONTACT), st.integers(0, 2**53 - 1))
def test_a_body_is_what_it_was(text: str, contact: ContactAddress | None, sent_at: int) -> None:
    body = Body(1, bytes(8), contact, Text(MessageId(bytes(16)), sent_at, text))
    assert decode_body(encode_body(body)) == body


def test_a_sign_of_life_says_nothing_but_that() -> None:
    body = Body(1, bytes(8), None, Acknowledgement())
    assert encode_body(body) == msgspec.msgpack.encode([1, bytes(8), None, [2]])
    assert decode_body(encode_body(body)) == body


@pytest.mark.parametrize("kind", ReceiptKind)
@pytest.mark.parametrize("count", [1, MAX_RECEIPT])
def test_a_receipt_names_its_messages(kind: ReceiptKind, count: int) -> None:
    ids = [MessageId(number.to_bytes(16, "big")) for number in range(count)]
    body = Body(1, bytes(8), None, Receipt(kind, ids))
    assert encode_body(body) == msgspec.msgpack.encode([1, bytes(8), None, [3, int(kind), ids]])
    assert decode_body(encode_body(body)) == body
    assert repr(body.content) == "Receipt(…)"


def test_a_body_cut_at_any_length_or_with_a_tail_is_refused() -> None:
    whole = encode_body(BODY)
    for data in [whole[:length] for length in range(len(whole))] + [whole + b"\x00"]:
        with pytest.raises(WireError) as refused:
            decode_body(data)
        assert refused.value.code is Code.MALFORMED


def _text(**changes: object) -> list[object]:
    fields = {"message_id": bytes(16), "sent_at": 0, "text": "x"} | changes
    return [1, *fields.values()]


@pytest.mark.parametrize(
    "wrong",
    [
        [0, bytes(8), None, _text()],
        [1, bytes(7), None, _text()],
        [1, bytes(8), None, [2, *_text()[1:]]],
        [1, bytes(8), None, [2, 0]],
        [1, bytes(8), None, [3]],
        [1, bytes(8), None, [3, 1, []]],
        [1, bytes(8), None, [3, 0, [bytes(16)]]],
        [1, bytes(8), None, [3, 3, [bytes(16)]]],
        [1, bytes(8), None, [3, 1, [bytes(17)]]],
        [1, bytes(8), None, [3, 1, [bytes(16)] * (MAX_RECEIPT + 1)]],
        [1, bytes(8), None, [3, 1, [bytes(16)], 0]],
        [1, bytes(8), None, [4]],
        [1, bytes(8), None, _text(message_id=bytes(15))],
        [1, bytes(8), None, _text(sent_at=-1)],
        [1, bytes(8), None, _text(text=b"\xff")],
        [1, bytes(8), ["https://relay.example/", bytes(16), bytes(32)], _text()],
        [1, bytes(8), ["http://relay.example", bytes(16), bytes(32)], _text()],
        [1, bytes(8), ["https://relay.example", bytes(16), bytes(31)], _text()],
        [1, bytes(8), None, _text(), 0],
    ],
)
def test_each_wrong_field_is_refused(wrong: list[object]) -> None:
    with pytest.raises(WireError):
        decode_body(msgspec.msgpack.encode(wrong))


def test_the_largest_text_fits_one_envelope_also_in_a_sealed_message() -> None:
    body = Body(2**63 - 1, bytes(8), CONTACT, Text(MessageId(bytes(16)), 2**53 - 1, "x" * content.MAX_TEXT))
    message = padding.padded_length(len(encode_body(body))) + 101
    largest_list = 82 + limits.MAX_DEVICES * 128 + 64
    first = padding.padded_length(1_215 + 34 + largest_list + message, minimum=4096)
    assert first + 2 + 1_120 + 16 <= limits.MAX_ENVELOPE


def test_neither_address_nor_body_shows_what_it_holds() -> None:
    assert repr(CONTACT) == "ContactAddress(…)"
    assert repr(BODY) == "Body(…)"
