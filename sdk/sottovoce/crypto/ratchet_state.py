"""What a ratchet is between two messages: its sending and its receiving half, and how they are written down.

Plain data in explicit states; every step is taken in `ratchet`. Spec: ratchet, stored state.
"""

import struct
from typing import Final, TypeAlias

from .chain_key import ReceivingChain, SendingChain
from .errors import CryptoRefusal, Reason
from .message import Route, Window
from .primitives import OwnExchangeKey, PeerExchangeKey

#: Tags kept ready for ephemeral messages on the present chain, and numbers that the stored state runs ahead of them.
LOOK_AHEAD_EPHEMERAL: Final = 8


class Whispers:
    """The ephemeral chain beside a sending chain. `reserve` is the position that the store knows: numbers below it may
    be used without writing anything down."""

    __slots__ = ("chain", "epoch", "head", "reserve", "route")

    def __init__(self, route: Route, head: bytes, epoch: int, chain: SendingChain) -> None:
        self.route: Final = route
        self.head: Final = head  # ratchet key ‖ PN: the same in every header of the chain
        self.epoch: Final = epoch
        self.chain = chain
        self.reserve = chain


# The sending half is in one of three states. An empty chain is a state of its own, never a missing key.


class Unanswered:
    """The responder's start: its signed prekey is its ratchet key, and it has nothing to answer yet."""

    __slots__ = ("own",)

    def __init__(self, own: OwnExchangeKey) -> None:
        self.own: Final = own


class StepDue:
    """The next message begins a new chain towards the peer's ratchet key. Ephemeral ones still go on the old one."""

    __slots__ = ("peer", "previous_length", "whispers")

    def __init__(self, peer: PeerExchangeKey, previous_length: int, whispers: Whispers | None) -> None:
        self.peer: Final = peer
        self.previous_length: Final = previous_length
        self.whispers: Final = whispers


class Sending:
    """A chain under one's own ratchet key; sending a message moves it on."""

    __slots__ = ("chain", "own", "whispers")

    def __init__(self, own: OwnExchangeKey, chain: SendingChain, whispers: Whispers) -> None:
        self.own: Final = own
        self.chain = chain
        self.whispers: Final = whispers


class NothingReceived:
    """No message has been opened."""

    __slots__ = ()


class Receiving:
    """The peer's newest chain that was seen, its `nth`. `ahead`: its tags are known below this number."""

    __slots__ = ("ahead", "chain", "epoch", "head", "nth", "route", "whispers")

    def __init__(
        self,
        nth: int,
        head: bytes,
        epoch: int,
        route: Route,
        chain: ReceivingChain,
        ahead: int,
        whispers: ReceivingChain,
    ) -> None:
        self.nth: Final = nth
        self.head: Final = head  # ratchet key ‖ PN: the same in every header of the chain
        self.epoch: Final = epoch
        self.route: Final = route
        self.chain = chain
        self.ahead = ahead
        self.whispers = whispers

    def windows(self) -> tuple[Window, Window]:
        """The tags of what may come next on this chain."""
        return self.route.announce(self.nth, self.chain.number, self.ahead), self.ephemeral_window()

    def tags(self) -> tuple[bytes, ...]:
        """The same tags, and nothing of what they announce."""
        number = self.whispers.number
        ephemeral = self.route.tags(number, number + LOOK_AHEAD_EPHEMERAL, is_ephemeral=True)
        return self.route.tags(self.chain.number, self.ahead) + ephemeral

    def ephemeral_window(self) -> Window:
        """The same for ephemeral messages."""
        number = self.whispers.number
        return self.route.announce(self.nth, number, number + LOOK_AHEAD_EPHEMERAL, is_ephemeral=True)


SendingHalf: TypeAlias = Unanswered | StepDue | Sending
ReceivingHalf: TypeAlias = NothingReceived | Receiving


# The packed state: every half begins with the byte of its state.
_PACKED_KIND: Final = struct.Struct(">B")
_PACKED_UNANSWERED: Final = struct.Struct(">B32s32s")
_PACKED_STEP_DUE: Final = struct.Struct(">B32sI")
_PACKED_SENDING: Final = struct.Struct(">B32s32s32sI")
_PACKED_WHISPERS: Final = struct.Struct(">64s36sI32sI")
_PACKED_RECEIVING: Final = struct.Struct(">BI36sI64s32sII32sI")
_UNANSWERED, _FIRST_STEP_DUE, _STEP_DUE, _SENDING = range(1, 5)
_NOTHING_RECEIVED, _RECEIVING = 1, 2


