"""Metrics for Prometheus on a loopback port of their own: GET /metrics, and nothing else.

What is counted stands in the services and names nobody. The same guard serves it as everything else: whatever a peer
says here ends its own connection at most.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final, TypeAlias

import trio
from prometheus_client import CollectorRegistry, Gauge, Info, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from .errors import StartError
from .guard import Deadlines, Guard
from .service import Application, Receive, Scope, Send
from .settings import HostingSettings

# Else every counter has a second series beside it: when it first counted, to the microsecond.
disable_created_metrics()  # type: ignore[no-untyped-call] # the library says nothing of it

Handler: TypeAlias = Callable[[trio.abc.Stream], Awaitable[None]]

_PATH: Final = "/metrics"
_MAX_CONNECTIONS: Final = 8
_DEADLINES: Final = Deadlines(first_request=5, request=60, first_message=5, write=5)


class ProcessMetrics:
    """What is known of the process itself: version, memory, files and start (by prometheus_client), connections."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info("sottovoce_build", "What runs here.", registry=self.registry).info({"version": version("sottovoce")})
        self.connections = Gauge(
            "sottovoce_open_connections", "Connections on the server's own port.", registry=self.registry
        )

    def counting(self, handle: Handler) -> Handler:
        """`handle`, whose connections count as open while it runs."""

        async def counted(stream: trio.abc.Stream) -> None:
            with self.connections.track_inprogress():
                await handle(stream)

        return counted


async def listen_for_metrics(settings: HostingSettings) -> list[trio.SocketListener]:
    """Open the sockets of the metrics' port, if there is one. Raises StartError.

    Cancellation: nothing stays open.
    """
    if settings.metrics_port is None:
        return []
    try:
        return await trio.open_tcp_listeners(settings.metrics_port, host=settings.metrics_host)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        place = f"{settings.metrics_host} port {settings.metrics_port}"
        raise StartError(f"cannot serve metrics on {place}: {reason}; choose another metrics_port") from None


def url_of(listeners: Sequence[trio.SocketListener]) -> str | None:
    """Where metrics are read, if anywhere."""
    if not listeners:
        return None
    host, port = listeners[0].socket.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{_PATH}"


@asynccontextmanager
async def serving_metrics(
    listeners: Sequence[trio.SocketListener], registries: Sequence[CollectorRegistry]
) -> AsyncIterator[None]:
    """Answer while the block runs; its end, or cancellation, cuts off whoever is connected."""
    guard = Guard(_make_app(registries), _MAX_CONNECTIONS, _DEADLINES)
    async with trio.open_nursery() as nursery:
        if listeners:
            nursery.start_soon(trio.serve_listeners, guard.handle, list(listeners))
        try:
            yield
        finally:
            guard.cut_off()
            nursery.cancel_scope.cancel()


def _make_app(registries: Sequence[CollectorRegistry]) -> Application:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["path"] != _PATH:
            await _answer(send, 404, b"")
        elif scope["method"] != "GET":
            await _answer(send, 405, b"")
        else:
            await _answer(send, 200, b"".join(map(generate_latest, registries)))

    return app


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [
        (b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
