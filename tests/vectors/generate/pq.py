"""Vectors of pq-ratchet.md: the fragment field, the offered key, the secret of an epoch, what a message carries and
what comes of it, the stored form."""

from collections.abc import Sequence
from typing import Final

from sottovoce.crypto.errors import Reason
from sottovoce.crypto.primitives import OwnKemKey
from tests.second import ml_kem, pq, stored
from tests.vectors.form import Value

from .build import HEX, HEX_LIST, NUMBER, OPTIONAL_NUMBER, Construction, Group, Test, Type, invalid, valid
from .cast import DAY, NOW, flipped, stream
from .keys import bad_kem_keys, with_coefficient

FRAGMENT = Type(
    "fragment",
    {},
    {"content": HEX},
    {"epoch": OPTIONAL_NUMBER, "first": OPTIONAL_NUMBER, "data": HEX, "body": HEX},
)
OFFER = Type("offeredKey", {}, {"first": NUMBER, "blocks": HEX}, {})
EPOCH_SECRET = Type("epochSecret", {"seed": HEX}, {"first": NUMBER, "blocks": HEX}, {"secret": HEX})
#: An item of `messages` is when a message is sent (8) ‖ how long its body is (4).
CARRIED = Type(
    "carried",
    {"kemSeed": HEX},
    {"state": HEX, "epoch": NUMBER, "messagesBefore": NUMBER, "messages": HEX_LIST},
    {"fields": HEX_LIST, "packed": HEX},
)
COLLECTED = Type(
    "collected",
    {"kemCoins": HEX, "kemSecret": HEX, "kemCiphertext": HEX},
    {"state": HEX, "epoch": NUMBER, "now": NUMBER, "fields": HEX_LIST},
    {"packed": HEX},
)
PQ_STATE = Type("pqState", {}, {"state": HEX}, {"packed": HEX})

_SEED: Final = stream("offer", 64)
_KEY: Final = ml_kem.public_of(_SEED)
_COINS: Final = stream("offer coins")
_SHARED, _CIPHERTEXT = ml_kem.encapsulate(_KEY, _COINS)
_SS: Final = pq.epoch_secret(_SHARED, _KEY, _CIPHERTEXT)


def _field(blocks: int, data: bytes, *, epoch: int = 1, first: int = 0) -> bytes:
    return bytes([blocks]) + epoch.to_bytes(4, "big") + bytes([first]) + data


def _fragments() -> list[Test]:
    data = stream("fragment", 96)
    good = {
        "none": b"\x00hello",
        "none, and no body": b"\x00",
        "three blocks": _field(3, data) + b"hello",
        "one block, and no body": _field(1, data[:32]),
        "the greatest numbers": _field(1, data[:32], epoch=2**32 - 1, first=255) + b"x",
    }
    bad = {
        "nothing": b"",
        "cut after the number of blocks": b"\x01",
        "cut within the epoch": _field(1, b"")[:4],
        "cut before the data": _field(1, b""),
        "one byte of data short": _field(1, data[:31]),
        "two blocks of three": _field(3, data[:64]),
        "255 blocks that are not there": _field(255, data),
    }
    return [
        *(valid(comment, "Boundary", content=content) for comment, content in good.items()),
        *(invalid(Reason.MALFORMED, comment, "Encoding", content=content) for comment, content in bad.items()),
    ]


def _offers() -> list[Test]:
    good = OwnKemKey(stream("offer", 64)).public
    bad = [(comment, flag, key) for comment, flag, key in bad_kem_keys() if len(key) == len(good)]
    return [
        valid("a key", first=0, blocks=good),
        valid("a coefficient of 3328", "Boundary", first=0, blocks=with_coefficient(good, 5, 3328)),
        *(invalid(Reason.BAD_KEY, comment, flag, first=0, blocks=key) for comment, flag, key in bad),
        invalid(Reason.MALFORMED, "a block more", "Boundary", first=0, blocks=good + bytes(32)),
        invalid(Reason.MALFORMED, "begun at the second block", "Misplaced", first=1, blocks=good),
    ]


def _secrets() -> Group:
    seed = stream("offer", 64)
    _, ciphertext = ml_kem.encapsulate(OwnKemKey(seed).public, stream("offer coins"))
    tests = [
        valid("an answer", first=0, blocks=ciphertext),
        valid("changed: another secret, and no refusal", "ChangedBytes", first=0, blocks=flipped(ciphertext)),
        invalid(Reason.MALFORMED, "a block more", "Boundary", first=0, blocks=ciphertext + bytes(32)),
        invalid(Reason.MALFORMED, "begun at the second block", "Misplaced", first=1, blocks=ciphertext),
        invalid(Reason.MALFORMED, "far beyond the end", "Boundary", first=255, blocks=bytes(32)),
    ]
    return Group(EPOCH_SECRET, tests, {"seed": seed})


def _blocks(data: bytes, first: int, count: int, *, epoch: int = 1) -> bytes:
    """The field with these blocks of a key or ciphertext."""
    return _field(count, data[32 * first : 32 * (first + count)], epoch=epoch, first=first)


