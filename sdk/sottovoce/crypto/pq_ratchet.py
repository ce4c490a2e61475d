"""The sparse post-quantum ratchet: ML-KEM-768 in fragments that ride inside padded bodies.

Here stands what travels, what is collected, and when an epoch opens. Where its secret is mixed in is `ratchet`'s
business. States never change; each call gives the next one, so that a message that is refused leaves none behind.
Spec: post-quantum ratchet.

The initiator of the session sends an encapsulation key, the responder encapsulates once and sends the ciphertext. The
side that decapsulated mixes at its next sending half, and names the epoch in the header: the other side has held the
secret since before the ciphertext left, so that loss delays an epoch and wedges nothing.
"""

import struct
from typing import Final, NamedTuple, TypeAlias

from sottovoce_wire import labels, limits

from . import primitives
from .errors import CryptoRefusal, Reason
from .message import new_tuple
from .primitives import ML_KEM_768_CIPHERTEXT_LENGTH, ML_KEM_768_PUBLIC_LENGTH, OwnKemKey, PeerKemKey

#: Messages, of both directions, and seconds after which the next epoch opens.
EPOCH_MESSAGES: Final = 50
EPOCH_SECONDS: Final = limits.DAY
#: Bytes of one block. Key (37 blocks) and ciphertext (34) are whole numbers of it.
BLOCK: Final = 32

_FIELD: Final = struct.Struct(">BIB")
#: What a fragment costs besides its blocks: their number, the epoch, the first block's place.
FIELD_LENGTH: Final = _FIELD.size


class Fragment(NamedTuple):
    """Some blocks of a key or ciphertext of the epoch that is being agreed."""

    epoch: int
    first: int
    data: bytes

    @classmethod
    def read(cls, field: bytes) -> "Fragment":
        """What a field says that is not NO_FRAGMENT."""
        _, epoch, first = _FIELD.unpack_from(field)
        return new_tuple(cls, (epoch, first, field[FIELD_LENGTH:]))


#: The field that every body begins with is this byte, or blocks u8 ‖ epoch u32 ‖ first u8 ‖ 32 bytes for each block.
NO_FRAGMENT: Final = b"\x00"


def split(content: bytes) -> tuple[bytes, bytes]:
    """The field, and the body behind it. Raises CryptoRefusal (MALFORMED)."""
    if not content:
        raise CryptoRefusal(Reason.MALFORMED, "the body has no fragment field")
    if not content[0]:
        return NO_FRAGMENT, content[1:]
    end = FIELD_LENGTH + content[0] * BLOCK
    if len(content) < end:
        raise CryptoRefusal(Reason.MALFORMED, "the body is shorter than its fragment field")
    return content[:end], content[end:]


