"""The one check that servers make: it holds for honest signatures, and for nothing that anybody can make up."""

import pytest
from nacl.signing import SigningKey

from sottovoce_hosting.signatures import verifies

KEY = SigningKey(bytes(range(32)))
PUBLIC = bytes(KEY.verify_key)
MESSAGE = b"a message"
SIGNATURE = KEY.sign(MESSAGE).signature
#: The encodings of points of order 1, 2, 4 and 8 (canonical ones).
SMALL_ORDER = [
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
]


def test_an_honest_signature_holds() -> None:
    assert verifies(PUBLIC, SIGNATURE, MESSAGE)


def test_it_holds_for_its_message_and_key_alone() -> None:
    assert not verifies(PUBLIC, SIGNATURE, b"another message")
    assert not verifies(bytes(SigningKey(bytes(32)).verify_key), SIGNATURE, MESSAGE)


@pytest.mark.parametrize("index", range(64))
def test_no_byte_of_it_may_change(index: int) -> None:
    changed = bytearray(SIGNATURE)
    changed[index] ^= 1
    assert not verifies(PUBLIC, bytes(changed), MESSAGE)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_another_length_is_no_signature(length: int) -> None:
    assert not verifies(PUBLIC, (SIGNATURE * 2)[:length], MESSAGE)
    assert not verifies((PUBLIC * 4)[:length], SIGNATURE, MESSAGE)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_nothing_holds_under_a_key_of_small_order(point: bytes) -> None:
    for forged in (bytes(64), point + bytes(32), SMALL_ORDER[0] + bytes(32)):
        assert not verifies(point, forged, MESSAGE)
