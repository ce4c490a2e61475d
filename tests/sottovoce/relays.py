"""A relay on a real socket that says what the test wants, and nothing else: honest, silent, or lying."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio
import trio_websocket

from sottovoce_wire import frames, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import ClientFrame, RelayFrame, SendItem
from sottovoce_wire.ids import QueueId, queue_id_of

PATIENCE = 60.0
WELCOME = frames.Welcome(1, bytes(32), limits.MAX_ENVELOPE, limits.MAX_MESSAGE, limits.MAX_SEND_ITEMS)
ACCEPTED = frames.SendResult(Code.ACCEPTED, 0)


@dataclass
class Talk:
    """One client's connection, on the relay's side."""

    socket: trio_websocket.WebSocketConnection
    queues: list[QueueId] = field(default_factory=list)

    async def hear(self) -> list[ClientFrame]:
        """The frames of the next message."""
        data = await self.socket.get_message()
        assert isinstance(data, bytes)
        return frames.decode_client_message(data)

    async def say(self, *said: RelayFrame) -> None:
        """All of it in one message."""
        await self.socket.send_message(frames.message(*said))

    async def welcome(self) -> None:
        """Hear the client's greeting and answer it."""
        assert await self.hear() == [frames.Hello([1])]
        await self.say(WELCOME)

    async def greet(self, code: str = "") -> None:
        """Welcome an owner, and do all it asks for if it says this code."""
        await self.welcome()
        asked = await self.hear()
        if {frame.code for frame in asked if isinstance(frame, frames.CreateQueue)} == {code}:
            await self.do(asked)
        else:
            await self.say(frames.Failed(0, Code.REGISTRATION_CLOSED, "\x1b]0;not the relay's words\x07"))

    async def do(self, asked: list[ClientFrame]) -> None:
        """Make the owner's queues and begin to deliver both: nothing waits in the first."""
        self.queues = [queue_id_of(frame.owner_key) for frame in asked if isinstance(frame, frames.CreateQueue)]
        first, second = self.queues
        await self.say(*(frames.Done(request) for request in range(len(asked))), frames.CaughtUp(first))
        (receive,) = await self.hear()
        assert isinstance(receive, frames.Receive)
        assert receive.queue == second
        await self.say(frames.Done(receive.request))

    async def hear_send(self) -> tuple[int, list[SendItem]]:
        """The next Send: its number and what it brings."""
        (send,) = await self.hear()
        assert isinstance(send, frames.Send)
        return send.request, send.items

    async def accept(self) -> list[bytes]:
        """Accept all of the next Send; returns the bodies."""
        request, items = await self.hear_send()
        await self.say(frames.SendResults(request, [ACCEPTED] * len(items)))
        return [item.body for item in items]


@asynccontextmanager
async def relay(*talks: Callable[[Talk], Awaitable[None]]) -> AsyncIterator[str]:
    """A relay's address: the first connection meets the first of `talks`, and so on; the last also all further ones.

    A connection stays open until the client goes, or the talk has closed it."""
    remaining = list(talks)

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        talk = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        socket = await request.accept()
        with suppress(trio_websocket.ConnectionClosed):
            await talk(Talk(socket))
            await socket.get_message()  # until the client goes

    async with trio.open_nursery() as nursery:
        server: trio_websocket.WebSocketServer = await nursery.start(
            trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None
        )
        yield f"http://127.0.0.1:{server.port}"
        nursery.cancel_scope.cancel()
