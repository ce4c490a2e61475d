"""Vectors of directory.md: who signs a request, what a keyserver takes in, what a client believes of its answers."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from sottovoce.crypto.errors import Reason
from sottovoce.crypto.identity import DeviceKeys
from sottovoce_wire import directory as wire
from sottovoce_wire import labels, limits, records
from sottovoce_wire.ids import AccountId, DeviceId, QueueId, SendKey
from sottovoce_wire.records import NO_LIST_HASH, ContactRecord, DeviceEntry, DeviceList, ListFlag, UsernameClaim
from tests.vectors.form import Value

from .build import HEX, HEX_LIST, NUMBER, TEXT, Construction, Group, Test, Type, invalid, valid
from .cast import ALICE, BOB, DAY, MALLORY, NOW, Person, first_list, flipped, one_time, prekeys, stream

#: The texts of the four headers.
DIRECTORY_SIGNER = Type(
    "directorySigner",
    {},
    {"account": TEXT, "device": TEXT, "counter": TEXT, "signature": TEXT},
    {"accountId": HEX, "deviceId": HEX, "counterValue": NUMBER, "signatureValue": HEX},
)
DIRECTORY_REQUEST = Type(
    "directoryRequest",
    {"signingKey": HEX},
    {
        "origin": TEXT,
        "accountId": HEX,
        "deviceId": HEX,
        "counter": NUMBER,
        "method": TEXT,
        "path": TEXT,
        "body": HEX,
        "signature": HEX,
    },
    {},
)
#: A body of *Register* by the device that the headers name; the request's own signature is another type's.
REGISTRATION = Type(
    "registration",
    {},
    {"accountId": HEX, "deviceId": HEX, "body": TEXT, "now": NUMBER},
    {
        "listVersion": NUMBER,
        "recordId": NUMBER,
        "sequence": NUMBER,
        "expires": NUMBER,
        "oneTimeIds": HEX_LIST,
        "username": TEXT,
    },
)
#: The answer to who asked for the account's devices: those that it can write to.
BUNDLES = Type(
    "bundles",
    {"accountId": HEX},
    {"body": TEXT, "now": NUMBER},
    {"listVersion": NUMBER, "devices": HEX_LIST, "queues": HEX_LIST, "oneTimeIds": HEX_LIST},
)
FOUND_NAME = Type("foundName", {}, {"username": TEXT, "body": TEXT}, {"accountId": HEX})

_RECORD_ID: Final = 3
_SECOND: Final = DeviceKeys.unpack(stream("Alice's second device", 64))


# --- Signed requests ----------------------------------------------------------------------------------------------


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _signers() -> Group:
    account, device, signature = stream("an account"), stream("a device", 16), stream("a signature", 64)
    usual = {"account": _text(account), "device": _text(device), "counter": "7", "signature": _text(signature)}
    good = {"usual": {}, "the greatest counter": {"counter": str(2**53 - 1)}, "the least counter": {"counter": "1"}}
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spare = usual["account"][:-2] + alphabet[alphabet.index(usual["account"][-2]) + 1] + "="
    assert base64.b64decode(spare) == account
    bad = {
        "a counter of 0": {"counter": "0"},
        "a counter beyond 2^53": {"counter": str(2**53)},
        "a counter with a zero before it": {"counter": "07"},
        "a counter with a sign": {"counter": "+7"},
        "a counter with a space": {"counter": " 7"},
        "no counter": {"counter": ""},
        "a counter in other digits": {"counter": "\u0667"},
        "an account in another spelling": {"account": spare},
        "an account without its padding": {"account": usual["account"].rstrip("=")},
        "an account in base64 for addresses": {"account": _text(b"\xff" * 32).replace("/", "_")},
        "an account of 31 bytes": {"account": _text(account[:31])},
        "a device of 17 bytes": {"device": _text(device + b"x")},
        "a signature of 63 bytes": {"signature": _text(signature[:63])},
        "a signature with a line's end": {"signature": usual["signature"] + "\n"},
    }
    return Group(
        DIRECTORY_SIGNER,
        [
            *(valid(comment, "Boundary", **{**usual, **change}) for comment, change in good.items()),
            *(invalid(Reason.MALFORMED, c, "Encoding", **{**usual, **change}) for c, change in bad.items()),
        ],
    )


def _requests() -> Group:
    usual: dict[str, Value] = {
        "origin": "https://keys.example",
        "accountId": ALICE.account,
        "deviceId": ALICE.device.device_id,
        "counter": 7,
        "method": "POST",
        "path": "/v1/publish",
        "body": b"{}",
    }

    def signed(**changes: Any) -> bytes:
        said: dict[str, Any] = {**usual, **changes}
        names = ("origin", "accountId", "deviceId", "counter", "method", "path", "body")
        return ALICE.device.sign_detached(records.directory_request(*(said[name] for name in names)))

    changed: dict[str, dict[str, Value]] = {
        "for another server": {"origin": "https://keys.example:8443"},
        "of another account": {"accountId": BOB.account},
        "of another device": {"deviceId": BOB.device.device_id},
        "with the counter before": {"counter": 6},
        "with the next counter": {"counter": 8},
        "with another method": {"method": "GET"},
        "for another path": {"path": "/v1/register"},
        "with another body": {"body": b"{ }"},
        "with a bit of path and body moved": {"path": "/v1/publish{", "body": b"}"},
    }
    good = signed()
    later = {**usual, "counter": 2**53 - 1}
    tests = [
        valid("a publication", **usual, signature=good),
        valid("with the greatest counter", "Boundary", **later, signature=signed(counter=2**53 - 1)),
        *(
            invalid(Reason.BAD_SIGNATURE, comment, "Misplaced", **{**usual, **change}, signature=good)
            for comment, change in changed.items()
        ),
        invalid(Reason.BAD_SIGNATURE, "a changed signature", "ChangedBytes", **usual, signature=flipped(good)),
        invalid(
            Reason.BAD_SIGNATURE,
            "signed by another device",
            "Forgery",
            **usual,
            signature=MALLORY.device.sign_detached(b"anything"),
        ),
    ]
    return Group(DIRECTORY_REQUEST, tests, {"signingKey": ALICE.device.signing_public})


# --- Registrations ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Account:
    """An account with one device, and records as somebody wants them."""

    who: Person

    def device_list(self, *devices: DeviceEntry, **changes: Any) -> bytes:
        """Its signed list, with other fields."""
        usual = {"version": 1, "previous": NO_LIST_HASH, "time": NOW, "flag": ListFlag.NORMAL}
        fields = {"account_id": self.who.account, **usual, "devices": devices or (self.who.entry,), **changes}
        return self.who.root.sign(labels.DEVICE_LIST, DeviceList(**fields).pack())

    def contact(self, device: DeviceKeys | None = None, **changes: Any) -> bytes:
        """The signed contact record of its device, with other fields."""
        signer = device or self.who.device
        fields: dict[str, Any] = {
            "account_id": self.who.account,
            "device_id": signer.device_id,
            "sequence": 9,
            "created": NOW,
            "expires": NOW + 7 * DAY,
            "queue": QueueId(stream(f"{self.who.name}, queue", 16)),
            "send_key": SendKey(stream(f"{self.who.name}, send key")),
            "origin": "https://relay.example",
        }
        return signer.sign_record(labels.CONTACT_RECORD, ContactRecord(**{**fields, **changes}).pack())

    def prekeys(self, **changes: Any) -> bytes:
        """The signed prekey record, with other fields."""
        record = records.PrekeyRecord.parse(prekeys(self.who, _RECORD_ID).record[:-64])
        changed = msgspec.structs.replace(record, **changes)
        return self.who.device.sign_record(labels.PREKEY_RECORD, changed.pack())

    def claim(self, username: str = "alice", *, account: AccountId | None = None, time: int = NOW) -> bytes:
        """A signed claim to a name."""
        claim = UsernameClaim(account or self.who.account, time, username)
        return self.who.root.sign(labels.USERNAME_CLAIM, claim.pack())

    def publish(self, **changes: Any) -> wire.Publish:
        """What its device publishes."""
        keys = [wire.OneTimePrekey(number, one_time(self.who, number).public) for number in (1, 2)]
        usual = {"prekey_record": self.prekeys(), "contact_record": self.contact(), "one_time_prekeys": keys}
        return wire.Publish(**{**usual, **changes})

    def register(self, **changes: Any) -> bytes:
        """The body of its registration."""
        usual = {"root_key": self.who.root.public, "device_list": self.device_list(), "publish": self.publish()}
        return wire.encode(wire.Register(**{**usual, **changes}))


_ALICE: Final = _Account(ALICE)
_BOB: Final = _Account(BOB)


def _fields(body: bytes, *, now: int = NOW, device: DeviceId | None = None) -> dict[str, Value]:
    return {"accountId": ALICE.account, "deviceId": device or ALICE.device.device_id, "body": body.decode(), "now": now}


def _published(**changes: Any) -> dict[str, Value]:
    return _fields(_ALICE.register(publish=_ALICE.publish(**changes)))


def _good_registrations() -> list[Test]:
    two = _ALICE.device_list(ALICE.entry, _SECOND.consent(ALICE.account))
    later = _ALICE.device_list(version=5, previous=stream("the list before"))
    ahead = _ALICE.register(device_list=_ALICE.device_list(time=NOW + DAY), username_claim=_ALICE.claim(time=NOW + DAY))
    return [
        valid("without a name", **_fields(_ALICE.register())),
        valid("with a name", **_fields(_ALICE.register(username_claim=_ALICE.claim()))),
        valid("one device of two", **_fields(_ALICE.register(device_list=two))),
        valid("with a later list, from another keyserver", **_fields(_ALICE.register(device_list=later))),
        valid("no one-time prekeys", "Boundary", **_published(one_time_prekeys=[])),
        valid("made a day ahead", "Boundary", **_fields(ahead)),
        valid("in its last second", "Boundary", **_fields(_ALICE.register(), now=NOW + 7 * DAY - 1)),
        valid(
            "prekeys that nobody could use: a client sees that",
            "InvalidKey",
            **_published(prekey_record=_ALICE.prekeys(signed_prekey=bytes(32))),
        ),
    ]


def _bad_lists() -> Mapping[str, bytes]:
    unwilling = msgspec.structs.replace(_SECOND.consent(ALICE.account), consent=bytes(64))
    foreign = BOB.device.consent(BOB.account)
    return {
        "a list with a changed signature": flipped(_ALICE.device_list()),
        "a list of another account": _ALICE.device_list(account_id=BOB.account),
        "a list that another root signed": _BOB.device_list(ALICE.entry, account_id=ALICE.account),
        "a device that did not agree": _ALICE.device_list(ALICE.entry, unwilling),
        "a device that agreed to another account": _ALICE.device_list(ALICE.entry, foreign),
        "one device twice": _ALICE.device_list(ALICE.entry, ALICE.entry),
        "a first list with one before it": _ALICE.device_list(previous=stream("the list before")),
        "a list from the future": _ALICE.device_list(time=NOW + DAY + 1),
        "a version beyond 2^63": _ALICE.device_list(version=2**63),
        "a list with a tail": ALICE.root.sign(labels.DEVICE_LIST, _ALICE.device_list()[:-64] + b"\x00"),
        "a claim in the place of a list": _ALICE.claim(),
    }


def _bad_claims() -> Mapping[str, bytes]:
    return {
        "a claim with a changed signature": flipped(_ALICE.claim()),
        "a claim that another root signed": _BOB.claim(account=ALICE.account),
        "a claim of another account": _ALICE.claim(account=BOB.account),
        "a claim from the future": _ALICE.claim(time=NOW + DAY + 1),
    }


def _bad_publications() -> Mapping[str, dict[str, Any]]:
    month = limits.RECORD_LIFETIME
    return {
        "prekeys with a changed signature": {"prekey_record": flipped(_ALICE.prekeys())},
        "prekeys of another account": {"prekey_record": _ALICE.prekeys(account_id=BOB.account)},
        "prekeys of another device": {"prekey_record": _ALICE.prekeys(device_id=_SECOND.device_id)},
        "prekeys for 30 days and a second": {"prekey_record": _ALICE.prekeys(expires=NOW + month + 1)},
        "prekeys for no time": {"prekey_record": _ALICE.prekeys(expires=NOW)},
        "prekeys from the future": {"prekey_record": _ALICE.prekeys(created=NOW + DAY + 1)},
        "an expired address": {"contact_record": _ALICE.contact(created=NOW - DAY, expires=NOW)},
        "an address that another device signed": {
            "contact_record": _ALICE.contact(_SECOND, device_id=ALICE.device.device_id)
        },
        "an address of another device": {"contact_record": _ALICE.contact(_SECOND)},
        "an address in another spelling": {"contact_record": _ALICE.contact(origin="https://RELAY.example")},
        "an address with a number beyond 2^63": {"contact_record": _ALICE.contact(sequence=2**63)},
        "prekeys in the place of an address": {"contact_record": _ALICE.prekeys()},
    }


def _changed(body: bytes, *path: str | int, value: Any) -> bytes:
    """A body with another value somewhere; `...` takes the member away."""
    content = json.loads(body)
    place = content
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(content).encode()


def _bad_bodies(usual: bytes) -> Mapping[str, bytes]:
    twice = _ALICE.publish(one_time_prekeys=[wire.OneTimePrekey(1, stream(name)) for name in ("one", "other")])
    return {
        "no bytes": b"",
        "no object": b"[]",
        "cut short": usual[:-1],
        "a byte more": usual + b"}",
        "without a root key": _changed(usual, "root_key", value=...),
        "without a list of one-time prekeys": _changed(usual, "publish", "one_time_prekeys", value=...),
        "with a further member": _changed(usual, "more", value=1),
        "with a further member inside": _changed(usual, "publish", "more", value=1),
        "a root key of 31 bytes": _changed(usual, "root_key", value=_text(bytes(31))),
        "a root key that is a number": _changed(usual, "root_key", value=5),
        "no base64": _changed(usual, "root_key", value="?" * 44),
        "a record that is only a signature": _changed(usual, "device_list", value=_text(bytes(64))),
        "a one-time prekey of 33 bytes": _changed(
            usual, "publish", "one_time_prekeys", 0, "key", value=_text(bytes(33))
        ),
        "an id that is no u32": _changed(usual, "publish", "one_time_prekeys", 0, "id", value=2**32),
        "an id below 0": _changed(usual, "publish", "one_time_prekeys", 0, "id", value=-1),
        "two one-time prekeys of one id": _ALICE.register(publish=twice),
    }


def _registrations() -> Group:
    bad = Reason.BAD_RECORD
    other_root = _ALICE.register(root_key=BOB.root.public)
    lists = {comment: _ALICE.register(device_list=made) for comment, made in _bad_lists().items()}
    claims = {comment: _ALICE.register(username_claim=made) for comment, made in _bad_claims().items()}
    return Group(
        REGISTRATION,
        [
            *_good_registrations(),
            invalid(bad, "a root key of another account", "Misplaced", **_fields(other_root)),
            *(invalid(bad, comment, "Forgery", **_fields(body)) for comment, body in {**lists, **claims}.items()),
            *(invalid(bad, c, "Misplaced", **_published(**changes)) for c, changes in _bad_publications().items()),
            invalid(bad, "in the second of its end", "Boundary", **_fields(_ALICE.register(), now=NOW + 7 * DAY)),
            invalid(
                Reason.NOT_LISTED,
                "by a device that is not listed",
                "Forgery",
                **_fields(_ALICE.register(), device=_SECOND.device_id),
            ),
            invalid(
                Reason.NOT_LISTED,
                "with a final list",
                "Misplaced",
                **_fields(_ALICE.register(device_list=_final(ALICE))),
            ),
            *(
                invalid(Reason.MALFORMED, comment, "Encoding", **_fields(body))
                for comment, body in _bad_bodies(_ALICE.register()).items()
            ),
        ],
    )


def _final(who: Person) -> bytes:
    final = DeviceList(who.account, 2, stream("the list before"), NOW, ListFlag.FINAL, ())
    return who.root.sign(labels.DEVICE_LIST, final.pack())


# --- Answers ------------------------------------------------------------------------------------------------------


def _bundle(**changes: Any) -> wire.Bundle:
    usual = {
        "device_id": BOB.device.device_id,
        "prekey_record": _BOB.prekeys(),
        "contact_record": _BOB.contact(),
        "one_time_prekey": wire.OneTimePrekey(4, one_time(BOB, 4).public),
    }
    return wire.Bundle(**{**usual, **changes})


def _answer(*bundles: wire.Bundle, **changes: Any) -> bytes:
    usual = {"root_key": BOB.root.public, "device_list": first_list(BOB), "bundles": list(bundles or (_bundle(),))}
    return wire.encode(wire.Bundles(**{**usual, **changes}))


def _bundles() -> Group:
    without = _answer(_bundle(one_time_prekey=None))
    stale = {"contact_record": _BOB.contact(created=NOW - 2 * DAY, expires=NOW)}
    early = {"prekey_record": _BOB.prekeys(created=NOW + DAY + 1, expires=NOW + 2 * DAY)}
    root_list = _BOB.device_list
    unwilling = msgspec.structs.replace(BOB.entry, consent=bytes(64))
    lies: list[tuple[Reason, str, bytes]] = [
        (Reason.WRONG_ACCOUNT, "another account's keys", _answer(root_key=MALLORY.root.public)),
        (Reason.BAD_SIGNATURE, "a list with a device of the server's", _answer(device_list=_forged_list())),
        (Reason.BAD_SIGNATURE, "a device that did not agree", _answer(device_list=root_list(unwilling))),
        (Reason.WRONG_ACCOUNT, "a list of another account", _answer(device_list=root_list(account_id=ALICE.account))),
        (Reason.NOT_LISTED, "a device that is not listed", _answer(_bundle(device_id=MALLORY.device.device_id))),
        (
            Reason.BAD_SIGNATURE,
            "prekeys of the server's",
            _answer(_bundle(prekey_record=prekeys(MALLORY, _RECORD_ID).record)),
        ),
        (
            Reason.WRONG_DEVICE,
            "prekeys of another device",
            _answer(_bundle(prekey_record=_BOB.prekeys(device_id=_SECOND.device_id))),
        ),
        (
            Reason.BAD_KEY,
            "prekeys that everybody knows",
            _answer(_bundle(prekey_record=_BOB.prekeys(signed_prekey=bytes(32)))),
        ),
        (Reason.BAD_SIGNATURE, "a changed address", _answer(_bundle(contact_record=flipped(_BOB.contact(), 100)))),
        (
            Reason.BAD_RECORD,
            "an address for more than 30 days",
            _answer(_bundle(contact_record=_BOB.contact(expires=NOW + 31 * DAY))),
        ),
        (
            Reason.BAD_SIGNATURE,
            "an honest device beside a false one",
            _answer(_bundle(), _bundle(prekey_record=flipped(_BOB.prekeys()))),
        ),
    ]
    bodies = {
        "no bytes": b"",
        "no object": b"null",
        "a refusal": wire.encode(wire.Problem(404, "there is no such account here")),
        "a byte more": _answer() + b"0",
        "a further member": _changed(_answer(), "more", value=[]),
        "a further member inside": _changed(_answer(), "bundles", 0, "more", value=[]),
        "without a list": _changed(_answer(), "device_list", value=...),
        "eleven bundles": _changed(_answer(), "bundles", value=[json.loads(_answer())["bundles"][0]] * 11),
    }
    return Group(
        BUNDLES,
        [
            valid("one device", body=_answer().decode(), now=NOW),
            valid("without a one-time prekey", body=without.decode(), now=NOW),
            valid("no devices", body=_answer(bundles=[]).decode(), now=NOW),
            valid("a device whose address has expired", "Boundary", body=_answer(_bundle(**stale)).decode(), now=NOW),
            valid(
                "a device whose prekeys are not yet good", "Boundary", body=_answer(_bundle(**early)).decode(), now=NOW
            ),
            *(invalid(reason, comment, "Forgery", body=body.decode(), now=NOW) for reason, comment, body in lies),
            *(invalid(Reason.MALFORMED, c, "Encoding", body=body.decode(), now=NOW) for c, body in bodies.items()),
        ],
        {"accountId": BOB.account},
    )


def _forged_list() -> bytes:
    """Bob's list with Mallory's device beside his own, under the signature of the list without it."""
    both = DeviceList.parse(first_list(BOB)[:-64])
    added = msgspec.structs.replace(both, devices=(BOB.entry, MALLORY.device.consent(BOB.account)))
    return added.pack() + first_list(BOB)[-64:]


def _names() -> Group:
    def found(claim: bytes, root: bytes = ALICE.root.public) -> bytes:
        return wire.encode(wire.FoundName(root, claim))

    lies = [
        (Reason.WRONG_ACCOUNT, "another name", found(_ALICE.claim("alicia"))),
        (Reason.WRONG_ACCOUNT, "a claim for another account", found(_ALICE.claim(account=BOB.account))),
        (Reason.BAD_SIGNATURE, "a claim under another root", found(_ALICE.claim(), BOB.root.public)),
        (Reason.BAD_SIGNATURE, "a changed claim", found(flipped(_ALICE.claim(), 45))),
        (Reason.BAD_SIGNATURE, "a list in the place of a claim", found(_ALICE.device_list())),
        (Reason.BAD_RECORD, "what is no name", found(_ALICE.claim("Alice"))),
        (Reason.BAD_KEY, "a root under which anything holds", found(_ALICE.claim(), b"\x01" + bytes(31))),
        (Reason.MALFORMED, "a body without a claim", _changed(found(_ALICE.claim()), "username_claim", value=...)),
    ]
    return Group(
        FOUND_NAME,
        [
            valid("the name that was asked for", username="alice", body=found(_ALICE.claim()).decode()),
            valid("whatever its time", "Boundary", username="alice", body=found(_ALICE.claim(time=0)).decode()),
            *(
                invalid(reason, comment, "Forgery", username="alice", body=body.decode())
                for reason, comment, body in lies
            ),
        ],
    )


def _groups() -> Sequence[Group]:
    return [_signers(), _requests(), _registrations(), _bundles(), _names()]


DIRECTORY = Construction(
    "directory",
    "The directory: signed requests, registrations, answers",
    [DIRECTORY_SIGNER, DIRECTORY_REQUEST, REGISTRATION, BUNDLES, FOUND_NAME],
    _groups,
)
