"""What stands inside the ciphertext: a body, with its content (spec: content).

Decoded only after authentication, and strictly all the same: a contact may be hostile.
"""

from enum import IntEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from sottovoce_wire import limits
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import U53, WireQueueId, WireSendKey
from sottovoce_wire.ids import MessageId
from sottovoce_wire.origins import parse_origin

#: Text of one message, in UTF-8 bytes: with everything around it, it still fits one envelope in the largest size class.
MAX_TEXT: Final = 48 * limits.KIB
#: Messages that one receipt names: with a list version and no address it is as long as a short text, once padded.
MAX_RECEIPT: Final = 12

_MessageId: TypeAlias = Annotated[MessageId, Meta(min_length=16, max_length=16)]


class ContactAddress(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Where the sender wants answers: its contact queue, known end to end only."""

    origin: Annotated[str, Meta(max_length=limits.MAX_ORIGIN)]
    queue: WireQueueId
    send_key: WireSendKey

    def __repr__(self) -> str:
        return "ContactAddress(…)"


class Text(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=1):
    """A text message. `sent_at` is the sender's clock in milliseconds since 1970."""

    message_id: _MessageId
    sent_at: U53
    text: str

    def __repr__(self) -> str:
        return "Text(…)"


class Acknowledgement(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=2):
    """Nothing but a sign of life on a session: an answer where the person gives none, or a new handshake's message."""


class ReceiptKind(IntEnum):
    """What a receipt says of its messages. One that was read was delivered."""

    DELIVERED = 1
    READ = 2


class Receipt(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, tag=3):
    """What has become of messages that the recipient sent to the account."""

    kind: ReceiptKind
    message_ids: Annotated[list[_MessageId], Meta(min_length=1, max_length=MAX_RECEIPT)]

    def __repr__(self) -> str:
        return "Receipt(…)"


Content: TypeAlias = Text | Acknowledgement | Receipt


class Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Version and hash (first 8 bytes) of the sender's device list, its contact address if needed, and the content."""

    list_version: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    list_hash: Annotated[bytes, Meta(min_length=8, max_length=8)]
    contact: ContactAddress | None
    content: Content

    def __repr__(self) -> str:
        return "Body(…)"


_decoder: Final[msgspec.msgpack.Decoder[Body]] = msgspec.msgpack.Decoder(Body)


def encode_body(body: Body) -> bytes:
    """The body's MessagePack bytes, before padding and encryption."""
    return msgspec.msgpack.encode(body)


def decode_body(data: bytes) -> Body:
    """Strict inverse of `encode_body`. Raises WireError (MALFORMED) for anything else, also an address that is none."""
    try:
        body = _decoder.decode(data)
        if body.contact is not None and parse_origin(body.contact.origin) != body.contact.origin:
            raise WireError(Code.MALFORMED, "the contact address is not in its canonical form")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, WireError):
        raise WireError(Code.MALFORMED, "the decrypted bytes are not a message body") from None
    return body
