"""Proxies on real sockets: SOCKS5 and CONNECT, both of which lead every name to this machine and remember it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeAlias

import trio

Asked: TypeAlias = "list[tuple[str, int]]"


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await stream.receive_some(count - len(data))
        if not piece:
            raise trio.BrokenResourceError
        data += piece
    return data


async def _socks(stream: trio.SocketStream) -> tuple[str, int]:
    _, count = await _exactly(stream, 2)
    await _exactly(stream, count)
    await stream.send_all(b"\x05\x00")
    kind = (await _exactly(stream, 4))[3]
    host = await _exactly(stream, 4 if kind == 1 else (await _exactly(stream, 1))[0])
    port = int.from_bytes(await _exactly(stream, 2), "big")
    await stream.send_all(b"\x05\x00\x00\x01" + bytes(6))
    return ".".join(map(str, host)) if kind == 1 else host.decode(), port


async def _connect(stream: trio.SocketStream) -> tuple[str, int]:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await _exactly(stream, 1)
    host, _, port = head.split()[1].decode().rpartition(":")
    await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return host, int(port)


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some():
            await sink.send_all(data)
    scope.cancel()


async def _serve(
    greet: Callable[[trio.SocketStream], Awaitable[tuple[str, int]]], asked: Asked, stream: trio.SocketStream
) -> None:
    with suppress(trio.BrokenResourceError):
        asked.append(await greet(stream))
        async with await trio.open_tcp_stream("127.0.0.1", asked[-1][1]) as server, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, stream, server, nursery.cancel_scope)
            nursery.start_soon(_pump, server, stream, nursery.cancel_scope)


@asynccontextmanager
async def proxy_server(scheme: str) -> AsyncIterator[tuple[str, Asked]]:
    """A proxy of this scheme: its address, and what it was asked for."""
    asked: Asked = []
    greet = _socks if scheme == "socks5h" else _connect
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(_serve, greet, asked), 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        yield f"{scheme}://127.0.0.1:{listeners[0].socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()
