"""Vectors of ratchet.md and pq-ratchet.md: whole sessions, both sides, with post-quantum epochs mixed in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sottovoce.crypto.errors import Reason
from tests.second import pq, stored
from tests.second.message import END, Announced
from tests.second.ratchet import Sending, Session

from .build import HEX, HEX_LIST, NUMBER, RESULT_LIST, STEP_LIST, Construction, Group, Test, Type, invalid, valid
from .cast import DAY, stream
from .conversations import CONVERSATIONS, due, mixed, near_the_end, offered
from .keys import bad_exchange_keys, with_coefficient
from .talk import SESSION_FIELDS, Talk

SESSION = Type(
    "session",
    {name: NUMBER if name == "began" else HEX for name in SESSION_FIELDS},
    {"steps": STEP_LIST},
    {"results": RESULT_LIST},
)
RATCHET_STATE = Type("ratchetState", {}, {"state": HEX}, {"epoch": NUMBER, "tags": HEX_LIST, "packed": HEX})


# --- What is refused --------------------------------------------------------------------------------------------


def _refused(
    reason: Reason, comment: str, flag: str, prepare: Callable[[Talk], object], last: Callable[[Talk], object]
) -> Test:
    talk = Talk(comment)
    prepare(talk)
    last(talk)
    return invalid(reason, comment, flag, steps=talk.steps)


def _nothing(_: Talk) -> None:
    pass


def _began(talk: Talk) -> None:
    talk.exchange("A")


def _answered(talk: Talk) -> None:
    talk.exchange("A")
    talk.exchange("B")


def _lie(to: str, **fields: int | bytes) -> Callable[[Talk], object]:
    """The peer of `to` writes with the keys that it has, and breaks the rules."""
    speaker = "B" if to == "A" else "A"
    return lambda talk: talk.receive(to, talk.forged(speaker, **fields))  # type: ignore[arg-type]


def _turned_after_mixing(talk: Talk) -> None:
    mixed(talk)
    talk.exchange("B")


def _epochs() -> list[Test]:
    wrong, not_authentic, clone = Reason.WRONG_EPOCH, Reason.NOT_AUTHENTIC, Reason.CLONE_SUSPECTED
    left_out, unnamed, turned = _lie("B", ss=b"", epoch=1), _lie("B", epoch=0), _turned_after_mixing
    another = _lie("B", ss=stream("another secret"))
    return [
        _refused(wrong, "A names an epoch before it has offered a key", "Forgery", _answered, _lie("B", epoch=1)),
        _refused(wrong, "A names the epoch after the next", "Forgery", due, _lie("B", epoch=2)),
        _refused(wrong, "A names the epoch before", "Forgery", turned, _lie("B", epoch=0)),
        _refused(wrong, "A names the epoch after, right after one", "Forgery", turned, _lie("B", epoch=2)),
        _refused(wrong, "B names an epoch in its first chain", "Forgery", _began, _lie("A", epoch=1)),
        _refused(wrong, "B names the epoch whose secret it holds", "Forgery", offered, _lie("A", epoch=1)),
        _refused(wrong, "B names the epoch whose secret A holds", "Forgery", _b_turns_when_due, _lie("A", epoch=1)),
        _refused(wrong, "B names the epoch before", "Forgery", mixed, _lie("A", epoch=0)),
        _refused(not_authentic, "A names an epoch and leaves out its secret", "Mistake", due, left_out),
        _refused(not_authentic, "A mixes a secret and does not name its epoch", "Mistake", due, unnamed),
        _refused(not_authentic, "A mixes another secret", "Forgery", due, another),
        _refused(clone, "another epoch in the middle of a chain", "Forgery", mixed, _lie("B", epoch=0)),
    ]


def _b_turns_when_due(talk: Talk) -> None:
    """A has the secret, has begun a chain before it came, and B answers that chain."""
    offered(talk)
    crossing = talk.send("B")
    talk.now += DAY
    whole = talk.send("B")
    talk.deliver(crossing)
    step = talk.send("A")
    talk.deliver(whole)
    talk.deliver(step)


#: Headers of a new chain, and of one that is there, with other fields than belong there.
_NEW_CHAIN: Final[Mapping[str, tuple[Reason, Mapping[str, int]]]] = {
    "PN below what was received": (Reason.MALFORMED, {"previous": 0}),
    "PN beyond the end of a chain": (Reason.CHAIN_ENDED, {"previous": END + 1}),
    "PN that asks for 25,001 steps": (Reason.TOO_FAR_AHEAD, {"previous": 25_002}),
    "another number than the tag": (Reason.MALFORMED, {"n": 1, "tag": 0}),
}
_ON_CHAIN: Final[Mapping[str, tuple[Reason, Mapping[str, int | bytes]]]] = {
    "another ratchet key": (Reason.CLONE_SUSPECTED, {"key": stream("another ratchet key")}),
    "another PN": (Reason.CLONE_SUSPECTED, {"previous": 7}),
    "another epoch": (Reason.CLONE_SUSPECTED, {"epoch": 1}),
    "another number than the tag": (Reason.MALFORMED, {"n": 2, "tag": 1}),
}


def _turns() -> list[Test]:
    tests = [_refused(Reason.MALFORMED, "a first chain of B's after another", "Forgery", _began, _lie("A", previous=1))]
    bad_keys = [entry for entry in bad_exchange_keys() if len(entry[2]) == 32][:2]
    for to, prepare in (("A", _twice_answered), ("B", _answered)):
        tests += [
            _refused(reason, f"{to} is sent {comment}", "Forgery", prepare, _lie(to, **fields))
            for comment, (reason, fields) in _NEW_CHAIN.items()
        ]
        tests += [
            _refused(Reason.BAD_KEY, f"{to} is sent a ratchet key: {comment}", flag, prepare, _lie(to, key=key))
            for comment, flag, key in bad_keys
        ]
    for to, prepare in (("A", _answered), ("B", _began)):
        tests += [
            _refused(reason, f"{to} is sent {comment} in the middle of a chain", "Forgery", prepare, _lie(to, **fields))
            for comment, (reason, fields) in _ON_CHAIN.items()
        ]
    return tests


def _twice_answered(talk: Talk) -> None:
    """B owes a turn, after one of its chains was received."""
    _answered(talk)
    talk.exchange("A")


def _again(talk: Talk) -> None:
    talk.deliver(0)


def _next(talk: Talk) -> None:
    talk.exchange("A")


def _from_an_old_copy(talk: Talk) -> None:
    """A has sent a message, and goes on from the copy of its store before it."""
    copy = talk.sides["A"]
    talk.exchange("A")
    talk.restore("A", copy)


def _chain_of_a_copy(talk: Talk) -> None:
    _answered(talk)
    _from_an_old_copy(talk)


def _number_of_a_copy(talk: Talk) -> None:
    _began(talk)
    _from_an_old_copy(talk)


def _turned(talk: Talk) -> None:
    for side in "ABABA":
        talk.exchange(side)


def _as_of(chain: int, n: int, *, is_ephemeral: bool = False) -> Callable[[Talk], object]:
    """The first message, taken for another."""
    place = Announced(chain, n, is_ephemeral)
    return lambda talk: talk.receive_as("B", talk.message(0), place)


def _repeats() -> list[Test]:
    clone, used = Reason.CLONE_SUSPECTED, Reason.ALREADY_USED
    old, on_the_next, before = _as_of(1, 0), _as_of(4, 0, is_ephemeral=True), _as_of(1, 0, is_ephemeral=True)
    return [
        _refused(clone, "a message of the present chain again", "Misplaced", _began, _again),
        _refused(clone, "a number twice, from an old copy of a store", "Forgery", _number_of_a_copy, _next),
        _refused(clone, "a chain begun twice, from an old copy of a store", "Forgery", _chain_of_a_copy, _next),
        _refused(
            Reason.NOT_AUTHENTIC,
            "a message of a chain before again: no tag, and no header opens",
            "Misplaced",
            _turned,
            _again,
        ),
        _refused(used, "a message of a chain before, its key not kept", "Misplaced", _turned, old),
        _refused(used, "a message of the chain after the next", "Misplaced", _turned, _as_of(5, 0)),
        _refused(used, "an ephemeral message on the next chain", "Misplaced", _turned, on_the_next),
        _refused(used, "an ephemeral message of a chain before", "Misplaced", _turned, before),
        _refused(used, "an ephemeral message twice", "Misplaced", _ephemeral_twice, lambda talk: talk.deliver(2)),
        _refused(
            Reason.TOO_FAR_AHEAD,
            "the ninth ephemeral message, after eight were lost",
            "Boundary",
            _eight_lost,
            lambda talk: talk.deliver(len(talk.steps) - 1),
        ),
        _refused(
            Reason.NOT_AUTHENTIC,
            "a chain that answers nothing new",
            "Forgery",
            _answered_twice_by_a,
            lambda talk: talk.receive("B", talk.forged("A", begins=True)),
        ),
    ]


def _eight_lost(talk: Talk) -> None:
    talk.exchange("A")
    for _ in range(9):
        talk.whisper("A")


def _ephemeral_twice(talk: Talk) -> None:
    talk.exchange("A")
    talk.deliver(talk.whisper("A"))


def _answered_twice_by_a(talk: Talk) -> None:
    for side in "ABA":
        talk.exchange(side)


def _fragments() -> list[Test]:
    """Of the post-quantum part. The message is authentic, and is refused with its fragment."""
    malformed = Reason.MALFORMED

    def field(blocks: int, first: int, data: bytes, epoch: int = 1) -> bytes:
        return bytes([blocks]) + epoch.to_bytes(4, "big") + bytes([first]) + data

    def offering(talk: Talk) -> bytes:
        state = talk.sides["A"].pq
        assert isinstance(state, pq.Offering)
        return state.key

    def opens(talk: Talk) -> None:
        _answered(talk)
        talk.now += DAY
        talk.exchange("A")
        talk.exchange("B")

    def bad_key(talk: Talk) -> None:
        key = with_coefficient(offering(talk), 5, 3329)
        talk.receive("B", talk.forged("A", content=field(37, 0, key)))

    beyond = field(1, 37, bytes(32))
    return [
        _refused(Reason.BAD_KEY, "a key outside the modulus, with its last block", "InvalidKey", opens, bad_key),
        _refused(malformed, "a block behind the key", "Boundary", _answered, _lie("B", content=beyond)),
        _refused(
            malformed, "a block behind the ciphertext", "Boundary", offered, _lie("A", content=field(1, 34, bytes(32)))
        ),
        _refused(
            malformed, "a field cut short", "Encoding", _answered, _lie("B", content=field(37, 0, bytes(36 * 32)))
        ),
        _refused(malformed, "no field", "Encoding", _answered, _lie("A", content=b"")),
    ]


def _at_the_end(talk: Talk) -> None:
    near_the_end(talk, last=0)


def _whispers_at_the_end(talk: Talk) -> None:
    talk.exchange("A")
    side = talk.sides["A"]
    assert isinstance(side.sending, Sending)
    line = replace(side.sending.ephemeral, next=END, stored=END)
    talk.restore("A", replace(side, sending=replace(side.sending, ephemeral=line)))


def _sending() -> list[Test]:

    return [
        _refused(Reason.NOTHING_RECEIVED, "B sends before it received", "Misplaced", _nothing, lambda t: t.send("B")),
        _refused(Reason.NOTHING_SENT, "A types before it sent", "Misplaced", _nothing, lambda t: t.whisper("A")),
        _refused(Reason.NOTHING_SENT, "B types before it sent", "Misplaced", _began, lambda t: t.whisper("B")),
        _refused(Reason.CHAIN_ENDED, "a message beyond 2^20", "Boundary", _at_the_end, lambda t: t.send("A")),
        _refused(
            Reason.CHAIN_ENDED,
            "an ephemeral message beyond 2^20",
            "Boundary",
            _whispers_at_the_end,
            lambda t: t.whisper("A"),
        ),
    ]


# --- Stored states ----------------------------------------------------------------------------------------------


def _moments() -> dict[str, Session]:
    """The sides of sessions in every state that a half can be in."""
    found: dict[str, Session] = {}
    for name, prepare in (
        ("at the beginning", _nothing),
        ("after a message", _began),
        ("after an answer", _answered),
        ("while a key is offered", offered),
        ("while a secret is due", due),
        ("in epoch 1", mixed),
        ("on an ephemeral chain", _ephemeral_twice),
    ):
        talk = Talk(f"stored, {name}")
        prepare(talk)
        found |= {f"{side} {name}": session for side, session in talk.sides.items()}
    return found


def _stored() -> Group:
    packed = {name: stored.pack(session) for name, session in _moments().items()}
    first, turned = packed["A at the beginning"], packed["A after an answer"]
    sending, receiving = 1 + 32 + 32 + 4 + 4 + 64 + 64, 1 + 32 + 32 + 4 + 4 + 64 + 64 + 37
    bad = {
        "no bytes": b"",
        "the version alone": first[:1],
        **{f"version {version}": bytes([version]) + first[1:] for version in (0, 1, 3, 255)},
        **{f"sending half {kind}": _with(first, sending, kind) for kind in (0, 5, 255)},
        **{f"receiving half {kind}": _with(first, receiving, kind) for kind in (0, 3, 255)},
        **{f"post-quantum part {kind}": _with(first, receiving + 1, kind) for kind in (0, 6, 255)},
        "StepDue read as Unanswered": _with(first, sending, 1),
        "StepDue read as one with an ephemeral chain": _with(first, sending, 3),
        "nothing received read as Receiving": _with(first, receiving, 2),
        "cut before the sending half": first[:sending],
        "cut before the receiving half": first[:receiving],
        "cut before the post-quantum part": first[: receiving + 1],
        **{f"{name}, cut short": state[:-1] for name, state in packed.items()},
        **{f"{name}, one byte more": state + b"\x00" for name, state in packed.items()},
    }
    bad_keys = [(comment, flag, key) for comment, flag, key in bad_exchange_keys() if len(key) == 32]
    at = sending + 1
    return Group(
        RATCHET_STATE,
        [
            *(valid(name, state=state) for name, state in packed.items()),
            *(invalid(Reason.BAD_RECORD, comment, "Encoding", state=state) for comment, state in bad.items()),
            *(
                invalid(Reason.BAD_KEY, f"StepDue: {comment}", flag, state=turned[:at] + key + turned[at + 32 :])
                for comment, flag, key in bad_keys[:3]
            ),
        ],
    )


def _with(state: bytes, at: int, value: int) -> bytes:
    return state[:at] + bytes([value]) + state[at + 1 :]


def _groups() -> Sequence[Group]:
    spoken = [valid(comment, "Usual", steps=talk().steps) for comment, talk in CONVERSATIONS.items()]
    tests = [*spoken, *_epochs(), *_turns(), *_repeats(), *_fragments(), *_sending()]
    return [Group(SESSION, tests, SESSION_FIELDS), _stored()]


SESSIONS = Construction(
    "sessions", "Sessions from both sides, with post-quantum epochs", [SESSION, RATCHET_STATE], _groups
)
