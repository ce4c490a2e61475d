"""The keys of notation.md: what a receiver refuses, signatures, Diffie-Hellman. PyNaCl, and Edwards points by hand."""

import nacl.bindings as sodium
from nacl.exceptions import CryptoError

from .refusal import RefusedError

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_MINUS_1 = pow(2, (_P - 1) // 4, _P)

Point = tuple[int, int]


def check_exchange_key(public: bytes) -> None:
    """Refuse (bad_key) an X25519 public key that is not canonical or has small order."""
    if len(public) != 32 or int.from_bytes(public, "little") >= _P:
        raise RefusedError("bad_key")
    exchange(bytes(32), public)


def exchange(secret: bytes, public: bytes) -> bytes:
    """The shared secret. libsodium refuses a result of zeros, which is what a point of small order gives."""
    try:
        return sodium.crypto_scalarmult(secret, public)
    except (CryptoError, RuntimeError):
        raise RefusedError("bad_key") from None


def exchange_public(secret: bytes) -> bytes:
    """The public key of an X25519 secret."""
    return sodium.crypto_scalarmult_base(secret)


def signing_public(seed: bytes) -> bytes:
    """The public key of an Ed25519 seed."""
    return sodium.crypto_sign_seed_keypair(seed)[0]


def sign(seed: bytes, message: bytes) -> bytes:
    """Ed25519: 64 bytes."""
    return sodium.crypto_sign(message, sodium.crypto_sign_seed_keypair(seed)[1])[:64]


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Refuse (bad_signature) unless the signature holds."""
    if len(public) != 32 or len(signature) != 64:
        raise RefusedError("bad_signature")
    try:
        sodium.crypto_sign_open(signature + message, public)
    except CryptoError:
        raise RefusedError("bad_signature") from None


def check_signing_key(public: bytes) -> None:
    """Refuse (bad_key) an Ed25519 public key that is not canonical or has small order; a point off the curve passes."""
    if len(public) != 32 or int.from_bytes(public, "little") % 2**255 >= _P:
        raise RefusedError("bad_key")
    point = _decoded(public)
    if point and _eight_times(point) == (0, 1):
        raise RefusedError("bad_key")


def _decoded(public: bytes) -> Point | None:
    """A point with this y, if there is one. Its sign does not change its order."""
    y = int.from_bytes(public, "little") % 2**255
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    for root in (x, x * _SQRT_MINUS_1 % _P):
        if root * root % _P == square:
            return root, y
    return None


def _eight_times(point: Point) -> Point:
    for _ in range(3):
        point = _doubled(point)
    return point


def _doubled(point: Point) -> Point:
    x, y = point
    product = _D * x * x * y * y % _P
    return 2 * x * y * pow(1 + product, -1, _P) % _P, (y * y + x * x) * pow(1 - product, -1, _P) % _P
