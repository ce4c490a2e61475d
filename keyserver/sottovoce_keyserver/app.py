"""The keyserver as a service of a process: opens its database and offers its routes.

What the routes do stands in routes.py.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio
from quart_trio import QuartTrio

from sottovoce_hosting.database import open_database
from sottovoce_hosting.service import Origins, Service, WebSocketHandler

from .metrics import Metrics
from .poplimit import PopLimit
from .routes import Directory, make_blueprint
from .settings import KeyserverSettings

#: The database's file in the data folder, and the revisions of its tables.
DATABASE: Final = "keyserver.db"
MIGRATIONS: Final = Path(__file__).with_name("migrations")


class KeyserverService:
    """An open keyserver, as its process sees it. Made by `open_keyserver`."""

    name = "keyserver"
    websockets: Mapping[str, WebSocketHandler] = {}

    def __init__(self, routes: Directory, nursery: trio.Nursery) -> None:
        self.registry = routes.metrics.registry
        self._routes = routes
        self._nursery = nursery

    def add_routes(self, app: QuartTrio) -> None:
        """The directory's paths under /v1."""
        app.register_blueprint(make_blueprint(self._routes))

    def not_ready(self) -> str | None:
        """Why the directory cannot be changed now, or None.

        Asking has a database that failed tried again, for the next answer.
        """
        database = self._routes.database
        if database.failure is not None:
            self._nursery.start_soon(database.probe)
        return database.failure

    async def drain(self) -> None:
        """Nothing is begun here that its own answer does not end."""


@asynccontextmanager
async def open_keyserver(
    settings: KeyserverSettings, origins: Origins, clock: Callable[[], float] = time.time
) -> AsyncIterator[Service]:
    """Open the keyserver whose data is in `settings.data`. `clock` gives unix seconds.

    Raises LockHeld if another process has it open, DatabaseError if it cannot be opened.
    """
    async with open_database(settings.data / DATABASE, MIGRATIONS) as database, trio.open_nursery() as nursery:
        relay = settings.relay_url or origins.main
        yield KeyserverService(Directory(database, origins, relay, clock, PopLimit(clock), Metrics()), nursery)
        nursery.cancel_scope.cancel()
