"""safety-number.md: the number, the code, the comparison."""

from dataclasses import dataclass

from .notation import fields, label, number, sha256
from .refusal import RefusedError

_CODE = (1, 32, 32, 8, 32, 8, 32)


def _half(account: bytes) -> str:
    h = account
    for _ in range(8192):
        h = sha256(label("safety number") + h + account)
    return " ".join(f"{number(h[5 * j : 5 * j + 5]) % 100000:05d}" for j in range(6))


def safety_number(one: bytes, other: bytes) -> str:
    """The digits of two accounts."""
    if len(one) != 32 or len(other) != 32:
        raise RefusedError("malformed")
    if one == other:
        raise RefusedError("wrong_account")
    return " ".join(sorted([_half(one), _half(other)]))


@dataclass(frozen=True)
class Code:
    """A code's fields: account id, list version and list hash of both."""

    own: bytes
    other: bytes
    own_list: tuple[int, bytes]
    other_list: tuple[int, bytes]


def parse_code(packed: bytes) -> Code:
    """A code, with all checks of the table."""
    if packed and packed[0] != 1:
        raise RefusedError("unsupported_version")
    _, own, other, own_version, own_hash, other_version, other_hash = fields(packed, _CODE, "malformed")
    if number(own_version) < 1 or number(other_version) < 1:
        raise RefusedError("malformed")
    if own == other:
        raise RefusedError("wrong_account")
    return Code(own, other, (number(own_version), own_hash), (number(other_version), other_hash))


def _side(shown: tuple[bytes, int, bytes], known: tuple[bytes, int, bytes]) -> str:
    if shown[0] != known[0]:
        return "OTHER_ACCOUNT"
    if shown[1] != known[1]:
        return "NEWER" if shown[1] > known[1] else "OLDER"
    return "SAME" if shown[2] == known[2] else "FORKED"


def verdict(mine: str, theirs: str) -> str:
    """What follows."""
    if "OTHER_ACCOUNT" in (mine, theirs) or "FORKED" in (mine, theirs):
        return "MISMATCH"
    return "UNSETTLED" if mine == "NEWER" or theirs == "OLDER" else "VERIFIED"


def compare(scanned: Code, own: Code) -> tuple[str, str]:
    """(mine, theirs)."""
    mine = _side((scanned.other, *scanned.other_list), (own.own, *own.own_list))
    theirs = _side((scanned.own, *scanned.own_list), (own.other, *own.other_list))
    return mine, theirs
