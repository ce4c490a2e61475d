"""A relay that has gone bad: a real server, and before it somebody who reads every frame, and changes what comes and
goes. Requests to the keyserver pass as they are; one that is bad is in `sottovoce.testing`.

The real server listens at 127.0.0.2, the bad one at 127.0.0.1 on the same port: it is the one that clients know.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream, wrap_server_stream

from sottovoce_relay.app import PATH
from sottovoce_wire import limits
from sottovoce_wire.frames import (
    ClientFrame,
    RelayFrame,
    decode_client_message,
    decode_relay_message,
    message,
)

HERE: Final = "127.0.0.1"
BEHIND: Final = "127.0.0.2"


class Cut(Exception):  # noqa: N818 - what somebody does
    """The connection ends here, without a word."""


class Mischief:
    """What may be done; by itself, nothing."""

    def heard(self, frames: list[ClientFrame]) -> Sequence[ClientFrame]:
        """What the relay is told instead."""
        return frames

    def said(self, frames: list[RelayFrame]) -> Sequence[RelayFrame]:
        """What the client is told instead."""
        return frames


class Bad:
    """The server that clients know. `mischief` can be changed at any time."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{HERE}:{port}"
        self.port = port
        self.mischief = Mischief()

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection. Whatever goes wrong ends it and nothing else."""
        async with stream:
            try:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = await stream.receive_some()
                    if not piece:
                        return
                    head += piece
                if b"upgrade: websocket" in head.lower():
                    await self._relay(_Peeked(stream, head))
                else:
                    await self._keyserver(stream, head)
            except* (Cut, ConnectionClosed, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def _relay(self, stream: trio.abc.Stream) -> None:
        async with await trio.open_tcp_stream(BEHIND, self.port) as upstream, trio.open_nursery() as nursery:
            size = limits.MAX_MESSAGE
            request = await wrap_server_stream(nursery, stream, max_message_size=size)
            client = await request.accept()
            relay = await wrap_client_stream(nursery, upstream, f"{HERE}:{self.port}", PATH, max_message_size=size)
            nursery.start_soon(_carry, client, relay, lambda data: self._heard(data))
            try:
                await _carry(relay, client, lambda data: self._said(data))
            finally:
                nursery.cancel_scope.cancel()
                await trio.aclose_forcefully(stream)
                await trio.aclose_forcefully(upstream)

    def _heard(self, data: bytes) -> bytes | None:
        frames = self.mischief.heard(decode_client_message(data))
        return message(*frames) if frames else None

    def _said(self, data: bytes) -> bytes | None:
        frames = self.mischief.said(decode_relay_message(data))
        return message(*frames) if frames else None

    async def _keyserver(self, stream: trio.SocketStream, head: bytes) -> None:
        async with await trio.open_tcp_stream(BEHIND, self.port) as upstream, trio.open_nursery() as nursery:
            await upstream.send_all(head)
            nursery.start_soon(_pass_on, stream, upstream)
            await _pass_on(upstream, stream)
            nursery.cancel_scope.cancel()


async def _pass_on(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for data in source:
        await sink.send_all(data)
    await sink.send_eof()


async def _carry(
    source: WebSocketConnection, sink: WebSocketConnection, change: Callable[[bytes], bytes | None]
) -> None:
    while True:
        data = await source.get_message()
        assert isinstance(data, bytes)
        changed = change(data)
        if changed is not None:
            await sink.send_message(changed)


class _Peeked(trio.abc.Stream):
    """A stream of which the beginning was read already."""

    def __init__(self, stream: trio.SocketStream, head: bytes) -> None:
        self._stream = stream
        self._head = head

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._head:
            await trio.lowlevel.checkpoint()
            head, self._head = self._head, b""
            return head
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def bad_server(real: str) -> AsyncIterator[Bad]:
    """Stands before the real server at this address while the block runs."""
    port = int(real.rpartition(":")[2])
    bad = Bad(port)
    listeners = await trio.open_tcp_listeners(port, host=HERE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, bad.serve, listeners)
        yield bad
        nursery.cancel_scope.cancel()
