"""The one place that touches Hypercorn: HTTP/1.1 and WebSocket connections that no peer can turn against the process.

Every connection has deadlines, bounded buffers and its own exception boundary. What a path or a message means stands
elsewhere. Hypercorn's private names that this leans on are checked at start (`check_patch_points`).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from math import inf
from typing import Any, Final

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ws_stream
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from wsproto.extensions import Extension

from sottovoce_wire import limits

from .errors import StartError, name_of, place_of
from .logs import Rare, log
from .service import Application, Scope, Send

_READ_SIZE: Final = 2**16
#: Messages that one connection may have parsed and not yet handled.
_UNHANDLED_MESSAGES: Final = 8


@dataclass(frozen=True)
class Deadlines:
    """Seconds. `first_request`: until the whole head and body of a connection's first request are in. `request`: the
    same of later ones, and the idle limit between two.
    `first_message`: from a WebSocket upgrade to its first message. `write`: for one write to be taken by the peer.
    `close`: for the peer to go, and for the handler to end, once either side has closed."""

    first_request: float = 10
    request: float = 30
    first_message: float = 10
    write: float = 30
    close: float = 2


class _NoExtension(Extension):
    """Stands where permessage-deflate would: accepts no offer. Compression lets a few bytes grow without bound."""

    name = ""

    def offer(self) -> bool:
        return False

    def accept(self, offer: str) -> None:
        return None


class _Protocol(H11Protocol):
    """HTTP/1.1 and the WebSocket upgrade, and no way from there to HTTP/2."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Upstream goes over to HTTP/2 here. A client that asks is simply answered in HTTP/1.1."""


def check_patch_points() -> None:
    """Make Hypercorn what the guard needs. Raises StartError if this Hypercorn is not the one that it knows."""
    version = metadata.version("hypercorn")
    if not version.startswith("0.18.") or not _has_patch_points():
        raise StartError(f"hypercorn {version} is not a version this server is safe with: install hypercorn 0.18")
    ws_stream.PerMessageDeflate = _NoExtension  # type: ignore[attr-defined, assignment] # no setting


def _has_patch_points() -> bool:
    """Whether every private name that is replaced, overridden or read here exists: without one nothing is guarded."""
    try:
        protocol_type: Any = _Protocol
        stream_type: Any = WSStream
        nothing, context = [None] * 4, WorkerContext(None)
        protocol = protocol_type(None, _hypercorn_config(), context, None, None, *nothing)
        stream = stream_type(None, _hypercorn_config(), context, None, *nothing, 1)
        names_exist = hasattr(ws_stream, "PerMessageDeflate") and hasattr(H11Protocol, "_check_protocol")
        return names_exist and protocol.stream is None and bool(stream.buffer.length == 0)
    except (AttributeError, TypeError):
        return False


def _hypercorn_config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = None  # what goes wrong is logged here, without bytes or addresses
    config.include_server_header = False
    # One byte more than a frame may have, so that the protocol above can name the fault; beyond that it is closed.
    config.websocket_max_message_size = limits.MAX_FRAME + 1
    return config


