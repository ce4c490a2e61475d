"""HPKE in base mode (RFC 9180) with X-Wing, HKDF-SHA256 and AES-256-GCM, by hand. Nothing of the protocol."""

import hashlib

from . import aes_gcm, keys, ml_kem
from .notation import hkdf_expand, hmac
from .refusal import RefusedError

#: HKDF-SHA256 and AES-256-GCM.
KDF_ID, AEAD_ID = 0x0001, 0x0002
X_WING_ID = 0x647A
_X_WING_LABEL = b"\\.//^\\"
ENC_LENGTH = ml_kem.CIPHERTEXT_LENGTH + 32


def x_wing_public(seeds: bytes) -> bytes:
    """The public key of an ML-KEM seed (64) and an X25519 secret (32): ML-KEM (1184) ‖ X25519 (32)."""
    return ml_kem.public_of(seeds[:64]) + keys.exchange_public(seeds[64:])


def check_x_wing_public(public: bytes) -> None:
    """Refuse (bad_key) a public key whose two halves are not both valid."""
    ml_kem.check_public(public[: ml_kem.PUBLIC_LENGTH])
    keys.check_exchange_key(public[ml_kem.PUBLIC_LENGTH :])


def _combined(kem_secret: bytes, dh_secret: bytes, dh_ciphertext: bytes, dh_public: bytes) -> bytes:
    return hashlib.sha3_256(kem_secret + dh_secret + dh_ciphertext + dh_public + _X_WING_LABEL).digest()


def x_wing_encapsulate(public: bytes, coins: bytes) -> tuple[bytes, bytes]:
    """(shared secret, enc) for 64 random bytes: ML-KEM's 32, then an ephemeral X25519 secret."""
    kem_public, dh_public = public[: ml_kem.PUBLIC_LENGTH], public[ml_kem.PUBLIC_LENGTH :]
    kem_secret, kem_ciphertext = ml_kem.encapsulate(kem_public, coins[:32])
    ephemeral = keys.exchange_public(coins[32:])
    shared = _combined(kem_secret, keys.exchange(coins[32:], dh_public), ephemeral, dh_public)
    return shared, kem_ciphertext + ephemeral


def x_wing_decapsulate(seeds: bytes, enc: bytes) -> bytes:
    """The shared secret."""
    kem_ciphertext, ephemeral = enc[: ml_kem.CIPHERTEXT_LENGTH], enc[ml_kem.CIPHERTEXT_LENGTH :]
    kem_secret = ml_kem.decapsulate(seeds[:64], kem_ciphertext)
    dh_secret = keys.exchange(seeds[64:], ephemeral)
    return _combined(kem_secret, dh_secret, ephemeral, keys.exchange_public(seeds[64:]))


def key_schedule(shared: bytes, info: bytes, suite_id: bytes) -> tuple[bytes, bytes]:
    """RFC 9180 §5.1 in base mode, for AEADs with keys of 32 and nonces of 12 bytes: (key, base nonce)."""

    def extract(salt: bytes, name: bytes, key_material: bytes) -> bytes:
        return hmac(salt, b"HPKE-v1" + suite_id + name + key_material)

    def expand(key: bytes, name: bytes, context: bytes, length: int) -> bytes:
        return hkdf_expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + name + context, length)

    context = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return expand(secret, b"key", context, 32), expand(secret, b"base_nonce", context, 12)


def suite_id(kem_id: int, kdf_id: int = KDF_ID, aead_id: int = AEAD_ID) -> bytes:
    """RFC 9180 §5.1."""
    return b"HPKE" + b"".join(value.to_bytes(2, "big") for value in (kem_id, kdf_id, aead_id))


_SUITE = suite_id(X_WING_ID)


def seal(public: bytes, info: bytes, plaintext: bytes, coins: bytes) -> bytes:
    """enc (1120) ‖ ciphertext ‖ tag (16): the first message of a context, without associated data."""
    check_x_wing_public(public)
    shared, enc = x_wing_encapsulate(public, coins)
    key, nonce = key_schedule(shared, info, _SUITE)
    return enc + aes_gcm.encrypt(key, nonce, plaintext, b"")


def open_sealed(seeds: bytes, info: bytes, sealed: bytes) -> bytes:
    """The inverse of `seal`. Whatever does not open is refused as not_authentic, an unusable enc included."""
    try:
        key, nonce = key_schedule(x_wing_decapsulate(seeds, sealed[:ENC_LENGTH]), info, _SUITE)
    except RefusedError:
        raise RefusedError("not_authentic") from None
    return aes_gcm.decrypt(key, nonce, sealed[ENC_LENGTH:], b"")
