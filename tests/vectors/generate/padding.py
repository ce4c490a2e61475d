"""Vectors of padding.md."""

from collections.abc import Sequence

from sottovoce.crypto.errors import Reason

from .build import HEX, NUMBER, Construction, Group, Test, Type, invalid, valid
from .cast import stream

PAD = Type("pad", {}, {"content": HEX, "minimum": NUMBER}, {"padded": HEX})
PADDED_LENGTH = Type("paddedLength", {}, {"length": NUMBER, "minimum": NUMBER}, {"paddedLength": NUMBER})
UNPAD = Type("unpad", {}, {"padded": HEX}, {"content": HEX})

_LENGTHS = (0, 255, 256, 2047, 2048, 2111, 2112, 65_535, 65_536)


def _pad() -> list[Test]:
    return [
        valid("a short text", content=b"hello", minimum=0),
        valid("content that ends with the mark and zeros", "Boundary", content=b"hello\x80\x00\x00", minimum=0),
        valid("the fullest smallest class", "Boundary", content=stream("255 bytes", 255), minimum=0),
        valid("one byte more", "Boundary", content=stream("256 bytes", 256), minimum=0),
    ]


def _padded_length() -> list[Test]:
    short = [valid(f"{length} bytes", "Boundary", length=length, minimum=0) for length in _LENGTHS]
    return [
        *short,
        *(valid(f"{length} bytes, sealed", length=length, minimum=4096) for length in (0, 4095, 4096, 8000)),
    ]


def _without_mark() -> list[Test]:
    content = stream("a body", 200)
    contents = {
        "nothing at all": b"",
        "zeros alone": bytes(256),
        "one zero": b"\x00",
        "content without a mark": content,
        "content and zeros without a mark": content + bytes(56),
        "another mark": content + b"\x01" + bytes(55),
        "the mark of the lower bit": content + b"\x08" + bytes(55),
        "a byte after the mark": content + b"\x80\x01" + bytes(54),
        "a byte at the end": content + b"\x80" + bytes(54) + b"\x01",
        "ones instead of zeros": content + b"\x80" + b"\xff" * 55,
        "PKCS#7": content + b"\x38" * 56,
        "ANSI X9.23": content + bytes(55) + b"\x38",
        "the mark first, then content": b"\x80" + content,
        "the mark cut off": content[:-1] + b"\x7f",
        "a mark twice with a byte between": content + b"\x80\x01\x7f" + bytes(53),
        "a text": b"hello",
        "spaces": b"hello" + b" " * 251,
        **{f"the mark and bit {bit}": content + bytes([0x80 | 1 << bit]) + bytes(55) for bit in range(7)},
    }
    return [invalid(Reason.MALFORMED, comment, "Encoding", padded=padded) for comment, padded in contents.items()]


def _unpad() -> list[Test]:
    return [
        valid("a short text", padded=b"hello\x80" + bytes(250)),
        valid("no content", "Boundary", padded=b"\x80" + bytes(255)),
        valid("the mark last", "Boundary", padded=b"hello\x80"),
        valid("two marks: the last one counts", "Boundary", padded=b"hello\x80\x80" + bytes(249)),
        *_without_mark(),
    ]


def _groups() -> Sequence[Group]:
    return [Group(PAD, _pad()), Group(PADDED_LENGTH, _padded_length()), Group(UNPAD, _unpad())]


PADDING = Construction("padding", "Padding", [PAD, PADDED_LENGTH, UNPAD], _groups)
