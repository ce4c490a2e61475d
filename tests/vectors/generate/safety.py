"""Vectors of safety-number.md: the number, the code, the comparison."""

from collections.abc import Sequence

from sottovoce.crypto.errors import Reason
from sottovoce.crypto.fingerprint import ListState, SafetyCode
from sottovoce_wire.ids import AccountId

from .build import HEX, NUMBER, TEXT, Construction, Group, Test, Type, invalid, valid
from .cast import ALICE, BOB, MALLORY, Person, stream

NUMBER_TYPE = Type("safetyNumber", {}, {"one": HEX, "other": HEX}, {"digits": TEXT})
CODE = Type(
    "safetyCode",
    {},
    {"code": HEX},
    {
        "own": HEX,
        "other": HEX,
        "ownVersion": NUMBER,
        "ownHash": HEX,
        "otherVersion": NUMBER,
        "otherHash": HEX,
    },
)
COMPARISON = Type("safetyComparison", {"own": HEX}, {"scanned": HEX}, {"mine": TEXT, "theirs": TEXT, "verdict": TEXT})


def _numbers() -> list[Test]:
    alice, bob = ALICE.account, BOB.account
    low, high = AccountId(bytes(32)), AccountId(b"\xff" * 32)
    malformed = Reason.MALFORMED
    return [
        valid("Alice and Bob", one=alice, other=bob),
        valid("Bob and Alice: the same", one=bob, other=alice),
        valid("the least id and the greatest", "Boundary", one=low, other=high),
        invalid(Reason.WRONG_ACCOUNT, "Alice and Alice", "Misplaced", one=alice, other=alice),
        invalid(malformed, "31 bytes", "Encoding", one=alice[:-1], other=bob),
        invalid(malformed, "33 bytes", "Encoding", one=alice, other=bob + b"\x00"),
        invalid(malformed, "no bytes", "Encoding", one=alice, other=b""),
    ]


def _state(name: str, version: int) -> ListState:
    return ListState(version, stream(f"{name}, list {version}"))


def _code(own: Person, other: Person, own_list: ListState, other_list: ListState) -> bytes:
    return SafetyCode(own.account, other.account, own_list, other_list).pack()


def _codes() -> list[Test]:
    good = _code(ALICE, BOB, _state("Alice", 3), _state("Bob", 1))
    twice = _code(ALICE, ALICE, _state("Alice", 3), _state("Alice", 3))
    zero = _code(ALICE, BOB, _state("Alice", 0), _state("Bob", 1))
    other_zero = _code(ALICE, BOB, _state("Alice", 3), _state("Bob", 0))
    malformed, version = Reason.MALFORMED, Reason.UNSUPPORTED_VERSION
    return [
        valid("Alice's, of her conversation with Bob", code=good),
        invalid(malformed, "no bytes", "Encoding", code=b""),
        invalid(malformed, "one byte short", "Encoding", code=good[:-1]),
        invalid(malformed, "one byte more", "Encoding", code=good + b"\x00"),
        invalid(malformed, "her list's version is 0", "Boundary", code=zero),
        invalid(malformed, "his list's version is 0", "Boundary", code=other_zero),
        invalid(version, "version 0", "Encoding", code=b"\x00" + good[1:]),
        invalid(version, "version 2 of another length", "Encoding", code=b"\x02" + good[1:] + bytes(8)),
        invalid(version, "version 2 and nothing more", "Encoding", code=b"\x02"),
        invalid(Reason.WRONG_ACCOUNT, "one account twice", "Misplaced", code=twice),
    ]


def _comparisons() -> Group:
    """Alice scans what Bob's device shows."""
    alice, bob = _state("Alice", 3), _state("Bob", 2)
    fork_alice, fork_bob = _state("Alice, a fork", 3), _state("Bob, a fork", 2)
    tests = [
        valid("all the same", scanned=_code(BOB, ALICE, bob, alice)),
        valid("another account for Bob", "Forgery", scanned=_code(MALLORY, ALICE, bob, alice)),
        valid("another account for Alice", "Forgery", scanned=_code(BOB, MALLORY, bob, alice)),
        valid("one's own code", "Misplaced", scanned=_code(ALICE, BOB, alice, bob)),
        valid("Bob has a newer list of his", scanned=_code(BOB, ALICE, _state("Bob", 3), alice)),
        valid("Bob has an older list of his", scanned=_code(BOB, ALICE, _state("Bob", 1), alice)),
        valid("Bob has a newer list of Alice's", scanned=_code(BOB, ALICE, bob, _state("Alice", 4))),
        valid("Bob has an older list of Alice's", scanned=_code(BOB, ALICE, bob, _state("Alice", 2))),
        valid("two lists of Bob's", "Forgery", scanned=_code(BOB, ALICE, fork_bob, alice)),
        valid("two lists of Alice's", "Forgery", scanned=_code(BOB, ALICE, bob, fork_alice)),
    ]
    good = _code(BOB, ALICE, bob, alice)
    for cut in (0, 32, 64, 80, 143):
        broken = invalid(Reason.MALFORMED, f"cut to {cut + 1} bytes", "Encoding", scanned=good[: cut + 1])
        tests.append(broken)
    return Group(COMPARISON, tests, {"own": _code(ALICE, BOB, alice, bob)})


def _groups() -> Sequence[Group]:
    return [Group(NUMBER_TYPE, _numbers()), Group(CODE, _codes()), _comparisons()]


SAFETY = Construction("safety_number", "Safety numbers and codes", [NUMBER_TYPE, CODE, COMPARISON], _groups)
