"""For the tests of applications: people, a relay and a keyserver in one trio run, without network, disk or threads.

    async with sottovoce.testing.world() as world:
        alice = await world.person("alice")
        bob = await world.person("bob", accept_everyone=True)
        await alice.send("bob", "hello")

The clients are the real ones. The servers stand in for the real ones, and tests of this project hold them to the same
answers. Nothing here belongs into a program that talks to people.
"""

from .bad_keyserver import KeyserverFaults
from .clock import Clock
from .faces import AioWorld, SyncWorld, aio_world, sync_world
from .faults import Faults
from .network import ORIGIN, MemoryNetwork
from .wire import Asked, Delivered, Passed, Wire
from .world import World, world

__all__ = [
    "ORIGIN",
    "AioWorld",
    "Asked",
    "Clock",
    "Delivered",
    "Faults",
    "KeyserverFaults",
    "MemoryNetwork",
    "Passed",
    "SyncWorld",
    "Wire",
    "World",
    "aio_world",
    "sync_world",
    "world",
]
