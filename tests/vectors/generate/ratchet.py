"""Vectors of message.md and ratchet.md: what a responder reads, what it refuses, which tags it waits for."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sottovoce.crypto.errors import Reason
from sottovoce.crypto.primitives import OwnExchangeKey
from sottovoce_wire import padding
from tests.second import keys as second_keys
from tests.second.message import Route, seal, tag
from tests.second.ratchet_keys import root_step, walk
from tests.vectors.form import Value

from .build import HEX, HEX_LIST, NUMBER, Construction, Group, Test, Type, invalid, valid
from .cast import flipped, stream
from .keys import bad_exchange_keys

_SESSION = {
    "sessionId": HEX,
    "rootKey": HEX,
    "headerKeyA": HEX,
    "tagKeyA": HEX,
    "headerKeyB": HEX,
    "tagKeyB": HEX,
    "signedPrekeySecret": HEX,
}
#: An item of `history` that begins with 00 is the new ratchet key under which the responder sends; others it reads.
RATCHET_TYPE = Type(
    "ratchet",
    _SESSION,
    {"history": HEX_LIST, "message": HEX, "chain": NUMBER, "number": NUMBER, "ephemeral": NUMBER},
    {"body": HEX},
)
EXPECTED_TAGS = Type("expectedTags", _SESSION, {"history": HEX_LIST}, {"tags": HEX_LIST})
#: What a message is, by its tag or else by its header.
FOUND = Type(
    "found", _SESSION, {"history": HEX_LIST, "message": HEX}, {"chain": NUMBER, "number": NUMBER, "ephemeral": NUMBER}
)
ROUTING_TAG = Type("routingTag", {"tagKey": HEX}, {"number": NUMBER, "ephemeral": NUMBER}, {"tag": HEX})

_FIELDS: Final[dict[str, Value]] = {name: stream(f"ratchet, {name}") for name in _SESSION}
_SPK: Final = stream("ratchet, signedPrekeySecret")
_SESSION_ID: Final = stream("ratchet, sessionId")
_A1, _A2, _B1 = stream("Alice, first chain"), stream("Alice, second chain"), stream("Bob, first chain")
_BOB_SENDS: Final = b"\x00" + _B1


class _Line(NamedTuple):
    """One of Alice's chains: what she needs to write on it."""

    nth: int
    ratchet_key: bytes
    previous: int
    route: Route
    chain_key: bytes
    ephemeral_key: bytes

    def write(
        self,
        n: int,
        *,
        body: bytes | None = None,
        is_ephemeral: bool = False,
        header: bytes | None = None,
        padded: bytes | None = None,
        tag_number: int | None = None,
        session_id: bytes = _SESSION_ID,
    ) -> bytes:
        """Message n; whatever is given goes in the place of what belongs there."""
        said = f"message {n} of chain {self.nth}".encode() if body is None else body
        message_key = walk(self.ephemeral_key if is_ephemeral else self.chain_key, min(n, 3000))[0]
        start = tag(self.route, n if tag_number is None else tag_number, is_ephemeral=is_ephemeral)
        r = stream(f"r of {self.nth}, {n}, {is_ephemeral}", 12)
        content = padding.pad(b"\x00" + said) if padded is None else padded
        return seal(self.route, message_key, start, r, header or self.header(n), session_id, content)

    def header(self, n: int, *, ratchet_key: bytes | None = None, previous: int | None = None, epoch: int = 0) -> bytes:
        """The header of message n, or one with other fields."""
        numbers = (self.previous if previous is None else previous, n, epoch)
        return (ratchet_key or self.ratchet_key) + b"".join(value.to_bytes(4, "big") for value in numbers)


def _public(secret: bytes) -> bytes:
    return OwnExchangeKey(secret).public


def _lines(previous: int) -> tuple[_Line, _Line]:
    """Alice's first chain, and the second after Bob's first answer; `previous` is the length of the first."""
    root, chain_key, hk, tk, ephemeral = root_step(
        stream("ratchet, rootKey"), second_keys.exchange(_A1, _public(_SPK)), b"", 0
    )
    first_route = Route(stream("ratchet, headerKeyA"), stream("ratchet, tagKeyA"))
    first = _Line(1, _public(_A1), 0, first_route, chain_key, ephemeral)
    root = root_step(root, second_keys.exchange(_B1, _public(_A1)), b"", 0)[0]
    _, chain_key, _, _, ephemeral = root_step(root, second_keys.exchange(_A2, _public(_B1)), b"", 0)
    return first, _Line(2, _public(_A2), previous, Route(hk, tk), chain_key, ephemeral)


