"""Vectors of prekeys.md: signed prekey records and contact records."""

from collections.abc import Mapping, Sequence

from sottovoce.crypto.errors import Reason
from sottovoce_wire import labels, limits
from sottovoce_wire.ids import QueueId, SendKey
from sottovoce_wire.records import ContactRecord, PrekeyRecord
from tests.vectors.form import Value

from .build import HEX, NUMBER, TEXT, Construction, Group, Test, Type, invalid, valid
from .cast import ALICE, BOB, DAY, MALLORY, NOW, Person, flipped, prekeys, stream
from .keys import bad_exchange_keys, bad_kem_keys

_DEVICE = {"accountId": HEX, "signingKey": HEX, "identityKey": HEX}
_INPUTS = {"record": HEX, "now": NUMBER}
PREKEY_RECORD = Type(
    "prekeyRecord", _DEVICE, _INPUTS, {"recordId": NUMBER, "created": NUMBER, "expires": NUMBER, "recordHash": HEX}
)
CONTACT_RECORD = Type(
    "contactRecord",
    _DEVICE,
    _INPUTS,
    {"sequence": NUMBER, "created": NUMBER, "expires": NUMBER, "queueId": HEX, "sendKey": HEX, "origin": TEXT},
)
_RECORD_ID = 0x0107
_EXPIRES = NOW + limits.RECORD_LIFETIME


def device_fields(who: Person) -> Mapping[str, Value]:
    """What a sender knows of a device from its account's list."""
    return {
        "accountId": who.account,
        "signingKey": who.device.signing_public,
        "identityKey": who.device.identity_public,
    }


def _signed(payload: bytes, label: bytes, who: Person = BOB) -> bytes:
    return who.device.sign_record(label, payload)


def _timed(label: bytes, make: "type[PrekeyRecord | ContactRecord]", fields: Mapping[str, object]) -> list[Test]:
    """The tests of the dates, which both records share."""

    def record(created: int, expires: int) -> bytes:
        return _signed(make(**{**fields, "created": created, "expires": expires}).pack(), label)  # type: ignore[arg-type]

    usual = record(NOW, _EXPIRES)
    bad = Reason.BAD_RECORD
    early, late = NOW - DAY, _EXPIRES
    return [
        valid("just made", record=usual, now=NOW),
        valid("made a day ahead", "Boundary", record=usual, now=early),
        valid("in its last second", "Boundary", record=usual, now=late - 1),
        valid("good for a second", "Boundary", record=record(NOW, NOW + 1), now=NOW),
        invalid(Reason.NOT_YET_VALID, "made more than a day ahead", "Boundary", record=usual, now=early - 1),
        invalid(Reason.EXPIRED, "in the second of its end", "Boundary", record=usual, now=late),
        invalid(Reason.EXPIRED, "long expired", "Misplaced", record=usual, now=late + 365 * DAY),
        invalid(bad, "good for 30 days and a second", "Boundary", record=record(NOW, _EXPIRES + 1), now=NOW),
        invalid(bad, "good for no time", "Boundary", record=record(NOW, NOW), now=NOW),
        invalid(bad, "expired before it was made", "Encoding", record=record(NOW, NOW - 1), now=NOW),
        invalid(bad, "without an end", "Boundary", record=record(NOW, 2**64 - 1), now=NOW),
    ]


def _signature_tests(label: bytes, payload: bytes, other_label: bytes) -> list[Test]:
    good = _signed(payload, label)
    changed = {
        "a changed key": flipped(good, 100),
        "a changed signature": flipped(good),
        "cut short": good[:-1],
        "a byte more": good + b"\x00",
        "signed under another label": _signed(payload, other_label),
        "signed by another device": _signed(payload, label, MALLORY),
        "signed by the account's root": BOB.root.sign(label, payload),
    }
    unreadable = {
        "a byte after the last field": _signed(payload + b"\x00", label),
        "a byte too few": _signed(payload[:-1], label),
        "a signature alone": bytes(64),
        "no bytes": b"",
    }
    return [
        *(invalid(Reason.BAD_SIGNATURE, comment, "Forgery", record=r, now=NOW) for comment, r in changed.items()),
        *(invalid(Reason.BAD_RECORD, comment, "Encoding", record=r, now=NOW) for comment, r in unreadable.items()),
    ]


def _owner_tests(label: bytes, make: "type[PrekeyRecord | ContactRecord]", fields: Mapping[str, object]) -> list[Test]:
    def record(**changed: object) -> bytes:
        return _signed(make(**{**fields, **changed}).pack(), label)  # type: ignore[arg-type]

    account, device = record(account_id=ALICE.account), record(device_id=ALICE.device.device_id)
    return [
        invalid(Reason.WRONG_ACCOUNT, "says another account", "Misplaced", record=account, now=NOW),
        invalid(Reason.WRONG_DEVICE, "says another device", "Misplaced", record=device, now=NOW),
    ]


