"""The one place that touches Hypercorn: HTTP/1.1 and WebSocket connections that no peer can turn against the process.

Every connection has deadlines, bounded buffers and its own exception boundary. What a path or a message means stands
elsewhere. Hypercorn's private names that this leans on are checked at start (`check_patch_points`).
"""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import metadata
from math import inf
from typing import Any, Final

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ws_stream
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WebsocketBuffer, WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from wsproto.extensions import Extension

from sottovoce_wire import limits

from .addresses import Addresses, Doors, Peer, Source, without_addresses
from .budget import Budget
from .errors import StartError, name_of, place_of
from .logs import Rare, log
from .rates import Rates
from .refusals import refuse_crowd
from .service import Application, Receive, Scope, Send
from .unhandled import Inbox, Message

#: At most so much is parsed before other connections get their turn.
_READ_SIZE: Final = 2**15
#: Bytes of input that all connections together may have read and not yet handled.
_UNHANDLED_BYTES: Final = 64 * 2**20
_CROWD: Final = "too many from one address block, or too fast; if it is a proxy of yours, set trusted_proxies"
#: When a client that was refused for its neighbours may ask again.
_CROWD_SECONDS: Final = 10
#: In a WebSocket's `extensions`: a function that gives the next message if it is here already, else None.
RECEIVE_READY: Final = "sottovoce.receive_ready"


@dataclass(frozen=True)
class Deadlines:
    """Seconds. `first_request`: until the whole head and body of a connection's first request are in. `request`: the
    same of later ones, and the idle limit between two.
    `first_message`: from a WebSocket upgrade to its first message. `message`: from the first byte of a later one to its
    last. `write`: for one write to be taken by the peer. `close`: for the peer to go, and for the handler to end, once
    either side has closed."""

    first_request: float = 10
    request: float = 30
    first_message: float = 10
    message: float = 60  # a full message at 17 kB/s
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
    nothing, config, context = [None] * 4, _hypercorn_config(), WorkerContext(None)
    try:
        protocol_type: Any = _Protocol
        stream_type: Any = WSStream
        protocol = protocol_type(None, config, context, None, None, *nothing)
        part = stream_type(None, config, context, None, *nothing, 1).buffer
        names_exist = hasattr(ws_stream, "PerMessageDeflate") and hasattr(H11Protocol, "_check_protocol")
        return names_exist and protocol.stream is None and bool(part.length == 0 and part.value is None)
    except (AttributeError, TypeError):
        return False


def _hypercorn_config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = None  # what goes wrong is logged here, without bytes or addresses
    config.include_server_header = False
    # One byte more than a frame may have, so that the protocol above can name the fault; beyond that it is closed.
    config.websocket_max_message_size = limits.MAX_MESSAGE + 1
    return config


@dataclass(frozen=True)
class Crowds:
    """Which connections are one crowd, and how large it may be: addresses, and the doors of their blocks.

    By default no block is limited.
    """

    addresses: Addresses = field(default_factory=Addresses)
    doors: Doors = field(default_factory=lambda: Doors(2**31, Rates(rate=1e9, burst=10**9)))


@dataclass(frozen=True)
class _Shared:
    """What the connections of one server have in common."""

    app: Application
    deadlines: Deadlines
    crowds: Crowds = field(default_factory=Crowds)
    config: Config = field(default_factory=_hypercorn_config)
    context: WorkerContext = field(default_factory=lambda: WorkerContext(None))
    budget: Budget = field(default_factory=lambda: Budget(_UNHANDLED_BYTES))
    failures: Rare = field(default_factory=lambda: Rare("a connection failed"))
    refusals: Rare = field(default_factory=lambda: Rare("a connection was refused"))