class Collected(NamedTuple):
    """A key or ciphertext that arrives in blocks, in any order: `have` is a bit for each block that is there."""

    have: int
    data: bytes

    @classmethod
    def empty(cls, length: int) -> "Collected":
        """Nothing of `length` bytes yet."""
        return cls(0, bytes(length))

    @property
    def is_complete(self) -> bool:
        """Whether every block is there."""
        return self.have == (1 << len(self.data) // BLOCK) - 1

    def take(self, fragment: Fragment) -> "Collected":
        """With the fragment's blocks. Raises CryptoRefusal (MALFORMED) beyond the end."""
        (have, data), (_, first, blocks) = self, fragment
        start = first * BLOCK
        end = start + len(blocks)
        if end > len(data):
            raise CryptoRefusal(Reason.MALFORMED, "a fragment lies beyond the end")
        have |= ((1 << len(blocks) // BLOCK) - 1) << first
        return new_tuple(Collected, (have, data[:start] + blocks + data[end:]))


class Sending:
    """A key or ciphertext that is sent round and round until the other side shows that it has it. It moves with every
    message that is sent, which nothing can refuse."""

    __slots__ = ("cursor", "data", "since")

    def __init__(self, data: bytes, cursor: int, since: int) -> None:
        self.data: Final = data
        self.cursor = cursor
        self.since = since  # unix seconds since when it is under way, or was last sent whole

    def next(self, epoch: int, room: int, now: int) -> bytes:
        """A field with the blocks from the cursor on that fit `room` bytes; after 24 hours with all of them."""
        data, cursor = self.data, self.cursor
        blocks = len(data) // BLOCK
        if now - self.since >= EPOCH_SECONDS:
            self.cursor, self.since = 0, now
            return _FIELD.pack(blocks, epoch, 0) + data
        end = cursor + (room - FIELD_LENGTH + 1) // BLOCK
        if end <= cursor:
            return NO_FRAGMENT
        if end >= blocks:
            end, self.cursor = blocks, 0
        else:
            self.cursor = end
        return _FIELD.pack(end - cursor, epoch, cursor) + data[cursor * BLOCK : end * BLOCK]


# The initiator is in one of three states, the responder in one of two. They are tuples because one is made for every
# message.


class Resting(NamedTuple):
    """Initiator: the present epoch is in use since then (unix seconds)."""

    since: int


class Offering(NamedTuple):
    """Initiator: its encapsulation key is under way, or the ciphertext in answer to it."""

    own: OwnKemKey
    sending: Sending
    answer: Collected

    def __repr__(self) -> str:
        return "Offering(…)"


class Due(NamedTuple):
    """Initiator: it has the secret (32), and mixes it in at its next sending half."""

    secret: bytes

    def __repr__(self) -> str:
        return "Due(…)"


class Waiting(NamedTuple):
    """Responder: it collects the encapsulation key."""

    key: Collected


class Answering(NamedTuple):
    """Responder: it holds the secret (32), and sends the ciphertext until a header names the epoch."""

    secret: bytes
    sending: Sending

    def __repr__(self) -> str:
        return "Answering(…)"


State: TypeAlias = Resting | Offering | Due | Waiting | Answering
_COLLECTING: Final = (Offering, Waiting)


def begin(now: int, *, is_initiator: bool) -> State:
    """The state at the beginning of an epoch, that of the handshake (0) included."""
    return Resting(now) if is_initiator else Waiting(Collected.empty(ML_KEM_768_PUBLIC_LENGTH))


def give(state: State, epoch: int, messages: int, room: int, now: int) -> tuple[bytes, State]:
    """The field of a message with `room` free bytes in its size class, and the next state. `epoch`: the present one,
    in which there were so many `messages`."""
    if isinstance(state, Resting):
        if messages < EPOCH_MESSAGES and now - state.since < EPOCH_SECONDS:
            return NO_FRAGMENT, state
        key = OwnKemKey.generate()
        state = Offering(key, Sending(key.public, 0, now), Collected.empty(ML_KEM_768_CIPHERTEXT_LENGTH))
    if isinstance(state, Answering) or (isinstance(state, Offering) and not state.answer.have):
        return state.sending.next(epoch + 1, room, now), state
    return NO_FRAGMENT, state  # a block of the answer shows that the key has arrived


def take(state: State, epoch: int, field: bytes, now: int) -> State:
    """The next state after a message with this field that has proven authentic. Raises CryptoRefusal (MALFORMED,
    BAD_KEY)."""
    if field == NO_FRAGMENT or not isinstance(state, _COLLECTING):
        return state
    fragment = Fragment.read(field)
    if fragment.epoch != epoch + 1:
        return state  # late: of an epoch that is agreed
    if isinstance(state, Offering):
        answer = state.answer.take(fragment)
        if not answer.is_complete:
            return new_tuple(Offering, (state.own, state.sending, answer))
        return Due(_secret(state.own.decapsulate(answer.data), state.sending.data, answer.data))
    key = state.key.take(fragment)
    if not key.is_complete:
        return Waiting(key)
    shared, ciphertext = PeerKemKey(key.data).encapsulate()
    return Answering(_secret(shared, key.data, ciphertext), Sending(ciphertext, 0, now))


def _secret(shared: bytes, key: bytes, ciphertext: bytes) -> bytes:
    """The epoch's secret, bound to all that travelled for it."""
    return primitives.hkdf_sha256(shared, labels.PQ_EPOCH + primitives.sha256(key, ciphertext), 32)


# --- The stored form: one byte that says which state, then its fields -------------------------------------------

_RESTING, _OFFERING, _DUE, _WAITING, _ANSWERING = range(1, 6)
_PACKED_RESTING: Final = struct.Struct(">BQ")
_PACKED_OFFERING: Final = struct.Struct(f">B64s{ML_KEM_768_PUBLIC_LENGTH}sBQQ")
_PACKED_DUE: Final = struct.Struct(">B32s")
_PACKED_WAITING: Final = struct.Struct(">BQ")
_PACKED_ANSWERING: Final = struct.Struct(f">B32s{ML_KEM_768_CIPHERTEXT_LENGTH}sBQ")


def pack(state: State) -> bytes:
    """For the encrypted store: 9 to 2,354 bytes."""
    if isinstance(state, Resting):
        return _PACKED_RESTING.pack(_RESTING, *state)
    if isinstance(state, Offering):
        own, sending, answer = state
        start = _PACKED_OFFERING.pack(_OFFERING, own.seed, own.public, sending.cursor, sending.since, answer.have)
        return start + answer.data if answer.have else start
    if isinstance(state, Due):
        return _PACKED_DUE.pack(_DUE, state.secret)
    if isinstance(state, Waiting):
        start = _PACKED_WAITING.pack(_WAITING, state.key.have)
        return start + state.key.data if state.key.have else start
    sending = state.sending
    return _PACKED_ANSWERING.pack(_ANSWERING, state.secret, sending.data, sending.cursor, sending.since)


def unpack(packed: bytes) -> State:
    """Strict inverse of `pack`. Raises CryptoRefusal (BAD_RECORD) or struct.error."""
    kind = packed[0] if packed else 0
    if kind == _RESTING:
        return Resting(*_PACKED_RESTING.unpack(packed)[1:])
    if kind == _DUE:
        return Due(_PACKED_DUE.unpack(packed)[1])
    if kind == _ANSWERING:
        _, secret, ciphertext, cursor, since = _PACKED_ANSWERING.unpack(packed)
        return Answering(secret, _sending(ciphertext, cursor, since))
    if kind == _WAITING:
        _, have = _PACKED_WAITING.unpack_from(packed)
        return Waiting(_collected(have, packed[_PACKED_WAITING.size :], ML_KEM_768_PUBLIC_LENGTH))
    if kind == _OFFERING:
        _, seed, key, cursor, since, have = _PACKED_OFFERING.unpack_from(packed)
        answer = _collected(have, packed[_PACKED_OFFERING.size :], ML_KEM_768_CIPHERTEXT_LENGTH)
        return Offering(OwnKemKey.restore(seed, key), _sending(key, cursor, since), answer)
    raise CryptoRefusal(Reason.BAD_RECORD, "the packed session's post-quantum part is in no known state")


def _sending(data: bytes, cursor: int, since: int) -> Sending:
    if cursor >= len(data) // BLOCK:
        raise CryptoRefusal(Reason.BAD_RECORD, "the packed session's post-quantum part goes on behind its end")
    return Sending(data, cursor, since)


def _collected(have: int, data: bytes, length: int) -> Collected:
    if len(data) != (length if have else 0) or have >> length // BLOCK:
        raise CryptoRefusal(Reason.BAD_RECORD, "the packed session's post-quantum part has the wrong length")
    return Collected(have, data) if have else Collected.empty(length)
