"""Vectors of identity.md: root keys, device lists, their succession, names, a queue's owner."""

from collections.abc import Sequence

from sottovoce.crypto.errors import Reason
from sottovoce.crypto.identity import OwnerKey, RootKey
from sottovoce.crypto.primitives import SigningKey
from sottovoce_wire import labels
from sottovoce_wire.records import (
    NO_LIST_HASH,
    DeviceEntry,
    DeviceList,
    ListFlag,
    UsernameClaim,
    device_list_hash,
    owner_challenge,
)
from tests.vectors.form import Value

from .build import HEX, HEX_LIST, NUMBER, TEXT, Construction, Group, Test, Type, invalid, valid
from .cast import ALICE, BOB, MALLORY, NOW, Person, first_list, flipped, person, stream
from .keys import ED25519_SMALL, bad_exchange_keys

ROOT_KEY = Type("rootKey", {}, {"entropy": HEX}, {"rootKey": HEX, "accountId": HEX})
_LIST_FIELDS = {
    "accountId": HEX,
    "version": NUMBER,
    "time": NUMBER,
    "flag": NUMBER,
    "deviceIds": HEX_LIST,
    "listHash": HEX,
}
DEVICE_LIST = Type("deviceList", {}, {"rootKey": HEX, "record": HEX}, _LIST_FIELDS)
SUCCESSION = Type("succession", {"rootKey": HEX}, {"known": HEX, "record": HEX}, _LIST_FIELDS)
USERNAME_CLAIM = Type("usernameClaim", {"rootKey": HEX}, {"record": HEX}, {"time": NUMBER, "username": TEXT})
QUEUE_OWNER = Type("queueOwner", {"ownerKey": HEX}, {"origin": TEXT, "nonce": HEX, "signature": HEX}, {})

_PEOPLE = [person(f"device {number}") for number in range(11)]


def _root_keys() -> list[Test]:
    return [
        valid("Alice's", entropy=ALICE.root.entropy),
        valid("zeros", "Boundary", entropy=bytes(32)),
        invalid(Reason.BAD_KEY, "31 bytes", "Encoding", entropy=bytes(31)),
        invalid(Reason.BAD_KEY, "33 bytes", "Encoding", entropy=bytes(33)),
        invalid(Reason.BAD_KEY, "the bytes of 12 words", "Encoding", entropy=bytes(16)),
    ]


def payload(who: Person, devices: Sequence[DeviceEntry], **fields: object) -> bytes:
    """A list's payload with any fields; nothing is checked."""
    usual = {"version": 1, "previous": NO_LIST_HASH, "time": NOW, "flag": ListFlag.NORMAL}
    return DeviceList(account_id=who.account, devices=tuple(devices), **{**usual, **fields}).pack()  # type: ignore[arg-type]


def signed(who: Person, payload: bytes) -> bytes:
    """A list's record."""
    return who.root.sign(labels.DEVICE_LIST, payload)


def _list(**fields: object) -> bytes:
    return signed(ALICE, payload(ALICE, [ALICE.entry], **fields))


def entry_with(who: Person, *, signing_key: bytes | None = None, identity_key: bytes | None = None) -> DeviceEntry:
    """An entry with another key, and the consent of the device's signing key to it."""
    keys = (signing_key or who.device.signing_public, identity_key or who.device.identity_public)
    statement = labels.DEVICE_CONSENT + who.account + keys[0] + keys[1]
    return DeviceEntry(*keys, who.signing_key.sign(statement))


def _entries(count: int) -> list[DeviceEntry]:
    return [who.device.consent(ALICE.account) for who in _PEOPLE[:count]]


def _changed_lists() -> list[Test]:
    root, good = ALICE.root.public, first_list(ALICE)
    off_by_one = payload(ALICE, [ALICE.entry])
    tests = {
        "a changed device key": flipped(good, 90),
        "a changed signature": flipped(good),
        "signed by a device": ALICE.device.sign_record(labels.DEVICE_LIST, off_by_one),
        "signed under the label of username claims": ALICE.root.sign(labels.USERNAME_CLAIM, off_by_one),
        "signed without a label": ALICE.root.sign(b"", off_by_one),
        "signed by another account's root": signed(MALLORY, off_by_one),
        "cut short": good[:-1],
        "a byte more": good + b"\x00",
        "a signature over less than the payload": good[:-64] + b"\x00" + good[-64:],
        "65 bytes": good[:65],
    }
    return [
        invalid(Reason.BAD_SIGNATURE, comment, "Forgery", rootKey=root, record=record)
        for comment, record in tests.items()
    ]


