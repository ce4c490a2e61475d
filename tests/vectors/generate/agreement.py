"""Vectors of pqxdh.md: the handshake's layout, the responder's keys, the initiator's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sottovoce.crypto.agreement import Handshake
from sottovoce.crypto.errors import Reason
from sottovoce.crypto.prekeys import OneTimePrekey, OwnPrekeys
from sottovoce_wire.ids import AccountId
from tests.second import agreement as second
from tests.second import ml_kem
from tests.second.agreement import Initiator
from tests.second.prekeys import parse_prekeys
from tests.vectors.form import Value

from .build import HEX, NUMBER, OPTIONAL_NUMBER, Construction, Group, Test, Type, invalid, valid
from .cast import ALICE, BOB, MALLORY, NOW, Person, flipped, one_time, prekeys, stream
from .keys import bad_exchange_keys

HANDSHAKE = Type(
    "handshake",
    {},
    {"handshake": HEX},
    {
        "generation": NUMBER,
        "accountId": HEX,
        "deviceId": HEX,
        "identityKey": HEX,
        "ephemeralKey": HEX,
        "recordId": NUMBER,
        "oneTimeId": OPTIONAL_NUMBER,
        "digest": HEX,
    },
)
_SESSION = {
    "sessionId": HEX,
    "rootKey": HEX,
    "headerKeyA": HEX,
    "tagKeyA": HEX,
    "headerKeyB": HEX,
    "tagKeyB": HEX,
}
#: A device's own account id and secrets.
OWN_DEVICE = {"accountId": HEX, "signingSeed": HEX, "identitySecret": HEX}
#: The secrets of one prekey record, and the record.
OWN_PREKEYS = {"signedPrekeySecret": HEX, "pqPrekeySeed": HEX, "sealingSeeds": HEX, "record": HEX}
#: The one-time prekey at hand; the secret is empty where there is none.
OWN_ONE_TIME = {"oneTimeId": OPTIONAL_NUMBER, "oneTimeSecret": HEX}
RESPOND = Type("respond", OWN_DEVICE | OWN_PREKEYS, {**OWN_ONE_TIME, "handshake": HEX}, _SESSION)
INITIATE = Type(
    "initiate",
    {
        **OWN_DEVICE,
        "ephemeralSecret": HEX,
        "kemCoins": HEX,
        "kemSecret": HEX,
        "kemCiphertext": HEX,
        "peerAccountId": HEX,
        "peerSigningKey": HEX,
        "peerIdentityKey": HEX,
        "record": HEX,
        "now": NUMBER,
    },
    {"oneTimeId": OPTIONAL_NUMBER, "oneTimeKey": HEX, "generation": NUMBER},
    {"handshake": HEX, **_SESSION},
)

RECORD_ID = 0x0107


def own_device(who: Person, account: AccountId | None = None) -> Mapping[str, Value]:
    """Somebody's device, and the account that it takes itself to belong to."""
    return {
        "accountId": account or who.account,
        "signingSeed": who.signing_key.seed,
        "identitySecret": who.device.identity.secret,
    }


def own_prekeys(keys: OwnPrekeys) -> Mapping[str, Value]:
    """The fields of one prekey record's secrets."""
    return {
        "signedPrekeySecret": keys.signed_prekey.secret,
        "pqPrekeySeed": keys.pq_prekey.seed,
        "sealingSeeds": keys.sealing_key.seeds,
        "record": keys.record,
    }


def own_one_time(key: OneTimePrekey | None) -> Mapping[str, Value]:
    """The fields of a one-time prekey, or of none."""
    if key is None:
        return {"oneTimeId": None, "oneTimeSecret": b""}
    return {"oneTimeId": key.id, "oneTimeSecret": key.key.secret}


def handshake(
    sender: Person, recipient: Person, keys: OwnPrekeys, key: OneTimePrekey | None, *, generation: int = 1
) -> bytes:
    """A handshake with the randomness of the sender's name."""
    name = sender.name
    own = Initiator(
        sender.account,
        sender.device.device_id,
        sender.device.identity.secret,
        stream(f"{name}, ephemeral key"),
        stream(f"{name}, KEM coins"),
    )
    peer = parse_prekeys(keys.record)
    given = None if key is None else (key.id, key.public)
    return second.initiate(own, peer, recipient.device.identity_public, given, generation)[0]


def _handshakes() -> list[Test]:
    keys = prekeys(BOB, RECORD_ID)
    with_key = handshake(ALICE, BOB, keys, one_time(BOB, 41))
    without = handshake(ALICE, BOB, keys, None, generation=2**32 - 1)
    mark = 1215 - 1088 - 5
    malformed = {
        "one byte short": with_key[:-1],
        "one byte more": with_key + b"\x00",
        "no bytes": b"",
        "the mark is 2": with_key[:mark] + b"\x02" + with_key[mark + 1 :],
        "an id without the mark": with_key[:mark] + b"\x00" + with_key[mark + 1 :],
        "the mark of 255": without[:mark] + b"\xff" + without[mark + 1 :],
    }
    versions = {"version 0": b"\x00\x01", "version 2": b"\x02\x01", "suite 0": b"\x01\x00", "suite 2": b"\x01\x02"}
    return [
        valid("with a one-time prekey", handshake=with_key),
        valid("without one, of the greatest generation", "Boundary", handshake=without),
        valid("the one-time prekey of id 0", "Boundary", handshake=handshake(ALICE, BOB, keys, one_time(BOB, 0))),
        *(invalid(Reason.MALFORMED, c, "Encoding", handshake=bad) for c, bad in malformed.items()),
        *(
            invalid(Reason.UNSUPPORTED_VERSION, comment, "Encoding", handshake=start + with_key[2:])
            for comment, start in versions.items()
        ),
        invalid(
            Reason.MALFORMED,
            "version 2 and cut short: the length is first",
            "Encoding",
            handshake=b"\x02" + with_key[1:-1],
        ),
    ]


