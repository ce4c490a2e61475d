"""attachments.md: pointers, and containers read from the start or in a range. C2SP chunked encryption by hand."""

import hashlib
import hmac
from dataclasses import dataclass

from . import aes_gcm, padding
from .notation import fields, label, number, sha256
from .refusal import RefusedError

_CHUNK = 16384
_INFO = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"


@dataclass(frozen=True)
class Pointer:
    """A pointer's fields."""

    key: bytes
    digest: bytes
    size: int
    padded_size: int

    @property
    def container_size(self) -> int:
        """The container's length."""
        return 56 + self.padded_size + 16 * (self.padded_size // _CHUNK + 1)


def padded_size(size: int) -> int:
    """The padded size of `size` bytes."""
    return padding.padme(max(size, _CHUNK))


def parse_pointer(packed: bytes) -> Pointer:
    """A pointer, with all checks of the table."""
    key, digest, size, padded = fields(packed, (32, 32, 8, 8), "malformed")
    if number(padded) != padded_size(number(size)) or number(padded) >= 2**52:
        raise RefusedError("malformed")
    return Pointer(key, digest, number(size), number(padded))


def _derive(key: bytes, salt: bytes) -> list[bytes]:
    info = _INFO + salt + label("attachment")
    first = hmac.new(key, info + b"\x01", hashlib.sha512).digest()
    second = hmac.new(key, first + info + b"\x02", hashlib.sha512).digest()
    return fields((first + second)[:76], (32, 12, 32), "malformed")


def _nonce(base: bytes, index: int) -> bytes:
    return (number(base) ^ index).to_bytes(12, "big")


def _pieces(data: bytes, length: int) -> list[bytes]:
    """Full pieces, and a shorter last one, which may be empty."""
    return [data[at : at + length] for at in range(0, len(data) - len(data) % length + 1, length)]


def make_container(key: bytes, salt: bytes, padded: bytes) -> bytes:
    """The container of a padded content."""
    chunk_key, base, commitment = _derive(key, salt)
    chunks = (aes_gcm.encrypt(chunk_key, _nonce(base, i), p, b"") for i, p in enumerate(_pieces(padded, _CHUNK)))
    return salt + commitment + b"".join(chunks)


def open_attachment(pointer: Pointer, container: bytes) -> bytes:
    """The content of a container, with all checks of the table."""
    if len(container) != pointer.container_size:
        raise RefusedError("malformed")
    salt, commitment, sealed = container[:24], container[24:56], container[56:]
    chunk_key, base, expected = _derive(pointer.key, salt)
    if commitment != expected:
        raise RefusedError("not_authentic")
    chunks = enumerate(_pieces(sealed, _CHUNK + 16))
    padded = b"".join(aes_gcm.decrypt(chunk_key, _nonce(base, i), chunk, b"") for i, chunk in chunks)
    if sha256(container) != pointer.digest:
        raise RefusedError("not_authentic")
    if padded[pointer.size :].strip(b"\x00"):
        raise RefusedError("malformed")
    return padded[: pointer.size]


def read_range(pointer: Pointer, container: bytes, start: int, end: int) -> bytes:
    """The content [start, end), from the header and the chunks that hold it alone."""
    chunk_key, base, expected = _derive(pointer.key, container[:24])
    if container[24:56] != expected:
        raise RefusedError("not_authentic")
    if not start <= end <= pointer.size:
        raise RefusedError("malformed")
    first, stop = start // _CHUNK, -(-end // _CHUNK)
    sealed = _CHUNK + 16
    places = [(56 + i * sealed, min(56 + (i + 1) * sealed, pointer.container_size)) for i in range(first, stop)]
    if places and len(container) < places[-1][1]:
        raise RefusedError("malformed")
    chunks = enumerate((container[place:until] for place, until in places), first)
    content = b"".join(aes_gcm.decrypt(chunk_key, _nonce(base, i), chunk, b"") for i, chunk in chunks)
    return content[start - first * _CHUNK : end - first * _CHUNK]
