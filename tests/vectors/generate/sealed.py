"""Vectors of sealed.md: who can open a sealed first message, and whom it is believed to come from."""

from collections.abc import Sequence
from dataclasses import replace

from sottovoce.crypto.agreement import Handshake
from sottovoce.crypto.errors import Reason
from sottovoce.crypto.prekeys import OwnPrekeys
from sottovoce_wire import labels, padding
from sottovoce_wire.ids import AccountId, DeviceId
from tests.second import hpke
from tests.second import sealed as second
from tests.second.prekeys import parse_prekeys

from .agreement import (
    OWN_DEVICE,
    OWN_ONE_TIME,
    OWN_PREKEYS,
    RECORD_ID,
    handshake,
    own_device,
    own_one_time,
    own_prekeys,
)
from .build import HEX, NUMBER, Construction, Group, Type, invalid, valid
from .cast import ALICE, BOB, MALLORY, first_list, flipped, one_time, prekeys, stream
from .identity import entry_with, payload, signed
from .keys import bad_exchange_keys

SEALED = Type("sealed", OWN_DEVICE | OWN_PREKEYS, {"envelope": HEX}, {"content": HEX})
FIRST_MESSAGE = Type(
    "firstMessage",
    OWN_DEVICE | OWN_PREKEYS | OWN_ONE_TIME,
    {"envelope": HEX},
    {"senderAccountId": HEX, "senderDeviceId": HEX, "listVersion": NUMBER, "message": HEX, "sessionId": HEX},
)
_COINS = stream("sealing coins", 64)
_ENC_END = 2 + hpke.ENC_LENGTH


def _sealed_with(info: bytes, padded: bytes, keys: OwnPrekeys) -> bytes:
    """An envelope with any info and padding."""
    return bytes([2, RECORD_ID % 256]) + hpke.seal(keys.sealing_key.public, info, padded, _COINS)


def _info(account: AccountId, device: DeviceId, record_hash: bytes, label: bytes = labels.SEALED) -> bytes:
    return label + account + device + record_hash


def _replaced(envelope: bytes, at: int, piece: bytes) -> bytes:
    return envelope[:at] + piece + envelope[at + len(piece) :]


def _wrong_infos(padded: bytes, keys: OwnPrekeys) -> dict[str, bytes]:
    record, device, account = keys.record_hash, BOB.device.device_id, BOB.account
    other = prekeys(BOB, 0x0207).record_hash
    infos = {
        "bound to another record": _info(account, device, other),
        "bound to another device": _info(account, MALLORY.device.device_id, record),
        "bound to another account": _info(MALLORY.account, device, record),
        "without the label": _info(account, device, record, b""),
        "without the record": _info(account, device, b""),
        "without any info": b"",
    }
    return {comment: _sealed_with(info, padded, keys) for comment, info in infos.items()}


def _opening() -> Group:
    keys = prekeys(BOB, RECORD_ID)
    peer = parse_prekeys(keys.record)
    content = stream("content", 300)
    good = second.seal(peer, content, _COINS)
    info = _info(BOB.account, BOB.device.device_id, keys.record_hash)
    same_byte = second.seal(parse_prekeys(prekeys(BOB, 0x0207).record), content, _COINS)
    not_authentic = {
        "a changed KEM ciphertext": flipped(good, 2),
        "a changed ephemeral key": flipped(good, _ENC_END - 32),
        "a changed content": flipped(good, _ENC_END),
        "a changed tag": flipped(good),
        "sealed to another record whose id has the same byte": same_byte,
        **_wrong_infos(padding.pad(content, minimum=4096), keys),
    }
    weak = [
        (f"an ephemeral key of {comment}", _replaced(good, _ENC_END - 32, key))
        for comment, _, key in bad_exchange_keys()[:5]
    ]
    malformed = {
        "another kind": b"\x01" + good[1:],
        "no bytes": b"",
        "shorter than any": good[: _ENC_END + 15],
        "a tag alone": good[: _ENC_END + 16],
        "cut by a byte": good[:-1],
        "a byte more": good + b"\x00",
        "a length between two sizes": _sealed_with(info, (content + b"\x80").ljust(4224, b"\x00"), keys),
        "padding of zeros alone": _sealed_with(info, bytes(4096), keys),
        "padding without a mark": _sealed_with(info, b"\x01" * 4096, keys),
        "not padded, and nothing inside": _sealed_with(info, b"", keys),
    }
    tests = [
        valid("a content", envelope=good),
        valid("the fullest content of the smallest size", "Boundary", envelope=second.seal(peer, b"x" * 4095, _COINS)),
        valid("no content", "Boundary", envelope=second.seal(peer, b"", _COINS)),
        invalid(Reason.UNKNOWN_PREKEY, "to another record's byte", "Misplaced", envelope=_replaced(good, 1, b"\x08")),
        *(invalid(Reason.NOT_AUTHENTIC, c, "ChangedBytes", envelope=e) for c, e in not_authentic.items()),
        *(invalid(Reason.NOT_AUTHENTIC, c, "InvalidKey", envelope=e) for c, e in weak),
        *(invalid(Reason.MALFORMED, c, "Encoding", envelope=e) for c, e in malformed.items()),
    ]
    return Group(SEALED, tests, {**own_device(BOB), **own_prekeys(keys)})


