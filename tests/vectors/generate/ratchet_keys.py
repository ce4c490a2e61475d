"""Vectors of ratchet.md, "Root step and chain": the keys of chains and messages, and a body under one."""

from collections.abc import Sequence

from sottovoce.crypto.errors import Reason
from sottovoce.crypto.primitives import OwnExchangeKey
from tests.second import aes_gcm

from .build import HEX, NUMBER, Construction, Group, Test, Type, invalid, valid
from .cast import flipped, stream
from .keys import bad_exchange_keys

ROOT_STEP = Type(
    "rootStep",
    {"rootKey": HEX, "ownSecret": HEX},
    {"peerKey": HEX, "pqSecret": HEX, "epoch": NUMBER},
    {"nextRootKey": HEX, "chainKey": HEX, "nextHeaderKey": HEX, "nextTagKey": HEX, "ephemeralChainKey": HEX},
)
CHAIN = Type("chain", {"chainKey": HEX}, {"number": NUMBER}, {"messageKey": HEX, "nextChainKey": HEX})
MESSAGE_BODY = Type(
    "messageBody", {}, {"messageKey": HEX, "nonce": HEX, "associatedData": HEX, "ciphertext": HEX}, {"padded": HEX}
)


def _root_steps() -> Group:
    peer = OwnExchangeKey(stream("peer's ratchet key")).public
    secret = stream("post-quantum secret")
    tests = [
        valid("without a post-quantum secret", peerKey=peer, pqSecret=b"", epoch=0),
        valid("in a later epoch", peerKey=peer, pqSecret=b"", epoch=3),
        valid("an epoch begins", peerKey=peer, pqSecret=secret, epoch=1),
        valid("the last epoch", "Boundary", peerKey=peer, pqSecret=secret, epoch=2**32 - 1),
        *(
            invalid(Reason.BAD_KEY, comment, flag, peerKey=key, pqSecret=b"", epoch=0)
            for comment, flag, key in bad_exchange_keys()
        ),
    ]
    return Group(ROOT_STEP, tests, {"rootKey": stream("root key"), "ownSecret": stream("own ratchet key")})


def _chains() -> Group:
    numbers = {"the first message": 0, "the second": 1, "the hundredth": 99, "beyond all that are kept": 2001}
    tests = [valid(comment, number=number) for comment, number in numbers.items()]
    return Group(CHAIN, tests, {"chainKey": stream("chain key")})


def _bodies() -> list[Test]:
    key, nonce, data = stream("message key"), stream("r", 12), stream("session id") + b"head"
    padded = b"hello\x80".ljust(256, b"\x00")
    good = aes_gcm.encrypt(key, nonce, padded, data)
    usual = {"messageKey": key, "nonce": nonce, "associatedData": data, "ciphertext": good}
    changed = {
        "a changed ciphertext": {"ciphertext": flipped(good, 0)},
        "a changed tag": {"ciphertext": flipped(good)},
        "cut by a byte": {"ciphertext": good[:-1]},
        "a byte more": {"ciphertext": good + b"\x00"},
        "a tag of 12 bytes": {"ciphertext": good[:-4]},
        "no bytes": {"ciphertext": b""},
        "another key": {"messageKey": stream("another key")},
        "another nonce": {"nonce": flipped(nonce)},
        "other associated data": {"associatedData": flipped(data)},
        "no associated data": {"associatedData": b""},
    }
    return [
        valid("a body", **usual),
        *(
            invalid(Reason.NOT_AUTHENTIC, comment, "ChangedBytes", **{**usual, **fields})
            for comment, fields in changed.items()
        ),
    ]


def _groups() -> Sequence[Group]:
    return [_root_steps(), _chains(), Group(MESSAGE_BODY, _bodies())]


RATCHET_KEYS = Construction(
    "ratchet_keys", "The keys of the ratchet: root step, chain, message", [ROOT_STEP, CHAIN, MESSAGE_BODY], _groups
)
