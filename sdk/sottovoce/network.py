"""How a client reaches servers: what a network must be able to do, and the real one.

Everything that goes out passes here, so that an application's tests can put another network in its place. No protocol
and no retries: they belong to `sending`, `receiving` and `directory`.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from . import links
from ._http import Http as _Http
from .proxies import parse_proxy


class Link(Protocol):
    """An open connection to a relay that carries messages: packed frames, at most `limits.MAX_MESSAGE` bytes each."""

    async def send(self, message: bytes) -> None:
        """Send one message. Raises ServerUnreachable if the connection is gone. Cancellation: it is to be given up."""

    async def receive(self) -> bytes:
        """The next message. Raises ServerUnreachable if the connection is gone. Cancellation loses nothing."""


class Http(Protocol):
    """Requests to one origin."""

    async def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """(status, body of at most 64 KiB). Raises ServerUnreachable or WrongServer.

        Cancellation: the request may or may not have been carried out."""

    async def aclose(self) -> None:
        """Close the connections."""


class Network(Protocol):
    """What connects a client with servers."""

    async def with_link(self, origin: str, own: str, talk: Callable[[Link], Awaitable[None]]) -> None:
        """Connect to the relay at the canonical `origin`, run `talk`, disconnect. `own` is the client's own server.

        Raises what `talk` raises, or ServerUnreachable. Cancellation: disconnects at once."""

    def http(self, origin: str) -> Http:
        """What makes requests to the keyserver at the canonical `origin`. Connects to nothing yet."""


class Internet:
    """The real network: WebSocket and HTTP, all of it through `proxy` if there is one (`parse_proxy`)."""

    def __init__(self, proxy: str | None = None) -> None:
        """Raises InvalidInput."""
        self._proxy = None if proxy is None else parse_proxy(proxy)

    async def with_link(self, origin: str, own: str, talk: Callable[[Link], Awaitable[None]]) -> None:
        """See `Network.with_link`."""
        await links.with_link(origin, own, talk, self._proxy)

    def http(self, origin: str) -> Http:
        """See `Network.http`."""
        return _Http(origin, self._proxy)
