"""The layout of every message after the first, and the keys by which its chain is found: header key and tag key.

A pairwise chain and a group chain look the same from outside. Here stands what they share; what the 44 bytes of a
header say, and which message key opens a body, is decided in `ratchet` and `sender_key`. Spec: message.
"""

import itertools
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from sottovoce_wire import padding
from sottovoce_wire.errors import WireError

from . import primitives
from .errors import CryptoRefusal, Reason
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

#: r of a message.
NONCE: Final = slice(_NONCE_AT, _HEADER_AT)
_KIND: Final = bytes([KIND_MESSAGE])
#: kind ‖ tag, r, encrypted header.
_HEAD: Final = struct.Struct(f"{_NONCE_AT}s{NONCE_LENGTH}s{HEADER_LENGTH + TAG_LENGTH}s").unpack_from
#: Messages of one chain, and ephemeral ones beside it. Two random nonces under their header key meet with < 2^-55.
MAX_CHAIN: Final = 2**20

#: Makes a tuple of a type without the constructor that `NamedTuple` writes, which takes nearly twice as long: for those
#: of which every message needs one or more.
new_tuple: Final = tuple.__new__

#: One hash makes the tags of eight messages in a row: windows grow by as many.
RUN: Final = 8
#: While fewer tags than this lie ahead, each message in its turn adds a run.
LOOK_AHEAD_LIVE: Final = 32
_RUN_INPUT: Final = struct.Struct(">?I").pack
_RUN_TAGS: Final = struct.Struct(RUN * f"{ROUTING_TAG_LENGTH}s").unpack
#: Before any is made.
_NO_RUN: Final[tuple[int, tuple[bytes, ...]]] = (-1, ())


def silent_end(number: int) -> int:
    """Up to where tags are known of a chain whose next message is `number`, if it is the first or others were skipped:
    to the end of a run, 7 to 14 messages on."""
    return min((number + 2 * RUN - 2) // RUN * RUN, MAX_CHAIN)


def grown(ahead: int) -> int:
    """Up to where they are known once one run more is."""
    return min(ahead + RUN, MAX_CHAIN)


class Expected(NamedTuple):
    """What a routing tag announces: message `number` of a peer's chain. Chains count 1, 2, 3 … within a session."""

    chain: int
    number: int
    is_ephemeral: bool = False


class Window(NamedTuple):
    """A run of routing tags (8 each): the one at place i announces message `first` + i of a peer's chain. A few dozen
    at most."""

    tags: Sequence[bytes]
    chain: int
    first: int
    is_ephemeral: bool = False

    def find(self, tag: bytes) -> Expected:
        """What one of these tags announces."""
        tags, chain, first, is_ephemeral = self
        return new_tuple(Expected, (chain, first + tags.index(tag), is_ephemeral))


class Route:
    """How the messages of one chain are found: by tag, and if that is out of sight by header. Its keys are 64 bytes:
    header key ‖ tag key.

    The tag key is a PRF key and nothing else, the header key an AEAD key and nothing else.
    """

    __slots__ = ("_ephemeral", "_in_order", "_tag_key", "header_key", "keys")

    LENGTH: Final = 2 * KEY_LENGTH

    def __init__(self, keys: bytes) -> None:
        self.keys: Final = keys
        self.header_key: Final = AeadKey(keys[:KEY_LENGTH])
        self._tag_key: Final = keys[KEY_LENGTH:]
        self._in_order = self._ephemeral = _NO_RUN  # the last that was made of each domain

    def _run(self, nth: int, is_ephemeral: bool) -> tuple[bytes, ...]:
        """The tags of messages 8·nth to 8·nth + 7."""
        known, tags = self._ephemeral if is_ephemeral else self._in_order
        if known != nth:
            tags = _RUN_TAGS(primitives.keyed_hash(self._tag_key, _RUN_INPUT(is_ephemeral, nth)))
            if is_ephemeral:
                self._ephemeral = nth, tags
            else:
                self._in_order = nth, tags
        return tags

    def tag(self, number: int, *, is_ephemeral: bool = False) -> bytes:
        """The routing tag of message `number`: BLAKE2b under TK makes those of eight at once."""
        return self._run(number // RUN, is_ephemeral)[number % RUN]

    def tags(self, first: int, end: int, *, is_ephemeral: bool = False) -> tuple[bytes, ...]:
        """The tags of messages `first` to `end` - 1, as far as a chain may go."""
        run, start = first // RUN, first % RUN
        size = min(end, MAX_CHAIN) - first
        if size <= 0:
            return ()
        if start + size <= RUN:
            tags = self._run(run, is_ephemeral)
            return tags if size == RUN else tags[start : start + size]
        runs = [self._run(nth, is_ephemeral) for nth in range(run, (first + size - 1) // RUN + 1)]
        return tuple(itertools.chain(*runs))[start : start + size]

    def announce(self, chain: int, first: int, end: int, *, is_ephemeral: bool = False) -> Window:
        """The same, as those of a session's `chain`-th chain."""
        return new_tuple(Window, (self.tags(first, end, is_ephemeral=is_ephemeral), chain, first, is_ephemeral))

    def seal(
        self,
        tag: bytes,
        header: bytes,
        message_key: bytes,
        context: bytes,
        padded: bytes,
        nonce: bytes | None = None,
    ) -> bytes:
        """A whole message: 0x01 ‖ tag (8) ‖ r (12) ‖ AEAD of `header` (44 + 16) ‖ AEAD of `padded` (+ 16).

        `message_key` (32) is used for this message alone. r is random and the nonce of both all the same: a store that
        was restored from an old copy may use a number twice, and then two messages share a key but not a nonce. A group
        message's signature covers r, so it may be drawn before, for this one message, by `new_nonce`. `context` (32),
        the session or chain id, is authenticated with the body.
        """
        nonce = nonce or new_nonce()
        start = _KIND + tag
        head = start + nonce + self.header_key.encrypt(nonce, header, start)
        return head + primitives.encrypt(message_key, nonce, padded, context + head)

    def open_header(self, message: bytes) -> bytes:
        """The header (44) of a message of this chain. Raises CryptoRefusal (NOT_AUTHENTIC, MALFORMED)."""
        try:
            start, nonce, sealed = _HEAD(message)
        except struct.error:
            raise _not_a_message() from None
        return self.header_key.decrypt(nonce, sealed, start)


def new_nonce() -> bytes:
    """r (12): random, for one message."""
    return primitives.random_bytes(NONCE_LENGTH)


def routing_tag(message: bytes) -> bytes:
    """The tag (8) of a message. Raises CryptoRefusal (MALFORMED) for what is no message."""
    if len(message) < SHORTEST or message[0] != KIND_MESSAGE:
        raise _not_a_message()
    return message[1:_NONCE_AT]


def _not_a_message() -> CryptoRefusal:
    return CryptoRefusal(Reason.MALFORMED, "this is not a message")


def head(message: bytes) -> bytes:
    """The first 81 bytes, which no two messages share: 12 of them are random."""
    return message[:HEAD_LENGTH]


def open_body(message: bytes, message_key: bytes, context: bytes) -> bytes:
    """The body without its padding. Raises CryptoRefusal (NOT_AUTHENTIC, MALFORMED)."""
    padded = primitives.decrypt(message_key, message[NONCE], message[HEAD_LENGTH:], context + message[:HEAD_LENGTH])
    try:
        return padding.unpad(padded)
    except WireError as error:
        raise CryptoRefusal(Reason.MALFORMED, error.detail) from None