def _some(data: bytes, *indices: int) -> pq.Blocks:
    return {index: data[32 * index : 32 * (index + 1)] for index in indices}


def _offering(*, cursor: int = 0, have: pq.Blocks | None = None) -> pq.Offering:
    return pq.Offering(_SEED, _KEY, cursor, NOW, have or {})


def _answering(*, cursor: int = 0) -> pq.Answering:
    return pq.Answering(_SS, _CIPHERTEXT, cursor, NOW)


def _sent(state: pq.State, *messages: tuple[int, int], epoch: int = 0, before: int = 0) -> dict[str, Value]:
    """Messages, each a time after NOW and a body's length."""
    items = [(NOW + at).to_bytes(8, "big") + length.to_bytes(4, "big") for at, length in messages]
    return {"state": stored.pack_pq(state), "epoch": epoch, "messagesBefore": before, "messages": items}


def _carried() -> Group:
    lengths = (0, 24, 25, 216, 217, 218, 249, 254, 255, 300, 382, 383, 1000, 2046, 2047, 5000)
    rooms = [(0, length) for length in lengths]
    no_room = [(0, 254)] * 2
    around_a_day = [(DAY - 1, 0), (DAY, 254), (DAY + 1, 0), (2 * DAY - 1, 0), (2 * DAY, 0)]
    offering, answering = _offering(), _answering()
    tests = [
        valid("the 49th and 50th message and the one after them", **_sent(pq.Resting(NOW), *[(0, 0)] * 3, before=48)),
        valid("after a day, and a second before", **_sent(pq.Resting(NOW), (DAY - 1, 0), (DAY, 0), (DAY, 0))),
        valid("an epoch that opens where there is no room", **_sent(pq.Resting(NOW), *no_room, (9, 0), before=50)),
        valid("a key, round and round", **_sent(offering, *[(0, 0)] * 8)),
        valid("a ciphertext, round and round", **_sent(answering, *[(0, 0)] * 7)),
        valid("a key in every room", "Boundary", **_sent(offering, *rooms)),
        valid("a ciphertext in every room", "Boundary", **_sent(answering, *rooms)),
        valid("from the last block of the key on", "Boundary", **_sent(_offering(cursor=36), (0, 0), (0, 0))),
        valid("from the last block of the ciphertext on", "Boundary", **_sent(_answering(cursor=33), (0, 0), (0, 0))),
        valid("a whole key after a day, and after another", **_sent(_offering(cursor=20), *around_a_day)),
        valid("a whole ciphertext after a day, and after another", **_sent(_answering(cursor=20), *around_a_day)),
        valid(
            "a key whose first block of an answer came, though a day has passed",
            **_sent(_offering(have=_some(_CIPHERTEXT, 33)), (0, 0), (DAY, 0)),
        ),
        valid("a secret that is due", **_sent(pq.Due(_SS), (0, 0), (DAY, 0), before=50)),
        valid("a responder that waits", **_sent(pq.Waiting(_some(_KEY, 1)), (0, 0), (DAY, 0), before=50)),
        valid("in a late epoch", "Boundary", **_sent(offering, (0, 0), epoch=2**32 - 2)),
    ]
    return Group(CARRIED, tests, {"kemSeed": _SEED})


def _brought(state: pq.State, *fields: bytes, epoch: int = 0) -> dict[str, Value]:
    return {"state": stored.pack_pq(state), "epoch": epoch, "now": NOW + 7, "fields": list(fields)}


