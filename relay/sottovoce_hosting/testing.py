"""A real server inside a test: real sockets on loopback, in the test's own trio run.

For tests of this project and of services that others write; no server imports it.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from .binding import Address
from .guard import Deadlines
from .service import Origins
from .serving import OpenServices, serve
from .settings import HostingSettings

#: How long a test waits for bytes: far longer than any passing test needs.
PATIENCE: Final = 10.0


@dataclass(frozen=True)
class ServedForTest:
    """A server that answers. `stop` ends it in order; `stopped` is set once it has returned."""

    address: Address
    stop: trio.Event
    stopped: trio.Event

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return self.address.url

    @property
    def origins(self) -> Origins:
        """What signatures for this server may name."""
        return self.address.origins

    async def connect(self) -> trio.SocketStream:
        """A raw connection."""
        return await trio.open_tcp_stream("127.0.0.1", int(self.url.rpartition(":")[2]))

    async def exchange(self, data: bytes) -> bytes:
        """Say this on a connection of its own; returns all that comes back until the server closes it.

        Raises trio.TooSlowError if it stays open for PATIENCE seconds.
        """
        stream = await self.connect()
        with suppress(trio.BrokenResourceError):  # it may be closed already; what was answered is still read
            await stream.send_all(data)
        return await read_until_closed(stream)

    async def is_alive(self) -> bool:
        """Whether a new connection is answered."""
        return (await self.exchange(b"GET /livez HTTP/1.0\r\n\r\n")).endswith(b"live\n")


async def read_until_closed(stream: trio.SocketStream) -> bytes:
    """Everything that comes until the peer closes or resets. Raises trio.TooSlowError after PATIENCE seconds."""
    data = bytearray()
    with trio.fail_after(PATIENCE):
        async with stream:
            try:
                async for piece in stream:
                    data += piece
            except trio.BrokenResourceError:
                pass
    return bytes(data)


async def start_server(
    nursery: trio.Nursery,
    open_services: OpenServices,
    settings: HostingSettings | None = None,
    deadlines: Deadlines | None = None,
) -> ServedForTest:
    """Serve in `nursery` on a free loopback port; returns when connections are answered."""
    stop, stopped = trio.Event(), trio.Event()
    chosen = settings or HostingSettings(port=0)

    async def run(task_status: trio.TaskStatus[Address]) -> None:
        await serve(open_services, chosen, stop=stop, deadlines=deadlines or Deadlines(), task_status=task_status)
        stopped.set()

    return ServedForTest(await nursery.start(run), stop, stopped)
