"""A relay in the test's own run or as a process, and queues that do not exist yet, for the relay's tests."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
import trio_websocket

from sottovoce_hosting.service import Origins, Service
from sottovoce_hosting.testing import ServedForTest, start_server
from sottovoce_relay.app import open_relay
from sottovoce_relay.settings import RelaySettings
from tests.relay_clients import PATIENCE as PATIENCE
from tests.relay_clients import Client as Client
from tests.relay_clients import Mailbox as Mailbox
from tests.relay_clients import RelayProcess as RelayProcess
from tests.relay_clients import connect as connect
from tests.relay_clients import open_socket as open_socket
from tests.relay_clients import run_relay_process


@dataclass
class Clock:
    """Unix time, as the test wants it."""

    now: float = 1_800_000_000

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class ServedRelay:
    """A relay that answers, and the folder and clock that it works with."""

    server: ServedForTest
    data: Path
    clock: Clock
    service: Service

    def counted(self, name: str, **labels: str) -> float:
        """What the relay's metrics say."""
        value = self.service.registry.get_sample_value(f"sottovoce_relay_{name}", labels)
        assert value is not None, name
        return value

    def connect(self) -> AbstractAsyncContextManager[Client]:
        return connect(self.server.url)

    def socket(self) -> AbstractAsyncContextManager[trio_websocket.WebSocketConnection]:
        """A connection that has said nothing yet."""
        return open_socket(self.server.url)

    @asynccontextmanager
    async def owner(self, box: Mailbox) -> AsyncIterator[Client]:
        """A connection that has created `box`, or proven it again."""
        async with self.connect() as client:
            await client.create(box)
            yield client


RunRelay: TypeAlias = Callable[[], AbstractAsyncContextManager[RelayProcess]]


@pytest.fixture
def run_relay(tmp_path: Path) -> RunRelay:
    """Run the command while a block runs, on the same data each time."""
    return partial(run_relay_process, tmp_path)


StartRelay: TypeAlias = Callable[..., AbstractAsyncContextManager[ServedRelay]]


@pytest.fixture
def start_relay(tmp_path: Path) -> StartRelay:
    """Serve a relay while a block runs; keywords are its settings. Served again, it finds its data again."""
    clock = Clock()

    @asynccontextmanager
    async def start(**chosen: object) -> AsyncIterator[ServedRelay]:
        settings = RelaySettings.model_validate({"data": tmp_path, "port": 0, **chosen})
        opened: list[Service] = []

        @asynccontextmanager
        async def opening(origins: Origins) -> AsyncIterator[Service]:
            async with open_relay(settings, origins, clock) as service:
                opened.append(service)
                yield service

        async with trio.open_nursery() as nursery:
            server = await start_server(nursery, lambda origins: [opening(origins)], settings)
            try:
                yield ServedRelay(server, tmp_path, clock, opened[0])
            finally:
                server.stop.set()

    return start


@pytest.fixture
async def relay(start_relay: StartRelay) -> AsyncIterator[ServedRelay]:
    """A relay with the default settings."""
    async with start_relay() as served:
        yield served


@pytest.fixture
def box() -> Mailbox:
    """A queue that does not exist yet."""
    return Mailbox()


@pytest.fixture
def other_box() -> Mailbox:
    """Another one."""
    return Mailbox()
