"""The bare stack as a server: the relay's own guard and socket, and a handler that answers each message with 20 bytes,
those that are ready together in one.

What the relay adds to this is the relay's; what this takes is the stack's. Started by floors.py.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from sottovoce_hosting.guard import RECEIVE_READY
from sottovoce_hosting.process import run
from sottovoce_hosting.service import Origins, Receive, Scope, Send, Service, WebSocketHandler
from sottovoce_hosting.settings import HostingSettings

from .floors import ANSWER
from .wire import PATH


class EchoService:
    """Answers every message; keeps nothing."""

    name = "echo"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.websockets: dict[str, WebSocketHandler] = {PATH: _answer_each}

    def add_routes(self, app: QuartTrio) -> None:
        """None."""

    def not_ready(self) -> str | None:
        """It is."""
        return None

    async def drain(self) -> None:
        """Nothing is under way."""


async def _answer_each(scope: Scope, receive: Receive, send: Send) -> None:
    receive_ready = scope["extensions"][RECEIVE_READY]
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        count = 1
        while (message := receive_ready()) is not None and message["type"] == "websocket.receive":
            count += 1
        await send({"type": "websocket.send", "bytes": ANSWER * count})


@asynccontextmanager
async def _open(_origins: Origins) -> AsyncIterator[Service]:
    yield EchoService()


def main() -> None:
    """Serve on a free port until SIGTERM."""
    sys.exit(run("echo", lambda origins: [_open(origins)], HostingSettings(port=0)))