def _collected() -> Group:
    nothing, offering = pq.Waiting({}), _offering()
    key = [_blocks(_KEY, first, min(7, 37 - first)) for first in range(0, 37, 7)]
    answer = [_blocks(_CIPHERTEXT, first, min(7, 34 - first)) for first in range(0, 34, 7)]
    foreign, beyond = _field(1, bytes(32), epoch=2), _field(1, bytes(32), first=255)
    wrong = _field(1, bytes(32), first=3)
    weak = with_coefficient(_KEY, 5, 3329)
    idle: dict[str, pq.State] = {"resting": pq.Resting(NOW), "due": pq.Due(_SS), "answering": _answering()}
    malformed = Reason.MALFORMED
    tests = [
        valid("a key in order", **_brought(nothing, *key)),
        valid("a key backwards, some of it twice", **_brought(nothing, *key[::-1], key[2])),
        valid("a key but its last block", **_brought(nothing, _blocks(_KEY, 0, 36))),
        valid("the last block of a key", **_brought(pq.Waiting(_some(_KEY, *range(36))), _blocks(_KEY, 36, 1))),
        valid("a whole key", **_brought(nothing, _blocks(_KEY, 0, 37))),
        valid("a block that was wrong and came again", **_brought(nothing, wrong, *key)),
        valid("blocks of other epochs", **_brought(pq.Waiting(_some(_KEY, 2)), foreign, _field(1, bytes(32), epoch=0))),
        valid("a block beyond the end, of another epoch", "Boundary", **_brought(nothing, beyond, epoch=1)),
        valid("an answer in order", **_brought(offering, *answer)),
        valid("an answer backwards", **_brought(offering, *answer[::-1])),
        valid("some of an answer", **_brought(offering, answer[4], answer[1])),
        valid("a whole answer", **_brought(offering, _blocks(_CIPHERTEXT, 0, 34))),
        valid("an answer with a wrong block: another secret", **_brought(offering, *answer, wrong)),
        *(valid(f"what comes while {name}", **_brought(state, beyond, *answer)) for name, state in idle.items()),
        valid("no fragment", **_brought(nothing, b"\x00")),
        invalid(malformed, "the 38th block of a key", "Boundary", **_brought(nothing, _field(1, bytes(32), first=37))),
        invalid(
            malformed,
            "the 35th block of an answer",
            "Boundary",
            **_brought(offering, _field(1, bytes(32), first=34)),
        ),
        invalid(
            malformed, "blocks over the end of a key", "Boundary", **_brought(nothing, _field(2, bytes(64), first=36))
        ),
        invalid(
            malformed,
            "blocks over the end of an answer",
            "Boundary",
            **_brought(offering, _field(2, bytes(64), first=33)),
        ),
        invalid(malformed, "the 256th block", "Boundary", **_brought(nothing, beyond)),
        invalid(Reason.BAD_KEY, "a key outside the modulus", "InvalidKey", **_brought(nothing, _blocks(weak, 0, 37))),
        invalid(
            Reason.BAD_KEY,
            "a key outside the modulus, with its last piece",
            "InvalidKey",
            **_brought(nothing, *key[1:], _blocks(weak, 0, 7)),
        ),
        invalid(
            Reason.BAD_KEY,
            "a key outside the modulus, its bad block long there",
            "InvalidKey",
            **_brought(pq.Waiting(_some(weak, *range(36))), _blocks(weak, 36, 1)),
        ),
    ]
    return Group(COLLECTED, tests, {"kemCoins": _COINS, "kemSecret": _SHARED, "kemCiphertext": _CIPHERTEXT})


def _states() -> Group:
    states: dict[str, pq.State] = {
        "resting": pq.Resting(NOW),
        "offering, nothing answered": _offering(cursor=36),
        "offering, some of it answered": _offering(have=_some(_CIPHERTEXT, 0, 33)),
        "due": pq.Due(_SS),
        "waiting, nothing there": pq.Waiting({}),
        "waiting, some of it there": pq.Waiting(_some(_KEY, 0, 36)),
        "answering": _answering(cursor=33),
    }
    packed = {name: stored.pack_pq(state) for name, state in states.items()}
    waiting, offering = packed["waiting, some of it there"], packed["offering, some of it answered"]
    at = 1 + 64 + 1184 + 1 + 8
    bad = {
        "no bytes": b"",
        "a state alone": b"\x01",
        "state 255": b"\xff" + packed["resting"][1:],
        "state 0": b"\x00" + packed["resting"][1:],
        "state 6": b"\x06" + packed["resting"][1:],
        "the fields of another state": b"\x03" + packed["resting"][1:],
        "waiting for no block, with blocks": waiting[:1] + bytes(8) + waiting[9:],
        "waiting with blocks that are left out": waiting[:9],
        "waiting, without the count of its blocks": waiting[:8],
        "waiting for no block but those beyond the key": waiting[:1] + (1 << 37).to_bytes(8, "big") + waiting[9:],
        "waiting, with a 64th block": waiting[:1] + (1 << 63 | 1).to_bytes(8, "big") + waiting[9:],
        "offering, no answer, with blocks of one": offering[:at] + bytes(8) + offering[at + 8 :],
        "offering, with an answer that is left out": offering[: at + 8],
        "waiting, with a 38th block": waiting[:1] + (1 << 37 | 1).to_bytes(8, "big") + waiting[9:],
        "offering, with a 35th block of the answer": offering[:at]
        + (1 << 34 | 1).to_bytes(8, "big")
        + offering[at + 8 :],
        "offering, going on behind the key": offering[: 1 + 64 + 1184] + bytes([37]) + offering[1 + 64 + 1184 + 1 :],
        "answering, going on behind the ciphertext": packed["answering"][:-9] + bytes([34]) + packed["answering"][-8:],
        **{f"{name}, cut short": state[:-1] for name, state in packed.items()},
        **{f"{name}, one byte more": state + b"\x00" for name, state in packed.items()},
    }
    return Group(
        PQ_STATE,
        [
            *(valid(name, state=state) for name, state in packed.items()),
            *(invalid(Reason.BAD_RECORD, comment, "Encoding", state=state) for comment, state in bad.items()),
        ],
    )


def _groups() -> Sequence[Group]:
    fixed = [Group(FRAGMENT, _fragments()), Group(OFFER, _offers()), _secrets()]
    return [*fixed, _carried(), _collected(), _states()]


PQ_RATCHET = Construction(
    "pq_ratchet",
    "The post-quantum ratchet: fragments, epoch secrets, schedules, stored states",
    [FRAGMENT, OFFER, EPOCH_SECRET, CARRIED, COLLECTED, PQ_STATE],
    _groups,
)
