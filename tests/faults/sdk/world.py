"""A real server, client processes that may die, and a peer in the test's own run: what the SDK's fault tests share."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final

import msgspec
import trio

from sottovoce import Client, errors, open_client
from tests.faults.sdk import journal
from tests.faults.sdk.journal import Event
from tests.faults.sdk.storm import Order

PATIENCE: Final = 60.0
KILLED: Final = -9


@dataclass(frozen=True)
class Mortal:
    """A client whose process may die, and who can be started again: a store, and what its lives have said."""

    folder: Path
    server: str
    orders: IO[bytes]
    answers: IO[bytes]

    def another(self, name: str) -> "Mortal":
        """Somebody else, from the same process."""
        folder = self.folder.with_name(name)
        folder.mkdir()
        return replace(self, folder=folder)

    async def live(self, **order: object) -> int:
        """One life; returns how it ended. Cancellation: waits for its end."""
        words = msgspec.convert({"folder": str(self.folder), "server": self.server, **order}, Order)
        return await trio.to_thread.run_sync(self._live, words)

    def _live(self, order: Order) -> int:
        self.orders.write(msgspec.json.encode(order) + b"\n")
        self.orders.flush()
        return int(self.answers.readline())

    def events(self) -> list[Event]:
        return journal.read(self.folder / "journal")

    def keys(self) -> list[Event]:
        return journal.read(self.folder / "keys")

    def said(self, kind: str) -> list[str]:
        return journal.of_kind(self.events(), kind)

    async def points(self, **order: object) -> list[str]:
        """The points that a life passes which ends by itself."""
        assert await self.live(**order) == 0
        kind, *passed = self.events()[-1]
        assert kind == "passed"
        return passed


@contextmanager
def mortal(folder: Path, server: str) -> Iterator[Mortal]:
    """Somebody on a new store in `folder`, with a process that forks for each life."""
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.sdk.storm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Mortal(folder, server, process.stdin, process.stdout)
        finally:
            process.stdin.close()


@dataclass
class Peer:
    """A client in the test's own run, and what has arrived there, in order."""

    client: Client
    arrived: list[str] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)

    async def listen(self) -> None:
        """Take what comes, also from a store that fails now and then."""
        messages = self.client.messages()
        while True:
            try:
                message = await anext(messages)
            except errors.StoreFailed:
                continue
            self.arrived.append(message.text)
            self._news.set()
            self._news = trio.Event()

    async def until(self, *texts: str) -> None:
        """Wait until these have arrived."""
        with trio.move_on_after(PATIENCE) as patience:
            while not set(texts) <= set(self.arrived):
                await self._news.wait()
        assert not patience.cancelled_caught, f"{sorted(set(texts) - set(self.arrived))[:5]} have not come"

    async def send(self, to: str, *texts: str) -> None:
        """Send, and wait until the relay has them all."""
        with trio.fail_after(PATIENCE):
            for handle in [await self.client.send(to, text) for text in texts]:
                await handle.wait_sent()


@asynccontextmanager
async def peer(path: Path, server: str, name: str) -> AsyncIterator[Peer]:
    """Somebody who is there all the time."""
    async with open_client(path, server=server, accept_everyone=True) as client:
        await client.register(name)
        found, raised = Peer(client), None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.listen)
            try:
                yield found
            except Exception as error:  # carried past the nursery, which would wrap it in a group
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised
