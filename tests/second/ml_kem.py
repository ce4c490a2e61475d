"""ML-KEM-768 in plain Python, algorithm by algorithm as FIPS 203 names them. Nothing of the protocol."""

import hashlib

from .refusal import RefusedError

_Q, _N, _K, _DU, _DV = 3329, 256, 3, 10, 4
PUBLIC_LENGTH = 384 * _K + 32
CIPHERTEXT_LENGTH = 32 * (_DU * _K + _DV)

Polynomial = list[int]
Vector = list[Polynomial]


def _bit_reversed(value: int) -> int:
    return int(f"{value:07b}"[::-1], 2)


_ZETAS = [pow(17, _bit_reversed(i), _Q) for i in range(128)]
_GAMMAS = [pow(17, 2 * _bit_reversed(i) + 1, _Q) for i in range(128)]


def _g(data: bytes) -> tuple[bytes, bytes]:
    digest = hashlib.sha3_512(data).digest()
    return digest[:32], digest[32:]


def _h(data: bytes) -> bytes:
    return hashlib.sha3_256(data).digest()


def _byte_encode(bits: int, values: Polynomial) -> bytes:
    """Algorithm 5."""
    joined = sum(value << (bits * index) for index, value in enumerate(values))
    return joined.to_bytes(32 * bits, "little")


def _byte_decode(bits: int, data: bytes) -> Polynomial:
    """Algorithm 6, without the reduction of its case d = 12."""
    joined, mask = int.from_bytes(data, "little"), (1 << bits) - 1
    return [joined >> (bits * index) & mask for index in range(_N)]


def _compress(bits: int, values: Polynomial) -> Polynomial:
    return [((value << (bits + 1)) + _Q) // (2 * _Q) % (1 << bits) for value in values]


def _decompress(bits: int, values: Polynomial) -> Polynomial:
    return [(2 * value * _Q + (1 << bits)) >> (bits + 1) for value in values]


def _sample_ntt(seed: bytes) -> Polynomial:
    """Algorithm 7. 1,344 bytes are 896 candidates; fewer than 256 good ones among them does not happen."""
    stream = hashlib.shake_128(seed).digest(1344)
    values: Polynomial = []
    for at in range(0, len(stream), 3):
        a, b, c = stream[at : at + 3]
        values += [value for value in (a + 256 * (b % 16), b // 16 + 16 * c) if value < _Q]
    return values[:_N]


def _sample_noise(seed: bytes, nonce: int) -> Polynomial:
    """Algorithm 8 with η = 2 over PRF(seed, nonce)."""
    bits = int.from_bytes(hashlib.shake_256(seed + bytes([nonce])).digest(128), "little")
    nibbles = [bits >> (4 * index) & 15 for index in range(_N)]
    return [((n & 1) + (n >> 1 & 1) - (n >> 2 & 1) - (n >> 3 & 1)) % _Q for n in nibbles]


def _ntt(values: Polynomial) -> Polynomial:
    """Algorithm 9."""
    out, index, length = list(values), 1, 128
    while length >= 2:
        for start in range(0, _N, 2 * length):
            zeta, index = _ZETAS[index], index + 1
            for j in range(start, start + length):
                turned = zeta * out[j + length] % _Q
                out[j + length], out[j] = (out[j] - turned) % _Q, (out[j] + turned) % _Q
        length //= 2
    return out


def _inverse_ntt(values: Polynomial) -> Polynomial:
    """Algorithm 10."""
    out, index, length = list(values), 127, 2
    while length <= 128:
        for start in range(0, _N, 2 * length):
            zeta, index = _ZETAS[index], index - 1
            for j in range(start, start + length):
                kept = out[j]
                out[j], out[j + length] = (kept + out[j + length]) % _Q, zeta * (out[j + length] - kept) % _Q
        length *= 2
    return [value * 3303 % _Q for value in out]


def _multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    """Algorithms 11 and 12."""
    out: Polynomial = []
    for i, gamma in enumerate(_GAMMAS):
        a0, a1, b0, b1 = left[2 * i], left[2 * i + 1], right[2 * i], right[2 * i + 1]
        out += [(a0 * b0 + a1 * b1 * gamma) % _Q, (a0 * b1 + a1 * b0) % _Q]
    return out


def _sum(*terms: Polynomial) -> Polynomial:
    return [sum(values) % _Q for values in zip(*terms, strict=True)]


def _inner(left: Vector, right: Vector) -> Polynomial:
    return _sum(*(_multiply(a, b) for a, b in zip(left, right, strict=True)))


def _matrix(rho: bytes) -> list[Vector]:
    return [[_sample_ntt(rho + bytes([j, i])) for j in range(_K)] for i in range(_K)]


def _pieces(data: bytes, length: int) -> list[bytes]:
    return [data[at : at + length] for at in range(0, len(data), length)]


def _pke_key_gen(d: bytes) -> tuple[bytes, Vector]:
    """Algorithm 13: the encryption key, and the secret vector instead of its encoding."""
    rho, sigma = _g(d + bytes([_K]))
    noise = [_ntt(_sample_noise(sigma, nonce)) for nonce in range(2 * _K)]
    secret, error = noise[:_K], noise[_K:]
    public = [_sum(_inner(row, secret), error[i]) for i, row in enumerate(_matrix(rho))]
    return b"".join(_byte_encode(12, p) for p in public) + rho, secret


def _pke_encrypt(public: bytes, message: bytes, coins: bytes) -> bytes:
    """Algorithm 14."""
    rows = list(zip(*_matrix(public[-32:]), strict=True))
    key = [_byte_decode(12, piece) for piece in _pieces(public[:-32], 384)]
    noise = [_sample_noise(coins, nonce) for nonce in range(2 * _K + 1)]
    y = [_ntt(p) for p in noise[:_K]]
    u = [_sum(_inverse_ntt(_inner(list(row), y)), noise[_K + i]) for i, row in enumerate(rows)]
    v = _sum(_inverse_ntt(_inner(key, y)), noise[-1], _decompress(1, _byte_decode(1, message)))
    return b"".join(_byte_encode(_DU, _compress(_DU, p)) for p in u) + _byte_encode(_DV, _compress(_DV, v))


def _pke_decrypt(secret: Vector, ciphertext: bytes) -> bytes:
    """Algorithm 15."""
    split = 32 * _DU * _K
    u = [_decompress(_DU, _byte_decode(_DU, piece)) for piece in _pieces(ciphertext[:split], 32 * _DU)]
    v = _decompress(_DV, _byte_decode(_DV, ciphertext[split:]))
    masked = _inverse_ntt(_inner(secret, [_ntt(p) for p in u]))
    return _byte_encode(1, _compress(1, [(a - b) % _Q for a, b in zip(v, masked, strict=True)]))


def check_public(public: bytes) -> None:
    """FIPS 203 §7.2: the length and the modulus."""
    if len(public) != PUBLIC_LENGTH:
        raise RefusedError("bad_key")
    if any(value >= _Q for piece in _pieces(public[:-32], 384) for value in _byte_decode(12, piece)):
        raise RefusedError("bad_key")


def public_of(seed: bytes) -> bytes:
    """The encapsulation key of a seed d ‖ z (64)."""
    return _pke_key_gen(seed[:32])[0]


def encapsulate(public: bytes, message: bytes) -> tuple[bytes, bytes]:
    """(shared secret, ciphertext) for the 32 random bytes `message`: algorithm 17."""
    check_public(public)
    secret, coins = _g(message + _h(public))
    return secret, _pke_encrypt(public, message, coins)


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    """The shared secret under the key of a seed d ‖ z (64): algorithm 18."""
    if len(ciphertext) != CIPHERTEXT_LENGTH:
        raise RefusedError("malformed")
    public, vector = _pke_key_gen(seed[:32])
    message = _pke_decrypt(vector, ciphertext)
    secret, coins = _g(message + _h(public))
    if _pke_encrypt(public, message, coins) != ciphertext:
        return hashlib.shake_256(seed[32:] + ciphertext).digest(32)
    return secret
