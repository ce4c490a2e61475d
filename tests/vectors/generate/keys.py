"""Vectors of the keys that are received (notation.md): which are refused, and what the good ones give."""

from collections.abc import Sequence

from sottovoce.crypto.errors import Reason
from sottovoce.crypto.primitives import OwnExchangeKey, OwnKemKey, OwnSealingKey, SigningKey
from tests.second import ml_kem

from .build import HEX, Construction, Group, Test, Type, invalid, valid
from .cast import flipped, stream

EXCHANGE_KEY = Type("exchangeKey", {}, {"publicKey": HEX}, {})
EXCHANGE = Type("exchange", {"secretKey": HEX}, {"publicKey": HEX}, {"sharedSecret": HEX})
SIGNING_KEY = Type("signingKey", {}, {"publicKey": HEX}, {})
SIGNATURE = Type("signature", {}, {"publicKey": HEX, "message": HEX, "signature": HEX}, {})
KEM_KEY = Type("kemKey", {}, {"publicKey": HEX}, {})
DECAPSULATE = Type("decapsulate", {"seed": HEX}, {"ciphertext": HEX}, {"sharedSecret": HEX})
SEALING_KEY = Type("sealingKey", {}, {"publicKey": HEX}, {})

_FIELD = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_HIGH_BIT = 2**255
#: RFC 7748 names 0 and 1; the others are the points of order 8 on the curve and -1 on the twist.
X25519_SMALL = {
    "0": 0,
    "1": 1,
    "-1": _FIELD - 1,
    "order 8": 0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    "order 8, the other": 0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
}
ED25519_SMALL = {
    "order 1": 1,
    "order 2": _FIELD - 1,
    "order 4": 0,
    "order 8": 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    "order 8, the other": 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
}


def _le(value: int) -> bytes:
    return value.to_bytes(32, "little")


def bad_exchange_keys() -> list[tuple[str, str, bytes]]:
    """(comment, flag, public key) of X25519 keys that must be refused."""
    good = OwnExchangeKey(stream("peer")).public
    small = [(f"small order: {name}", "InvalidKey", _le(u)) for name, u in X25519_SMALL.items()]
    return [
        *small,
        ("the high bit set", "Encoding", good[:-1] + bytes([good[-1] | 0x80])),
        ("the field's prime: 0 in another spelling", "Encoding", _le(_FIELD)),
        ("the prime plus 9: the base point in another spelling", "Encoding", _le(_FIELD + 9)),
        ("2^255 - 1", "Boundary", _le(2**255 - 1)),
        ("31 bytes", "Encoding", good[:-1]),
        ("33 bytes", "Encoding", good + b"\x00"),
        ("no bytes", "Encoding", b""),
    ]


def _exchange_keys() -> list[Test]:
    good = [("the base point", _le(9)), ("2", _le(2)), ("on the twist", _le(5)), ("p - 2", _le(_FIELD - 2))]
    return [
        *(valid(comment, "Boundary", publicKey=public) for comment, public in good),
        valid("a usual key", publicKey=OwnExchangeKey(stream("peer")).public),
        *(invalid(Reason.BAD_KEY, comment, flag, publicKey=key) for comment, flag, key in bad_exchange_keys()),
    ]


def _exchanges() -> Group:
    tests = [
        valid("a usual key", publicKey=OwnExchangeKey(stream("peer")).public),
        valid("the base point", "Boundary", publicKey=_le(9)),
        *(invalid(Reason.BAD_KEY, comment, flag, publicKey=key) for comment, flag, key in bad_exchange_keys()[:3]),
    ]
    return Group(EXCHANGE, tests, {"secretKey": stream("own")})


def _signing_keys() -> list[Test]:
    good = SigningKey(stream("signer")).public
    small = [
        invalid(Reason.BAD_KEY, f"{name}, sign bit {sign}", "InvalidKey", publicKey=_le(y + sign * _HIGH_BIT))
        for name, y in ED25519_SMALL.items()
        for sign in (0, 1)
    ]
    other_spellings = {"0": _FIELD, "1": _FIELD + 1, "the greatest": 2**255 - 1}
    return [
        valid("a usual key", publicKey=good),
        valid("its other sign", "Boundary", publicKey=good[:-1] + bytes([good[-1] ^ 0x80])),
        *small,
        *(
            invalid(Reason.BAD_KEY, f"y in another spelling: {name}", "Encoding", publicKey=_le(y))
            for name, y in other_spellings.items()
        ),
        invalid(Reason.BAD_KEY, "31 bytes", "Encoding", publicKey=good[:-1]),
        invalid(Reason.BAD_KEY, "33 bytes", "Encoding", publicKey=good + b"\x00"),
    ]


