"""Vectors of labels.md and of the identifiers that are hashes under a label."""

import hashlib
from collections.abc import Sequence

from sottovoce.crypto.errors import Reason
from sottovoce_wire import ids, labels
from sottovoce_wire.ids import SendKey

from .build import HEX, TEXT, Construction, Group, Test, Type, invalid, valid
from .cast import ALICE, BOB, stream

LABEL = Type("label", {}, {"name": TEXT, "label": HEX}, {})
ACCOUNT_ID = Type("accountId", {}, {"rootKey": HEX, "accountId": HEX}, {})
DEVICE_ID = Type("deviceId", {}, {"signingKey": HEX, "identityKey": HEX, "deviceId": HEX}, {})
QUEUE_ID = Type("queueId", {}, {"ownerKey": HEX, "queueId": HEX}, {})
SEND_KEY_HASH = Type("sendKeyHash", {}, {"sendKey": HEX, "sendKeyHash": HEX}, {})


def names() -> list[str]:
    """The names of all labels, in the order of the table."""
    table = [value for name, value in vars(labels).items() if name.isupper() and isinstance(value, bytes)]
    return [value[1:].decode("ascii").removeprefix("Sottovoce v1 ") for value in table]


def _mistaken(name: str, kind: int) -> tuple[str, bytes]:
    text = f"Sottovoce v1 {name}".encode("ascii")
    length = bytes([len(text)])
    return [
        ("without the length byte", text),
        ("the length of the name alone", bytes([len(name)]) + text),
        ("a length byte that counts itself", bytes([len(text) + 1]) + text),
        ("of another version", length + text.replace(b"v1", b"v2")),
        ("in capitals", length + text.upper()),
        ("with a zero at the end", length + text + b"\x00"),
        ("a length of two bytes", b"\x00" + length + text),
        ("without the name of the protocol", bytes([len(name)]) + name.encode("ascii")),
    ][kind % 8]


def _labels() -> list[Test]:
    tests = [valid(f"L({name})", name=name, label=labels.label(name)) for name in names()]
    for number, name in enumerate(names()):
        comment, mistaken = _mistaken(name, number)
        tests.append(invalid(Reason.MALFORMED, f"L({name}) {comment}", "Mistake", name=name, label=mistaken))
    return tests


def _sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _account_ids() -> list[Test]:
    alice, bob = ALICE.root.public, BOB.root.public
    reason = Reason.WRONG_ACCOUNT
    return [
        valid("Alice", rootKey=alice, accountId=ALICE.account),
        valid("Bob", rootKey=bob, accountId=BOB.account),
        invalid(reason, "another account's id", "Misplaced", rootKey=alice, accountId=BOB.account),
        invalid(reason, "without the label", "Mistake", rootKey=alice, accountId=_sha256(alice)),
        invalid(reason, "cut to 16 bytes", "Mistake", rootKey=alice, accountId=ALICE.account[:16]),
    ]


def _device_ids() -> list[Test]:
    keys = {"signingKey": ALICE.device.signing_public, "identityKey": ALICE.device.identity_public}
    turned = _sha256(labels.DEVICE_ID, keys["identityKey"], keys["signingKey"])[:16]
    whole = _sha256(labels.DEVICE_ID, keys["signingKey"], keys["identityKey"])
    reason = Reason.WRONG_DEVICE
    return [
        valid("Alice's device", **keys, deviceId=ALICE.device.device_id),
        invalid(reason, "another device's id", "Misplaced", **keys, deviceId=BOB.device.device_id),
        invalid(reason, "the keys in the other order", "Mistake", **keys, deviceId=turned),
        invalid(reason, "the whole hash", "Mistake", **keys, deviceId=whole),
    ]


def _queue_ids() -> list[Test]:
    key = stream("queue", 32)
    as_account = _sha256(labels.ACCOUNT_ID, key)[:16]
    return [
        valid("a queue", ownerKey=key, queueId=ids.queue_id_of(key)),
        invalid(Reason.MALFORMED, "under the label of account ids", "Mistake", ownerKey=key, queueId=as_account),
    ]


def _send_key_hashes() -> list[Test]:
    key = SendKey(stream("send key"))
    return [
        valid("a send key", sendKey=key, sendKeyHash=ids.send_key_hash(key)),
        invalid(Reason.MALFORMED, "without the label", "Mistake", sendKey=key, sendKeyHash=_sha256(key)),
    ]


def _groups() -> Sequence[Group]:
    return [
        Group(LABEL, _labels()),
        Group(ACCOUNT_ID, _account_ids()),
        Group(DEVICE_ID, _device_ids()),
        Group(QUEUE_ID, _queue_ids()),
        Group(SEND_KEY_HASH, _send_key_hashes()),
    ]


LABELS = Construction(
    "labels", "Labels and identifiers", [LABEL, ACCOUNT_ID, DEVICE_ID, QUEUE_ID, SEND_KEY_HASH], _groups
)
