"""What a server is to the process that hosts it: routes, perhaps a WebSocket, readiness, metrics and a drain."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from sottovoce_wire.errors import WireError
from sottovoce_wire.origins import parse_origin

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
#: An ASGI 3 callable.
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
WebSocketHandler: TypeAlias = Application


class Origins:
    """The origins under which this process is reached: what a signature meant for it must name.

    With `public_url` that one alone; without it, loopback addresses on the ports that are bound. Never the Host header.
    """

    _LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")

    def __init__(self, public_url: str | None, ports: Iterable[int]) -> None:
        if public_url is not None:
            self._accepted = [parse_origin(public_url)]
        else:
            self._accepted = [parse_origin(f"http://{host}:{port}") for port in ports for host in self._LOOPBACK]

    @property
    def main(self) -> str:
        """The one to tell others."""
        return self._accepted[0]

    @property
    def accepted(self) -> tuple[str, ...]:
        """All of them, canonical: a verifier tries each."""
        return tuple(self._accepted)

    def accept(self, origin: str) -> bool:
        """Whether `origin`, in any spelling, is one of ours."""
        try:
            return parse_origin(origin) in self._accepted
        except WireError:
            return False


class Service(Protocol):
    """One server inside a process."""

    @property
    def name(self) -> str:
        """The server's name in logs."""

    @property
    def registry(self) -> CollectorRegistry:
        """What the service counts, for the process's metrics. No metric and no label names anybody."""

    @property
    def websockets(self) -> Mapping[str, WebSocketHandler]:
        """Handlers by exact path."""

    def add_routes(self, app: QuartTrio) -> None:
        """Register the service's HTTP routes."""

    def not_ready(self) -> str | None:
        """Why the service cannot take work now, or None. Names no data."""

    async def drain(self) -> None:
        """Tell clients to move on and finish what was begun. Called once, when no new connection comes any more."""
