"""AES-256 (FIPS 197) and GCM (SP 800-38D) with nonces of 12 bytes, in plain Python. Nothing of the protocol."""

from functools import lru_cache

from .refusal import RefusedError


def _times(a: int, b: int) -> int:
    """Multiplication in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _s_box() -> list[int]:
    box = []
    for value in range(256):
        inverse = next((x for x in range(256) if _times(value, x) == 1), 0)
        rotated = [((inverse << shift) | (inverse >> (8 - shift))) & 0xFF for shift in range(5)]
        box.append(rotated[0] ^ rotated[1] ^ rotated[2] ^ rotated[3] ^ rotated[4] ^ 0x63)
    return box


_S = _s_box()
_BY_2 = [_times(2, x) for x in range(256)]
_BY_3 = [_times(3, x) for x in range(256)]
#: Where ShiftRows takes each byte of the state (column by column) from.
_SHIFTED = [(column + row) % 4 * 4 + row for column in range(4) for row in range(4)]


@lru_cache(maxsize=64)
def _round_keys(key: bytes) -> list[bytes]:
    words = [key[at : at + 4] for at in range(0, 32, 4)]
    constant = 1
    for index in range(8, 60):
        word = words[-1]
        if index % 8 == 0:
            word = bytes(_S[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = _times(constant, 2)
        elif index % 8 == 4:
            word = bytes(_S[b] for b in word)
        words.append(_xor(word, words[index - 8]))
    return [b"".join(words[at : at + 4]) for at in range(0, 60, 4)]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _encrypt_block(keys: list[bytes], block: bytes) -> bytes:
    state = _xor(block, keys[0])
    for key in keys[1:-1]:
        state = _xor(_mix([_S[state[at]] for at in _SHIFTED]), key)
    return _xor(bytes(_S[state[at]] for at in _SHIFTED), keys[-1])


def _mix(state: list[int]) -> bytes:
    mixed = bytearray()
    for at in range(0, 16, 4):
        a, b, c, d = state[at : at + 4]
        mixed += bytes(
            (
                _BY_2[a] ^ _BY_3[b] ^ c ^ d,
                a ^ _BY_2[b] ^ _BY_3[c] ^ d,
                a ^ b ^ _BY_2[c] ^ _BY_3[d],
                _BY_3[a] ^ b ^ c ^ _BY_2[d],
            )
        )
    return bytes(mixed)


def _ghash(h: int, data: bytes) -> int:
    result = 0
    for at in range(0, len(data), 16):
        x, v, result = result ^ int.from_bytes(data[at : at + 16], "big"), h, 0
        for bit in range(127, -1, -1):
            if x >> bit & 1:
                result ^= v
            v = (v >> 1) ^ (0xE1 << 120 if v & 1 else 0)
    return result


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


def _keystream(keys: list[bytes], nonce: bytes, length: int) -> bytes:
    blocks = -(-length // 16)
    counters = (nonce + counter.to_bytes(4, "big") for counter in range(2, 2 + blocks))
    return b"".join(_encrypt_block(keys, counter) for counter in counters)[:length]


def _tag(keys: list[bytes], nonce: bytes, ciphertext: bytes, associated_data: bytes) -> bytes:
    h = int.from_bytes(_encrypt_block(keys, bytes(16)), "big")
    lengths = (8 * len(associated_data)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    hashed = _ghash(h, _padded(associated_data) + _padded(ciphertext) + lengths)
    return _xor(hashed.to_bytes(16, "big"), _encrypt_block(keys, nonce + b"\x00\x00\x00\x01"))


def encrypt(key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    """ciphertext ‖ tag (16)."""
    keys = _round_keys(key)
    ciphertext = _xor(plaintext, _keystream(keys, nonce, len(plaintext)))
    return ciphertext + _tag(keys, nonce, ciphertext, associated_data)


def decrypt(key: bytes, nonce: bytes, sealed: bytes, associated_data: bytes) -> bytes:
    """The plaintext; refused (not_authentic) unless the tag holds."""
    keys, ciphertext = _round_keys(key), sealed[:-16]
    if len(sealed) < 16 or _tag(keys, nonce, ciphertext, associated_data) != sealed[-16:]:
        raise RefusedError("not_authentic")
    return _xor(ciphertext, _keystream(keys, nonce, len(ciphertext)))
