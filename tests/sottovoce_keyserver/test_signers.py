"""The headers that name a signer: each value is spelt in one way."""

import base64

import pytest

from sottovoce_keyserver.directory import Signer, parse_signer
from sottovoce_wire import directory as wire
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.ids import AccountId, DeviceId

SIGNER = Signer(AccountId(bytes(range(32))), DeviceId(bytes(range(16))), 7, bytes(range(64)))
HEADERS = {
    wire.HEADER_ACCOUNT: base64.b64encode(SIGNER.account_id).decode(),
    wire.HEADER_DEVICE: base64.b64encode(SIGNER.device_id).decode(),
    wire.HEADER_COUNTER: "7",
    wire.HEADER_SIGNATURE: base64.b64encode(SIGNER.signature).decode(),
}


def with_other_spare_bits(text: str) -> str:
    """The same bytes in another spelling: the bits of the last letter that base64 does not use."""
    letters = text.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    changed = letters[:-1] + alphabet[alphabet.index(letters[-1]) + 1]
    return changed + text[len(letters) :]


def test_a_signer_is_who_the_headers_name() -> None:
    assert parse_signer(HEADERS.get) == SIGNER


@pytest.mark.parametrize("name", [wire.HEADER_ACCOUNT, wire.HEADER_DEVICE, wire.HEADER_SIGNATURE])
def test_a_value_with_other_spare_bits_is_refused(name: str) -> None:
    other = with_other_spare_bits(HEADERS[name])
    assert base64.b64decode(other, validate=True) == base64.b64decode(HEADERS[name])
    with pytest.raises(WireError) as caught:
        parse_signer((HEADERS | {name: other}).get)
    assert caught.value.code is Code.BAD_REQUEST