def _unreadable_lists() -> list[Test]:
    """Signed by the root, and still not lists."""
    alice, bob = ALICE.entry, BOB.device.consent(ALICE.account)
    good = payload(ALICE, [alice])
    same_identity = DeviceEntry(bob.signing_key, alice.identity_key, bob.consent)
    same_signing = DeviceEntry(alice.signing_key, bob.identity_key, alice.consent)
    crossed = DeviceEntry(bob.signing_key, alice.signing_key, bob.consent)
    payloads = {
        "version 0": payload(ALICE, [alice], version=0),
        "no devices, and not final": payload(ALICE, []),
        "no devices, and a recovery": payload(ALICE, [], flag=ListFlag.RECOVERY),
        "final with a device": payload(ALICE, [alice], flag=ListFlag.FINAL),
        "11 devices": payload(ALICE, _entries(11)),
        "an unknown flag": good[:80] + b"\x03" + good[81:],
        "a device twice": payload(ALICE, [alice, alice]),
        "an identity key twice": payload(ALICE, [alice, same_identity]),
        "a signing key twice": payload(ALICE, [alice, same_signing]),
        "one key in both places": payload(ALICE, [alice, crossed]),
        "a count above the entries": good[:81] + b"\x02" + good[82:],
        "a count below the entries": good[:81] + b"\x00" + good[82:],
        "a byte after the entries": good + b"\x00",
        "half an entry": good[:-64],
        "a head alone": good[:81],
        "one byte": b"\x00",
    }
    return [
        invalid(Reason.BAD_RECORD, comment, "Encoding", rootKey=ALICE.root.public, record=signed(ALICE, content))
        for comment, content in payloads.items()
    ] + [
        invalid(Reason.BAD_RECORD, comment, "Encoding", rootKey=ALICE.root.public, record=record)
        for comment, record in {"no bytes": b"", "a signature alone": bytes(64)}.items()
    ]


def _bad_entries() -> list[Test]:
    root = ALICE.root.public
    tests = [
        invalid(
            Reason.BAD_SIGNATURE,
            "a device that consented to another account",
            "Misplaced",
            rootKey=root,
            record=signed(ALICE, payload(ALICE, [BOB.entry])),
        ),
        invalid(
            Reason.BAD_SIGNATURE,
            "a consent for another identity key",
            "Misplaced",
            rootKey=root,
            record=signed(
                ALICE,
                payload(ALICE, [DeviceEntry(ALICE.entry.signing_key, BOB.device.identity_public, ALICE.entry.consent)]),
            ),
        ),
        invalid(
            Reason.BAD_SIGNATURE,
            "a signing key that is no point",
            "InvalidKey",
            rootKey=root,
            record=signed(ALICE, payload(ALICE, [entry_with(ALICE, signing_key=(2).to_bytes(32, "little"))])),
        ),
    ]
    for name, y in ED25519_SMALL.items():
        entry = entry_with(ALICE, signing_key=y.to_bytes(32, "little"))
        record = signed(ALICE, payload(ALICE, [entry]))
        tests.append(invalid(Reason.BAD_KEY, f"a signing key of {name}", "InvalidKey", rootKey=root, record=record))
    for comment, flag, key in bad_exchange_keys()[:9]:
        record = signed(ALICE, payload(ALICE, [entry_with(ALICE, identity_key=key)]))
        tests.append(invalid(Reason.BAD_KEY, f"an identity key: {comment}", flag, rootKey=root, record=record))
    return tests


