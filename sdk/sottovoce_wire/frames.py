"""The relay protocol's frames: one WebSocket binary message is one frame (spec: relay).

A frame is a MessagePack array: the tag, then every field in the order below. Decoding is strict: an unknown
tag, a missing field, a wrong length, a wrong type or a trailing byte is one WireError that names the rule.
Nothing in a frame is signed or hashed as MessagePack; what is signed travels as opaque bytes.
"""

import enum
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from . import limits
from .errors import Code, WireError
from .ids import EnvelopeId, QueueId, SendKey, SendKeyHash

Bytes16: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes64: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
WireQueueId: TypeAlias = Annotated[QueueId, Meta(min_length=16, max_length=16)]
WireEnvelopeId: TypeAlias = Annotated[EnvelopeId, Meta(min_length=16, max_length=16)]
WireSendKey: TypeAlias = Annotated[SendKey, Meta(min_length=32, max_length=32)]
WireSendKeyHash: TypeAlias = Annotated[SendKeyHash, Meta(min_length=32, max_length=32)]
U32: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
#: Delivery numbers and byte counts: at most 2^53 - 1, which every language's integers hold.
U53: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Detail: TypeAlias = Annotated[str, Meta(max_length=200)]
_T = TypeVar("_T")


@enum.unique
class KeyClass(enum.IntEnum):
    """What a send key is for; it decides the quota (spec: relay, send keys)."""

    STRANGER = 1
    INVITE = 2
    CONTACT = 3
    GROUP = 4


@enum.unique
class Ttl(enum.IntEnum):
    """The five times to live. A free choice would be a fingerprint of the conversation."""

    HOUR = 1
    SIX_HOURS = 2
    DAY = 3
    WEEK = 4
    MONTH = 5

    @property
    def seconds(self) -> int:
        """How long a relay keeps the envelope."""
        return _TTL_SECONDS[self]


_TTL_SECONDS: Final = {
    Ttl.HOUR: limits.HOUR,
    Ttl.SIX_HOURS: 6 * limits.HOUR,
    Ttl.DAY: limits.DAY,
    Ttl.WEEK: 7 * limits.DAY,
    Ttl.MONTH: 30 * limits.DAY,
}


@enum.unique
class GapReason(enum.IntEnum):
    """Why envelopes that were accepted will never be delivered."""

    EXPIRED = 1


