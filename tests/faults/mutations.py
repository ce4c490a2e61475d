"""Damage to what a client says: to the bytes of a message, to the values in it, and to the order of messages.

Pure, and the same for the same random numbers.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

_MAX_INT: Final = 2**64 - 1
#: Values that stand at a limit, have another type, or cost much to parse.
_ODD: Final[tuple[object, ...]] = (
    None, True, False, 0, 1, -1, 2**31, 2**32, 2**53, _MAX_INT, -(2**63), 0.5, "", "x" * 201, b"", bytes(15), bytes(16),
    bytes(17), bytes(32), bytes(64), bytes(65_537), [], [[]], [[[[[[[[]]]]]]]], {}, {"a": 1}, [0] * 300,
)  # fmt: skip
#: MessagePack that claims more than it has, nests deeply, or is of a type that nothing here uses.
_RAW: Final = (
    b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff", b"\x91" * 5000, b"\x81" * 5000, b"\xc7\xff\x01", b"\xd6\xff\x00\x00\x00\x00", b"\x90",
    b"\x91\x90", b"\x91\x92\x09", b"\x91\x92\x09\xcf" + b"\xff" * 8, b"\x00" * 4096, b"\xff" * 4096,
)  # fmt: skip
Mutation: TypeAlias = Callable[[random.Random, bytes], bytes]


def _flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[rng.randrange(len(data)) :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_RAW) + data[at:]


def _replace(rng: random.Random, _data: bytes) -> bytes:
    return rng.choice(_RAW)


def _change_value(rng: random.Random, data: bytes) -> bytes:
    """Put an odd value somewhere in the tree of values, or take one out, or put one twice."""
    try:
        tree = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        tree = None
    if not isinstance(tree, list) or not tree:
        return _flip(rng, data)
    _disturb(rng, tree)
    return msgspec.msgpack.encode(tree)


def _disturb(rng: random.Random, tree: list[Any]) -> None:
    at = rng.randrange(len(tree))
    if isinstance(tree[at], list) and tree[at] and rng.random() < 0.8:
        _disturb(rng, tree[at])
    elif (kind := rng.randrange(4)) == 0:
        del tree[at]
    elif kind == 1:
        tree.insert(at, tree[rng.randrange(len(tree))])
    else:
        tree[at] = rng.choice(_ODD)


_MUTATIONS: Final[Sequence[Mutation]] = (_flip, _cut, _repeat, _insert, _replace, *3 * (_change_value,))


def damaged(rng: random.Random, message: bytes) -> bytes:
    """The message with one to three faults."""
    for _ in range(rng.randint(1, 3)):
        message = rng.choice(_MUTATIONS)(rng, message) if message else rng.choice(_RAW)
    return message


def shuffled(rng: random.Random, messages: Sequence[bytes]) -> list[bytes]:
    """A conversation in which a few messages are damaged, missing, repeated or out of place."""
    said = list(messages)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(said))
        match rng.randrange(6):
            case 0:
                said.insert(at, said.pop(rng.randrange(len(said))))
            case 1:
                said.insert(at, rng.choice(said))
            case 2 if len(said) > 1:
                del said[at]
            case _:
                said[at] = damaged(rng, said[at])
    return said