def _lists() -> list[Test]:
    root, other = ALICE.root.public, MALLORY.root
    small = (1).to_bytes(32, "little")
    # The signature holds for Mallory's root; the list says Alice.
    foreign = other.sign(labels.DEVICE_LIST, payload(ALICE, [ALICE.entry]))
    final = payload(ALICE, [], version=2, previous=stream("hash"), flag=ListFlag.FINAL)
    return [
        valid("one device", rootKey=root, record=first_list(ALICE)),
        valid("ten devices", "Boundary", rootKey=root, record=signed(ALICE, payload(ALICE, _entries(10)))),
        valid("a recovery", rootKey=root, record=_list(version=NOW, flag=ListFlag.RECOVERY)),
        valid("a final list", rootKey=root, record=signed(ALICE, final)),
        *_changed_lists(),
        *_unreadable_lists(),
        *_bad_entries(),
        invalid(Reason.WRONG_ACCOUNT, "another account's list", "Misplaced", rootKey=other.public, record=foreign),
        invalid(Reason.BAD_KEY, "a root of small order", "InvalidKey", rootKey=small, record=first_list(ALICE)),
    ]


def _next(known: bytes, **fields: object) -> bytes:
    found = DeviceList.parse(known[:-64])
    usual = {"version": found.version + 1, "previous": device_list_hash(known[:-64]), "time": NOW + 60}
    return _list(**{**usual, **fields})


def _succession() -> Group:
    first = first_list(ALICE)
    second = _next(first)
    third = _next(second)
    recovery = _list(version=NOW + 60, time=NOW + 60, flag=ListFlag.RECOVERY)
    final = signed(
        ALICE, payload(ALICE, [], version=2, previous=device_list_hash(first[:-64]), time=NOW + 60, flag=ListFlag.FINAL)
    )
    forked, stale, missing, ended = Reason.FORKED_LIST, Reason.STALE_LIST, Reason.MISSING_LIST, Reason.ACCOUNT_ENDED
    after_final = _next(final)
    recovered_after_final = _list(version=NOW + 120, time=NOW + 120, flag=ListFlag.RECOVERY)
    early_recovery = _list(version=5, time=NOW, flag=ListFlag.RECOVERY)
    low_recovery = _next(recovery, version=NOW + 61, flag=ListFlag.RECOVERY, previous=stream("unknown"), time=NOW)
    others = stream("another list")
    bad = Reason.BAD_SIGNATURE
    tests = [
        valid("the next list", known=first, record=second),
        valid("the same list", known=first, record=first),
        valid("the same final list", "Boundary", known=final, record=final),
        valid("a final list", known=first, record=final),
        valid("a recovery without a chain", known=third, record=recovery),
        valid("a recovery of the next version, above its time", "Boundary", known=recovery, record=low_recovery),
        valid("the list after a recovery", known=recovery, record=_next(recovery)),
        invalid(stale, "an older list", "Misplaced", known=third, record=second),
        invalid(stale, "a recovery below the known version", "Misplaced", known=recovery, record=early_recovery),
        invalid(forked, "the known version with other bytes", "Forgery", known=first, record=_list(time=NOW + 1)),
        invalid(
            forked, "the next version after another list", "Forgery", known=first, record=_next(first, previous=others)
        ),
        invalid(
            forked, "the next version after no list", "Forgery", known=first, record=_next(first, previous=bytes(32))
        ),
        invalid(
            forked,
            "a recovery of the known version",
            "Forgery",
            known=recovery,
            record=_list(version=NOW + 60, time=NOW + 1, flag=ListFlag.RECOVERY),
        ),
        invalid(
            forked,
            "a recovery of the next version, below its time",
            "Boundary",
            known=first,
            record=_next(first, flag=ListFlag.RECOVERY, previous=others),
        ),
        invalid(missing, "the list after the next", "Misplaced", known=first, record=third),
        invalid(missing, "a version far ahead", "Misplaced", known=first, record=_list(version=NOW + 60)),
        invalid(
            missing,
            "a recovery below its time",
            "Boundary",
            known=first,
            record=_list(version=NOW + 59, time=NOW + 60, flag=ListFlag.RECOVERY),
        ),
        invalid(ended, "a list after a final one", "Forgery", known=final, record=after_final),
        invalid(ended, "a recovery after a final list", "Forgery", known=final, record=recovered_after_final),
        invalid(ended, "an older list after a final one", "Misplaced", known=final, record=first),
        invalid(bad, "the next list with a changed signature", "ChangedBytes", known=first, record=flipped(second)),
        invalid(bad, "the known list with a changed signature", "ChangedBytes", known=first, record=flipped(first)),
        invalid(bad, "another account's list", "Misplaced", known=first, record=first_list(BOB)),
    ]
    return Group(SUCCESSION, tests, {"rootKey": ALICE.root.public})


