"""padding.md."""

from .refusal import RefusedError

_CLASSES = (256, 384, 512, 768, 1024, 1536, 2048)


def padded_length(length: int, minimum: int = 0) -> int:
    """The length on the wire of `length` bytes of content."""
    needed = max(length + 1, minimum)
    for size in _CLASSES:
        if needed <= size:
            return size
    return padme(needed)


def padme(needed: int) -> int:
    """PADMÉ."""
    e = needed.bit_length() - 1
    s = (e.bit_length() - 1) + 1
    step = 1 << (e - s)
    return -(-needed // step) * step


def pad(content: bytes, minimum: int = 0) -> bytes:
    """The padded content."""
    marked = content + b"\x80"
    return marked + bytes(padded_length(len(content), minimum) - len(marked))


def unpad(padded: bytes) -> bytes:
    """The content; refused (malformed) without the mark."""
    content = padded.rstrip(b"\x00")
    if content[-1:] != b"\x80":
        raise RefusedError("malformed")
    return content[:-1]
