"""The root step, against the formula of the spec written out by hand."""

import hmac

from sottovoce.crypto.primitives import OwnExchangeKey, PeerExchangeKey
from sottovoce.crypto.root_key import SessionRootKey

KEY = bytes(range(32))


def hkdf(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256."""
    extracted = hmac.digest(salt, secret, "sha256")
    output = block = b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


def test_both_sides_take_the_step_of_the_formula_and_the_root_key_changes() -> None:
    own, peer = OwnExchangeKey(b"o" * 32), OwnExchangeKey(b"p" * 32)
    secret = own.exchange(PeerExchangeKey(peer.public))
    info = bytes([17]) + b"Sottovoce v1 root" + bytes(4)
    expected = hkdf(KEY, secret, info, 160)
    sender, sending = SessionRootKey(KEY).start_sending(own, PeerExchangeKey(peer.public))
    receiver, receiving = SessionRootKey(KEY).start_receiving(peer, PeerExchangeKey(own.public))
    assert sender.key == receiver.key == expected[:32] != KEY
    assert sending.key == receiving.key == expected[32:64]
    assert sending.number == receiving.number == 0