def _signatures() -> list[Test]:
    key, message = SigningKey(stream("signer")), b"a message"
    signature = key.sign(message)
    s = int.from_bytes(signature[32:], "little")
    identity = _le(1)
    # Under a key of small order, R = [S]B holds for every message.
    forged = identity + bytes(32)
    off_curve = _le(2)
    bad = Reason.BAD_SIGNATURE

    def fields(**changed: bytes) -> dict[str, bytes]:
        return {"publicKey": key.public, "message": message, "signature": signature} | changed

    return [
        valid("a signature", **fields()),
        valid("over nothing", "Boundary", **fields(message=b"", signature=key.sign(b""))),
        invalid(bad, "over another message", "Forgery", **fields(message=b"another")),
        invalid(bad, "by another key", "Forgery", **fields(publicKey=SigningKey(stream("another")).public)),
        invalid(bad, "a changed R", "ChangedBytes", **fields(signature=flipped(signature, 0))),
        invalid(bad, "a changed S", "ChangedBytes", **fields(signature=flipped(signature, 32))),
        invalid(bad, "S plus the order", "Encoding", **fields(signature=signature[:32] + _le(s + _ORDER))),
        invalid(bad, "zeros", "Forgery", **fields(signature=bytes(64))),
        invalid(bad, "a key of small order", "InvalidKey", **fields(publicKey=identity, signature=forged)),
        invalid(bad, "a key that is no point", "InvalidKey", **fields(publicKey=off_curve)),
        invalid(bad, "63 bytes", "Encoding", **fields(signature=signature[:-1])),
        invalid(bad, "65 bytes", "Encoding", **fields(signature=signature + b"\x00")),
    ]


def with_coefficient(public: bytes, index: int, value: int) -> bytes:
    """An ML-KEM key with one coefficient of 12 bits replaced."""
    joined = int.from_bytes(public[:-32], "little") & ~(0xFFF << 12 * index) | value << 12 * index
    return joined.to_bytes(len(public) - 32, "little") + public[-32:]


def bad_kem_keys() -> list[tuple[str, str, bytes]]:
    """(comment, flag, public key) of ML-KEM-768 keys that must be refused."""
    good = OwnKemKey(stream("KEM", 64)).public
    return [
        ("the first coefficient is the modulus", "Boundary", with_coefficient(good, 0, 3329)),
        ("the last coefficient is the modulus", "Boundary", with_coefficient(good, 767, 3329)),
        ("a coefficient of 4095", "InvalidKey", with_coefficient(good, 300, 4095)),
        ("one byte short", "Encoding", good[:-1]),
        ("one byte more", "Encoding", good + b"\x00"),
        ("of ML-KEM-512's length", "Encoding", good[:800]),
    ]


def _kem_keys() -> list[Test]:
    good = OwnKemKey(stream("KEM", 64)).public
    return [
        valid("a usual key", publicKey=good),
        valid("a coefficient of 3328", "Boundary", publicKey=with_coefficient(good, 0, 3328)),
        *(invalid(Reason.BAD_KEY, comment, flag, publicKey=key) for comment, flag, key in bad_kem_keys()),
    ]


def _decapsulations() -> Group:
    seed = stream("KEM", 64)
    _, ciphertext = ml_kem.encapsulate(OwnKemKey(seed).public, stream("KEM coins"))
    short, long = ciphertext[:-1], ciphertext + b"\x00"
    tests = [
        valid("a ciphertext", ciphertext=ciphertext),
        valid("changed: another secret, and no refusal", "ChangedBytes", ciphertext=flipped(ciphertext)),
        invalid(Reason.MALFORMED, "one byte short", "Encoding", ciphertext=short),
        invalid(Reason.MALFORMED, "one byte more", "Encoding", ciphertext=long),
        invalid(Reason.MALFORMED, "no bytes", "Encoding", ciphertext=b""),
    ]
    return Group(DECAPSULATE, tests, {"seed": seed})


def _sealing_keys() -> list[Test]:
    good = OwnSealingKey(stream("sealing key", OwnSealingKey.LENGTH)).public
    kem, exchange = good[:-32], good[-32:]
    tests = [
        valid("a usual key", publicKey=good),
        invalid(Reason.BAD_KEY, "the X25519 key first", "Mistake", publicKey=exchange + kem),
    ]
    for comment, flag, key in bad_exchange_keys()[:6]:
        tests.append(invalid(Reason.BAD_KEY, f"X25519: {comment}", flag, publicKey=kem + key))
    for comment, flag, key in bad_kem_keys()[:2]:
        tests.append(invalid(Reason.BAD_KEY, f"ML-KEM: {comment}", flag, publicKey=key + exchange))
    return tests


def _groups() -> Sequence[Group]:
    return [
        Group(EXCHANGE_KEY, _exchange_keys()),
        _exchanges(),
        Group(SIGNING_KEY, _signing_keys()),
        Group(SIGNATURE, _signatures()),
        Group(KEM_KEY, _kem_keys()),
        _decapsulations(),
        Group(SEALING_KEY, _sealing_keys()),
    ]


KEYS = Construction(
    "keys",
    "Keys that are received",
    [EXCHANGE_KEY, EXCHANGE, SIGNING_KEY, SIGNATURE, KEM_KEY, DECAPSULATE, SEALING_KEY],
    _groups,
)
