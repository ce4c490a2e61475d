"""The load generator's sockets, on asyncio (uvloop where it is installed): raw ones, and WebSockets on top.

The generator must cost less than what it measures: frames are made before they are needed, and what is said while
something is heard leaves in one write. Nothing here knows what the bytes mean.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

PATH: Final = "/v1/relay"
#: One mask for all messages. It protects proxies from hostile pages, and here are neither; unmasking costs the same.
_MASK: Final = bytes.fromhex("5a3c96e1")
_BINARY: Final = 0x82  # the only frame that is expected: a whole binary message, unmasked
_UPGRADE: Final = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: c290dG92b2NlIGJlbmNobQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class BenchError(Exception):
    """Something answered otherwise than it must, so no figure is worth printing. The text is for the person."""


class Wire(asyncio.Protocol):
    """A connection. `hear` gets what comes; what it raises ends the connection and every wait on it."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._hear = hear
        self._transport: asyncio.Transport
        self._unsaid: list[bytes] = []
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, host: str, port: int, hear: Callable[[bytes], None]) -> "Wire":
        """Connect. Raises OSError. Cancellation: there is no connection."""
        _, wire = await asyncio.get_running_loop().create_connection(lambda: cls(hear), host, port)
        return wire

    def say(self, data: bytes) -> None:
        """Queue bytes. While `hear` runs they leave with what else is said; else call `flush`."""
        self._unsaid.append(data)

    def flush(self) -> None:
        """Write what was said."""
        if self._unsaid:
            self._transport.write(b"".join(self._unsaid))
            self._unsaid.clear()

    async def wait(self, wanted: "asyncio.Future[T]") -> T:
        """The result, or why the connection ended before there was one (BenchError)."""
        either: set[asyncio.Future[Any]] = {wanted, self._lost}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            raise BenchError(f"a connection ended: {self._lost.exception()}")
        return wanted.result()

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    # --- Called by asyncio ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def connection_lost(self, exc: Exception | None) -> None:
        """End every wait."""
        self._end(exc or ConnectionResetError("the server closed it"))

    def data_received(self, data: bytes) -> None:
        """Hear, and say what came of it."""
        try:
            self._hear(data)
        except Exception as error:  # whoever waits is told
            self._end(error)
            self.close()
        else:
            self.flush()

    def _end(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)
            self._lost.exception()  # asked for: a connection that nobody waits on may end


# --- WebSocket ------------------------------------------------------------------------------------------------


async def dial(origin: str, hear: Callable[[bytes], None]) -> Wire:
    """A WebSocket to `http://host:port`; `hear` gets each message, and what is said must be `framed`.

    Raises BenchError or OSError. Cancellation: the connection is dropped.
    """
    host, _, port = origin.removeprefix("http://").partition(":")
    reader = _Reader(hear)
    wire = await Wire.connect(host, int(port), reader.take)
    wire.say(_UPGRADE.format(path=PATH, host=host).encode())
    wire.flush()
    try:
        await wire.wait(reader.upgraded)
    except BaseException:
        wire.close()
        raise
    return wire


def framed(message: bytes) -> bytes:
    """A WebSocket frame that carries the message, masked."""
    size = len(message)
    if size < 126:
        head = bytes([_BINARY, 0x80 | size])
    elif size < 2**16:
        head = bytes([_BINARY, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([_BINARY, 0x80 | 127]) + size.to_bytes(8, "big")
    mask = int.from_bytes((_MASK * (size // 4 + 1))[:size], "big")
    return head + _MASK + (int.from_bytes(message, "big") ^ mask).to_bytes(size, "big")


class _Reader:
    """Finds messages in what a server says: the answer to the upgrade, then whole binary messages."""

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self.upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hear = hear
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Hear every message that is whole."""
        data = self._rest + data if self._rest else data
        at = 0 if self.upgraded.done() else self._accept(data)
        if self.upgraded.done():
            while (whole := _next_message(data, at)) is not None:
                message, at = whole
                self._hear(message)
        self._rest = data[at:]

    def _accept(self, data: bytes) -> int:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return 0
        if not data.startswith(b"HTTP/1.1 101 "):
            raise BenchError(f"no WebSocket here: {data[:80]!r}")
        self.upgraded.set_result(None)
        return end


def _next_message(data: bytes, at: int) -> tuple[bytes, int] | None:
    if len(data) < at + 2:
        return None
    if data[at] != _BINARY:
        raise BenchError(f"the server sent frame {data[at]:#x}")
    size, start = data[at + 1], at + 2
    if size >= 126:
        start += 2 if size == 126 else 8
        size = int.from_bytes(data[at + 2 : start], "big")
    if len(data) < start or len(data) < start + size:
        return None
    return data[start : start + size], start + size
