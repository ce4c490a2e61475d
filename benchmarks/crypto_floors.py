"""What no implementation on these libraries can do better: bare primitives, and which of them each figure is made of.

Measured in the same run as the figures, so that a missed goal says what stops it. Nothing of ours is used here.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import nacl.bindings as sodium
from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import crypto_work
from .crypto_work import Counts, Figures

_MIB: Final = 1024 * 1024
_SHA256: Final = SHA256()
_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

# A body of 256 bytes: message key and next chain key, header and body encrypted under one random nonce. Its tag is one
# of eight that came together.
_MESSAGE: Final = {"hmac": 2, "gcm_44": 1, "gcm_384": 1}
# The first message of a chain, on one side: the keys that find it are new as well.
_FIRST: Final = {"hmac": 2, "tags": 1, "gcm_44_new": 1, "gcm_384": 1}
# A receiver makes no nonce.
_SENT: Final = _MESSAGE | {"random_12": 1}
# Agreed, then the initiator's first sending half and the responder's receiving half.
_HANDSHAKE: Final = {
    "ed25519_verify": 1,
    "x25519": 8 + 2,
    "x25519_generate": 2,
    "ml_kem_encapsulate": 1,
    "ml_kem_decapsulate": 1,
    "hkdf_160": 4,
} | {name: 2 * count for name, count in _FIRST.items()}
#: How often each primitive is called for one of a figure, at the least.
PARTS: Final[Mapping[str, Mapping[str, int]]] = {
    "encrypt_us": _SENT,
    "decrypt_us": _MESSAGE,
    "handshake_us": _HANDSHAKE,
    # The record's signature, and on the sender's list the root's and the device's.
    "setup_us": _HANDSHAKE | {"ed25519_verify": 3, "hpke_seal": 1, "hpke_open": 1},
    "pingpong_us": {"x25519": 4, "x25519_generate": 2, "hkdf_160": 4}
    | {name: 4 * count for name, count in _FIRST.items()},
    "group_encrypt_us": _SENT | {"ed25519_sign": 1},
    "group_decrypt_us": _MESSAGE | {"ed25519_verify": 1},
    "reverse_us": _MESSAGE,
    "seal_us": {"hpke_seal": 1},
    "open_us": {"hpke_open": 1, "ed25519_verify": 2},
}


def bounds(primitives: Mapping[str, float]) -> Figures:
    """What each figure cannot be better than, from microseconds (MiB/s) of the primitives."""
    found = {figure: sum(count * primitives[name] for name, count in parts.items()) for figure, parts in PARTS.items()}
    # One pass for the cipher and one for the digest.
    per_mib = primitives["cobblestone_mib"] + primitives["sha256_mib"]
    return found | {"attachment_mib_s": 1e6 / per_mib}


_Calls: TypeAlias = dict[str, Callable[[], object]]


class _Floors:
    """The bare primitives, with keys that are held."""

    name = "primitives"

    def __init__(self) -> None:
        self.works = {"primitives": self._measure}
        self._calls = (_symmetric(), _asymmetric(), _bulk())

    def _measure(self, counts: Counts) -> Figures:
        often = (counts.packs, counts.turns, counts.attachment_mib)
        return {
            name: crypto_work.many(call, count)
            for calls, count in zip(self._calls, often, strict=True)
            for name, call in calls.items()
        }


def _symmetric() -> _Calls:
    key, nonce, associated_data = os.urandom(32), os.urandom(12), os.urandom(113)
    header, body = os.urandom(44), os.urandom(384)
    held = AESGCM(key)
    return {
        "random_12": lambda: os.urandom(12),
        "hmac": lambda: HKDF.extract(_SHA256, key, b"\x01"),
        "hkdf_160": lambda: HKDF(_SHA256, 160, key, associated_data).derive(key),
        "tags": lambda: hashlib.blake2b(header[:5], key=key).digest(),
        "gcm_44": lambda: held.encrypt(nonce, header, associated_data),
        "gcm_44_new": lambda: AESGCM(key).encrypt(nonce, header, associated_data),
        "gcm_384": lambda: AESGCM(key).encrypt(nonce, body, associated_data),
    }


def _asymmetric() -> _Calls:
    own, peer = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
    public, secret = sodium.crypto_sign_keypair()
    message = os.urandom(192)
    signed = sodium.crypto_sign(message, secret)
    kem, exchange = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    kem_public = kem.public_key()
    _, ciphertext = kem_public.encapsulate()
    sealing = hpke.MLKEM768X25519PrivateKey(kem, exchange)
    sealing_public, content = sealing.public_key(), os.urandom(4096)
    sealed = _SUITE.encrypt(content, sealing_public, message)
    return {
        "x25519_generate": lambda: sodium.crypto_scalarmult_base(message[:32]),
        "x25519": lambda: own.exchange(peer),
        "ed25519_sign": lambda: sodium.crypto_sign(message, secret),
        "ed25519_verify": lambda: sodium.crypto_sign_open(signed, public),
        "ml_kem_encapsulate": kem_public.encapsulate,
        "ml_kem_decapsulate": lambda: kem.decapsulate(ciphertext),
        "hpke_seal": lambda: _SUITE.encrypt(content, sealing_public, message),
        "hpke_open": lambda: _SUITE.decrypt(sealed, sealing, message),
    }


def _bulk() -> _Calls:
    piece, memory = os.urandom(_MIB), bytearray(_MIB + 64 * 1024)
    encryptor = Cobblestone256Encryptor(Cobblestone256Encryptor.generate_key(), b"bench")
    return {
        "cobblestone_mib": lambda: encryptor.update_into(piece, memory),
        "sha256_mib": lambda: hashlib.sha256(piece).digest(),
    }


FLOORS: Final = _Floors()
