"""The relay as a service of a process: opens its database, starts writer and sweeper, offers the WebSocket.

What is done with a connection stands in gateway.py, with an expired envelope in sweeper.py.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio
from quart_trio import QuartTrio

from sottovoce_hosting.database import open_database
from sottovoce_hosting.service import Origins, Service, WebSocketHandler

from . import gateway
from .bus import Bus
from .settings import RelaySettings
from .sweeper import empty_log_for_ever, sweep_for_ever
from .writer import Writer

PATH: Final = "/v1/relay"
_MIGRATIONS: Final = Path(__file__).with_name("migrations")


class RelayService:
    """A running relay, as its process sees it. Made by `open_relay`."""

    name = "relay"

    def __init__(self, connections: gateway.Gateway, writer: Writer, drain_seconds: float) -> None:
        self.websockets: dict[str, WebSocketHandler] = {PATH: connections.serve}
        self._connections = connections
        self._writer = writer
        self._drain_seconds = drain_seconds

    def add_routes(self, app: QuartTrio) -> None:
        """The relay has no HTTP routes of its own."""

    def not_ready(self) -> str | None:
        """Why envelopes cannot be taken in now, or None."""
        return self._writer.failure

    async def drain(self) -> None:
        """Answer what was asked, say Goodbye to everybody, and write what still came. At most `drain_seconds` long.

        Cancellation: waits for its deadline all the same.
        """
        with trio.move_on_after(self._drain_seconds, shield=True):
            await self._writer.flush()
            await self._connections.drain()
            await self._writer.flush()


@asynccontextmanager
async def open_relay(
    settings: RelaySettings, origins: Origins, clock: Callable[[], float] = time.time
) -> AsyncIterator[Service]:
    """Open the relay whose data is in `settings.data`; it runs while the block does. `clock` gives unix seconds.

    Raises LockHeld if another process has it open, DatabaseError if it cannot be opened.
    """
    async with open_database(settings.data / "relay.db", _MIGRATIONS) as database, trio.open_nursery() as nursery:
        bus = Bus()
        writer = Writer(database, bus, settings.quotas)
        connections = gateway.Gateway(gateway.Relay(origins, settings.quotas, clock, database, bus, writer))
        nursery.start_soon(writer.run)
        nursery.start_soon(sweep_for_ever, writer, bus, clock)
        nursery.start_soon(empty_log_for_ever, database, writer)
        yield RelayService(connections, writer, settings.drain_seconds)
        nursery.cancel_scope.cancel()