class Guard:
    """The connections of one server, at most `max_connections` at a time, and as many of one block as `crowds` lets in.

    `handle` serves what a listener accepts. Handlers find in the scope's `state` the `peer` that they answer: an opaque
    value for a block of addresses, or None for what is not one client.
    """

    def __init__(
        self, app: Application, max_connections: int, deadlines: Deadlines, crowds: Crowds | None = None
    ) -> None:
        self._shared = _Shared(app, deadlines, crowds or Crowds())
        self._max_connections = max_connections
        self._connections: set[_Connection] = set()
        self._waiting = trio.lowlevel.ParkingLot()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until it ends, and close it. Raises nothing but what trio itself needs.

        Cancellation: the connection is cut off; a write under way may last until its deadline unless `cut_off` is
        called.
        """
        try:
            source = self._shared.crowds.addresses.source_of(stream)
        except OSError:
            await trio.aclose_forcefully(stream)  # gone before we looked
            return
        if len(self._connections) >= self._max_connections:
            await self._refuse(stream, "too many in all")
        elif not self._shared.crowds.doors.enter(source.peer):
            await self._refuse(stream, _CROWD)
        else:
            try:
                await self._serve(stream, source)
            finally:
                self._shared.crowds.doors.leave(source.peer)

    async def _serve(self, stream: trio.abc.Stream, source: Source) -> None:
        connection = _Connection(self._shared, stream, source)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._waiting.unpark_all()
            with trio.move_on_after(self._shared.deadlines.close, shield=True):
                await stream.aclose()

    async def _refuse(self, stream: trio.abc.Stream, reason: str) -> None:
        self._shared.refusals.note(reason=reason)
        await trio.aclose_forcefully(stream)

    async def retire(self) -> None:
        """Let no connection take another request: idle ones end now, the others after their answer."""
        await self._shared.context.terminated.set()
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

    __slots__ = (
        "_closing",
        "_deadlines",
        "_handling",
        "_inbox",
        "_nursery",
        "_protocol",
        "_scope",
        "_shared",
        "_socket",
        "_source",
        "_stream",
        "_write_lock",
        "_write_scope",
        "_writes",
    )

    def __init__(self, shared: _Shared, stream: trio.abc.Stream, source: Source) -> None:
        self._shared = shared
        self._stream = stream
        self._source = source
        self._deadlines = shared.deadlines
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._scope = trio.CancelScope()
        self._write_scope = trio.CancelScope()
        self._write_lock = trio.Lock()
        self._nursery: trio.Nursery
        self._protocol: _Protocol
        self._inbox = Inbox(shared.budget)
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
                self._shared.failures.note(error=name_of(errors), at=place_of(errors))

    async def _serve(self) -> None:
        self._expect(self._deadlines.first_request)
        if isinstance(self._stream, trio.SSLStream):
            await self._stream.do_handshake()
        async with trio.open_nursery() as self._nursery:
            self._protocol = _Protocol(
                self._shared.app,  # type: ignore[arg-type] # handed back to spawn_app, which knows better
                self._shared.config,
                self._shared.context,
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
            if self._inbox.has_to_wait:
                await self._wait_for_room()
            await self._protocol.handle(RawData(bytes(data)))
            stream = self._protocol.stream
            if isinstance(stream, WSStream) and not self._closing:
                await self._watch_message(stream.buffer)

    async def _wait_for_room(self) -> None:
        """The deadline goes on meanwhile, and whoever comes through has the time back that was taken from him."""
        began = trio.current_time()
        await self._shared.budget.wait_for_room()
        self._scope.deadline += trio.current_time() - began

    async def _watch_message(self, part: WebsocketBuffer) -> None:
        """Bound a message that is not whole yet, in size and in time."""
        self._inbox.note_part(part.length)
        if part.length > self._shared.config.websocket_max_message_size:
            await self._finish()  # Hypercorn says that it is too large, and would go on buffering what follows
        elif part.value is not None and self._scope.deadline == inf:
            self._expect(self._deadlines.message)

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
        rest = self._write_at_once(data)
        if not rest:
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope(shield=len(rest) < len(data)):
            await self._write_patiently(rest)

    def _write_at_once(self, data: bytes) -> bytes:
        """Write what the system takes at once: nearly always all, at half the cost. Returns the rest. TLS can't."""
        if self._socket is None or self._is_over or self._write_lock.locked():
            return data
        self._writes += 1
        try:
            return data[os.write(self._socket.fileno(), data) :]
        except OSError:
            return data  # full, closed or gone: the other way finds out

    async def _write_patiently(self, data: bytes) -> None:
        async with self._write_lock:
            if self._is_over:
                return  # nothing of it has left, and a cut that came while the lock was taken has no write to end
            self._writes += 1
            with trio.move_on_after(self._deadlines.write, shield=True) as self._write_scope:
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._expect(self._deadlines.close)  # the reader sees the end too, and tells the handler
            if self._write_scope.cancelled_caught:
                self._scope.cancel()

    @property
    def _is_over(self) -> bool:
        return self._closing or self._scope.cancel_called

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
    ) -> Callable[[Message], Awaitable[None]]:
        """Start the handler of a request or WebSocket; returns where the protocol puts the messages for it."""
        inbox = self._inbox = Inbox(self._shared.budget)
        scope["state"]["peer"] = self._peer_of(scope)
        scope["headers"] = without_addresses(scope["headers"])
        if scope["type"] == "websocket":
            self._expect(self._deadlines.first_message)
            scope["extensions"][RECEIVE_READY] = inbox.receive_ready
        self._handling += 1
        self._nursery.start_soon(self._handle, scope, inbox, send)

        async def put(message: Message) -> None:
            if message["type"] == "websocket.receive" or message.get("more_body") is False:
                self._expect_nothing()
            await inbox.put(message)

        return put

    def _peer_of(self, scope: Scope) -> Peer | None:
        if not self._source.is_trusted_proxy:
            return self._source.peer
        return self._shared.crowds.addresses.forwarded(scope["headers"])

    def spawn(self, function: Any, *args: Any) -> None:
        """Start a task of the protocol's own."""
        self._nursery.start_soon(function, *args)

    # --- The handler ----------------------------------------------------------------------------------------

    async def _handle(self, scope: Scope, inbox: Inbox, send: Any) -> None:
        try:
            await self._admit(scope, inbox.receive, self._with_checkpoint(send))
        except* h11.LocalProtocolError as errors:
            # What the peer said meanwhile makes an answer impossible: no handler's fault.
            self._shared.failures.note(error=name_of(errors), at=place_of(errors))
        except* Exception as errors:
            log.error("a handler failed", error=name_of(errors), at=place_of(errors))
        finally:
            inbox.close()
            self._handling -= 1
        await send(None)  # the handler has ended: Hypercorn completes the answer or closes

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the handler. A WebSocket through a trusted proxy counts as a connection of whom it is for."""
        is_for_another = self._source.is_trusted_proxy and scope["type"] == "websocket"
        peer, doors = scope["state"]["peer"] if is_for_another else None, self._shared.crowds.doors
        if not doors.enter(peer):
            self._shared.refusals.note(reason=_CROWD)
            await refuse_crowd(scope, send, _CROWD_SECONDS)
            return
        try:
            await self._shared.app(scope, receive, send)
        finally:
            doors.leave(peer)

    def _with_checkpoint(self, send: Send) -> Send:
        """`send`, which upstream returns from at once when the connection is closed: a loop would never let go."""

        async def checked_send(message: dict[str, Any]) -> None:
            writes = self._writes
            await send(message)
            if self._writes == writes:
                await trio.lowlevel.checkpoint()

        return checked_send
