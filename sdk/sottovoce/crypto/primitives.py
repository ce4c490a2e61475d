"""Every call into `cryptography` and PyNaCl, each with the reason why its nonce, if it has one, is safe.

Here stand keys as types and single operations. What they are combined to stands in the other files; no rule of the
protocol lives here beyond the validity of keys. Own (private) and peer (public) keys are different types.
"""

import hashlib
import hmac
import os
from collections.abc import Callable
from functools import partial
from typing import Final

import nacl.bindings as sodium
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import AlreadyFinalized, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from nacl.exceptions import CryptoError

from .errors import CryptoRefusal, Reason

KEY_LENGTH: Final = 32
SIGNATURE_LENGTH: Final = 64
NONCE_LENGTH: Final = 12
TAG_LENGTH: Final = 16
ML_KEM_768_PUBLIC_LENGTH: Final = 1184
ML_KEM_768_CIPHERTEXT_LENGTH: Final = 1088
ML_KEM_768_SEED_LENGTH: Final = 64
#: HPKE's `enc` for MLKEM768_X25519: the ML-KEM ciphertext, then the ephemeral X25519 key.
SEALED_ENC_LENGTH: Final = ML_KEM_768_CIPHERTEXT_LENGTH + KEY_LENGTH
#: A container (C2SP chunked encryption): salt (24) ‖ commitment (32), then chunks of 16 KiB, each with its tag.
CONTAINER_HEADER_LENGTH: Final = 56
CONTAINER_CHUNK: Final = 16 * 1024
#: The scheme counts 2^38 chunks, the last of which is short.
CONTAINER_LIMIT: Final = 2**38 * CONTAINER_CHUNK

_SHA256: Final = SHA256()
_ZERO_SALT: Final = bytes(32)
_FIELD: Final = 2**255 - 19
#: The canonical u-coordinates of small order on Curve25519 and its twist. Any of them makes the shared secret zero.
_X25519_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _FIELD - 1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    }
)
#: The y-coordinates of small order on Ed25519: 1 (order 1), -1 (2), 0 (4) and two of order 8.
_ED25519_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _FIELD - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)
_WITHOUT_SIGN: Final = 2**255 - 1
_CONTAINER_SALT: Final = 24
_CONTAINER_INFO: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"
#: X-Wing (kem id 0x647a) with HKDF-SHA256 and AES-256-GCM.
_SEALING_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def random_bytes(length: int) -> bytes:
    """`length` bytes from the operating system's generator."""
    return os.urandom(length)


def sha256(*parts: bytes) -> bytes:
    """SHA-256 over the parts in a row: 32 bytes."""
    return hashlib.sha256(b"".join(parts)).digest()


def equal(left: bytes, right: bytes) -> bool:
    """Whether both are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(left, right)


#: HMAC-SHA-256 of (key, message): 32 bytes. HKDF-Extract is HMAC (RFC 5869 §2.2), and the fastest way to it.
hmac_sha256: Final[Callable[[bytes, bytes], bytes]] = partial(HKDF.extract, _SHA256)


def hmac_sha256_twice(key: bytes, first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """`hmac_sha256` of two messages under one key, which is made ready once: a sixth of the time less."""
    one = HMAC(key, _SHA256)
    other = one.copy()
    one.update(first)
    other.update(second)
    return one.finalize(), other.finalize()


def hkdf_sha256(key_material: bytes, info: bytes, length: int, *, salt: bytes = _ZERO_SALT) -> bytes:
    """HKDF-SHA-256 (RFC 5869): `length` bytes; without a salt it is 32 zero bytes."""
    return HKDF(_SHA256, length, salt, info).derive(key_material)


def derive_key_from_passphrase(passphrase: bytes, salt: bytes, *, opslimit: int, memlimit: int) -> bytes:
    """Argon2id 1.3 with one lane: 32 bytes from a passphrase and a salt of 16 bytes. `memlimit` is in bytes.

    libsodium's, because PyNaCl releases the GIL for it. Raises CryptoRefusal (MALFORMED) for a salt of another length
    or limits that libsodium refuses or the machine has no memory for.
    """
    try:
        return sodium.crypto_pwhash_alg(
            KEY_LENGTH, passphrase, salt, opslimit, memlimit, sodium.crypto_pwhash_ALG_ARGON2ID13
        )
    except (CryptoError, OverflowError, MemoryError):
        raise CryptoRefusal(Reason.MALFORMED, "the parameters of the passphrase key cannot be used") from None


def encrypt(key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    """AES-256-GCM: ciphertext ‖ tag (16). The caller has the reason why (key, nonce) never comes twice."""
    return AESGCM(key).encrypt(nonce, plaintext, associated_data)


def decrypt(key: bytes, nonce: bytes, ciphertext: bytes, associated_data: bytes) -> bytes:
    """The inverse of `encrypt`. Raises CryptoRefusal (NOT_AUTHENTIC)."""
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, associated_data)
    except (InvalidTag, ValueError):
        raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the ciphertext is not authentic") from None


class AeadKey:
    """An AES-256-GCM key of 32 bytes for nonces of 96 random bits; made ready when it is first used.

    The caller bounds how much it encrypts: at most 2^21 small things under one key, so that two nonces meet with less
    than 2^-55.
    """

    __slots__ = ("_aead", "key")

    def __init__(self, key: bytes) -> None:
        self.key: Final = key
        self._aead: AESGCM | None = None

    def encrypt(self, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
        """ciphertext ‖ tag (16)."""
        aead = self._aead
        if aead is None:
            aead = self._aead = AESGCM(self.key)
        return aead.encrypt(nonce, plaintext, associated_data)

    def decrypt(self, nonce: bytes, ciphertext: bytes, associated_data: bytes) -> bytes:
        """The inverse of `encrypt`. Raises CryptoRefusal (NOT_AUTHENTIC)."""
        aead = self._aead
        if aead is None:
            aead = self._aead = AESGCM(self.key)
        try:
            return aead.decrypt(nonce, ciphertext, associated_data)
        except (InvalidTag, ValueError):
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the ciphertext is not authentic") from None


def keyed_hash(key: bytes, message: bytes) -> bytes:
    """BLAKE2b (RFC 7693) under a key of up to 64 bytes, which makes it a pseudo-random function: 64 bytes."""
    return hashlib.blake2b(message, key=key).digest()


def wrap_key(key: bytes, secret: bytes, associated_data: bytes) -> bytes:
    """nonce (12) ‖ AES-256-GCM of a secret of 32 bytes under a key of 32 bytes: 60 bytes.

    The nonce is random: a wrapping key wraps a handful of secrets in its life, far from the 2^32 where 96 random
    bits begin to meet. Raises CryptoRefusal (BAD_KEY) for a key or secret of another length.
    """
    check_secret(key, KEY_LENGTH)
    check_secret(secret, KEY_LENGTH)
    nonce = random_bytes(NONCE_LENGTH)
    return nonce + encrypt(key, nonce, secret, associated_data)


def unwrap_key(key: bytes, wrapped: bytes, associated_data: bytes) -> bytes:
    """The inverse of `wrap_key`. Raises CryptoRefusal: NOT_AUTHENTIC for a wrong key, other data or changed bytes,
    BAD_KEY for a key of another length."""
    check_secret(key, KEY_LENGTH)
    return decrypt(key, wrapped[:NONCE_LENGTH], wrapped[NONCE_LENGTH:], associated_data)


class SigningKey:
    """An own Ed25519 key. Signatures are deterministic (RFC 8032): there is no nonce to get wrong."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        check_secret(seed, KEY_LENGTH)
        self.public, self._secret = sodium.crypto_sign_seed_keypair(seed)

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new key."""
        return cls(random_bytes(KEY_LENGTH))

    @property
    def seed(self) -> bytes:
        """The 32 bytes that the key is made of."""
        return self._secret[:KEY_LENGTH]

    def sign(self, message: bytes) -> bytes:
        """The signature: 64 bytes."""
        return sodium.crypto_sign(message, self._secret)[:SIGNATURE_LENGTH]


def check_signing_key(public_key: bytes) -> None:
    """Refuse (BAD_KEY) an Ed25519 public key (32 bytes) that is not canonical or has small order.

    Whether it lies on the curve shows when the first signature is verified under it; nothing else is done with it.
    """
    coordinate = int.from_bytes(public_key, "little") & _WITHOUT_SIGN
    if len(public_key) != KEY_LENGTH or coordinate >= _FIELD or coordinate in _ED25519_SMALL_ORDER:
        raise CryptoRefusal(Reason.BAD_KEY, "a signing key is not canonical or has small order")


def verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Refuse (BAD_SIGNATURE) unless `signature` (64 bytes) over `message` holds under `public_key` (32 bytes).

    libsodium's, because it refuses small-order and non-canonical public keys and S ≥ L. The lengths are checked here:
    its binding reads 32 bytes whatever it is given.
    """
    if len(public_key) != KEY_LENGTH or len(signature) != SIGNATURE_LENGTH:
        raise CryptoRefusal(Reason.BAD_SIGNATURE, "a signature or its key has the wrong length")
    try:
        sodium.crypto_sign_open(signature + message, public_key)
    except CryptoError:
        raise CryptoRefusal(Reason.BAD_SIGNATURE, "a signature does not hold") from None


class PeerExchangeKey:
    """A peer's X25519 public key, 32 bytes. Raises CryptoRefusal (BAD_KEY) unless canonical and of large order."""

    __slots__ = ("_key", "public")

    def __init__(self, public: bytes) -> None:
        coordinate = int.from_bytes(public, "little")
        # A set high bit makes the number larger than the field as well.
        if len(public) != KEY_LENGTH or coordinate >= _FIELD or coordinate in _X25519_SMALL_ORDER:
            raise CryptoRefusal(Reason.BAD_KEY, "an exchange key is not canonical or has small order")
        self.public: Final = public
        self._key: X25519PublicKey | None = None

    @property
    def key(self) -> X25519PublicKey:
        """The object of `cryptography`."""
        if self._key is None:
            self._key = X25519PublicKey.from_public_bytes(self.public)
        return self._key


class OwnExchangeKey:
    """An own X25519 key pair.

    A key that stays (an identity, a prekey) is held as an object of `cryptography`, the fastest at an exchange. One
    that serves a turn is bytes, and libsodium's: making the object costs as much as the exchange.
    """

    __slots__ = ("_key", "public", "secret")

    def __init__(self, secret: bytes) -> None:
        check_secret(secret, KEY_LENGTH)
        self._key: X25519PrivateKey | None = X25519PrivateKey.from_private_bytes(secret)
        self.secret = secret
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "OwnExchangeKey":
        """A new key pair that stays, or serves several exchanges."""
        return cls(random_bytes(KEY_LENGTH))

    @classmethod
    def generate_for_a_turn(cls) -> "OwnExchangeKey":
        """A new key pair for an exchange or two."""
        pair = cls.__new__(cls)
        pair._key, pair.secret = None, random_bytes(KEY_LENGTH)
        pair.public = sodium.crypto_scalarmult_base(pair.secret)
        return pair

    @classmethod
    def restore(cls, secret: bytes, public: bytes) -> "OwnExchangeKey":
        """A key pair that the device itself wrote down: the halves (32 each) are taken to belong together."""
        check_secret(secret, KEY_LENGTH)
        pair = cls.__new__(cls)
        pair._key, pair.secret, pair.public = None, secret, public
        return pair

    @property
    def key(self) -> X25519PrivateKey:
        """The object of `cryptography`."""
        return self._key or X25519PrivateKey.from_private_bytes(self.secret)

    def exchange(self, peer: PeerExchangeKey) -> bytes:
        """The shared secret: 32 bytes. Raises CryptoRefusal (BAD_KEY) if it would be zero."""
        try:
            if self._key is None:
                return sodium.crypto_scalarmult(self.secret, peer.public)
            return self._key.exchange(peer.key)
        except (ValueError, CryptoError):
            raise CryptoRefusal(Reason.BAD_KEY, "an exchange key has small order") from None


class PeerKemKey:
    """A peer's ML-KEM-768 public key, 1,184 bytes. Raises CryptoRefusal (BAD_KEY) if it fails the modulus check."""

    __slots__ = ("key", "public")

    def __init__(self, public: bytes) -> None:
        self.public: Final = public
        self.key: Final = _kem_public_key(public)

    def encapsulate(self) -> tuple[bytes, bytes]:
        """(shared secret of 32 bytes, ciphertext of 1,088 bytes)."""
        return self.key.encapsulate()


class OwnKemKey:
    """An own ML-KEM-768 key pair from its seed of 64 bytes."""

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        check_secret(seed, ML_KEM_768_SEED_LENGTH)
        self._key: MLKEM768PrivateKey | None = MLKEM768PrivateKey.from_seed_bytes(seed)
        self.seed = seed
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "OwnKemKey":
        """A new key pair."""
        return cls(random_bytes(ML_KEM_768_SEED_LENGTH))

    @classmethod
    def restore(cls, seed: bytes, public: bytes) -> "OwnKemKey":
        """A key pair that the device itself wrote down: the halves (64, 1,184) are taken to belong together."""
        check_secret(seed, ML_KEM_768_SEED_LENGTH)
        pair = cls.__new__(cls)
        pair._key, pair.seed, pair.public = None, seed, public
        return pair

    @property
    def key(self) -> MLKEM768PrivateKey:
        """The object of `cryptography`."""
        return self._key or MLKEM768PrivateKey.from_seed_bytes(self.seed)

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret: 32 bytes. A forged ciphertext of the right length gives another secret, not an error."""
        try:
            return self.key.decapsulate(ciphertext)
        except ValueError:
            raise CryptoRefusal(Reason.MALFORMED, "a KEM ciphertext has the wrong length") from None


class PeerSealingKey:
    """A peer's X-Wing public key: ML-KEM-768 (1,184) ‖ X25519 (32). Raises CryptoRefusal (BAD_KEY)."""

    __slots__ = ("key",)

    def __init__(self, public: bytes) -> None:
        kem = _kem_public_key(public[:ML_KEM_768_PUBLIC_LENGTH])
        exchange = PeerExchangeKey(public[ML_KEM_768_PUBLIC_LENGTH:])
        self.key: Final = hpke.MLKEM768X25519PublicKey(kem, exchange.key)

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """enc (1,120) ‖ ciphertext ‖ tag (16). HPKE's key is fresh for each call, so its first nonce is used once."""
        return _SEALING_SUITE.encrypt(plaintext, self.key, info)


class OwnSealingKey:
    """An own X-Wing key pair from two seeds: ML-KEM-768 (64) ‖ X25519 (32)."""

    __slots__ = ("key", "public", "seeds")

    LENGTH: Final = ML_KEM_768_SEED_LENGTH + KEY_LENGTH

    def __init__(self, seeds: bytes) -> None:
        check_secret(seeds, self.LENGTH)
        kem = OwnKemKey(seeds[:ML_KEM_768_SEED_LENGTH])
        exchange = OwnExchangeKey(seeds[ML_KEM_768_SEED_LENGTH:])
        self.seeds: Final = seeds
        self.public: Final = kem.public + exchange.public
        self.key: Final = hpke.MLKEM768X25519PrivateKey(kem.key, exchange.key)

    @classmethod
    def generate(cls) -> "OwnSealingKey":
        """A new key pair."""
        return cls(random_bytes(cls.LENGTH))

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """The inverse of `PeerSealingKey.seal`. Raises CryptoRefusal (NOT_AUTHENTIC)."""
        try:
            return _SEALING_SUITE.decrypt(sealed, self.key, info)
        except (InvalidTag, ValueError):
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the sealed message is not authentic") from None


