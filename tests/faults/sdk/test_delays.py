"""A relay that only takes its time, seconds or hours for every message in either direction: nothing is lost, nothing is
shown twice, and the order is the sender's.

The clients give up after a minute and try again, and what they gave up arrives all the same, hours later.
"""

from collections import Counter
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from sottovoce import Sent
from sottovoce.testing import World
from tests.faults import scale
from tests.faults.sdk.journal import lost_or_twice
from tests.faults.sdk.world import Peer
from tests.sottovoce.worlds import acquaint

#: How long a message takes at most, in seconds: beyond the clients' patience, within it, around it, and far beyond.
SLOW: Final = (150, 5, 40, 7200)
#: Messages of each person while it is so slow.
EACH: Final = 30 if scale.FULL else 3
#: Seconds after which clients have given up.
ENOUGH: Final = 100
OTHER: Final = {"alice": "bob", "bob": "alice"}


async def come(world: World, name: str) -> Peer:
    return Peer(await world.person(name, accept_everyone=True))


async def test_a_relay_that_only_delays_loses_nothing_and_repeats_nothing_and_keeps_the_order(
    autojump_clock: MockClock, sottovoce_world: World, nursery: trio.Nursery
) -> None:
    people = {name: await come(sottovoce_world, name) for name in OTHER}
    for person in people.values():
        nursery.start_soon(person.listen)
    said: dict[str, list[str]] = {name: [] for name in OTHER}

    async def write(name: str) -> Sent:
        said[name].append(f"{name} {len(said[name])}")
        return await people[name].client.send(OTHER[name], said[name][-1])

    for slow in SLOW:
        for _ in range(EACH):
            with sottovoce_world.faults.slow(slow):
                for name in people:
                    await write(name)
                await trio.sleep(ENOUGH)
            # what is under way now, and was given up, arrives after what is sent from here on
            for name in people:
                with trio.fail_after(3600):
                    await (await write(name)).wait_sent()  # over a connection that stays open
    await trio.sleep(2 * max(SLOW))
    for name, person in people.items():
        assert lost_or_twice(said[OTHER[name]], said[OTHER[name]], person.arrived) == []
    sent = Counter(passed.body for passed in sottovoce_world.wire.envelopes)
    delivered = Counter(each.body for each in sottovoce_world.wire.deliveries)
    assert sum(times > 1 for times in sent.values()) > EACH, "clients must have given up and tried again"
    assert sum(times > 1 for times in delivered.values()) > EACH, "and the same must have come more than once"
    assert sottovoce_world.wire.reused() == []
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("slow", [30, 3600])
async def test_what_a_dead_process_has_said_arrives_hours_after_its_next_life_and_changes_nothing(
    autojump_clock: MockClock, sottovoce_world: World, nursery: trio.Nursery, slow: float
) -> None:
    people = {name: await come(sottovoce_world, name) for name in OTHER}
    await acquaint(people["alice"].client, people["bob"].client)
    nursery.start_soon(people["bob"].listen)
    said = [f"before {number}" for number in range(EACH)]
    with sottovoce_world.faults.slow(slow, "alice"):
        for text in said:
            await people["alice"].client.send("bob", text)
            await trio.sleep(1)
        await sottovoce_world.crash("alice")
    alice = await come(sottovoce_world, "alice")
    said.append("after")
    with trio.fail_after(3600):
        await (await alice.client.send("bob", said[-1])).wait_sent()
    await trio.sleep(2 * slow)
    said.append("hours after")
    await alice.client.send("bob", said[-1])
    await trio.sleep(600)
    assert lost_or_twice(said, said, people["bob"].arrived) == []
    assert sottovoce_world.wire.reused() == []
    nursery.cancel_scope.cancel()