def _prekey_records() -> Group:
    good = PrekeyRecord.parse(prekeys(BOB, _RECORD_ID).record[:-64])
    fields = {name: getattr(good, name) for name in PrekeyRecord.__struct_fields__}
    label = labels.PREKEY_RECORD

    def with_key(**changed: bytes) -> bytes:
        return _signed(PrekeyRecord(**{**fields, **changed}).pack(), label)

    exchange = [entry for entry in bad_exchange_keys() if len(entry[2]) == 32]
    kem = bad_kem_keys()[:3]
    sealing = good.sealing_key
    bad_keys = [
        *((f"SPK: {c}", f, with_key(signed_prekey=key)) for c, f, key in exchange[:7]),
        *((f"PQPK: {c}", f, with_key(pq_prekey=key)) for c, f, key in kem),
        *((f"sealing key: {c}", f, with_key(sealing_key=key + sealing[-32:])) for c, f, key in kem[:2]),
        *((f"sealing key: {c}", f, with_key(sealing_key=sealing[:-32] + key)) for c, f, key in exchange[:2]),
    ]
    tests = [
        *_timed(label, PrekeyRecord, fields),
        *_signature_tests(label, good.pack(), labels.CONTACT_RECORD),
        *_owner_tests(label, PrekeyRecord, fields),
        *(invalid(Reason.BAD_KEY, comment, flag, record=record, now=NOW) for comment, flag, record in bad_keys),
    ]
    return Group(PREKEY_RECORD, tests, device_fields(BOB))


_GOOD_ORIGINS = (
    "https://relay.example:8443",
    "http://localhost:8480",
    "http://127.0.0.1:8480",
    "https://[2001:db8::1]",
    "http://[::1]:1",
    "https://a.b-c.example:65535",
)
_BAD_ORIGINS = (
    "https://Relay.example",
    "HTTPS://relay.example",
    "https://relay.example/",
    "https://relay.example/path",
    "https://relay.example?query",
    "https://user@relay.example",
    "https://relay.example:443",
    "http://localhost:80",
    "https://relay.example:0",
    "https://relay.example:08443",
    "https://relay.example:65536",
    "https://relay.example:",
    "https://relay.example.",
    "https://-relay.example",
    "https://relay..example",
    "https://re_lay.example",
    "https://1.2.3",
    "https://127.1",
    "https://192.168.000.001",
    "https://[2001:DB8::1]",
    "https://[2001:db8:0::1]",
    "https://[fe80::1%eth0]",
    "https://2001:db8::1",
    "http://relay.example",
    "http://192.168.1.2",
    "wss://relay.example",
    "relay.example",
    "https://",
    "",
    "https://relay.example\n",
    " https://relay.example",
)


def _contact_records() -> Group:
    label = labels.CONTACT_RECORD
    queue, send_key = QueueId(stream("queue", 16)), SendKey(stream("send key"))
    fields: Mapping[str, object] = {
        "account_id": BOB.account,
        "device_id": BOB.device.device_id,
        "sequence": 7,
        "created": NOW,
        "expires": _EXPIRES,
        "queue": queue,
        "send_key": send_key,
        "origin": "https://relay.example",
    }

    def record(origin: str) -> bytes:
        return _signed(ContactRecord(**{**fields, "origin": origin}).pack(), label)  # type: ignore[arg-type]

    payload = ContactRecord(**fields).pack()  # type: ignore[arg-type]
    at = len(payload) - len("https://relay.example") - 1
    long_text = _signed(payload[:at] + b"\xff" + payload[at + 1 :], label)
    beyond_ascii = "https://rel\xe4y.example".encode("latin-1")
    accented = _signed(payload[:at] + bytes([len(beyond_ascii)]) + beyond_ascii, label)
    tests = [
        *_timed(label, ContactRecord, fields),
        *(valid(f"the origin {origin}", "Boundary", record=record(origin), now=NOW) for origin in _GOOD_ORIGINS),
        *_signature_tests(label, payload, labels.PREKEY_RECORD),
        *_owner_tests(label, ContactRecord, fields),
        *(
            invalid(Reason.BAD_RECORD, f"the origin {origin!r}", "Encoding", record=record(origin), now=NOW)
            for origin in _BAD_ORIGINS
        ),
        invalid(Reason.BAD_RECORD, "a length beyond the end", "Encoding", record=long_text, now=NOW),
        invalid(Reason.BAD_RECORD, "letters beyond ASCII", "Encoding", record=accented, now=NOW),
    ]
    return Group(CONTACT_RECORD, tests, device_fields(BOB))


def _groups() -> Sequence[Group]:
    return [_prekey_records(), _contact_records()]


PREKEYS = Construction("prekeys", "Signed prekey records and contact records", [PREKEY_RECORD, CONTACT_RECORD], _groups)
