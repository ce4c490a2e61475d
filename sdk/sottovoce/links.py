"""WebSocket connections to relays: dialled, directly or by proxy, bounded, closed whatever happens; their troubles are
ServerUnreachable."""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from sottovoce_wire import limits
from sottovoce_wire.origins import endpoint, may_connect, may_dial

from . import errors
from ._http import unreachable
from .proxies import Proxy, open_proxy

PATH: Final = "/v1/relay"
CONNECT_TIMEOUT: Final = 15.0
#: Through a proxy, which may lead through several machines.
PROXIED_TIMEOUT: Final = 45.0
#: Addresses of a foreign relay's name that are tried, one after the other, and for how long each.
MAX_ADDRESSES: Final = 4
ADDRESS_TIMEOUT: Final = 4.0
SEND_TIMEOUT: Final = 30.0
READ_SIZE: Final = 64 * limits.KIB
#: Where this may be dialled, everything may.
_LOOPBACK: Final = "127.0.0.1"

Stream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"


class Link:
    """An open connection that carries messages."""

    def __init__(self, socket: WebSocketConnection, origin: str) -> None:
        self._socket = socket
        self._origin = origin

    async def send(self, message: bytes) -> None:
        """Send one message. Raises ServerUnreachable if the connection is gone or takes nothing for 30 s.

        Cancellation: the connection is to be given up."""
        try:
            with trio.fail_after(SEND_TIMEOUT):
                await self._socket.send_message(message)
        except (ConnectionClosed, OSError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lost() from None

    async def receive(self) -> bytes:
        """The next message. Raises ServerUnreachable if the connection is gone. Cancellation loses nothing."""
        try:
            message = await self._socket.get_message()
        except (ConnectionClosed, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lost() from None
        return message if isinstance(message, bytes) else message.encode("utf-8", "surrogatepass")

    def _lost(self) -> errors.ServerUnreachable:
        return errors.ServerUnreachable(f"the connection to {self._origin} was lost")


async def with_link(origin: str, own: str, talk: Callable[[Link], Awaitable[None]], proxy: Proxy | None) -> None:
    """Dial the relay at `origin`, run `talk`, close. Raises what `talk` raises, or ServerUnreachable.

    `own` is the client's own server: only there may a name lead to a private address (`origins.may_connect`); others
    are looked up first and then not dialled. Through a proxy only an address that the origin itself spells can be
    checked: where a name leads, only the proxy knows.

    The connection just ends, without WebSocket's closing handshake: what is unanswered or unacknowledged is said again.
    Cancellation: closes the connection at once.
    """
    stream = await _dial(origin, own, proxy)
    raised: Exception | None = None
    broken = upgraded = False
    try:
        async with trio.open_nursery() as nursery:
            try:
                socket = await _upgrade(nursery, stream, origin)
                upgraded = True
                await talk(Link(socket, origin))
            except Exception as error:  # carried past the nursery, which would wrap it in a group
                raised = error
            # The library's own task may be what failed, and on its way out. Cancelled there, it would lose its error,
            # which may be a KeyboardInterrupt. It needs one turn of the loop, and the present one may have begun.
            for _ in range(2):
                await trio.lowlevel.cancel_shielded_checkpoint()
            nursery.cancel_scope.cancel()
    except* Exception:  # the WebSocket library's own task failed: hostile bytes, or the network
        broken = True
    finally:
        await trio.aclose_forcefully(stream)  # the library leaves it open when the peer goes without a word
    if raised is not None:
        raise raised
    if broken:
        raise errors.ServerUnreachable(f"the connection to {origin} broke") if upgraded else _no_relay(origin)


async def _dial(origin: str, own: str, proxy: Proxy | None) -> Stream:
    host, _, tls = endpoint(origin)
    try:
        with trio.fail_after(CONNECT_TIMEOUT if proxy is None else PROXIED_TIMEOUT):
            stream = await (_open(origin, own) if proxy is None else _open_through(proxy, origin, own))
            return await _secure(stream, host) if tls else stream
    except (OSError, UnicodeError, trio.TooSlowError, trio.BrokenResourceError) as error:
        raise unreachable(f"nothing answers at {origin}", origin, error) from None


async def _open(origin: str, own: str) -> trio.SocketStream:
    host, port, _ = endpoint(origin)
    if may_connect(origin, _LOOPBACK, own=own):
        return await trio.open_tcp_stream(host, port)
    _check(origin, may_dial(origin, own=own))
    found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))[:MAX_ADDRESSES]
    _check(origin, all(may_connect(origin, address, own=own) for address in addresses))
    for address in addresses:  # by number, so that the name is not asked again, which could lead elsewhere by then
        with trio.move_on_after(ADDRESS_TIMEOUT), suppress(OSError):
            return await trio.open_tcp_stream(address, port)
    raise OSError("none of the addresses answers")


async def _open_through(proxy: Proxy, origin: str, own: str) -> trio.SocketStream:
    host, port, _ = endpoint(origin)
    _check(origin, origin == own or may_dial(origin, own=own))
    proxy.check(origin)
    stream = await open_proxy(proxy)
    try:
        await proxy.lead_to(host, port, stream.receive_some, stream.send_all)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _check(origin: str, is_allowed: bool) -> None:
    if not is_allowed:
        raise errors.ServerUnreachable(f"{origin} leads into a private network")


async def _secure(stream: trio.SocketStream, host: str) -> "trio.SSLStream[trio.SocketStream]":
    secured = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host)
    try:
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


async def _upgrade(nursery: trio.Nursery, stream: Stream, origin: str) -> WebSocketConnection:
    host = origin.partition("://")[2]
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            return await wrap_client_stream(
                nursery,
                stream,
                host,
                PATH,
                max_message_size=limits.MAX_MESSAGE,
                message_queue_size=4,
                receive_buffer_size=READ_SIZE,
            )
    except (HandshakeError, ConnectionClosed, trio.TooSlowError):
        raise _no_relay(origin) from None


def _no_relay(origin: str) -> errors.ServerUnreachable:
    return errors.ServerUnreachable(
        f"what answers at {origin} is no relay",
        hint="if keyserver and relay run apart, the keyserver must be told the relay's address (--relay-url)",
    )
