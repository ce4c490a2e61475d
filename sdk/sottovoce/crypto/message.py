"""The layout of every message after the first, and the keys by which its chain is found: header key and tag key.

A pairwise chain and a group chain look the same from outside. Here stands what they share; what the 44 bytes of a
header say, and which message key opens a body, is decided in `ratchet` and `sender_key`. Spec: message.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from . import primitives
from .errors import CryptoRefusal, Reason
from .message_key import MessageKey
from .primitives import KEY_LENGTH, NONCE_LENGTH, TAG_LENGTH, AeadKey

KIND_MESSAGE: Final = 0x01
ROUTING_TAG_LENGTH: Final = 8
HEADER_LENGTH: Final = 44
_NONCE_AT: Final = 1 + ROUTING_TAG_LENGTH
_HEADER_AT: Final = _NONCE_AT + NONCE_LENGTH
#: kind ‖ tag ‖ r ‖ encrypted header: what the body's associated data ends with.
HEAD_LENGTH: Final = _HEADER_AT + HEADER_LENGTH + TAG_LENGTH
#: The smallest padded body and its AEAD tag follow the head.
SHORTEST: Final = HEAD_LENGTH + 256 + TAG_LENGTH

_KIND: Final = bytes([KIND_MESSAGE])
#: Messages of one chain, and ephemeral ones beside it. Two random nonces under their header key meet with < 2^-55.
MAX_CHAIN: Final = 2**20

#: Makes a tuple of a type without the constructor that `NamedTuple` writes, which takes nearly twice as long: for those
#: of which every message needs one or more.
new_tuple: Final = tuple.__new__

_TAG_INPUT: Final = struct.Struct(">?11xI").pack
#: A chain's first tags in order, and the first of its ephemeral ones behind them, are made together: they come and go
#: with each turn of a conversation.
_FIRST: Final = 12
_FIRST_INPUTS: Final = b"".join(_TAG_INPUT(domain, number) for domain in (False, True) for number in range(_FIRST))
_FIRST_TAGS: Final = struct.Struct(2 * _FIRST * "8s8x").unpack


class Expected(NamedTuple):
    """What a routing tag announces: message `number` of a peer's chain. Chains count 1, 2, 3 … within a session."""

    chain: int
    number: int
    is_ephemeral: bool = False


class Route:
    """How the messages of one chain are found: by tag, and if that is out of sight by header. Its keys are 64 bytes:
    header key ‖ tag key.

    The tag key is a PRF key and nothing else, the header key an AEAD key and nothing else.
    """

    __slots__ = ("_first", "_prf", "header_key", "keys")

    LENGTH: Final = 2 * KEY_LENGTH

    def __init__(self, keys: bytes) -> None:
        self.keys: Final = keys
        self.header_key: Final = AeadKey(keys[:KEY_LENGTH])
        self._prf: Callable[[bytes], bytes] | None = None  # made when it is first used
        self._first: tuple[bytes, ...] = ()  # the first tags: the same

    def _make_prf(self) -> Callable[[bytes], bytes]:
        self._prf = primitives.block_prf(self.keys[KEY_LENGTH:])
        return self._prf

    def tag(self, number: int, *, is_ephemeral: bool = False) -> bytes:
        """The routing tag of message `number`: AES-256(TK, 0 or 1 ‖ 0^11 ‖ n)[:8], 1 for the ephemeral chain."""
        prf = self._prf or self._make_prf()
        return prf(_TAG_INPUT(is_ephemeral, number))[:ROUTING_TAG_LENGTH]

    def tags(self, first: int, end: int, *, is_ephemeral: bool = False) -> list[bytes]:
        """The tags of messages `first` to `end` - 1, as far as a chain may go."""
        prf = self._prf or self._make_prf()
        if end <= _FIRST:
            self._first = self._first or _FIRST_TAGS(prf(_FIRST_INPUTS))
            start = _FIRST * is_ephemeral
            return list(self._first[start + first : start + end])
        numbers = range(first, min(end, MAX_CHAIN))
        blocks = prf(b"".join([_TAG_INPUT(is_ephemeral, number) for number in numbers]))
        return [blocks[at : at + ROUTING_TAG_LENGTH] for at in range(0, len(blocks), 16)]

    def announce(self, chain: int, first: int, end: int, *, is_ephemeral: bool = False) -> list[tuple[bytes, Expected]]:
        """The same, each with what it announces on this chain, the `chain`-th."""
        if first + 1 == end <= MAX_CHAIN:  # for each message in its turn: a third of the time
            return [(self.tag(first, is_ephemeral=is_ephemeral), Expected(chain, first, is_ephemeral))]
        tags = self.tags(first, end, is_ephemeral=is_ephemeral)
        return [(tag, new_tuple(Expected, (chain, number, is_ephemeral))) for number, tag in enumerate(tags, first)]

    def seal(
        self,
        tag: bytes,
        header: bytes,
        message_key: MessageKey,
        context: bytes,
        padded: bytes,
        nonce: bytes | None = None,
    ) -> bytes:
        """A whole message: 0x01 ‖ tag (8) ‖ r (12) ‖ AEAD of `header` (44 + 16) ‖ AEAD of `padded` (+ 16).

        r is random and the nonce of both; a group message's signature covers it, so it may be drawn before, for this
        one message, by `new_nonce`. `context` (32), the session or chain id, is authenticated with the body.
        """
        nonce = nonce or new_nonce()
        start = _KIND + tag
        head = start + nonce + self.header_key.encrypt(nonce, header, start)
        return head + message_key.encrypt(nonce, padded, context + head)

    def open_header(self, message: bytes) -> bytes:
        """The header (44) of a message of this chain. Raises CryptoRefusal (NOT_AUTHENTIC)."""
        return self.header_key.decrypt(
            message[_NONCE_AT:_HEADER_AT], message[_HEADER_AT:HEAD_LENGTH], message[:_NONCE_AT]
        )


def new_nonce() -> bytes:
    """r (12): random, for one message."""
    return primitives.random_bytes(NONCE_LENGTH)


def nonce_of(message: bytes) -> bytes:
    """r of a message."""
    return message[_NONCE_AT:_HEADER_AT]


def routing_tag(message: bytes) -> bytes:
    """The tag (8) of a message. Raises CryptoRefusal (MALFORMED) for what is no message."""
    if len(message) < SHORTEST or message[0] != KIND_MESSAGE:
        raise CryptoRefusal(Reason.MALFORMED, "this is not a message")
    return message[1:_NONCE_AT]


def head(message: bytes) -> bytes:
    """The first 81 bytes, which no two messages share: 12 of them are random."""
    return message[:HEAD_LENGTH]


def open_body(message: bytes, message_key: MessageKey, context: bytes) -> bytes:
    """The padded body. Raises CryptoRefusal (NOT_AUTHENTIC)."""
    return message_key.decrypt(message[_NONCE_AT:_HEADER_AT], message[HEAD_LENGTH:], context + message[:HEAD_LENGTH])
