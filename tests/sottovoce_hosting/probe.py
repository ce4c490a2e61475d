"""A service that does, on request, each thing that a handler can do, and raw clients that talk to it."""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio
import trio.testing
from prometheus_client import CollectorRegistry
from quart import request
from quart_trio import QuartTrio

from sottovoce_hosting.guard import RECEIVE_READY, Deadlines
from sottovoce_hosting.service import Receive, Scope, Send, Service, WebSocketHandler
from sottovoce_hosting.settings import HostingSettings
from sottovoce_hosting.testing import PATIENCE, ServedForTest, start_server

UPGRADE: Final = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n"
)
FRAME = b"\x82\x82\x00\x00\x00\x00hi"
CLOSE = b"\x88\x80\x00\x00\x00\x00"
#: Times that pass in a test, and such that don't.
SOON = 0.1
LATE = 60.0


def frame(payload: bytes, *, missing: int = 0) -> bytes:
    """A message from a client; `missing` bytes of it are announced and do not follow."""
    size = len(payload) + missing
    if size < 126:
        length = bytes([size])
    else:
        length = struct.pack(">BH", 126, size) if size < 2**16 else struct.pack(">BQ", 127, size)
    return b"\x82" + bytes([length[0] | 0x80]) + length[1:] + bytes(4) + payload


@dataclass
class Probe:
    """A service with a handler for each thing that a handler can do."""

    name: str = "probe"
    sends: int = 0
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    received: int = 0
    peers: list[bytes | None] = field(default_factory=list)
    ended: trio.Event = field(default_factory=trio.Event)
    hurried: trio.Event = field(default_factory=trio.Event)

    @property
    def websockets(self) -> dict[str, WebSocketHandler]:
        return {
            "/echo": self.echo,
            "/flood": self.flood,
            "/stop": self.stop,
            "/raise": self.fail,
            "/late": self.late,
            "/ready": self.ready,
            "/hurry": self.hurry,
        }

    def add_routes(self, app: QuartTrio) -> None:
        @app.post("/double")
        async def double() -> bytes:
            body: bytes = await request.body
            return body + body

        @app.get("/headers")
        async def headers() -> str:
            self.peers.append(request.scope["state"]["peer"])
            return str(request.headers)

    def not_ready(self) -> str | None:
        return None

    async def drain(self) -> None:
        return

    async def echo(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"] or b""})
        self.ended.set()

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes what is ready at once; answers an empty message with how many there were before it."""
        self.peers.append(scope["state"]["peer"])
        receive_ready = scope["extensions"][RECEIVE_READY]
        await receive()
        await send({"type": "websocket.accept"})
        while (message := receive_ready() or await receive())["type"] == "websocket.receive":
            if message["bytes"]:
                self.received += 1
            else:
                await send({"type": "websocket.send", "bytes": b"%d" % self.received})
        self.ended.set()

    async def flood(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Sends for ever and never looks whether anybody is there."""
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(2**16)})
                self.sends += 1
        finally:
            self.ended.set()

    async def hurry(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Is cancelled in the middle of a write, and before one of more than a socket takes; then says one thing."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.flood, scope, receive, send)
            await until(partial(stands_still, self))
            self.hurried.set()
            nursery.cancel_scope.cancel()
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await send({"type": "websocket.send", "bytes": bytes(2**23)})
        await send({"type": "websocket.send", "bytes": b"end"})

    async def stop(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Ends after one message, however many more there are."""
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await trio.testing.wait_all_tasks_blocked()
        self.ended.set()

    async def fail(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise ValueError("a text with a secret in it")

    async def late(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Does not mind that the peer is gone."""
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await trio.sleep_forever()
        finally:
            self.ended.set()


@dataclass
class Started:
    """A served probe."""

    server: ServedForTest
    probe: Probe

    async def upgrade(self, path: bytes, headers: bytes = b"", then: bytes = b"") -> tuple[trio.SocketStream, bytes]:
        """A WebSocket connection, and the head of the answer; `then` is said after it."""
        stream = await self.server.connect()
        await stream.send_all(UPGRADE % (path, headers))
        head = b""
        with trio.fail_after(PATIENCE):
            while b"\r\n\r\n" not in head and (piece := await stream.receive_some()):
                head += piece
        await stream.send_all(then)
        return stream, head


Start = Callable[..., Awaitable[Started]]


async def start_probe(nursery: trio.Nursery, deadlines: Deadlines | None = None, **settings: object) -> Started:
    """Serve a probe in `nursery`."""
    probe = Probe()

    @asynccontextmanager
    async def open_probe() -> AsyncIterator[Service]:
        yield probe

    chosen = HostingSettings.model_validate({"port": 0, **settings})
    return Started(await start_server(nursery, lambda _: [open_probe()], chosen, deadlines), probe)


async def stands_still(probe: Probe) -> bool:
    """Whether the flood has begun and its peer's buffers are full."""
    before = probe.sends
    await trio.sleep(SOON)
    return 0 < before == probe.sends


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `condition`, which pauses by itself, holds."""
    with trio.fail_after(PATIENCE):
        while not await condition():
            pass