def _fields(
    line: _Line, n: int, message: bytes | None = None, *, history: Sequence[bytes] = (), is_ephemeral: bool = False
) -> dict[str, Value]:
    written = line.write(n, is_ephemeral=is_ephemeral) if message is None else message
    return {
        "history": list(history),
        "message": written,
        "chain": line.nth,
        "number": n,
        "ephemeral": int(is_ephemeral),
    }


def _read() -> list[Test]:
    first, second = _lines(3)
    m = [first.write(n) for n in range(10)]
    turned = [m[0], _BOB_SENDS]
    whole = (1 << 8) - 1
    fullest = padding.pad(b"\x00" + b"x" * (whole - 1))
    carrying = padding.pad(b"\x01" + (7).to_bytes(4, "big") + b"\x00" + bytes(32) + b"hello")
    beyond = padding.pad(b"\x01" + (1).to_bytes(4, "big") + b"\xff" + bytes(32) + b"hello")
    return [
        valid("the first message", **_fields(first, 0)),
        valid("the second", **_fields(first, 1, history=m[:1])),
        valid("the third, before the others", **_fields(first, 2)),
        valid("the first, overtaken by the third", **_fields(first, 0, history=[m[2]])),
        valid("the second, overtaken by two", **_fields(first, 1, history=[m[0], m[3], m[2]])),
        valid("beyond what was looked ahead for", "Boundary", **_fields(first, 100, history=m[:1])),
        valid("the first of the next chain", **_fields(second, 0, history=turned)),
        valid("the fifth of the next chain", **_fields(second, 4, history=turned)),
        valid(
            "the last of the chain before, overtaken by the next",
            **_fields(first, 2, history=[*turned, second.write(0)]),
        ),
        valid("the next of the present chain, though Bob has answered", **_fields(first, 1, history=turned)),
        valid("an ephemeral message", **_fields(first, 0, history=m[:1], is_ephemeral=True)),
        valid(
            "the last ephemeral one in the window", "Boundary", **_fields(first, 7, history=m[:1], is_ephemeral=True)
        ),
        valid(
            "an ephemeral message with a fragment beyond the end, which nobody looks at",
            **_fields(first, 0, first.write(0, is_ephemeral=True, padded=beyond), history=m[:1], is_ephemeral=True),
        ),
        valid("no body", "Boundary", **_fields(first, 0, first.write(0, body=b""))),
        valid("the fullest body of the smallest size", "Boundary", **_fields(first, 0, first.write(0, padded=fullest))),
        valid("beside a fragment of another epoch", **_fields(first, 0, first.write(0, padded=carrying))),
    ]


def _changed() -> list[Test]:
    first, _ = _lines(3)
    good = first.write(0)
    places = {"tag": 1, "nonce": 9, "header": 21, "header's tag": 80, "body": 81, "body's tag": -1}
    other_session = first.write(0, session_id=stream("another session"))
    reason = Reason.NOT_AUTHENTIC
    return [
        *(
            invalid(reason, f"changed in the {place}", "ChangedBytes", **_fields(first, 0, flipped(good, at)))
            for place, at in places.items()
        ),
        invalid(reason, "one byte more", "ChangedBytes", **_fields(first, 0, good + b"\x00")),
        invalid(reason, "of another session", "Misplaced", **_fields(first, 0, other_session)),
        invalid(reason, "a body of another message", "Misplaced", **_fields(first, 0, good[:81] + first.write(1)[81:])),
        invalid(Reason.MALFORMED, "of another kind", "Encoding", **_fields(first, 0, b"\x02" + good[1:])),
        invalid(Reason.MALFORMED, "352 bytes", "Boundary", **_fields(first, 0, good[:352])),
        invalid(Reason.MALFORMED, "no bytes", "Encoding", **_fields(first, 0, b"")),
    ]


