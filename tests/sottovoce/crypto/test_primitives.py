"""The primitives: published vectors, a second implementation where there is one, and every refusal."""

import hmac
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings as sodium

from sottovoce.crypto import primitives
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.crypto.primitives import (
    AeadKey,
    OwnExchangeKey,
    OwnKemKey,
    OwnSealingKey,
    PeerExchangeKey,
    PeerKemKey,
    PeerSealingKey,
    SigningKey,
    keyed_hash,
)
from tests.random_input import examples

ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19

SMALL_ORDER_ED25519 = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]
LOW_ORDER_X25519 = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def test_hmac_is_hmac() -> None:
    one, two = (hmac.digest(b"k" * 32, message, "sha256") for message in (b"\x01", b"\x02"))
    assert primitives.hmac_sha256(b"k" * 32, b"\x01") == one
    assert primitives.hmac_sha256_twice(b"k" * 32, b"\x01", b"\x02") == (one, two)


def test_hkdf_gives_the_rfc_5869_output() -> None:
    output = primitives.hkdf_sha256(
        bytes.fromhex("0b" * 22), bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42, salt=bytes(range(13))
    )
    assert output.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_a_passphrase_gives_the_key_that_another_argon2id_gives() -> None:
    ours = primitives.derive_key_from_passphrase(b"pass", b"s" * 16, opslimit=2, memlimit=64 * 1024)
    theirs = Argon2id(salt=b"s" * 16, length=32, iterations=2, lanes=1, memory_cost=64).derive(b"pass")
    assert ours == theirs


@pytest.mark.parametrize(
    ("salt", "opslimit", "memlimit"),
    [(b"s" * 15, 1, 8192), (b"s" * 16, 0, 8192), (b"s" * 16, -1, 8192), (b"s" * 16, 1, 1), (b"s" * 16, 1, 2**70)],
)
def test_impossible_passphrase_parameters_are_refused(salt: bytes, opslimit: int, memlimit: int) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        primitives.derive_key_from_passphrase(b"pass", salt, opslimit=opslimit, memlimit=memlimit)
    assert refusal.value.reason is Reason.MALFORMED


def test_a_wrapped_key_unwraps_and_never_looks_the_same_twice() -> None:
    wrapped = primitives.wrap_key(b"k" * 32, b"s" * 32, b"ad")
    assert primitives.unwrap_key(b"k" * 32, wrapped, b"ad") == b"s" * 32
    assert len(wrapped) == 60
    assert primitives.wrap_key(b"k" * 32, b"s" * 32, b"ad") != wrapped


def test_a_wrapped_key_opens_under_its_own_key_and_data_only() -> None:
    wrapped = primitives.wrap_key(b"k" * 32, b"s" * 32, b"ad")
    for key, data, ad in [
        (b"j" * 32, wrapped, b"ad"),
        (b"k" * 32, wrapped, b"other"),
        *((b"k" * 32, wrapped[:length], b"ad") for length in range(len(wrapped))),
        (b"k" * 32, wrapped + b"\x00", b"ad"),
    ]:
        with pytest.raises(CryptoRefusal) as refusal:
            primitives.unwrap_key(key, data, ad)
        assert refusal.value.reason is Reason.NOT_AUTHENTIC


def test_a_wrapping_key_of_another_length_is_refused() -> None:
    for key, secret in [(b"k" * 16, b"s" * 32), (b"k" * 32, b"s" * 31)]:
        with pytest.raises(CryptoRefusal) as refusal:
            primitives.wrap_key(key, secret, b"")
        assert refusal.value.reason is Reason.BAD_KEY
    with pytest.raises(CryptoRefusal):
        primitives.unwrap_key(b"k" * 16, bytes(60), b"")


def test_a_key_for_many_small_things_is_aes_gcm_each_time_it_is_used() -> None:
    for first_use in ("encrypt", "decrypt"):
        key, other = AeadKey(b"k" * 32), AESGCM(b"k" * 32)
        for nonce in (b"n" * 12, b"o" * 12):
            if first_use == "encrypt":
                assert key.encrypt(nonce, b"text", b"ad") == other.encrypt(nonce, b"text", b"ad")
            assert key.decrypt(nonce, other.encrypt(nonce, b"text", b"ad"), b"ad") == b"text"
        assert key.key == b"k" * 32


def test_a_key_for_many_small_things_refuses_what_is_not_authentic() -> None:
    key = AeadKey(b"k" * 32)
    sealed = key.encrypt(b"n" * 12, b"text", b"ad")
    for other, nonce, data, ad in (
        (AeadKey(b"j" * 32), b"n" * 12, sealed, b"ad"),
        (key, b"m" * 12, sealed, b"ad"),
        (key, b"", sealed, b"ad"),
        (key, b"n" * 12, sealed, b""),
        (key, b"n" * 12, sealed + b"\x00", b"ad"),
        *((key, b"n" * 12, sealed[:length], b"ad") for length in range(len(sealed))),
    ):
        with pytest.raises(CryptoRefusal) as refusal:
            other.decrypt(nonce, data, ad)
        assert refusal.value.reason is Reason.NOT_AUTHENTIC


