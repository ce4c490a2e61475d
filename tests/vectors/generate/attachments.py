"""Vectors of attachments.md: pointers, and containers that are read from the start or in a range."""

import hashlib
from collections.abc import Sequence

from sottovoce.crypto.attachment import Pointer, padded_size
from sottovoce.crypto.errors import Reason
from tests.second.attachments import make_container
from tests.vectors.form import Value

from .build import HEX, NUMBER, OPTIONAL_NUMBER, Construction, Group, Test, Type, invalid, valid
from .cast import flipped, stream

POINTER = Type("pointer", {}, {"pointer": HEX}, {"size": NUMBER, "paddedSize": NUMBER, "containerSize": NUMBER})
#: The container is that of the group, cut to `length` bytes, with the lowest bit of the byte `flipped` turned, and
#: `tail` behind it.
ATTACHMENT = Type(
    "attachment",
    {"container": HEX},
    {"pointer": HEX, "length": NUMBER, "flipped": OPTIONAL_NUMBER, "tail": HEX},
    {"content": HEX},
)
#: The content from `start` to `end`; the server gives of the container only what is there.
ATTACHMENT_RANGE = Type(
    "attachmentRange",
    {"container": HEX},
    {
        "pointer": HEX,
        "start": NUMBER,
        "end": NUMBER,
        "length": NUMBER,
        "flipped": OPTIONAL_NUMBER,
        "tail": HEX,
    },
    {"content": HEX},
)
_KEY, _DIGEST = stream("attachment key"), stream("digest")
_CHUNK = 16384


def _pointer(size: int, padded: int, *, tail: bytes = b"") -> bytes:
    return Pointer(_KEY, _DIGEST, size, padded).pack() + tail


def _pointers() -> list[Test]:
    largest = 2**52 - 2**46
    good = {
        "nothing": (0, _CHUNK),
        "one byte": (1, _CHUNK),
        "the smallest size, full": (_CHUNK, _CHUNK),
        "one byte more": (_CHUNK + 1, padded_size(_CHUNK + 1)),
        "a megabyte": (10**6, padded_size(10**6)),
        "the largest": (largest, padded_size(largest)),
    }
    bad = {
        "not padded": (20_000, 20_000),
        "padded to the next size but one": (20_000, 20_992),
        "padded too little": (_CHUNK + 1, _CHUNK),
        "below the smallest": (5, 5),
        "no size at all": (0, 0),
        "sizes in the other order": (20_480, 20_000),
        "2^52 bytes": (2**52, 2**52),
        "the greatest numbers": (2**64 - 1, 2**64 - 1),
    }
    usual = _pointer(5, _CHUNK)
    return [
        *(valid(comment, "Boundary", pointer=_pointer(*sizes)) for comment, sizes in good.items()),
        *(invalid(Reason.MALFORMED, c, "Encoding", pointer=_pointer(*sizes)) for c, sizes in bad.items()),
        invalid(Reason.MALFORMED, "79 bytes", "Encoding", pointer=usual[:-1]),
        invalid(Reason.MALFORMED, "81 bytes", "Encoding", pointer=usual + b"\x00"),
        invalid(Reason.MALFORMED, "no bytes", "Encoding", pointer=b""),
    ]


def _made(content: bytes, *, salt: str = "salt", padding: bytes = b"") -> tuple[bytes, bytes]:
    """(pointer, container)."""
    padded = content + padding.ljust(padded_size(len(content)) - len(content), b"\x00")
    container = make_container(_KEY, stream(salt, 24), padded)
    pointer = Pointer(_KEY, hashlib.sha256(container).digest(), len(content), len(padded))
    return pointer.pack(), container


def _short() -> Group:
    """A short text: a full chunk, then an empty one."""
    pointer, container = _made(b"hello")
    length = len(container)
    usual: dict[str, Value] = {"pointer": pointer, "length": length, "flipped": None, "tail": b""}
    places = {
        "the salt": 0,
        "the commitment": 24,
        "the first chunk": 56,
        "its padding": 56 + _CHUNK - 1,
        "its tag": 56 + _CHUNK,
        "the tag of the empty chunk": length - 1,
    }
    changed: dict[str, dict[str, Value]] = {
        "another key": {"pointer": flipped(pointer, 0)},
        "another digest": {"pointer": flipped(pointer, 32)},
    }
    other_length: dict[str, dict[str, Value]] = {
        "one byte short": {"length": length - 1},
        "one byte more": {"tail": b"\x00"},
        "without the empty chunk": {"length": length - 16},
        "a header alone": {"length": 56},
        "nothing": {"length": 0},
    }
    tests = [
        valid("a short text", **usual),
        *(
            invalid(Reason.NOT_AUTHENTIC, f"changed in {place}", "ChangedBytes", **{**usual, "flipped": at})
            for place, at in places.items()
        ),
        *(invalid(Reason.NOT_AUTHENTIC, c, "Misplaced", **{**usual, **fields}) for c, fields in changed.items()),
        *(invalid(Reason.MALFORMED, c, "ChangedBytes", **{**usual, **fields}) for c, fields in other_length.items()),
    ]
    return Group(ATTACHMENT, tests, {"container": container})