def _claim(root: RootKey, username: bytes, *, tail: bytes = b"") -> bytes:
    head = ALICE.account + NOW.to_bytes(8, "big") + bytes([len(username)])
    return root.sign(labels.USERNAME_CLAIM, head + username + tail)


def _username_claims() -> Group:
    root = ALICE.root
    good = root.sign(labels.USERNAME_CLAIM, UsernameClaim(ALICE.account, NOW, "alice").pack())
    foreign = root.sign(labels.USERNAME_CLAIM, UsernameClaim(BOB.account, NOW, "alice").pack())
    names = ("a", "a" * 33, "Alice", "1alice", "-alice", "al ice", "al@ice", "alice\n", "")
    as_list = root.sign(labels.DEVICE_LIST, good[:-64])
    bad = Reason.BAD_RECORD
    tests = [
        valid("a name", record=good),
        valid("the shortest", "Boundary", record=_claim(root, b"al")),
        valid("the longest", "Boundary", record=_claim(root, b"a" * 32)),
        valid("every kind of character", "Boundary", record=_claim(root, b"a-z_0.9")),
        *(invalid(bad, f"the name {name!r}", "Encoding", record=_claim(root, name.encode())) for name in names),
        invalid(bad, "letters beyond ASCII", "Encoding", record=_claim(root, "älice".encode())),
        invalid(bad, "a byte after the name", "Encoding", record=_claim(root, b"alice", tail=b"x")),
        invalid(Reason.WRONG_ACCOUNT, "another account's claim", "Misplaced", record=foreign),
        invalid(Reason.BAD_SIGNATURE, "signed under another label", "Forgery", record=as_list),
        invalid(Reason.BAD_SIGNATURE, "signed by another root", "Forgery", record=_claim(MALLORY.root, b"alice")),
        invalid(Reason.BAD_SIGNATURE, "a changed name", "ChangedBytes", record=flipped(good, 41)),
    ]
    return Group(USERNAME_CLAIM, tests, {"rootKey": root.public})


def _queue_owners() -> Group:
    owner, other = OwnerKey.from_seed(stream("owner")), OwnerKey.from_seed(stream("another owner"))
    origin, nonce = "https://relay.example", stream("nonce")
    answer = owner.answer(origin, nonce)
    other_queue = SigningKey(owner.seed).sign(owner_challenge(origin, nonce, other.queue_id))
    without_length = labels.QUEUE_OWNER + origin.encode() + nonce + owner.queue_id
    bad = Reason.BAD_SIGNATURE
    usual: dict[str, Value] = {"origin": origin, "nonce": nonce}
    tests = [
        valid("an answer", **usual, signature=answer),
        invalid(bad, "for another origin", "Misplaced", origin="https://evil.example", nonce=nonce, signature=answer),
        invalid(bad, "for another nonce", "Misplaced", origin=origin, nonce=stream("old nonce"), signature=answer),
        invalid(bad, "for another queue", "Misplaced", **usual, signature=other_queue),
        invalid(bad, "by another owner", "Forgery", **usual, signature=other.answer(origin, nonce)),
        invalid(
            bad,
            "without the origin's length",
            "Mistake",
            **usual,
            signature=SigningKey(owner.seed).sign(without_length),
        ),
    ]
    return Group(QUEUE_OWNER, tests, {"ownerKey": owner.public})


def _groups() -> Sequence[Group]:
    return [
        Group(ROOT_KEY, _root_keys()),
        Group(DEVICE_LIST, _lists()),
        _succession(),
        _username_claims(),
        _queue_owners(),
    ]


IDENTITY = Construction(
    "identity",
    "Accounts, device lists and their succession, names, queue owners",
    [ROOT_KEY, DEVICE_LIST, SUCCESSION, USERNAME_CLAIM, QUEUE_OWNER],
    _groups,
)