def _lying_headers() -> list[Test]:
    """From a peer that has the keys and breaks the rules."""
    first, second = _lines(3)
    m = [first.write(n) for n in range(4)]
    turned = [m[0], _BOB_SENDS]
    malformed, ended, epoch = Reason.MALFORMED, Reason.CHAIN_ENDED, Reason.WRONG_EPOCH
    clone = Reason.CLONE_SUSPECTED

    def begins(**fields: object) -> bytes:
        return first.write(0, header=first.header(0, **fields))  # type: ignore[arg-type]

    def turns(**fields: object) -> bytes:
        return second.write(0, header=second.header(0, **fields))  # type: ignore[arg-type]

    foreign = {
        "another ratchet key": first.write(1, header=first.header(1, ratchet_key=_public(_A2))),
        "another length before": first.write(1, header=first.header(1, previous=1)),
        "another epoch": first.write(1, header=first.header(1, epoch=1)),
    }
    bad_keys = [(comment, flag, key) for comment, flag, key in bad_exchange_keys() if len(key) == 32]
    return [
        invalid(
            malformed, "another number than announced", "Misplaced", **_fields(first, 1, first.write(0, tag_number=1))
        ),
        invalid(
            malformed,
            "another number, on the chain",
            "Misplaced",
            **_fields(first, 2, first.write(1, tag_number=2), history=m[:1]),
        ),
        *(
            invalid(clone, f"{comment} on the chain", "Forgery", **_fields(first, 1, written, history=m[:1]))
            for comment, written in foreign.items()
        ),
        invalid(malformed, "a first chain after another", "Forgery", **_fields(first, 0, begins(previous=1))),
        invalid(
            malformed,
            "the chain before made shorter",
            "Forgery",
            **_fields(second, 0, turns(previous=1), history=[*m[:2], _BOB_SENDS]),
        ),
        invalid(ended, "a chain before that is too long", "Boundary", **_fields(first, 0, begins(previous=2**20 + 1))),
        invalid(epoch, "an epoch that is not agreed", "Forgery", **_fields(first, 0, begins(epoch=1))),
        invalid(
            epoch,
            "an epoch far ahead, on the next chain",
            "Forgery",
            **_fields(second, 0, turns(epoch=2), history=turned),
        ),
        *(
            invalid(Reason.BAD_KEY, f"a ratchet key: {comment}", flag, **_fields(first, 0, begins(ratchet_key=key)))
            for comment, flag, key in bad_keys[:8]
        ),
        invalid(Reason.NOT_AUTHENTIC, "a chain that answers nothing", "Forgery", **_fields(second, 0, history=m[:1])),
        invalid(Reason.TOO_FAR_AHEAD, "25,001 steps ahead", "Boundary", **_fields(first, 25_001, first.write(25_001))),
        invalid(
            Reason.TOO_FAR_AHEAD,
            "25,001 steps on both chains",
            "Boundary",
            **_fields(second, 1, second.write(1, header=second.header(1, previous=25_001)), history=turned),
        ),
        invalid(ended, "a number beyond the end", "Boundary", **_fields(first, 2**20, first.write(2**20))),
    ]


def _repeats() -> list[Test]:
    first, second = _lines(3)
    m = [first.write(n) for n in range(4)]
    turned = [m[0], _BOB_SENDS, second.write(0)]
    clone, used = Reason.CLONE_SUSPECTED, Reason.ALREADY_USED
    late = first.write(1)
    e = [first.write(n, is_ephemeral=True) for n in range(3)]

    def ephemeral(n: int, *history: bytes) -> dict[str, Value]:
        return _fields(first, n, history=history, is_ephemeral=True)

    return [
        invalid(clone, "a number used before", "Misplaced", **_fields(first, 0, history=m[:1])),
        invalid(clone, "a kept key used before", "Misplaced", **_fields(first, 0, history=[m[1], m[0]])),
        invalid(used, "of the chain before, and read", "Misplaced", **_fields(first, 0, history=turned)),
        invalid(
            used,
            "of the chain before, its kept key used",
            "Misplaced",
            **_fields(first, 1, late, history=[*turned, late]),
        ),
        invalid(used, "of the chain after the next", "Misplaced", **{**_fields(first, 0), "chain": 2}),
        invalid(used, "an ephemeral number used before", "Misplaced", **ephemeral(0, m[0], e[0])),
        invalid(used, "an ephemeral message that was passed", "Misplaced", **ephemeral(1, m[0], e[2])),
        invalid(used, "an ephemeral message of a chain that has not begun", "Misplaced", **ephemeral(0)),
        invalid(Reason.TOO_FAR_AHEAD, "an ephemeral message beyond the window", "Boundary", **ephemeral(8, m[0])),
    ]


def _given_up() -> list[Test]:
    """2,001 messages and more that one has overtaken: the newest 2,000 keys are kept, over both chains."""
    first, _ = _lines(3)
    ended, second = _lines(2_000)
    far = first.write(2_001)
    both = [ended.write(0), _BOB_SENDS, second.write(5)]  # 1 to 1,999 of the first chain, then 0 to 4 of the second
    boundary = "Boundary"
    return [
        valid("the first of 2,000 that were overtaken", boundary, **_fields(first, 1, history=[far])),
        valid("the last of them", **_fields(first, 2_000, history=[far])),
        valid("the first that is kept of two chains", boundary, **_fields(ended, 5, history=both)),
        valid("one of the second chain", **_fields(second, 0, history=both)),
        invalid(Reason.CLONE_SUSPECTED, "the first of 2,001", boundary, **_fields(first, 0, history=[far])),
        invalid(Reason.ALREADY_USED, "the last given up, of two chains", boundary, **_fields(ended, 4, history=both)),
        invalid(
            Reason.ALREADY_USED, "the first given up, of two chains", "Misplaced", **_fields(ended, 1, history=both)
        ),
        invalid(
            Reason.NOT_AUTHENTIC,
            "a kept key for another message",
            "ChangedBytes",
            **_fields(first, 1, flipped(first.write(1), -1), history=[far]),
        ),
    ]