def _others() -> list[Group]:
    pointer, _ = _made(b"hello")
    _, replaced = _made(b"HELLO", salt="another salt")
    longer, long_container = _made(b"0123456789abcdef" * 1250)
    hidden, hidden_container = _made(b"hello", padding=b" there")
    at_the_end, end_container = _made(b"hello", padding=b"\x01".rjust(_CHUNK - 5, b"\x00"))
    not_authentic, malformed = Reason.NOT_AUTHENTIC, Reason.MALFORMED
    whole: dict[str, Value] = {"flipped": None, "tail": b""}
    size = len(replaced)
    made = [
        (valid("two chunks", pointer=longer, length=len(long_container), **whole), long_container),
        (
            invalid(not_authentic, "another container under the key", "Forgery", pointer=pointer, length=size, **whole),
            replaced,
        ),
        (
            invalid(malformed, "content behind the content", "Forgery", pointer=hidden, length=size, **whole),
            hidden_container,
        ),
        (
            invalid(malformed, "a byte at the end of the padding", "Forgery", pointer=at_the_end, length=size, **whole),
            end_container,
        ),
    ]
    return [Group(ATTACHMENT, [test], {"container": container}) for test, container in made]


def _ranges() -> Group:
    """Of a container of two chunks, 16,384 bytes and 4,096."""
    pointer, container = _made(b"0123456789abcdef" * 1250)
    second = 56 + _CHUNK + 16
    whole: dict[str, Value] = {"pointer": pointer, "length": len(container), "flipped": None, "tail": b""}
    good = {
        "all of it": (0, 20_000),
        "the first byte": (0, 1),
        "the last byte": (19_999, 20_000),
        "the last byte of a chunk": (_CHUNK - 1, _CHUNK),
        "the first byte of the next": (_CHUNK, _CHUNK + 1),
        "over the edge of two": (_CHUNK - 5, _CHUNK + 5),
        "nothing": (0, 0),
    }
    outside = {
        "one byte beyond the end": (0, 20_001),
        "padding alone": (20_000, 20_001),
        "the end before the start": (5, 4),
    }
    not_authentic, malformed = Reason.NOT_AUTHENTIC, Reason.MALFORMED

    def at(start: int, end: int, **changes: Value) -> dict[str, Value]:
        return {**whole, "start": start, "end": end, **changes}

    return Group(
        ATTACHMENT_RANGE,
        [
            *(valid(comment, **at(*span)) for comment, span in good.items()),
            valid("though another chunk is changed", "ChangedBytes", **at(0, 5, flipped=second)),
            valid("though the container goes on", "ChangedBytes", **at(0, 5, tail=b"more")),
            valid("though the rest is not there", "ChangedBytes", **at(0, 5, length=second)),
            *(invalid(malformed, comment, "Boundary", **at(*span)) for comment, span in outside.items()),
            invalid(malformed, "a chunk without its last byte", "ChangedBytes", **at(0, 5, length=second - 1)),
            invalid(malformed, "a chunk that is not there", "ChangedBytes", **at(_CHUNK, _CHUNK + 1, length=second)),
            invalid(malformed, "the last chunk cut short", "ChangedBytes", **at(0, 20_000, length=len(container) - 1)),
            invalid(not_authentic, "changed in the chunk", "ChangedBytes", **at(_CHUNK, _CHUNK + 1, flipped=second)),
            invalid(not_authentic, "changed in its tag", "ChangedBytes", **at(0, 1, flipped=second - 1)),
            invalid(not_authentic, "changed in the commitment", "ChangedBytes", **at(0, 1, flipped=24)),
            invalid(not_authentic, "changed in the salt", "ChangedBytes", **at(0, 0, flipped=0)),
            invalid(not_authentic, "half a header", "ChangedBytes", **at(0, 1, length=40)),
            invalid(not_authentic, "another key", "Misplaced", **at(0, 1, pointer=flipped(pointer, 0))),
            invalid(not_authentic, "a changed header, and outside", "Boundary", **at(0, 20_001, flipped=24)),
        ],
        {"container": container},
    )


def _groups() -> Sequence[Group]:
    return [Group(POINTER, _pointers()), _short(), *_others(), _ranges()]


ATTACHMENTS = Construction(
    "attachments", "Attachments: pointers and containers", [POINTER, ATTACHMENT, ATTACHMENT_RANGE], _groups
)