def test_the_keyed_hash_gives_the_outputs_of_its_authors() -> None:
    """BLAKE2's own list of known answers, blake2b-kat.txt."""
    known = {
        b"": "10ebb67700b1868efb4417987acf4690ae9d972fb7a590c2f02871799aaa4786"
        "b5e996e8f0f4eb981fc214b005f42d2ff4233499391653df7aefcbc13fc51568",
        b"\x00": "961f6dd1e4dd30f63901690c512e78e4b45e4742ed197c3c5e45c549fd25f2e4"
        "187b0bc9fe30492b16b0d0bc4ef9b0f34c7003fac09a5ef1532e69430234cebd",
    }
    assert {message: keyed_hash(bytes(range(64)), message).hex() for message in known} == known


def test_equal_compares() -> None:
    assert primitives.equal(b"a", b"a")
    assert not primitives.equal(b"a", b"b")
    assert not primitives.equal(b"a", b"aa")


# Ed25519


def test_signatures_are_those_of_rfc_8032() -> None:
    key = SigningKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )
    primitives.verify(key.public, b"", key.sign(b""))


@pytest.mark.parametrize("encoding", SMALL_ORDER_ED25519)
def test_a_small_order_signing_key_is_refused_and_verifies_nothing(encoding: str) -> None:
    public = bytes.fromhex(encoding)
    with pytest.raises(CryptoRefusal) as refusal:
        primitives.check_signing_key(public)
    assert refusal.value.reason is Reason.BAD_KEY
    for forged in (public + bytes(32), b"\x01" + bytes(63)):
        with pytest.raises(CryptoRefusal) as refusal:
            primitives.verify(public, b"anything", forged)
        assert refusal.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("y", range(FIELD, 2**255))
@pytest.mark.parametrize("sign", [0, 1])
def test_a_signing_key_that_is_not_canonical_is_refused(y: int, sign: int) -> None:
    public = (y | sign << 255).to_bytes(32, "little")
    with pytest.raises(CryptoRefusal):
        primitives.check_signing_key(public)
    with pytest.raises(CryptoRefusal):
        primitives.verify(public, b"anything", bytes(64))


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_signing_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        primitives.check_signing_key(b"\x05" * length)
    assert refusal.value.reason is Reason.BAD_KEY
    with pytest.raises(CryptoRefusal) as refusal:
        primitives.verify(b"\x05" * length, b"", bytes(64))
    assert refusal.value.reason is Reason.BAD_SIGNATURE


def test_a_key_off_the_curve_verifies_nothing() -> None:
    off_curve = next(
        y.to_bytes(32, "little")
        for y in range(2, 40)
        if not sodium.crypto_core_ed25519_is_valid_point(y.to_bytes(32, "little"))
    )
    with pytest.raises(CryptoRefusal):
        primitives.verify(off_curve, b"", bytes(64))


def test_a_changed_signature_is_refused() -> None:
    key = SigningKey.generate()
    signature = key.sign(b"message")
    larger = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    changed = [
        signature[:63],
        signature + b"\x00",
        bytes([signature[0] ^ 1]) + signature[1:],
        signature[:32] + larger.to_bytes(32, "little"),
        SigningKey.generate().sign(b"message"),
    ]
    for forged in changed:
        with pytest.raises(CryptoRefusal) as refusal:
            primitives.verify(key.public, b"message", forged)
        assert refusal.value.reason is Reason.BAD_SIGNATURE
    with pytest.raises(CryptoRefusal):
        primitives.verify(key.public, b"another", signature)


def test_bytes_do_not_move_between_a_message_and_its_signature() -> None:
    key = SigningKey.generate()
    signature = key.sign(b"message")
    with pytest.raises(CryptoRefusal) as refusal:
        primitives.verify(key.public, b"essage", signature + b"m")
    assert refusal.value.reason is Reason.BAD_SIGNATURE


# X25519


def test_exchange_gives_the_rfc_7748_secret() -> None:
    base = (9).to_bytes(32, "little")
    shared = OwnExchangeKey(base).exchange(PeerExchangeKey(base))
    assert shared.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"


@pytest.mark.parametrize("make", [OwnExchangeKey.generate, OwnExchangeKey.generate_for_a_turn])
def test_both_sides_of_an_exchange_share_the_secret(make: Callable[[], OwnExchangeKey]) -> None:
    alice, bob = make(), OwnExchangeKey.generate()
    assert alice.exchange(PeerExchangeKey(bob.public)) == bob.exchange(PeerExchangeKey(alice.public))


@pytest.mark.parametrize("encoding", LOW_ORDER_X25519)
def test_a_low_order_exchange_key_is_refused(encoding: str) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        PeerExchangeKey(bytes.fromhex(encoding))
    assert refusal.value.reason is Reason.BAD_KEY