def _opening_as_another() -> list[Group]:
    """Bob's envelope and keys, in a device or account that is not the one it was sealed to."""
    keys = prekeys(BOB, RECORD_ID)
    good = second.seal(parse_prekeys(keys.record), b"content", _COINS)
    own = [
        ("another device id", own_device(MALLORY, BOB.account)),
        ("another account id", own_device(BOB, ALICE.account)),
    ]
    return [
        Group(
            SEALED,
            [invalid(Reason.NOT_AUTHENTIC, f"opened under {comment}", "Misplaced", envelope=good)],
            {**fields, **own_prekeys(keys)},
        )
        for comment, fields in own
    ]


def _content(packed: bytes, root: bytes, device_list: bytes, message: bytes = b"a ratchet message") -> bytes:
    return packed + root + len(device_list).to_bytes(2, "big") + device_list + message


def _changed(packed: bytes, **fields: object) -> bytes:
    return replace(Handshake.parse(packed), **fields).pack()  # type: ignore[arg-type]


def _senders(packed: bytes) -> list[tuple[Reason, str, str, bytes]]:
    """(reason, comment, flag, content) of first messages from somebody else than they say."""
    root, good = ALICE.root.public, first_list(ALICE)
    alice_mallory = first_list(ALICE, ALICE.device, MALLORY.device)
    mixed = {"device_id": MALLORY.device.device_id}
    from_bob = {
        "account_id": BOB.account,
        "device_id": BOB.device.device_id,
        "identity_key": BOB.device.identity_public,
    }
    weak = signed(ALICE, payload(ALICE, [entry_with(ALICE, identity_key=bytes(32))]))
    wrong_root = MALLORY.root.sign(labels.DEVICE_LIST, good[:-64])
    unlisted = Reason.NOT_LISTED
    return [
        (Reason.WRONG_ACCOUNT, "another account's root key", "Forgery", _content(packed, MALLORY.root.public, good)),
        (
            Reason.WRONG_ACCOUNT,
            "another account in the handshake",
            "Forgery",
            _content(_changed(packed, account_id=MALLORY.account), root, good),
        ),
        (Reason.BAD_SIGNATURE, "a list that the root did not sign", "Forgery", _content(packed, root, wrong_root)),
        (Reason.BAD_SIGNATURE, "another account's list", "Misplaced", _content(packed, root, first_list(BOB))),
        (Reason.BAD_SIGNATURE, "a list with a changed byte", "ChangedBytes", _content(packed, root, flipped(good, 40))),
        (Reason.BAD_KEY, "a list with a key of small order", "InvalidKey", _content(packed, root, weak)),
        (
            unlisted,
            "a device that is not on the list",
            "Forgery",
            _content(packed, root, first_list(ALICE, MALLORY.device)),
        ),
        (
            unlisted,
            "a listed device with another identity key",
            "Forgery",
            _content(_changed(packed, identity_key=MALLORY.device.identity_public), root, good),
        ),
        (
            unlisted,
            "one listed device's id with another's key",
            "Forgery",
            _content(_changed(packed, **mixed), root, alice_mallory),
        ),
        (
            Reason.OWN_DEVICE,
            "from one's own device",
            "Misplaced",
            _content(_changed(packed, **from_bob), BOB.root.public, first_list(BOB)),
        ),
        (
            Reason.UNKNOWN_PREKEY,
            "a handshake to another record",
            "Misplaced",
            _content(_changed(packed, record_id=RECORD_ID + 256), root, good),
        ),
        (
            Reason.UNKNOWN_PREKEY,
            "a handshake without the one-time prekey",
            "Misplaced",
            _content(_changed(packed, one_time_id=None), root, good),
        ),
        (
            Reason.UNSUPPORTED_VERSION,
            "a handshake of version 2",
            "Encoding",
            b"\x02" + _content(packed, root, good)[1:],
        ),
        (Reason.BAD_RECORD, "no list", "Encoding", _content(packed, root, b"")),
        (Reason.MALFORMED, "no message", "Encoding", _content(packed, root, good, b"")),
        (Reason.MALFORMED, "a list longer than the content", "Encoding", packed + root + b"\xff\xff" + good),
        (Reason.MALFORMED, "cut within the handshake", "Encoding", packed[:-1]),
        (Reason.MALFORMED, "cut within the root key", "Encoding", packed + root[:-1]),
        (Reason.MALFORMED, "cut within the length", "Encoding", packed + root + b"\x00"),
        (Reason.MALFORMED, "nothing inside", "Encoding", b""),
    ]


def _first_messages() -> Group:
    keys, key = prekeys(BOB, RECORD_ID), one_time(BOB, 41)
    peer = parse_prekeys(keys.record)

    def envelope(content: bytes) -> bytes:
        return second.seal(peer, content, _COINS)

    packed = handshake(ALICE, BOB, keys, key)
    two = first_list(ALICE, MALLORY.device, ALICE.device)
    tests = [
        valid("from Alice's only device", envelope=envelope(_content(packed, ALICE.root.public, first_list(ALICE)))),
        valid("from the second device on her list", envelope=envelope(_content(packed, ALICE.root.public, two))),
        valid(
            "a message of one byte",
            "Boundary",
            envelope=envelope(_content(packed, ALICE.root.public, first_list(ALICE), b"x")),
        ),
        *(
            invalid(reason, comment, flag, envelope=envelope(content))
            for reason, comment, flag, content in _senders(packed)
        ),
    ]
    return Group(FIRST_MESSAGE, tests, {**own_device(BOB), **own_prekeys(keys), **own_one_time(key)})


def _groups() -> Sequence[Group]:
    return [_opening(), *_opening_as_another(), _first_messages()]


SEALED_FIRST = Construction("sealed", "The sealed first message", [SEALED, FIRST_MESSAGE], _groups)
