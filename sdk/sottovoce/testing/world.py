"""A world of people with registered, connected clients, in one trio run without network, disk or threads.

This file joins the parts; servers, faults, clock and recorder each have their own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import trio

from ..client import Choices, Client, running
from ..local import Local
from ..store.database import Store, open_memory_store
from .clock import Clock
from .faults import Faults
from .loan import Loan
from .network import ORIGIN, MemoryNetwork
from .wire import Wire


@dataclass
class _Person:
    """Somebody's store, and the client that runs on it now, if any."""

    store: Store = field(default_factory=open_memory_store)
    running: trio.CancelScope | None = None
    gone: trio.Event = field(default_factory=trio.Event)


class World:
    """Made by `world`. Its servers are honest until `faults` says otherwise, and know no rates and no invitations."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._people: dict[str, _Person] = {}
        #: What leads clients to the servers; give `network.of(name)` to a client of your own making.
        self.network = MemoryNetwork(nursery)

    @property
    def clock(self) -> Clock:
        """The time of day for everybody."""
        return self.network.clock

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return self.network.faults

    @property
    def wire(self) -> Wire:
        """What passed between clients and servers."""
        return self.network.wire

    @property
    def origin(self) -> str:
        """The servers' address, as accounts and invite links name it."""
        return ORIGIN

    async def person(
        self,
        name: str,
        *,
        accept_everyone: bool = False,
        receipts: bool = True,
        clock_ahead: timedelta = timedelta(),
    ) -> Client:
        """A client that is registered as `name` and connected; somebody who was here before goes on with their store.

        `accept_everyone` and `receipts` are `open_client`'s. `clock_ahead`: by how much this person's clock is wrong.
        Raises ValueError if the person is here already, and what `Client.register` raises.
        Cancellation: the person may be here.
        """
        if name not in self._people:
            self._people[name] = _Person()
        person = self._people[name]
        if person.running is not None:
            raise ValueError(f"{name} is here already")
        choices = Choices(accept_everyone=accept_everyone, receipts=receipts)
        local = Local(cast("Store", Loan(person.store)), clock=self.clock.milliseconds(clock_ahead), inline=True)
        client: Client = await self._nursery.start(self._run, name, person, local, choices)
        return client

    async def crash(self, name: str) -> None:
        """The person's client ends between two transactions, as when its process is killed; `person` opens it again.

        Raises KeyError for somebody who is not here. Cancellation: it ends all the same."""
        person = self._people[name]
        if person.running is None:
            raise KeyError(name)
        person.running.cancel()
        await person.gone.wait()

    def _forget(self) -> None:
        for person in self._people.values():
            person.store.close()

    async def _run(
        self,
        name: str,
        person: _Person,
        local: Local,
        choices: Choices,
        *,
        task_status: trio.TaskStatus[Client],
    ) -> None:
        person.gone = trio.Event()
        try:
            with trio.CancelScope() as person.running:
                async with running(local, self.network.of(name), ORIGIN, choices) as client:
                    await client.register(name)
                    task_status.started(client)
                    await trio.sleep_forever()
        finally:
            person.running = None
            person.gone.set()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """A new world, which ends with the block: its clients are closed, its stores forgotten.

    Inside `trio.run`; with `trio.testing.MockClock(autojump_threshold=0)` nothing in it takes time.
    Cancellation: the world ends.
    """
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        made = World(nursery)
        try:
            yield made
        except BaseException as error:  # carried past the nursery, which would wrap it in a group
            raised = error
        nursery.cancel_scope.cancel()
    made._forget()
    if raised is not None:
        raise raised