class ContainerEncryptor:
    """Encrypts one container (Cobblestone-256: C2SP chunked encryption with SHA-512 and AES-256-GCM).

    The key is made here and the salt inside, both random and for this container alone; the nonces are a derived base
    with the chunk's number in it. So no (key, nonce) pair comes twice, and nothing can encrypt under the key again.
    """

    __slots__ = ("_stream", "key")

    def __init__(self, context: bytes) -> None:
        self.key: Final = Cobblestone256Encryptor.generate_key()
        self._stream: Final = Cobblestone256Encryptor(self.key, context)

    def update_into(self, data: bytes | memoryview, buffer: bytearray) -> int:
        """Write what is complete to `buffer`, which has len(data) + len(data) // 1024 + 16,456 bytes: how many."""
        return self._stream.update_into(data, buffer)

    def finish(self) -> bytes:
        """The last chunk. Nothing is encrypted after it."""
        return self._stream.finalize()


class ContainerDecryptor:
    """Decrypts one container of `ContainerEncryptor` with its key (32 bytes) and context."""

    __slots__ = ("_stream",)

    def __init__(self, key: bytes, context: bytes) -> None:
        check_secret(key, KEY_LENGTH)
        self._stream: Final = Cobblestone256Decryptor(key, context)

    def update_into(self, data: bytes | memoryview, buffer: bytearray) -> int:
        """Write the chunks that are complete and authentic to `buffer`, of len(data) + 16,400 bytes: how many bytes.

        Raises CryptoRefusal (NOT_AUTHENTIC), now and at every later call; `buffer` may then hold bytes that are not.
        """
        try:
            return self._stream.update_into(data, buffer)
        except (InvalidTag, AlreadyFinalized):
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the container is not authentic") from None

    def finish(self) -> bytes:
        """The last chunk. Raises CryptoRefusal (NOT_AUTHENTIC), also for a container that was cut short."""
        try:
            return self._stream.finalize()
        except (InvalidTag, AlreadyFinalized):
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the container is not authentic") from None


class ContainerChunks:
    """Opens single chunks of a container, from its key (32 bytes), context and header (56 bytes).

    The library reads containers from the start only; this is its key derivation by hand. It never encrypts, so it
    cannot use a nonce twice. Raises CryptoRefusal: BAD_KEY for a key of another length, NOT_AUTHENTIC for a header that
    was not made with this key and context.
    """

    __slots__ = ("_aead", "_base_nonce")

    def __init__(self, key: bytes, context: bytes, header: bytes) -> None:
        check_secret(key, KEY_LENGTH)
        salt, commitment = header[:_CONTAINER_SALT], header[_CONTAINER_SALT:]
        length = KEY_LENGTH + NONCE_LENGTH + CONTAINER_HEADER_LENGTH - _CONTAINER_SALT
        derived = HKDFExpand(SHA512(), length, _CONTAINER_INFO + salt + context).derive(key)
        if not equal(derived[KEY_LENGTH + NONCE_LENGTH :], commitment):
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the container is not authentic")
        self._aead: Final = AESGCM(derived[:KEY_LENGTH])
        self._base_nonce: Final = int.from_bytes(derived[KEY_LENGTH : KEY_LENGTH + NONCE_LENGTH], "big")

    def open(self, number: int, chunk: bytes | memoryview) -> bytes:
        """The plaintext of chunk `number`, counted from 0. Raises CryptoRefusal (NOT_AUTHENTIC)."""
        nonce = (self._base_nonce ^ number).to_bytes(NONCE_LENGTH, "big")
        try:
            return self._aead.decrypt(nonce, chunk, None)
        except (InvalidTag, ValueError):
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the container is not authentic") from None


def check_secret(secret: bytes, length: int) -> None:
    """Refuse (BAD_KEY) a secret that does not have `length` bytes."""
    if len(secret) != length:
        raise CryptoRefusal(Reason.BAD_KEY, "a secret has the wrong length")


def _kem_public_key(public: bytes) -> MLKEM768PublicKey:
    try:
        return MLKEM768PublicKey.from_public_bytes(public)
    except ValueError:
        raise CryptoRefusal(Reason.BAD_KEY, "a KEM key is not valid") from None