class Part(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """A piece of a frame: an array without a tag."""


class Frame(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """One message on the connection: an array whose first element is the tag."""


# --- What a client says -------------------------------------------------------------------------------------


class Hello(Frame, frozen=True, tag=1):
    """The first frame of every connection: the protocol versions that the client speaks."""

    versions: Annotated[list[U32], Meta(min_length=1, max_length=16)]


class NewSendKey(Part, frozen=True):
    """A send key as its relay stores it."""

    key_hash: WireSendKeyHash
    key_class: KeyClass


class CreateQueue(Frame, frozen=True, tag=2):
    """Create the queue of this owner key, prove it, and give it its first send keys.

    `signature` covers `records.owner_challenge(...)`. Saying it again for a queue that exists proves it and adds
    the keys that are missing: a client that died before the answer just repeats it.
    """

    request: U32
    owner_key: Bytes32
    signature: Bytes64
    send_keys: Annotated[list[NewSendKey], Meta(max_length=limits.MAX_SEND_KEYS)]


class OpenQueue(Frame, frozen=True, tag=3):
    """Prove an existing queue, with the same signature as CreateQueue."""

    request: U32
    owner_key: Bytes32
    signature: Bytes64


class AddSendKey(Frame, frozen=True, tag=4):
    """Add a send key to a proven queue. Adding one that is there already changes nothing."""

    request: U32
    queue: WireQueueId
    key: NewSendKey


class RevokeSendKey(Frame, frozen=True, tag=5):
    """Take a send key away: from the answer on, nothing more is accepted under it."""

    request: U32
    queue: WireQueueId
    key_hash: WireSendKeyHash


class Receive(Frame, frozen=True, tag=6):
    """Start delivery from a proven queue, with at most this much unacknowledged at a time."""

    request: U32
    queue: WireQueueId
    count: Annotated[int, Meta(ge=1, le=limits.MAX_UNACKNOWLEDGED)]
    size: Annotated[int, Meta(ge=limits.MAX_ENVELOPE, le=limits.MAX_UNACKNOWLEDGED_BYTES)]


class Ack(Frame, frozen=True, tag=7):
    """These deliveries of this connection are safely stored: all up to `upto`, and `singles` beyond it."""

    queue: WireQueueId
    upto: U53
    singles: Annotated[list[U53], Meta(max_length=limits.MAX_UNACKNOWLEDGED)]


class SendItem(Part, frozen=True):
    """One envelope for one queue."""

    queue: WireQueueId
    send_key: WireSendKey
    envelope_id: WireEnvelopeId
    ttl: Ttl
    body: Annotated[bytes, Meta(min_length=1)]

    def __repr__(self) -> str:
        return "SendItem(…)"


class Send(Frame, frozen=True, tag=8):
    """A batch of envelopes; the answer has one result for each, in the same order."""

    request: U32
    items: Annotated[list[SendItem], Meta(min_length=1, max_length=limits.MAX_SEND_ITEMS)]


class Ping(Frame, frozen=True, tag=9):
    """A heartbeat."""

    number: U32


ClientFrame: TypeAlias = Hello | CreateQueue | OpenQueue | AddSendKey | RevokeSendKey | Receive | Ack | Send | Ping


# --- What a relay says --------------------------------------------------------------------------------------


class Welcome(Frame, frozen=True, tag=64):
    """The answer to Hello: the version chosen, the nonce that owners sign, and this relay's limits."""

    version: U32
    nonce: Bytes32
    max_envelope: U32
    max_frame: U32
    max_items: U32


class Done(Frame, frozen=True, tag=65):
    """The request was carried out, durably."""

    request: U32


class Failed(Frame, frozen=True, tag=66):
    """The request was not carried out; the connection goes on."""

    request: U32
    code: Code
    detail: Detail


class Delivery(Part, frozen=True):
    """One envelope. Numbers count 1, 2, 3 … for each queue of a connection and mean nothing on another."""

    number: U53
    key_class: KeyClass
    body: Annotated[bytes, Meta(min_length=1, max_length=limits.MAX_ENVELOPE)]


class Deliver(Frame, frozen=True, tag=67):
    """Envelopes of a queue, in the order in which they were accepted."""

    queue: WireQueueId
    items: Annotated[list[Delivery], Meta(min_length=1, max_length=limits.MAX_UNACKNOWLEDGED)]


class Acked(Frame, frozen=True, tag=68):
    """The acknowledged envelopes are gone from the relay's database."""

    queue: WireQueueId
    upto: U53
    singles: Annotated[list[U53], Meta(max_length=limits.MAX_UNACKNOWLEDGED)]


class CaughtUp(Frame, frozen=True, tag=69):
    """All that waited when delivery started has been delivered and acknowledged. Said once."""

    queue: WireQueueId


class Gap(Frame, frozen=True, tag=70):
    """So many envelopes were accepted and will not be delivered. Said once for each of them."""

    queue: WireQueueId
    count: U53
    reason: GapReason


class SendResult(Part, frozen=True):
    """ACCEPTED, or why not, and for QUEUE_FULL and TRY_AGAIN when to try again (milliseconds from now)."""

    code: Code
    retry_after_ms: U32


class SendResults(Frame, frozen=True, tag=71):
    """One result for each item of a Send, in its order. ACCEPTED is said after the commit."""

    request: U32
    results: Annotated[list[SendResult], Meta(min_length=1, max_length=limits.MAX_SEND_ITEMS)]


class Pong(Frame, frozen=True, tag=72):
    """The answer to Ping."""

    number: U32


class Goodbye(Frame, frozen=True, tag=73):
    """The last frame of a connection: why the relay closes it."""

    code: Code
    detail: Detail


RelayFrame: TypeAlias = Welcome | Done | Failed | Deliver | Acked | CaughtUp | Gap | SendResults | Pong | Goodbye

_encoder: Final = msgspec.msgpack.Encoder()
_client_decoder: Final[msgspec.msgpack.Decoder[ClientFrame]] = msgspec.msgpack.Decoder(ClientFrame)
_relay_decoder: Final[msgspec.msgpack.Decoder[RelayFrame]] = msgspec.msgpack.Decoder(RelayFrame)

#: How msgspec words each rule. tests/sottovoce_wire/test_frames.py holds it to them.
_RULES: Final = (
    ("trailing characters", Code.TRAILING_BYTES, "bytes follow the frame"),
    ("Invalid value", Code.UNKNOWN_TAG, "no such frame, or no such value of an enumeration"),
    ("Invalid enum value", Code.UNKNOWN_TAG, "no such frame, or no such value of an enumeration"),
    ("of at least length", Code.MISSING_FIELD, "a field is missing"),
    ("of at most length", Code.WRONG_LENGTH, "more fields or items than the frame has"),
    ("of length", Code.WRONG_LENGTH, "a field has the wrong length"),
)


def encode(frame: ClientFrame | RelayFrame) -> bytes:
    """The frame's bytes. Fields are not checked again: the types are the promise."""
    return _encoder.encode(frame)


def decode_client_frame(data: bytes) -> ClientFrame:
    """Parse what a client sent, at most MAX_FRAME bytes. Raises WireError."""
    return _decode(_client_decoder, data)


def decode_relay_frame(data: bytes) -> RelayFrame:
    """Parse what a relay sent, at most MAX_FRAME bytes. Raises WireError."""
    return _decode(_relay_decoder, data)


def _decode(decoder: msgspec.msgpack.Decoder[_T], data: bytes) -> _T:
    if len(data) > limits.MAX_FRAME:
        raise WireError(Code.FRAME_TOO_LARGE, f"a frame has at most {limits.MAX_FRAME} bytes")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _explain(str(error)) from None


def _explain(text: str) -> WireError:
    for words, code, detail in _RULES:
        if words in text:
            return WireError(code, detail)
    return WireError(Code.MALFORMED, "the bytes are not a frame")
