"""Padding: a body's length on the wire says only which size class it fell into.

A padded body is the content, one byte 0x80, and zeros up to the class (ISO/IEC 7816-4). Classes: 256 to
2,048 in seven fixed sizes, then PADMÉ (Nikitin et al., "Reducing Metadata Leakage from
Encrypted Files and Communication with PURBs", PETS 2019), which costs at most 12 %. PADMÉ alone is
nearly exact for short texts. Spec: padding.
"""

from bisect import bisect_left
from typing import Final

from .errors import Code, WireError

SIZE_CLASSES: Final = (256, 384, 512, 768, 1024, 1536, 2048)
_MARK: Final = b"\x80"


def padme(length: int) -> int:
    """The PADMÉ size for `length` ≥ 2: its low bits rounded up, as many as keep log2(log2(length)) bits of it."""
    exponent = length.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1
    return (length + mask) & ~mask


def padded_length(length: int, *, minimum: int = 0) -> int:
    """The length on the wire of `length` bytes of content and the mark, at least `minimum`."""
    needed = length + 1 if length >= minimum else minimum
    if needed <= SIZE_CLASSES[-1]:
        return SIZE_CLASSES[bisect_left(SIZE_CLASSES, needed)]
    return padme(needed)


def pad(content: bytes, *, minimum: int = 0) -> bytes:
    """`content` ‖ 0x80 ‖ zeros, `padded_length` bytes in all."""
    return pad_to(content, padded_length(len(content), minimum=minimum))


def pad_to(content: bytes, length: int) -> bytes:
    """`content` ‖ 0x80 ‖ zeros, `length` bytes in all: a `padded_length` that was computed before."""
    return (content + _MARK).ljust(length, b"\x00")


def unpad(padded: bytes) -> bytes:
    """The content. Raises WireError (MALFORMED) where no mark stands before the zeros.

    Call it on authenticated bytes only: it is not constant-time.
    """
    content, mark, zeros = padded.rpartition(_MARK)
    if not mark or zeros != bytes(len(zeros)):
        raise WireError(Code.MALFORMED, "the padding has no mark")
    return content