def _changed(packed: bytes, **fields: object) -> bytes:
    return replace(Handshake.parse(packed), **fields).pack()  # type: ignore[arg-type]


def _respond() -> Group:
    keys, key, other_key = prekeys(BOB, RECORD_ID), one_time(BOB, 41), one_time(BOB, 42)
    with_key, without = handshake(ALICE, BOB, keys, key), handshake(ALICE, BOB, keys, None)
    ids = {"account_id": BOB.account, "device_id": BOB.device.device_id}
    unknown = Reason.UNKNOWN_PREKEY
    bad_keys = [entry for entry in bad_exchange_keys() if len(entry[2]) == 32]
    tests = [
        valid("with a one-time prekey", **own_one_time(key), handshake=with_key),
        valid("without one", **own_one_time(None), handshake=without),
        valid(
            "a changed KEM ciphertext: other keys, and no refusal",
            "ChangedBytes",
            **own_one_time(key),
            handshake=flipped(with_key),
        ),
        valid(
            "another sender's device: other keys",
            "ChangedBytes",
            **own_one_time(None),
            handshake=_changed(without, device_id=MALLORY.device.device_id),
        ),
        invalid(
            Reason.OWN_DEVICE,
            "from one's own device",
            "Misplaced",
            **own_one_time(key),
            handshake=_changed(with_key, **ids),
        ),
        invalid(
            unknown,
            "to another record",
            "Misplaced",
            **own_one_time(key),
            handshake=_changed(with_key, record_id=0x0108),
        ),
        invalid(
            unknown,
            "to a record of the same id modulo 256",
            "Misplaced",
            **own_one_time(key),
            handshake=_changed(with_key, record_id=0x0207),
        ),
        invalid(unknown, "another one-time prekey at hand", "Misplaced", **own_one_time(other_key), handshake=with_key),
        invalid(unknown, "the one-time prekey is gone", "Misplaced", **own_one_time(None), handshake=with_key),
        invalid(unknown, "a one-time prekey that is not named", "Misplaced", **own_one_time(key), handshake=without),
        *(
            invalid(
                Reason.BAD_KEY,
                f"IK_A: {comment}",
                flag,
                **own_one_time(None),
                handshake=_changed(without, identity_key=bad),
            )
            for comment, flag, bad in bad_keys[:4]
        ),
        *(
            invalid(
                Reason.BAD_KEY,
                f"EK_A: {comment}",
                flag,
                **own_one_time(key),
                handshake=_changed(with_key, ephemeral_key=bad),
            )
            for comment, flag, bad in bad_keys[3:]
        ),
    ]
    return Group(RESPOND, tests, {**own_device(BOB), **own_prekeys(keys)})


def _respond_as_another() -> list[Group]:
    keys, key = prekeys(BOB, RECORD_ID), one_time(BOB, 41)
    packed = handshake(ALICE, BOB, keys, key)
    own = [
        ("Bob's prekeys with Mallory's device", own_device(MALLORY, BOB.account)),
        ("Bob's prekeys with his device in another account", own_device(BOB, MALLORY.account)),
    ]
    return [
        Group(
            RESPOND,
            [invalid(Reason.WRONG_RECIPIENT, comment, "Misplaced", **own_one_time(key), handshake=packed)],
            {**fields, **own_prekeys(keys)},
        )
        for comment, fields in own
    ]


def _initiator(sender: Person, recipient: Person) -> Mapping[str, Value]:
    keys = prekeys(recipient, RECORD_ID)
    coins = stream(f"{sender.name}, KEM coins")
    secret, ciphertext = ml_kem.encapsulate(keys.pq_prekey.public, coins)
    return {
        **own_device(sender),
        "ephemeralSecret": stream(f"{sender.name}, ephemeral key"),
        "kemCoins": coins,
        "kemSecret": secret,
        "kemCiphertext": ciphertext,
        "peerAccountId": recipient.account,
        "peerSigningKey": recipient.device.signing_public,
        "peerIdentityKey": recipient.device.identity_public,
        "record": keys.record,
        "now": NOW,
    }


def _initiate() -> list[Group]:
    key = one_time(BOB, 41)
    without: Mapping[str, Value] = {"oneTimeId": None, "oneTimeKey": b""}
    bad = [
        invalid(Reason.BAD_KEY, f"OPK_B: {comment}", flag, oneTimeId=41, oneTimeKey=public, generation=1)
        for comment, flag, public in bad_exchange_keys()
    ]
    tests = [
        valid("with a one-time prekey", oneTimeId=41, oneTimeKey=key.public, generation=1),
        valid("without one, of a later generation", **without, generation=1000),
        valid("the greatest numbers", "Boundary", oneTimeId=2**32 - 1, oneTimeKey=key.public, generation=2**32 - 1),
        invalid(Reason.MALFORMED, "a generation beyond its 32 bits", "Boundary", **without, generation=2**32),
        *bad,
    ]
    own = [invalid(Reason.OWN_DEVICE, "to one's own device", "Misplaced", **without, generation=1)]
    return [Group(INITIATE, tests, _initiator(ALICE, BOB)), Group(INITIATE, own, _initiator(ALICE, ALICE))]


def _groups() -> Sequence[Group]:
    return [Group(HANDSHAKE, _handshakes()), _respond(), *_respond_as_another(), *_initiate()]


AGREEMENT = Construction("pqxdh", "The handshake: PQXDH", [HANDSHAKE, RESPOND, INITIATE], _groups)