def _bodies() -> list[Test]:
    first, _ = _lines(3)
    contents = {
        "padding of zeros alone": bytes(256),
        "padding without a mark": b"\x01" * 256,
        "no fragment field": padding.pad(b""),
        "a fragment that is cut short": padding.pad(b"\x08" + bytes(100)),
    }
    return [
        invalid(Reason.MALFORMED, comment, "Encoding", **_fields(first, 0, first.write(0, padded=padded)))
        for comment, padded in contents.items()
    ]


def _tables() -> Group:
    first, second = _lines(3)
    m = [first.write(n) for n in range(45)]
    e = [first.write(n, is_ephemeral=True) for n in range(4)]
    histories = {
        "before anything came": [],
        "after the first message": m[:1],
        "after two": m[:2],
        "after many in order": m[:20],
        "after a gap": [m[5]],
        "after a gap that was filled in part": [m[5], m[2]],
        "after a message beyond the window": [m[0], m[44]],
        "after ephemeral messages": [m[0], e[0], e[3]],
        "after an answer": [m[0], _BOB_SENDS],
        "on the next chain": [m[0], _BOB_SENDS, second.write(0)],
        "on the next chain, with a gap": [m[0], _BOB_SENDS, second.write(3)],
    }
    tests = [valid(comment, history=history) for comment, history in histories.items()]
    return Group(EXPECTED_TAGS, tests, _FIELDS)


def _found() -> Group:
    first, second = _lines(3)
    m = [first.write(n) for n in range(4)]
    answered = [m[0], _BOB_SENDS]
    far, last = first.write(20_000), first.write(2**20 - 1)
    found: dict[str, tuple[bytes, list[bytes]]] = {
        "announced": (first.write(5), m[:1]),
        "beyond what was looked ahead for": (far, m[:1]),
        "the last of a chain": (last, m[:1]),
        "on the next chain, beyond its first tags": (second.write(50), answered),
        "on the first chain, before anything came": (first.write(50), []),
        "overtaken, under a kept key": (first.write(2), [m[3]]),
        "ephemeral, beyond the window": (first.write(300, is_ephemeral=True), m[:1]),
        "ephemeral, with a number that none in order has": (first.write(2**20, is_ephemeral=True), m[:1]),
    }
    forged: dict[str, tuple[bytes, list[bytes]]] = {
        "the tag of another number": (first.write(300, tag_number=301), m[:1]),
        "a number beyond the end": (first.write(2**20), m[:1]),
        "of a chain that nothing has led to": (second.write(50), []),
        "of the chain before, and not kept": (first.write(300), [*answered, second.write(0)]),
        "read before": (m[0], [*answered, second.write(0)]),
    }
    changed = {"tag": 1, "nonce": 9, "header": 21, "header's tag": 80}
    return Group(
        FOUND,
        [
            *(valid(comment, message=message, history=history) for comment, (message, history) in found.items()),
            *(
                invalid(Reason.NOT_AUTHENTIC, comment, "Misplaced", message=message, history=history)
                for comment, (message, history) in forged.items()
            ),
            *(
                invalid(
                    Reason.NOT_AUTHENTIC, f"changed in the {p}", "ChangedBytes", message=flipped(far, at), history=[]
                )
                for p, at in changed.items()
            ),
            invalid(Reason.MALFORMED, "352 bytes", "Boundary", message=m[0][:352], history=[]),
        ],
        _FIELDS,
    )


def _routing_tags() -> Group:
    places = [("the first", 0, 0), ("the first ephemeral one", 0, 1), ("the last", 2**20 - 1, 0)]
    tests = [valid(comment, number=number, ephemeral=ephemeral) for comment, number, ephemeral in places]
    return Group(ROUTING_TAG, tests, {"tagKey": stream("tag key")})


def _groups() -> Sequence[Group]:
    tests = [*_read(), *_changed(), *_lying_headers(), *_repeats(), *_given_up(), *_bodies()]
    return [Group(RATCHET_TYPE, tests, _FIELDS), _tables(), _found(), _routing_tags()]


RATCHET = Construction(
    "ratchet",
    "Messages and the Double Ratchet: a responder's view",
    [RATCHET_TYPE, EXPECTED_TAGS, FOUND, ROUTING_TAG],
    _groups,
)
