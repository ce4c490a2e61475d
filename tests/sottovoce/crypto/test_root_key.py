"""The root step, against the formula of the spec written out by hand."""

import hmac

import pytest

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


@pytest.mark.parametrize("post_quantum", [b"", b"q" * 32])
@pytest.mark.parametrize("epoch", [0, 1, 2**32 - 1])
def test_the_root_step_is_the_formula_and_the_root_key_changes(post_quantum: bytes, epoch: int) -> None:
    info = bytes([17]) + b"Sottovoce v1 root" + epoch.to_bytes(4, "big")
    expected = hkdf(KEY, b"d" * 32 + post_quantum, info, 160)
    step = SessionRootKey(KEY).step(b"d" * 32, post_quantum, epoch)
    route = step.next_route.keys
    given = (step.root.key, step.chain_key, route[:32], route[32:], step.ephemeral_key)
    assert b"".join(given) == expected
    assert len({KEY, *given}) == 6


def test_either_secret_and_the_epoch_change_every_key() -> None:
    steps = [
        SessionRootKey(KEY).step(shared, post_quantum, epoch)
        for shared in (b"d" * 32, b"e" * 32)
        for post_quantum in (b"", b"q" * 32, b"p" * 32)
        for epoch in (0, 1)
    ]
    keys = [
        key
        for step in steps
        for key in (step.root.key, step.chain_key, step.next_route.keys[:32], step.next_route.keys[32:])
    ]
    assert len(set(keys)) == len(keys) == 4 * 12