class Guard:
    """The connections of one server, at most `max_connections` at a time. `handle` serves what a listener accepts."""

    def __init__(self, app: Application, max_connections: int, deadlines: Deadlines) -> None:
        self._app = app
        self._max_connections = max_connections
        self._deadlines = deadlines
        self._config = _hypercorn_config()
        self._context = WorkerContext(None)
        self._failures = Rare("a connection failed")
        self._connections: set[_Connection] = set()
        self._waiting = trio.lowlevel.ParkingLot()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until it ends, and close it. Raises nothing but what trio itself needs.

        Cancellation: the connection is cut off; a write under way may last until its deadline unless `cut_off` is
        called.
        """
        if len(self._connections) >= self._max_connections:
            await trio.aclose_forcefully(stream)
            return
        connection = _Connection(self._app, self._config, self._context, stream, self._deadlines, self._failures)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._waiting.unpark_all()
            with trio.move_on_after(self._deadlines.close, shield=True):
                await stream.aclose()

    async def retire(self) -> None:
        """Let no connection take another request: idle ones end now, the others after their answer."""
        await self._context.terminated.set()
        for connection in self._connections:
            connection.end_if_idle()

    async def wait_empty(self) -> None:
        """Wait until no connection is left."""
        while self._connections:
            await self._waiting.park()

    def cut_off(self) -> None:
        """End every connection at once, whatever it is doing, and take no more."""
        self._max_connections = 0
        for connection in self._connections:
            connection.cut_off()


class _Connection:
    """One connection: a reader task, and a task for the request or WebSocket that is being handled.

    It is Hypercorn's task group as well: `spawn_app` and `spawn` are called by the protocol.
    """

    def __init__(
        self,
        app: Application,
        config: Config,
        context: WorkerContext,
        stream: trio.abc.Stream,
        deadlines: Deadlines,
        failures: Rare,
    ) -> None:
        self._app = app
        self._stream = stream
        self._deadlines = deadlines
        self._config = config
        self._context = context
        self._failures = failures
        self._scope = trio.CancelScope()
        self._write_scope = trio.CancelScope()
        self._write_lock = trio.Lock()
        self._nursery: trio.Nursery
        self._protocol: _Protocol
        self._writes = 0
        self._handling = 0
        self._closing = False

    async def run(self) -> None:
        """The connection's life. Whatever goes wrong in it ends it, and nothing else."""
        with self._scope:
            try:
                await self._serve()
            except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                pass  # the peer is gone
            except* Exception as errors:
                self._failures.note(error=name_of(errors), at=place_of(errors))

    async def _serve(self) -> None:
        self._expect(self._deadlines.first_request)
        if isinstance(self._stream, trio.SSLStream):
            await self._stream.do_handshake()
        async with trio.open_nursery() as self._nursery:
            self._protocol = _Protocol(
                self._app,  # type: ignore[arg-type] # handed back to spawn_app, which knows better
                self._config,
                self._context,
                self,  # type: ignore[arg-type] # a task group as far as the protocol uses one
                ConnectionState({}),
                isinstance(self._stream, trio.SSLStream),
                None,  # the peer's address is nobody's business
                None,
                self._on_protocol_event,
            )
            await self._read()
            self._closing = True
            self._expect(self._deadlines.close)
            await self._protocol.handle(Closed())
            if not self._handling:
                self._scope.cancel()

    async def _read(self) -> None:
        while data := await self._stream.receive_some(_READ_SIZE):
            if self._closing:
                continue  # a closed peer's last words are let in, so that ours are not lost to a reset
            await self._protocol.handle(RawData(bytes(data)))
            if self._is_oversize():
                await self._finish()

    def _is_oversize(self) -> bool:
        """Hypercorn answers a message that is too large with a close frame, and goes on buffering what follows."""
        stream = self._protocol.stream
        return isinstance(stream, WSStream) and stream.buffer.length > self._config.websocket_max_message_size

    # --- What is waited for ---------------------------------------------------------------------------------

    def _expect(self, seconds: float) -> None:
        self._scope.deadline = trio.current_time() + seconds

    def _expect_nothing(self) -> None:
        if not self._closing and self._scope.deadline != inf:
            self._scope.deadline = inf

    def end_if_idle(self) -> None:
        """End the connection if nothing is being handled and nothing was said that the peer has yet to read."""
        if not self._handling and not self._closing:
            self._scope.cancel()

    def cut_off(self) -> None:
        """End the connection now, in the middle of a write if need be."""
        self._scope.cancel()
        self._write_scope.cancel()

    # --- What the protocol asks for -------------------------------------------------------------------------

    async def _on_protocol_event(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            await self._finish()
            await self._protocol.handle(Closed())
        elif isinstance(event, Updated) and event.idle and not self._closing:
            self._expect(self._deadlines.request)

    async def _write(self, data: bytes) -> None:
        """Write all or end the connection: half a frame cannot be taken back, so a cancelled handler still finishes it.

        The deadline bounds how long that may hold up the handler's cancellation.
        """
        async with self._write_lock:
            if self._closing or self._scope.cancel_called:
                return  # nothing of it has left, and a cut that came while the lock was taken has no write to end
            self._writes += 1
            with trio.move_on_after(self._deadlines.write, shield=True) as self._write_scope:
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._expect(self._deadlines.close)  # the reader sees the end too, and tells the handler
            if self._write_scope.cancelled_caught:
                self._scope.cancel()

    async def _finish(self) -> None:
        """Say that nothing more comes, and give the peer a moment to read it and go."""
        if self._closing:
            return
        self._closing = True
        self._expect(self._deadlines.close)
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            self._scope.cancel()  # TLS has no half: its peer sees the end only when the connection is closed
            return
        # Shielded: a handler's tasks may be cancelling each other just because the answer is complete.
        with trio.move_on_after(self._deadlines.close, shield=True):
            async with self._write_lock:
                try:
                    await self._stream.send_eof()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._scope.cancel()

    async def spawn_app(
        self, _app: Any, _config: Config, scope: Any, send: Any
    ) -> Callable[[dict[str, Any]], Awaitable[None]]:
        """Start the handler of a request or WebSocket; returns where the protocol puts the messages for it."""
        if scope["type"] == "websocket":
            self._expect(self._deadlines.first_message)
        put, messages = trio.open_memory_channel[dict[str, Any]](_UNHANDLED_MESSAGES)
        self._handling += 1
        self._nursery.start_soon(self._handle, scope, messages, send)

        async def put_unless_ended(message: dict[str, Any]) -> None:
            try:
                await put.send(message)
            except trio.BrokenResourceError:
                await trio.lowlevel.checkpoint()  # the handler has ended; its peer may still be talking

        return put_unless_ended

    def spawn(self, function: Any, *args: Any) -> None:
        """Start a task of the protocol's own."""
        self._nursery.start_soon(function, *args)

    # --- The handler ----------------------------------------------------------------------------------------

    async def _handle(self, scope: Scope, messages: trio.MemoryReceiveChannel[dict[str, Any]], send: Any) -> None:
        async def receive() -> dict[str, Any]:
            message = await messages.receive()
            if message["type"] == "websocket.receive" or message.get("more_body") is False:
                self._expect_nothing()
            return message

        try:
            await self._app(scope, receive, self._with_checkpoint(send))
        except* Exception as errors:
            log.error("a handler failed", error=name_of(errors), at=place_of(errors))
        finally:
            messages.close()
            self._handling -= 1
        await send(None)  # the handler has ended: Hypercorn completes the answer or closes

    def _with_checkpoint(self, send: Send) -> Send:
        """`send`, which upstream returns from at once when the connection is closed: a loop would never let go."""

        async def checked_send(message: dict[str, Any]) -> None:
            writes = self._writes
            await send(message)
            if self._writes == writes:
                await trio.lowlevel.checkpoint()

        return checked_send
