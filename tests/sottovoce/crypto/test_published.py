"""What others have published: our primitives, and those of the second implementation, give the values of RFCs, FIPS 203
and Wycheproof. Each file of tests/published names its sources; nothing in it was made here.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sottovoce.crypto import primitives
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.primitives import (
    OwnExchangeKey,
    OwnKemKey,
    OwnSealingKey,
    PeerExchangeKey,
    PeerKemKey,
    SigningKey,
)
from tests.second import aes_gcm, hpke, keys, ml_kem, notation
from tests.second.refusal import RefusedError

PUBLISHED = Path(__file__).parents[2] / "published"
Test = dict[str, Any]

REFUSALS = (CryptoRefusal, RefusedError)


def sections(name: str) -> list[Test]:
    content: list[Test] = json.loads((PUBLISHED / f"{name}.json").read_text("utf-8"))
    return content


def published(name: str, section: int) -> list[Any]:
    """The tests of one section, each with an id that pytest shows."""
    found = sections(name)[section]["tests"]
    return [pytest.param(test, id=str(test.get("tcId", number))) for number, test in enumerate(found, 1)]


def values(test: Test, *names: str) -> list[bytes]:
    return [bytes.fromhex(test[name]) for name in names]


def refusal(operation: Callable[[], object]) -> str:
    """The reason for which the operation is refused."""
    with pytest.raises(REFUSALS) as caught:
        operation()
    return str(caught.value.reason)  # type: ignore[attr-defined]


def test_every_file_names_its_sources() -> None:
    files = sorted(PUBLISHED.glob("*.json"))
    assert files
    assert [
        path.name for path in files if not all(part["source"] and part["tests"] for part in sections(path.stem))
    ] == []


# --- HKDF -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", published("hkdf_sha256", 0) + published("hkdf_sha256", 1))
def test_hkdf(test: Test) -> None:
    ikm, salt, info, okm = values(test, "ikm", "salt", "info", "okm")
    if test["result"] == "invalid":
        with pytest.raises(ValueError, match="larger than 8160"):
            primitives.hkdf_sha256(ikm, info, test["size"], salt=salt)
        return
    assert primitives.hkdf_sha256(ikm, info, test["size"], salt=salt) == okm
    assert notation.hkdf(salt, ikm, info, test["size"]) == okm


# --- X25519 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", published("x25519", 0) + published("x25519", 2))
def test_x25519(test: Test) -> None:
    private, public, shared = values(test, "private", "public", "shared")
    bad = {"LowOrderPublic", "NonCanonicalPublic"} & set(test.get("flags", ()))
    if bad or public[-1] & 0x80:
        assert refusal(lambda: PeerExchangeKey(public)) == Reason.BAD_KEY
        assert refusal(lambda: keys.check_exchange_key(public)) == Reason.BAD_KEY
    if bad:
        return
    # RFC 7748 masks the highest bit; a protocol that puts keys into transcripts refuses it, as above.
    public = public[:-1] + bytes([public[-1] & 0x7F])
    assert OwnExchangeKey(private).exchange(PeerExchangeKey(public)) == shared
    keys.check_exchange_key(public)
    assert keys.exchange(private, public) == shared


@pytest.mark.parametrize("test", published("x25519", 1))
def test_x25519_many_times_over(test: Test) -> None:
    scalar = point = (9).to_bytes(32, "little")
    for _ in range(test["iterations"]):
        # The loop of the RFC meets numbers with the highest bit set, which it masks.
        masked = point[:-1] + bytes([point[-1] & 0x7F])
        scalar, point = OwnExchangeKey(scalar).exchange(PeerExchangeKey(masked)), scalar
    assert scalar == bytes.fromhex(test["value"])


# --- Ed25519 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", published("ed25519", 0))
def test_ed25519_signs(test: Test) -> None:
    seed, public, message, signature = values(test, "seed", "pk", "msg", "sig")
    own = SigningKey(seed)
    assert (own.public, own.sign(message)) == (public, signature)
    assert (keys.signing_public(seed), keys.sign(seed, message)) == (public, signature)
    primitives.check_signing_key(public)
    keys.check_signing_key(public)


@pytest.mark.parametrize("test", published("ed25519", 1))
def test_ed25519_verifies(test: Test) -> None:
    public, message, signature = values(test, "pk", "msg", "sig")
    if test["result"] == "valid":
        primitives.verify(public, message, signature)
        keys.verify(public, message, signature)
        return
    assert refusal(lambda: primitives.verify(public, message, signature)) == Reason.BAD_SIGNATURE
    assert refusal(lambda: keys.verify(public, message, signature)) == Reason.BAD_SIGNATURE
    if "SmallOrderPublicKey" in test["flags"]:
        assert refusal(lambda: primitives.check_signing_key(public)) == Reason.BAD_KEY
        assert refusal(lambda: keys.check_signing_key(public)) == Reason.BAD_KEY


# --- AES-256-GCM ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [primitives, aes_gcm], ids=["primitives", "second"])
@pytest.mark.parametrize("test", published("aes_256_gcm", 0))
def test_aes_256_gcm(test: Test, module: Any) -> None:
    key, nonce, data, message = values(test, "key", "iv", "aad", "msg")
    sealed = bytes.fromhex(test["ct"] + test["tag"])
    if test["result"] == "invalid":
        assert refusal(lambda: module.decrypt(key, nonce, sealed, data)) == Reason.NOT_AUTHENTIC
        return
    assert module.encrypt(key, nonce, message, data) == sealed
    assert module.decrypt(key, nonce, sealed, data) == message


# --- ML-KEM-768 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", published("ml_kem_768", 0))
def test_ml_kem_768_makes_keys(test: Test) -> None:
    seed, public = values(test, "seed", "ek")
    assert OwnKemKey(seed).public == public
    assert ml_kem.public_of(seed) == public


@pytest.mark.parametrize("test", published("ml_kem_768", 1))
def test_ml_kem_768_decapsulates(test: Test) -> None:
    seed, ciphertext, secret = values(test, "seed", "c", "K")
    if len(seed) != 64:
        assert refusal(lambda: OwnKemKey(seed)) == Reason.BAD_KEY
    elif test["result"] == "invalid":
        assert refusal(lambda: OwnKemKey(seed).decapsulate(ciphertext)) == Reason.MALFORMED
        assert refusal(lambda: ml_kem.decapsulate(seed, ciphertext)) == Reason.MALFORMED
    else:
        assert OwnKemKey(seed).decapsulate(ciphertext) == secret
        assert ml_kem.decapsulate(seed, ciphertext) == secret


@pytest.mark.parametrize("test", published("ml_kem_768", 2))
def test_ml_kem_768_encapsulates_to_valid_keys_only(test: Test) -> None:
    public, coins = values(test, "ek", "m")
    if test["result"] == "invalid":
        assert refusal(lambda: PeerKemKey(public)) == Reason.BAD_KEY
        assert refusal(lambda: ml_kem.check_public(public)) == Reason.BAD_KEY
        return
    PeerKemKey(public)
    assert list(ml_kem.encapsulate(public, coins)) == values(test, "K", "c")


# --- HPKE -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", published("hpke", 0))
def test_hpke_with_x_wing(test: Test) -> None:
    """The published suite has another AEAD: key pair, KEM and key schedule are ours, and so is what goes into them."""
    seed, public, coins, enc, shared = values(test, "skRm", "pkRm", "ikmE", "enc", "shared_secret")
    # The draft's private key is one seed that SHAKE256 expands.
    seeds = hashlib.shake_256(seed).digest(OwnSealingKey.LENGTH)
    assert OwnSealingKey(seeds).public == hpke.x_wing_public(seeds) == public
    assert hpke.x_wing_encapsulate(public, coins) == (shared, enc)
    assert hpke.x_wing_decapsulate(seeds, enc) == shared
    suite = hpke.suite_id(test["kem_id"], test["kdf_id"], test["aead_id"])
    assert suite == bytes.fromhex(test["suite_id"])
    assert list(hpke.key_schedule(shared, bytes.fromhex(test["info"]), suite)) == values(test, "key", "base_nonce")


@pytest.mark.parametrize("test", published("hpke", 1))
def test_hpke_with_aes_256_gcm(test: Test) -> None:
    """The published suite has another KEM: key schedule and AEAD are ours."""
    shared, info, plaintext, data, ciphertext = values(test, "shared_secret", "info", "pt", "aad", "ct")
    suite = hpke.suite_id(test["kem_id"], test["kdf_id"], test["aead_id"])
    key, nonce = hpke.key_schedule(shared, info, suite)
    assert [key, nonce] == values(test, "key", "base_nonce")
    assert aes_gcm.decrypt(key, nonce, ciphertext, data) == plaintext
    assert primitives.decrypt(key, nonce, ciphertext, data) == plaintext


def test_what_the_second_implementation_seals_ours_opens_and_the_other_way_round() -> None:
    """With both tests above: HPKE with X-Wing and AES-256-GCM, for which nothing was published."""
    own = OwnSealingKey(bytes(range(96)))
    assert own.open(hpke.seal(own.public, b"info", b"hello", bytes(64)), b"info") == b"hello"
    sealed = primitives.PeerSealingKey(own.public).seal(b"hello", b"info")
    assert hpke.open_sealed(own.seeds, b"info", sealed) == b"hello"
