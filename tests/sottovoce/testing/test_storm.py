"""Two people write to each other in bad weather: every message is read, once, and no key is used twice.

What the SDK promises, tried in seconds instead of weeks, and by the same stroke that the faults of the kit are faults.
"""

import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from sottovoce import Client, errors
from sottovoce.testing import World
from sottovoce_wire.errors import Code

ROUNDS = 60
OTHER = {"alice": "bob", "bob": "alice"}


@dataclass
class Side:
    """One person, who reads all the time, and what was read to the end."""

    world: World
    name: str
    nursery: trio.Nursery
    read: list[str] = field(default_factory=list)
    client: Client | None = None

    async def come(self) -> None:
        self.client = await self.world.person(self.name, accept_everyone=True)
        self.nursery.start_soon(self._read, self.client)

    async def _read(self, client: Client) -> None:
        try:
            async for message in client.messages():
                await message.mark_handled()
                self.read.append(message.text)
        except errors.StoreFailed:
            pass  # crashed, with nothing half handled: marking is one transaction

    async def send(self, text: str) -> None:
        assert self.client is not None
        await self.client.send(OTHER[self.name], text)

    async def crash(self) -> None:
        await self.world.crash(self.name)
        await self.come()


def cause_trouble(world: World, dice: random.Random) -> None:
    """One fault by chance, of those after which everything must arrive all the same."""
    who = dice.choice(["alice", "bob"])
    match dice.randrange(6):
        case 0:
            world.faults.delay(dice.uniform(0, 600), dice.randint(1, 3), to=who)
        case 1:
            world.faults.duplicate(dice.randint(1, 5), to=who)
        case 2:
            world.faults.reorder(dice.randint(2, 5), to=who)
        case 3:
            world.faults.lie(dice.choice([Code.TRY_AGAIN, Code.QUEUE_FULL]), to=who)
        case 4:
            world.faults.refuse(dice.choice([Code.TRY_AGAIN, Code.QUEUE_FULL]), retry_after=30, to=who)
        case 5:
            world.faults.cut(dice.choice([None, who]))


@pytest.mark.parametrize("seed", range(3))
async def test_in_bad_weather_everything_is_read_once(
    autojump_clock: MockClock, sottovoce_world: World, nursery: trio.Nursery, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - the same weather each time
    sides = [Side(sottovoce_world, name, nursery) for name in OTHER]
    for side in sides:
        await side.come()
    written = {name: [f"{name} begins"] for name in OTHER}
    for side in sides:
        await side.send(f"{side.name} begins")
    for number in range(ROUNDS):
        cause_trouble(sottovoce_world, dice)
        writer = dice.choice(sides)
        if dice.random() < 0.1:
            await dice.choice(sides).crash()
        with ExitStack() as block:
            if dice.random() < 0.1:
                block.enter_context(sottovoce_world.faults.offline(dice.choice(list(OTHER))))
            await writer.send(f"{writer.name} {number}")
            await trio.sleep(dice.choice([0, 1, 100]))
        written[writer.name].append(f"{writer.name} {number}")
    sottovoce_world.faults.clear()
    await trio.sleep(3600)
    for side in sides:
        assert Counter(side.read) == Counter(written[OTHER[side.name]])
    assert sottovoce_world.wire.reused() == []
    bodies = Counter(each.body for each in sottovoce_world.wire.deliveries)
    assert max(bodies.values()) > 1, "nothing came twice: the weather was fine"
    nursery.cancel_scope.cancel()
