"""WebSocket connections to relays: dialled, bounded, closed whatever happens; their troubles are ServerUnreachable."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from sottovoce_wire import limits
from sottovoce_wire.origins import websocket_url
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, connect_websocket_url

from . import errors

PATH: Final = "/v1/relay"
CONNECT_TIMEOUT: Final = 15.0
CLOSE_TIMEOUT: Final = 2.0
SEND_TIMEOUT: Final = 30.0


class Link:
    """An open connection that carries frames."""

    def __init__(self, socket: WebSocketConnection, origin: str) -> None:
        self._socket = socket
        self._origin = origin

    async def send(self, frame: bytes) -> None:
        """Send one frame. Raises ServerUnreachable if the connection is gone or takes nothing for 30 s.

        Cancellation: the connection is to be given up."""
        try:
            with trio.fail_after(SEND_TIMEOUT):
                await self._socket.send_message(frame)
        except (ConnectionClosed, OSError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lost() from None

    async def receive(self) -> bytes:
        """The next frame. Raises ServerUnreachable if the connection is gone. Cancellation loses nothing."""
        try:
            message = await self._socket.get_message()
        except (ConnectionClosed, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lost() from None
        return message if isinstance(message, bytes) else message.encode("utf-8", "surrogatepass")

    def _lost(self) -> errors.ServerUnreachable:
        return errors.ServerUnreachable(f"the connection to {self._origin} was lost")


async def with_link(origin: str, talk: Callable[[Link], Awaitable[None]]) -> None:
    """Dial the relay at `origin`, run `talk`, close. Raises what `talk` raises, or ServerUnreachable.

    Cancellation: closes the connection, for at most two seconds in good order, then by force.
    """
    raised: Exception | None = None
    broken = False
    try:
        async with trio.open_nursery() as nursery:
            try:
                socket = await _dial(nursery, origin)
                try:
                    await talk(Link(socket, origin))
                finally:
                    with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                        await socket.aclose()
            except Exception as error:  # carried past the nursery, which would wrap it in a group
                raised = error
            nursery.cancel_scope.cancel()
    except* Exception:  # the WebSocket library's own task failed: hostile bytes, or the network
        broken = True
    if raised is not None:
        raise raised
    if broken:
        raise errors.ServerUnreachable(f"the connection to {origin} broke")


async def _dial(nursery: trio.Nursery, origin: str) -> WebSocketConnection:
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            return await connect_websocket_url(
                nursery, websocket_url(origin, PATH), max_message_size=limits.MAX_FRAME, message_queue_size=4
            )
    except (HandshakeError, OSError, trio.TooSlowError):
        raise errors.ServerUnreachable(f"no relay answers at {origin}") from None
