"""Attachments: a container of any size on somebody's disk, and the pointer that a message carries to it.

Here stand the container's padding, encryption in one pass, and reading from the start or any range, in constant memory.
Where the bytes lie and how they travel is not known here. Spec: attachments.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sottovoce_wire import labels, padding

from . import primitives
from .errors import CryptoRefusal, Reason
from .primitives import CONTAINER_CHUNK, CONTAINER_HEADER_LENGTH, CONTAINER_LIMIT, TAG_LENGTH

#: Below this, PADMÉ is nearly exact. Every smaller attachment looks like one of this size.
MINIMUM_SIZE: Final = 16 * 1024

Bytes = bytes | bytearray | memoryview
_LAYOUT: Final = struct.Struct(">32s32sQQ")
_SEALED_CHUNK: Final = CONTAINER_CHUNK + TAG_LENGTH
#: Padding goes in pieces of this length, so that a large attachment's does not stand in memory at once.
_ZEROS: Final = memoryview(bytes(256 * 1024))


def padded_size(size: int) -> int:
    """The container's content for an attachment of `size` bytes: PADMÉ, at least MINIMUM_SIZE."""
    return padding.padme(max(size, MINIMUM_SIZE))


def container_size(padded: int) -> int:
    """The container's length in bytes for a content of `padded` bytes: header, and a tag for each chunk."""
    return CONTAINER_HEADER_LENGTH + padded + (padded // CONTAINER_CHUNK + 1) * TAG_LENGTH


@dataclass(frozen=True, slots=True, repr=False)
class Pointer:
    """What opens one attachment: key (32) ‖ SHA-256 of the container (32) ‖ exact size (8) ‖ padded size (8)."""

    LENGTH = _LAYOUT.size

    key: bytes
    digest: bytes
    size: int
    padded_size: int

    def pack(self) -> bytes:
        """80 bytes, for the inside of a message."""
        return _LAYOUT.pack(self.key, self.digest, self.size, self.padded_size)

    @classmethod
    def parse(cls, packed: bytes) -> "Pointer":
        """Strict inverse of `pack`. Raises CryptoRefusal (MALFORMED), also for sizes that padding does not give."""
        if len(packed) != _LAYOUT.size:
            raise CryptoRefusal(Reason.MALFORMED, "a pointer has 80 bytes")
        pointer = cls(*_LAYOUT.unpack(packed))
        if pointer.padded_size >= CONTAINER_LIMIT or pointer.padded_size != padded_size(pointer.size):
            raise CryptoRefusal(Reason.MALFORMED, "a pointer's sizes do not belong together")
        return pointer

    @property
    def container_size(self) -> int:
        """The container's length in bytes: a caller fetches no more."""
        return container_size(self.padded_size)


class _Buffer:
    """The memory that one stream writes its pieces to: as much as the largest piece needs."""

    __slots__ = ("memory",)

    def __init__(self) -> None:
        self.memory = bytearray()

    def room_for(self, length: int) -> bytearray:
        """Memory for what a piece of `length` bytes gives: up to one chunk more, the tags and the header."""
        needed = length + length // 1024 + CONTAINER_CHUNK + CONTAINER_HEADER_LENGTH + TAG_LENGTH
        if len(self.memory) < needed:
            self.memory = bytearray(needed)
        return self.memory

    def wipe(self) -> None:
        self.memory[:] = bytes(len(self.memory))


class Encryptor:
    """Makes one container, under a key of its own, from pieces of any length.

    Memory is that of the largest piece. Every view that is returned is good until the next call. An encryptor cannot
    be stopped and resumed: keep what it returns until the upload has ended. Calls after `finish` raise RuntimeError.
    """

    __slots__ = ("_buffer", "_closed", "_digest", "_pointer", "_size", "_stream")

    def __init__(self) -> None:
        self._stream: Final = primitives.ContainerEncryptor(labels.ATTACHMENT)
        self._digest: Final = hashlib.sha256()
        self._buffer: Final = _Buffer()
        self._size = 0
        self._closed = False
        self._pointer: Pointer | None = None

    def update(self, data: Bytes) -> memoryview:
        """The next bytes of the container; none while a chunk is not full.

        Raises CryptoRefusal (MALFORMED) for more than a container holds, some 4 PiB.
        """
        if self._closed:
            raise RuntimeError("the container is closed")
        piece = memoryview(data).cast("B")
        if padded_size(self._size + len(piece)) >= CONTAINER_LIMIT:
            raise CryptoRefusal(Reason.MALFORMED, "the attachment is too large")
        self._size += len(piece)
        return self._encrypt(piece)

    def finish(self) -> Iterator[memoryview]:
        """The rest of the container, in pieces: the padding and the last chunk. `pointer` stands after the last one."""
        if self._closed:
            raise RuntimeError("the container is closed")
        self._closed = True
        return self._finish()

    @property
    def pointer(self) -> Pointer:
        """The pointer to the finished container."""
        if self._pointer is None:
            raise RuntimeError("the container is not finished")
        return self._pointer

    def _finish(self) -> Iterator[memoryview]:
        padded = padded_size(self._size)
        for start in range(self._size, padded, len(_ZEROS)):
            yield self._encrypt(_ZEROS[: padded - start])
        last = self._stream.finish()
        self._digest.update(last)
        self._pointer = Pointer(self._stream.key, self._digest.digest(), self._size, padded)
        yield memoryview(last)

    def _encrypt(self, piece: memoryview) -> memoryview:
        memory = self._buffer.room_for(len(piece))
        written = memoryview(memory)[: self._stream.update_into(piece, memory)]
        self._digest.update(written)
        return written.toreadonly()


class Decryptor:
    """Reads one container from its start, from pieces of any length.

    What `update` returns is authentic chunk by chunk: encrypted under the pointer's key, for this place. It is not yet
    known to be from the container that the sender meant (everybody who has the pointer has the key and can make
    another), nor that the rest is there. Only once `finish` has returned is it; a caller that acted on it before must
    be ready to undo that. Memory is that of the largest piece; views are good until the next call. After a refusal,
    and after `finish`, every call raises RuntimeError.
    """

    __slots__ = ("_buffer", "_closed", "_digest", "_missing", "_pointer", "_stream", "_unread")

    def __init__(self, pointer: Pointer) -> None:
        self._pointer: Final = pointer
        self._stream: Final = primitives.ContainerDecryptor(pointer.key, labels.ATTACHMENT)
        self._digest: Final = hashlib.sha256()
        self._buffer: Final = _Buffer()
        self._missing = pointer.container_size
        self._unread = pointer.size
        self._closed = False

    def update(self, data: Bytes) -> memoryview:
        """The content of the chunks that are now complete and authentic.

        Raises CryptoRefusal: NOT_AUTHENTIC, MALFORMED (longer than the pointer says; padding that is not zeros).
        """
        self._check_open()
        try:
            return self._decrypt(memoryview(data).cast("B"))
        except CryptoRefusal:
            self._refuse()
            raise

    def finish(self) -> memoryview:
        """The rest of the content, after the length and the digest were compared with the pointer.

        Raises CryptoRefusal: MALFORMED (cut short; padding that is not zeros), NOT_AUTHENTIC (another container).
        """
        self._check_open()
        try:
            last = self._finish()
        except CryptoRefusal:
            self._refuse()
            raise
        self._closed = True
        return last

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the container is closed")

    def _refuse(self) -> None:
        # The library writes a chunk before it has checked it, and a view from the call before shows the same memory.
        self._closed = True
        self._buffer.wipe()

    def _decrypt(self, piece: memoryview) -> memoryview:
        self._missing -= len(piece)
        if self._missing < 0:
            raise CryptoRefusal(Reason.MALFORMED, "the container is longer than its pointer says")
        self._digest.update(piece)
        memory = self._buffer.room_for(len(piece))
        return self._without_padding(memoryview(memory)[: self._stream.update_into(piece, memory)])

    def _finish(self) -> memoryview:
        if self._missing:
            raise CryptoRefusal(Reason.MALFORMED, "the container is shorter than its pointer says")
        if not primitives.equal(self._digest.digest(), self._pointer.digest):
            raise CryptoRefusal(Reason.NOT_AUTHENTIC, "the container is not the one that its pointer names")
        return self._without_padding(memoryview(self._stream.finish()))

    def _without_padding(self, padded: memoryview) -> memoryview:
        content, zeros = padded[: self._unread], padded[self._unread :]
        if bytes(zeros).count(0) != len(zeros):
            raise CryptoRefusal(Reason.MALFORMED, "the padding is not zeros")
        self._unread -= len(content)
        return content.toreadonly()


def open_attachment(pointer: Pointer, container: Bytes) -> bytes:
    """The whole content of a container that fits into memory, and nothing before its digest was checked.

    Raises CryptoRefusal as `Decryptor` does.
    """
    decryptor = Decryptor(pointer)
    content = bytes(decryptor.update(container))
    return content + decryptor.finish()


class Seeker:
    """Opens any range of a container from the chunks that hold it, without reading the rest.

    What it returns is authentic chunk by chunk, as from `Decryptor.update`: it has the place that the key's owner gave
    it, but the digest says nothing about a part. Where others than the sender have the pointer and the container lies
    in foreign hands, read it once with `Decryptor` before. `header` is the container's first 56 bytes; raises
    CryptoRefusal (NOT_AUTHENTIC) for one of another key.
    """

    __slots__ = ("_chunks", "_pointer")

    def __init__(self, pointer: Pointer, header: bytes) -> None:
        self._pointer: Final = pointer
        self._chunks: Final = primitives.ContainerChunks(pointer.key, labels.ATTACHMENT, header)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """(offset, length) of the container's bytes that hold [start, end) of the content.

        Raises CryptoRefusal (MALFORMED) for a range that does not lie inside.
        """
        if not 0 <= start <= end <= self._pointer.size:
            raise CryptoRefusal(Reason.MALFORMED, "the range does not lie inside the attachment")
        first, stop = start // CONTAINER_CHUNK, -(-end // CONTAINER_CHUNK)
        offset = CONTAINER_HEADER_LENGTH + first * _SEALED_CHUNK
        length = min((stop - first) * _SEALED_CHUNK, self._pointer.container_size - offset)
        return offset, length

    def open(self, start: int, end: int, sealed: Bytes) -> bytes:
        """The content [start, end) from the container's bytes that `span` asked for.

        Raises CryptoRefusal: MALFORMED (as `span`, or more or fewer bytes), NOT_AUTHENTIC.
        """
        if len(sealed) != self.span(start, end)[1]:
            raise CryptoRefusal(Reason.MALFORMED, "these are not the bytes that hold the range")
        first, chunks = start // CONTAINER_CHUNK, memoryview(sealed)
        content = b"".join(
            self._chunks.open(first + place // _SEALED_CHUNK, chunks[place : place + _SEALED_CHUNK])
            for place in range(0, len(sealed), _SEALED_CHUNK)
        )
        skipped = start - first * CONTAINER_CHUNK
        return content[skipped : skipped + end - start]


def read_range(pointer: Pointer, read_at: Callable[[int, int], bytes], start: int, end: int) -> bytes:
    """The content [start, end), with `read_at(offset, length)` reading from the container.

    What it says of authenticity is what `Seeker` says; raises CryptoRefusal as it does.
    """
    seeker = Seeker(pointer, read_at(0, CONTAINER_HEADER_LENGTH))
    return seeker.open(start, end, read_at(*seeker.span(start, end)))
