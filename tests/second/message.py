"""message.md: how a message looks, its tag, its header and its body. No chains and no state."""

from functools import lru_cache
from typing import NamedTuple

import nacl.bindings as sodium

from . import aes_gcm, padding
from .refusal import RefusedError

END = 2**20


class Route(NamedTuple):
    """HK and TK of a chain."""

    header_key: bytes
    tag_key: bytes


class Announced(NamedTuple):
    """What a tag announces."""

    chain: int
    number: int
    is_ephemeral: bool


@lru_cache(maxsize=20_000)
def _run(tag_key: bytes, nth: int, is_ephemeral: bool) -> bytes:
    """Remembered, because every state of a session asks for nearly the same ones."""
    return sodium.crypto_generichash_blake2b_salt_personal(bytes([is_ephemeral]) + nth.to_bytes(4, "big"), 64, tag_key)


def tag(route: Route, n: int, *, is_ephemeral: bool = False) -> bytes:
    """The routing tag of message n."""
    part = 8 * (n % 8)
    return _run(route.tag_key, n // 8, is_ephemeral)[part : part + 8]


def window(route: Route, chain: int, span: range, *, is_ephemeral: bool = False) -> dict[bytes, Announced]:
    """The tags of these numbers of a chain; none from 2^20 on."""
    numbers = range(span.start, min(span.stop, END))
    return {tag(route, n, is_ephemeral=is_ephemeral): Announced(chain, n, is_ephemeral) for n in numbers}


def moved(next_number: int, ahead: int, n: int, *, begins: bool) -> tuple[int, int]:
    """(next', ahead') after message n in order of a chain; `begins` if it is the first of a new chain."""
    following = n + 1
    if n == next_number and not begins:
        return following, min(ahead + 8, END) if ahead < following + 32 else ahead
    return following, max(ahead, silent(following))


def silent(next_number: int) -> int:
    """Up to where tags are known of a chain that goes on after a gap."""
    return min(8 * -(-(next_number + 7) // 8), END)


def seal(
    route: Route, message_key: bytes, start_tag: bytes, r: bytes, header: bytes, context: bytes, p: bytes
) -> bytes:
    """A whole message, with `p` as its padded body."""
    start = b"\x01" + start_tag
    head = start + r + aes_gcm.encrypt(route.header_key, r, header, start)
    return head + aes_gcm.encrypt(message_key, r, p, context + head)


def check_layout(message: bytes) -> None:
    """The kind and the shortest length."""
    if len(message) < 353 or message[0] != 1:
        raise RefusedError("malformed")


def open_header(header_key: bytes, message: bytes) -> bytes:
    """The header of a message of this chain."""
    return aes_gcm.decrypt(header_key, message[9:21], message[21:81], message[:9])


def open_body(message_key: bytes, message: bytes, context: bytes) -> bytes:
    """What is in the body, without the padding."""
    return padding.unpad(aes_gcm.decrypt(message_key, message[9:21], message[81:], context + message[:81]))