@pytest.mark.parametrize("coordinate", [9 | 1 << 255, FIELD + 9, 2**255 - 1])
def test_an_exchange_key_that_is_not_canonical_is_refused(coordinate: int) -> None:
    with pytest.raises(CryptoRefusal) as refusal:
        PeerExchangeKey(coordinate.to_bytes(32, "little"))
    assert refusal.value.reason is Reason.BAD_KEY


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_another_length_are_refused(length: int) -> None:
    data = b"\x09" * length
    for kind in (PeerExchangeKey, PeerKemKey, PeerSealingKey, SigningKey, OwnExchangeKey, OwnKemKey, OwnSealingKey):
        with pytest.raises(CryptoRefusal) as refusal:
            kind(data)
        assert refusal.value.reason is Reason.BAD_KEY


def test_an_exchange_key_that_was_written_down_is_the_same_again() -> None:
    key, peer = OwnExchangeKey.generate(), PeerExchangeKey(OwnExchangeKey.generate().public)
    restored = OwnExchangeKey.restore(key.secret, key.public)
    assert (restored.secret, restored.public) == (key.secret, key.public)
    assert restored.exchange(peer) == restored.exchange(peer) == key.exchange(peer)
    for length in (0, 31, 33):
        with pytest.raises(CryptoRefusal) as refusal:
            OwnExchangeKey.restore(bytes(length), key.public)
        assert refusal.value.reason is Reason.BAD_KEY


def test_an_exchange_key_comes_back_from_its_secret() -> None:
    key = OwnExchangeKey.generate()
    assert OwnExchangeKey(key.secret).public == key.public


# ML-KEM and sealing


def test_a_kem_secret_is_shared() -> None:
    own = OwnKemKey.generate()
    secret, ciphertext = PeerKemKey(own.public).encapsulate()
    assert (len(secret), len(ciphertext)) == (32, primitives.ML_KEM_768_CIPHERTEXT_LENGTH)
    assert OwnKemKey(own.seed).decapsulate(ciphertext) == secret
    assert own.decapsulate(ciphertext[:-1] + bytes([ciphertext[-1] ^ 1])) != secret


def test_a_kem_key_outside_the_modulus_is_refused() -> None:
    for kind, length in ((PeerKemKey, 1184), (PeerSealingKey, 1216)):
        with pytest.raises(CryptoRefusal) as refusal:
            kind(b"\xff" * length)
        assert refusal.value.reason is Reason.BAD_KEY


def test_a_sealing_key_with_a_low_order_part_is_refused() -> None:
    public = OwnSealingKey.generate().public
    with pytest.raises(CryptoRefusal) as refusal:
        PeerSealingKey(public[:-32] + bytes(32))
    assert refusal.value.reason is Reason.BAD_KEY


def test_a_kem_ciphertext_of_another_length_is_refused() -> None:
    own = OwnKemKey.generate()
    for length in (0, 1087, 1089):
        with pytest.raises(CryptoRefusal) as refusal:
            own.decapsulate(bytes(length))
        assert refusal.value.reason is Reason.MALFORMED


def test_what_is_sealed_opens_with_the_same_info_only() -> None:
    own = OwnSealingKey.generate()
    sealed = PeerSealingKey(own.public).seal(b"content", b"info")
    assert len(sealed) == primitives.SEALED_ENC_LENGTH + 7 + primitives.TAG_LENGTH
    assert OwnSealingKey(own.seeds).open(sealed, b"info") == b"content"
    for key, data, info in [(own, sealed, b"other"), (OwnSealingKey.generate(), sealed, b"info")]:
        with pytest.raises(CryptoRefusal) as refusal:
            key.open(data, info)
        assert refusal.value.reason is Reason.NOT_AUTHENTIC


def test_sealed_bytes_cut_short_or_with_a_low_order_key_are_refused() -> None:
    own = OwnSealingKey.generate()
    sealed = PeerSealingKey(own.public).seal(b"", b"")
    low_order = sealed[: primitives.ML_KEM_768_CIPHERTEXT_LENGTH] + bytes(32) + sealed[primitives.SEALED_ENC_LENGTH :]
    for data in (*(sealed[:length] for length in range(0, len(sealed), 7)), sealed + b"\x00", low_order):
        with pytest.raises(CryptoRefusal) as refusal:
            own.open(data, b"")
        assert refusal.value.reason is Reason.NOT_AUTHENTIC


@given(data=st.binary(max_size=1300))
@examples(200)
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    for parse in (PeerExchangeKey, PeerKemKey, PeerSealingKey, primitives.check_signing_key):
        try:
            parse(data)
        except CryptoRefusal:
            continue


@given(data=st.binary(max_size=100))
@examples(200)
def test_no_ciphertext_raises_anything_but_a_refusal(data: bytes) -> None:
    with pytest.raises(CryptoRefusal):
        primitives.decrypt(b"k" * 32, data[:12], data[12:], b"")
    with pytest.raises(CryptoRefusal):
        primitives.verify(data[:32], b"", data[32:])