def pack_sending(half: SendingHalf) -> bytes:
    """The sending half, written down."""
    if isinstance(half, Sending):
        own, chain = half.own, half.chain
        start = _PACKED_SENDING.pack(_SENDING, own.secret, own.public, chain.key, chain.number)
        return start + _pack_whispers(half.whispers)
    if isinstance(half, Unanswered):
        return _PACKED_UNANSWERED.pack(_UNANSWERED, half.own.secret, half.own.public)
    kind = _FIRST_STEP_DUE if half.whispers is None else _STEP_DUE
    start = _PACKED_STEP_DUE.pack(kind, half.peer.public, half.previous_length)
    return start if half.whispers is None else start + _pack_whispers(half.whispers)


def _pack_whispers(whispers: Whispers) -> bytes:
    reserve = whispers.reserve
    return _PACKED_WHISPERS.pack(whispers.route.keys, whispers.head, whispers.epoch, reserve.key, reserve.number)


def pack_receiving(half: ReceivingHalf) -> bytes:
    """The receiving half, written down."""
    if isinstance(half, NothingReceived):
        return _PACKED_KIND.pack(_NOTHING_RECEIVED)
    return _PACKED_RECEIVING.pack(
        _RECEIVING,
        half.nth,
        half.head,
        half.epoch,
        half.route.keys,
        half.chain.key,
        half.chain.number,
        half.ahead,
        half.whispers.key,
        half.whispers.number,
    )


def unpack_sending(packed: bytes, at: int) -> tuple[SendingHalf, int]:
    """The sending half at `at`, and where it ends. Raises CryptoRefusal (BAD_RECORD, BAD_KEY) or struct.error."""
    (state,) = _PACKED_KIND.unpack_from(packed, at)
    if state == _SENDING:
        _, secret, public, key, number = _PACKED_SENDING.unpack_from(packed, at)
        whispers, end = _unpack_whispers(packed, at + _PACKED_SENDING.size)
        return Sending(OwnExchangeKey.restore(secret, public), SendingChain(key, number), whispers), end
    if state in (_FIRST_STEP_DUE, _STEP_DUE):
        _, public, previous_length = _PACKED_STEP_DUE.unpack_from(packed, at)
        peer, end = PeerExchangeKey(public), at + _PACKED_STEP_DUE.size
        if state == _FIRST_STEP_DUE:
            return StepDue(peer, previous_length, None), end
        whispers, end = _unpack_whispers(packed, end)
        return StepDue(peer, previous_length, whispers), end
    if state == _UNANSWERED:
        _, secret, public = _PACKED_UNANSWERED.unpack_from(packed, at)
        return Unanswered(OwnExchangeKey.restore(secret, public)), at + _PACKED_UNANSWERED.size
    raise CryptoRefusal(Reason.BAD_RECORD, "the packed session's sending half is in no known state")


def _unpack_whispers(packed: bytes, at: int) -> tuple[Whispers, int]:
    route, head, epoch, key, number = _PACKED_WHISPERS.unpack_from(packed, at)
    return Whispers(Route(route), head, epoch, SendingChain(key, number)), at + _PACKED_WHISPERS.size


def unpack_receiving(packed: bytes, at: int) -> tuple[ReceivingHalf, int]:
    """The same for the receiving half."""
    (state,) = _PACKED_KIND.unpack_from(packed, at)
    if state == _NOTHING_RECEIVED:
        return NothingReceived(), at + _PACKED_KIND.size
    if state != _RECEIVING:
        raise CryptoRefusal(Reason.BAD_RECORD, "the packed session's receiving half is in no known state")
    _, nth, head, epoch, route, key, number, ahead, whisper_key, whisper_number = _PACKED_RECEIVING.unpack_from(
        packed, at
    )
    chains = ReceivingChain(key, number), ReceivingChain(whisper_key, whisper_number)
    receiving = Receiving(nth, head, epoch, Route(route), chains[0], ahead, chains[1])
    return receiving, at + _PACKED_RECEIVING.size
