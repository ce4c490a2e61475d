"""What the kit's keyserver does wrong when a test asks for it: to whom it should, for as long as it should."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from sottovoce import Client, errors
from sottovoce.testing import KeyserverFaults, World
from sottovoce_wire import directory as wire
from sottovoce_wire.records import PrekeyRecord, split_signed
from tests.sottovoce.worlds import texts

Fault = Callable[[KeyserverFaults], AbstractContextManager[None]]

FAULTS: Final[dict[str, Fault]] = {
    "away": lambda keyserver: keyserver.away(to="alice"),
    "withhold": lambda keyserver: keyserver.withhold("bob", to="alice"),
    "withhold_prekeys": lambda keyserver: keyserver.withhold_prekeys("bob", to="alice"),
    "swap": lambda keyserver: keyserver.swap("bob", "carol", to="alice"),
    "swap_devices": lambda keyserver: keyserver.swap_devices("bob", "carol", to="alice"),
    "swap_prekeys": lambda keyserver: keyserver.swap_prekeys("bob", "carol", to="alice"),
    "babble": lambda keyserver: keyserver.babble(to="alice"),
}


@pytest.fixture
def world(sottovoce_world: World) -> World:
    return sottovoce_world


@pytest.fixture
async def alice(world: World) -> Client:
    """Somebody who knows nobody yet."""
    await world.person("bob", accept_everyone=True)
    await world.person("carol", accept_everyone=True)
    return await world.person("alice")


def given_out(world: World, who: str) -> wire.Bundle:
    """The prekeys that somebody was answered last."""
    answers = [asked.answer for asked in world.wire.requests if (asked.who, asked.path) == (who, wire.PATH_BUNDLES)]
    (bundle,) = wire.decode(wire.Bundles, answers[-1]).bundles
    return bundle


def record_id(bundle: wire.Bundle) -> int:
    return PrekeyRecord.parse(split_signed(bundle.prekey_record)[0]).record_id


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_fault_hits_whom_it_names_while_its_block_runs(
    autojump_clock: MockClock, world: World, alice: Client, fault: Fault
) -> None:
    dave = await world.person("dave")
    with fault(world.faults.keyserver):
        with pytest.raises(errors.SottovoceError):
            await alice.send("bob", "hello")
        with pytest.raises(errors.SottovoceError):
            await alice.send("bob", "hello")
        await dave.send("bob", "hello")
    await alice.send("bob", "hello")


async def test_a_slow_answer_comes_in_its_time_or_not_at_all(
    autojump_clock: MockClock, world: World, alice: Client
) -> None:
    began = trio.current_time()
    with world.faults.keyserver.slow(7):
        await alice.send("bob", "hello")
    assert trio.current_time() - began == 14, "a name, and then the keys"
    with world.faults.keyserver.slow(31), pytest.raises(errors.ServerUnreachable):
        await alice.send("carol", "hello")
    assert trio.current_time() - began == 44


async def test_older_keys_are_given_out_for_as_long_as_the_block_runs(
    autojump_clock: MockClock, world: World, alice: Client
) -> None:
    keyserver = world.faults.keyserver
    with keyserver.withhold_news("bob"):
        world.clock.advance(days=8)
        await trio.sleep(600)
        await alice.send("bob", "under what it had then")
        assert record_id(given_out(world, "alice")) == 1
    dave, erin = await world.person("dave"), await world.person("erin")
    await dave.send("bob", "under the newest")
    assert record_id(given_out(world, "dave")) == 2
    with keyserver.roll_back("bob"):
        await erin.send("bob", "under the first")
        assert record_id(given_out(world, "erin")) == 1
    bob = await again(world, "bob")
    assert set(await texts(bob, 3)) == {"under what it had then", "under the newest", "under the first"}


async def test_nobody_is_given_a_one_time_prekey_where_there_are_none(
    autojump_clock: MockClock, world: World, alice: Client
) -> None:
    with world.faults.keyserver.no_one_time_prekeys():
        await alice.send("bob", "hello")
        assert given_out(world, "alice").one_time_prekey is None
    await alice.send("carol", "hello")
    assert given_out(world, "alice").one_time_prekey is not None
    assert await texts(await again(world, "bob"), 1) == ["hello"]


async def test_two_people_are_given_one_one_time_prekey_if_it_repeats_them(
    autojump_clock: MockClock, world: World, alice: Client
) -> None:
    dave = await world.person("dave")
    with world.faults.keyserver.repeat_one_time_prekeys():
        await alice.send("bob", "hello")
        await dave.send("bob", "hello")
    assert given_out(world, "alice").one_time_prekey == given_out(world, "dave").one_time_prekey is not None


async def test_a_fault_needs_people_whom_the_keyserver_knows(
    autojump_clock: MockClock, world: World, alice: Client
) -> None:
    keyserver = world.faults.keyserver
    for fault in (keyserver.withhold, keyserver.withhold_prekeys, keyserver.withhold_news, keyserver.roll_back):
        with pytest.raises(KeyError), fault("nobody"):
            pass
    for swap in (keyserver.swap, keyserver.swap_devices, keyserver.swap_prekeys):
        with pytest.raises(KeyError), swap("bob", "nobody"):
            pass


async def again(world: World, name: str) -> Client:
    """Somebody who went away and comes back."""
    await world.crash(name)
    return await world.person(name, accept_everyone=True)
