"""The relay protocol's frames, and the messages that carry them (spec: relay).

A frame is a MessagePack array: the tag, then every field in the order below. A WebSocket message is an array of frames:
what is ready together travels together. Decoding is strict: an unknown tag, a missing field, a wrong length, a wrong
type or a trailing byte is one WireError that names the rule.
Nothing in a frame is signed or hashed as MessagePack; what is signed travels as opaque bytes.
"""

import enum
from collections.abc import Sequence
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
    """The five times to live, and none. A free choice would be a fingerprint of the conversation."""

    NOW = 0  # ephemeral: delivered to who is connected, or dropped; never stored
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
    Ttl.NOW: 0,
    Ttl.HOUR: limits.HOUR,
    Ttl.SIX_HOURS: 6 * limits.HOUR,
    Ttl.DAY: limits.DAY,
    Ttl.WEEK: 7 * limits.DAY,
    Ttl.MONTH: 30 * limits.DAY,
}


@enum.unique
class GapReason(enum.IntEnum):
    """Why envelopes will never be delivered."""

    EXPIRED = 1  # they were accepted, and nobody took them in time
    QUOTA = 2  # their senders were answered QUEUE_FULL


class Part(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """A piece of a frame: an array without a tag."""


class Frame(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """One thing said on the connection: an array whose first element is the tag."""


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
    the keys that are missing: a client that died before the answer just repeats it. `code` is for a relay that does not
    take everybody, else empty.
    """

    request: U32
    owner_key: Bytes32
    signature: Bytes64
    send_keys: Annotated[list[NewSendKey], Meta(max_length=limits.MAX_SEND_KEYS)]
    code: Annotated[str, Meta(max_length=limits.MAX_REGISTRATION_CODE)]

    def __repr__(self) -> str:
        return f"CreateQueue({self.request}, …)"


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


class Target(Part, frozen=True):
    """One queue that a shared body goes to."""

    queue: WireQueueId
    send_key: WireSendKey
    envelope_id: WireEnvelopeId

    def __repr__(self) -> str:
        return "Target(…)"


class SendMany(Frame, frozen=True, tag=10):
    """One body for many queues; the answer has one result for each target, in the same order."""

    request: U32
    ttl: Ttl
    body: Annotated[bytes, Meta(min_length=1)]
    targets: Annotated[list[Target], Meta(min_length=1, max_length=limits.MAX_TARGETS)]

    def __repr__(self) -> str:
        return f"SendMany({self.request}, …)"


class DemoteSendKey(Frame, frozen=True, tag=11):
    """Give a send key a stranger's quota and a month to live: its holders lose nothing, and are given another."""

    request: U32
    queue: WireQueueId
    key_hash: WireSendKeyHash


class DeleteQueue(Frame, frozen=True, tag=12):
    """Delete a proven queue with all that it holds. It is unknown from the answer on."""

    request: U32
    queue: WireQueueId


ClientFrame: TypeAlias = (
    Hello
    | CreateQueue
    | OpenQueue
    | AddSendKey
    | RevokeSendKey
    | Receive
    | Ack
    | Send
    | Ping
    | SendMany
    | DemoteSendKey
    | DeleteQueue
)


# --- What a relay says --------------------------------------------------------------------------------------


class Welcome(Frame, frozen=True, tag=64):
    """The answer to Hello: the version chosen, the nonce that owners sign, and this relay's limits."""

    version: U32
    nonce: Bytes32
    max_envelope: U32
    max_message: U32
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
    """So many envelopes will not be delivered, and why. Said once for each of them."""

    queue: WireQueueId
    count: U53
    reason: GapReason


class SendResult(Part, frozen=True):
    """ACCEPTED, or why not, and for QUEUE_FULL and TRY_AGAIN when to try again (milliseconds from now)."""

    code: Code
    retry_after_ms: U32


class SendResults(Frame, frozen=True, tag=71):
    """One result for each item of a Send or target of a SendMany, in its order. ACCEPTED is for good."""

    request: U32
    results: Annotated[list[SendResult], Meta(min_length=1, max_length=limits.MAX_TARGETS)]


class Pong(Frame, frozen=True, tag=72):
    """The answer to Ping."""

    number: U32


class Goodbye(Frame, frozen=True, tag=73):
    """The last frame of a connection, in a message of its own: why the relay closes it."""

    code: Code
    detail: Detail


class Passing(Part, frozen=True):
    """One ephemeral envelope: it is not kept, so it has no number and is not acknowledged."""

    key_class: KeyClass
    body: Annotated[bytes, Meta(min_length=1, max_length=limits.MAX_ENVELOPE)]


class DeliverNow(Frame, frozen=True, tag=74):
    """Ephemeral envelopes of a queue."""

    queue: WireQueueId
    items: Annotated[list[Passing], Meta(min_length=1, max_length=limits.MAX_UNACKNOWLEDGED)]


RelayFrame: TypeAlias = (
    Welcome | Done | Failed | Deliver | Acked | CaughtUp | Gap | SendResults | Pong | Goodbye | DeliverNow
)

_Client: TypeAlias = Annotated[list[ClientFrame], Meta(min_length=1, max_length=limits.MAX_FRAMES)]
_Relay: TypeAlias = Annotated[list[RelayFrame], Meta(min_length=1, max_length=limits.MAX_FRAMES)]
_encoder: Final = msgspec.msgpack.Encoder()
_client_decoder: Final[msgspec.msgpack.Decoder[list[ClientFrame]]] = msgspec.msgpack.Decoder(_Client)
_relay_decoder: Final[msgspec.msgpack.Decoder[list[RelayFrame]]] = msgspec.msgpack.Decoder(_Relay)

#: How msgspec words each rule. tests/sottovoce_wire/test_frames.py holds it to them.
_RULES: Final = (
    ("trailing characters", Code.TRAILING_BYTES, "bytes follow the message"),
    ("Invalid value", Code.UNKNOWN_TAG, "no such frame, or no such value of an enumeration"),
    ("Invalid enum value", Code.UNKNOWN_TAG, "no such frame, or no such value of an enumeration"),
    ("of at least length", Code.MISSING_FIELD, "a field is missing"),
    ("of at most length", Code.WRONG_LENGTH, "more fields or items than the frame has"),
    ("of length", Code.WRONG_LENGTH, "a field, or the message, is longer or shorter than it may be"),
)


def encode(frame: ClientFrame | RelayFrame) -> bytes:
    """The frame's bytes, for `join`. Fields are not checked again: the types are the promise."""
    return _encoder.encode(frame)


def join(encoded: Sequence[bytes]) -> bytes:
    """The message that carries these encoded frames, 1 to MAX_FRAMES of them."""
    count = len(encoded)
    head = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return head + b"".join(encoded)


def message(*carried: ClientFrame | RelayFrame) -> bytes:
    """The message that carries these frames."""
    return _encoder.encode(carried)


def decode_client_message(data: bytes) -> list[ClientFrame]:
    """Parse what a client sent, at most MAX_MESSAGE bytes. Raises WireError."""
    return _decode(_client_decoder, data)


def decode_relay_message(data: bytes) -> list[RelayFrame]:
    """Parse what a relay sent, at most MAX_MESSAGE bytes. Raises WireError."""
    return _decode(_relay_decoder, data)


def _decode(decoder: msgspec.msgpack.Decoder[_T], data: bytes) -> _T:
    if len(data) > limits.MAX_MESSAGE:
        raise WireError(Code.FRAME_TOO_LARGE, f"a message has at most {limits.MAX_MESSAGE} bytes")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _explain(str(error)) from None


def _explain(text: str) -> WireError:
    for words, code, detail in _RULES:
        if words in text:
            return WireError(code, detail)
    return WireError(Code.MALFORMED, "the bytes are not a message")
