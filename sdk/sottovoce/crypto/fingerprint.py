"""Safety numbers: what two people compare to know that no server stands between them, as digits and as a code.

Here stand the number, the code and what a comparison says. Nothing in either is secret. How a code is drawn, and what
follows from a comparison, is not known here. Spec: safety-number.
"""

import enum
import struct
from dataclasses import dataclass
from typing import Final

from sottovoce_wire import labels, records
from sottovoce_wire.ids import AccountId
from sottovoce_wire.records import DeviceList

from . import primitives
from .errors import CryptoRefusal, Reason

#: Steps of the chain behind each half: 13 bits more for who looks for another account with the same digits.
ROUNDS: Final = 2**13
CODE_VERSION: Final = 1

_GROUPS: Final = 6
_BYTES_A_GROUP: Final = 5
_LAYOUT: Final = struct.Struct(">B32s32sQ32sQ32s")


def safety_number(one: AccountId, other: AccountId) -> str:
    """The 60 digits of two accounts, twelve groups of five with single spaces, the same whoever is named first.

    Takes some 10 ms. Raises CryptoRefusal: MALFORMED (an id does not have 32 bytes),
    WRONG_ACCOUNT (both are the same).
    """
    if len(one) != primitives.KEY_LENGTH or len(other) != primitives.KEY_LENGTH:
        raise CryptoRefusal(Reason.MALFORMED, "an account id has 32 bytes")
    _check_two(one, other)
    return " ".join(sorted((_half(one), _half(other))))


def _check_two(one: AccountId, other: AccountId) -> None:
    if one == other:
        raise CryptoRefusal(Reason.WRONG_ACCOUNT, "a safety number is of two accounts")


def _half(account_id: AccountId) -> str:
    state: bytes = account_id
    for _ in range(ROUNDS):
        state = primitives.sha256(labels.SAFETY_NUMBER, state, account_id)
    groups = (state[place : place + _BYTES_A_GROUP] for place in range(0, _GROUPS * _BYTES_A_GROUP, _BYTES_A_GROUP))
    return " ".join(f"{int.from_bytes(group, 'big') % 100_000:05}" for group in groups)


@dataclass(frozen=True, slots=True, repr=False)
class ListState:
    """Where an account's device list stands: its version, 1 or more, and its hash (32)."""

    version: int
    digest: bytes

    @classmethod
    def of(cls, device_list: DeviceList) -> "ListState":
        """That of a verified list."""
        return cls(device_list.version, records.device_list_hash(device_list.pack()))


@dataclass(frozen=True, slots=True, repr=False)
class SafetyCode:
    """What one device knows of a conversation: version (1) ‖ own and other account id (32 each) ‖ for each of the two
    its list's version (8) and hash (32)."""

    LENGTH = _LAYOUT.size

    own: AccountId
    other: AccountId
    own_list: ListState
    other_list: ListState

    def pack(self) -> bytes:
        """145 bytes, to be shown."""
        return _LAYOUT.pack(
            CODE_VERSION,
            self.own,
            self.other,
            self.own_list.version,
            self.own_list.digest,
            self.other_list.version,
            self.other_list.digest,
        )

    @classmethod
    def parse(cls, packed: bytes) -> "SafetyCode":
        """Strict inverse of `pack`. Raises CryptoRefusal: UNSUPPORTED_VERSION, MALFORMED, WRONG_ACCOUNT (one account
        twice)."""
        if packed[:1] not in (b"", bytes([CODE_VERSION])):
            raise CryptoRefusal(Reason.UNSUPPORTED_VERSION, "the safety code is of another version")
        if len(packed) != _LAYOUT.size:
            raise CryptoRefusal(Reason.MALFORMED, "a safety code has 145 bytes")
        _, own, other, own_version, own_digest, other_version, other_digest = _LAYOUT.unpack(packed)
        if not own_version or not other_version:
            raise CryptoRefusal(Reason.MALFORMED, "a device list's version is at least 1")
        _check_two(own, other)
        return cls(own, other, ListState(own_version, own_digest), ListState(other_version, other_digest))


@enum.unique
class Side(enum.Enum):
    """How one of the two accounts compares: what their device shows, against what this one knows."""

    SAME = enum.auto()
    #: Another account: the conversation is not with whom it seems to be, or the code is of another conversation.
    OTHER_ACCOUNT = enum.auto()
    #: The same account, and they know a newer device list of it.
    NEWER = enum.auto()
    #: The same account, and they know an older device list of it.
    OLDER = enum.auto()
    #: The same account, and two device lists for one version: the account is forked.
    FORKED = enum.auto()


@enum.unique
class Verdict(enum.Enum):
    """What follows from a comparison."""

    #: The other person is who the conversation says. Lists may still have to be fetched: see `Comparison.matches`.
    VERIFIED = enum.auto()
    #: A device does not know the newest list of its *own* account. Fetch the lists on both devices and compare again;
    #: if it stays so, somebody else signs for that account, or a directory withholds: alarm.
    UNSETTLED = enum.auto()
    #: Another account, or a forked one.
    MISMATCH = enum.auto()


@dataclass(frozen=True, slots=True)
class Comparison:
    """`mine`: my account as their device has it. `theirs`: their account as they have it themselves."""

    mine: Side
    theirs: Side

    @property
    def matches(self) -> bool:
        """Whether both devices know the same accounts and the same device lists."""
        return self.mine is Side.SAME and self.theirs is Side.SAME

    @property
    def verdict(self) -> Verdict:
        """Whether the other person may be marked as verified."""
        if {self.mine, self.theirs} & {Side.OTHER_ACCOUNT, Side.FORKED}:
            return Verdict.MISMATCH
        if self.mine is Side.NEWER or self.theirs is Side.OLDER:
            return Verdict.UNSETTLED
        return Verdict.VERIFIED


def compare(scanned: SafetyCode, own: SafetyCode) -> Comparison:
    """What the code scanned from the other's screen says, against the code that this device would show."""
    return Comparison(
        mine=_compare_side(scanned.other, scanned.other_list, own.own, own.own_list),
        theirs=_compare_side(scanned.own, scanned.own_list, own.other, own.other_list),
    )


def _compare_side(shown: AccountId, shown_list: ListState, known: AccountId, known_list: ListState) -> Side:
    if shown != known:
        return Side.OTHER_ACCOUNT
    if shown_list.version > known_list.version:
        return Side.NEWER
    if shown_list.version < known_list.version:
        return Side.OLDER
    return Side.SAME if shown_list.digest == known_list.digest else Side.FORKED
