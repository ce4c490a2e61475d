"""A device whose store was put back from a copy, as others meet it."""

import pytest
import trio
from trio.testing import MockClock

from sottovoce import Client, events
from sottovoce.directory import Directory
from sottovoce.local import Local
from sottovoce.registration import Registration, prepare
from sottovoce.store.counter import start_anew
from sottovoce.store.database import Store, Tables, open_memory_store
from sottovoce.store.prekeys import STOCK
from sottovoce.testing import World
from sottovoce.testing.fixtures import sottovoce_world as sottovoce_world
from sottovoce.testing.network import ORIGIN
from tests.sottovoce.worlds import PATIENCE, acquaint, look, texts


async def put_back(world: World, person: Client) -> Client:
    """The person again, on a copy from before the one-time prekeys that the keyserver has were made."""
    now, name = int(world.clock.now()), person.username
    assert name is not None

    def forget(tables: Tables) -> None:
        tables.prekeys._execute("DELETE FROM one_time_prekeys")
        start_anew(tables, now)

    await look(person, forget)
    await world.crash(name)
    return await world.person(name, accept_everyone=True)


async def replacement(client: Client) -> events.SessionReplaced:
    with trio.fail_after(PATIENCE):
        async for event in client.events():
            if isinstance(event, events.SessionReplaced):
                return event
    raise AssertionError("events end")


async def test_whoever_writes_first_to_a_device_that_was_put_back_is_read(
    sottovoce_world: World, autojump_clock: MockClock
) -> None:
    bob = await put_back(sottovoce_world, await sottovoce_world.person("bob"))
    assert bob._account is not None
    await bob._registration.renew(bob._account)  # or waits until it is done
    alice = await sottovoce_world.person("alice")
    await alice.send("bob", "do you have the key to this?")
    assert await texts(bob, 1) == ["do you have the key to this?"]


async def test_both_sides_are_told_that_a_device_that_was_put_back_has_a_new_session(
    sottovoce_world: World, autojump_clock: MockClock
) -> None:
    alice = await sottovoce_world.person("alice", accept_everyone=True)
    bob = await sottovoce_world.person("bob", accept_everyone=True)
    await acquaint(alice, bob)
    bob = await put_back(sottovoce_world, bob)
    here, there = await replacement(bob), await replacement(alice)
    assert (here.account_id, here.reason, here.count) == (alice.account_id, "restored", 1)
    assert (there.account_id, there.reason, there.count) == (bob.account_id, "peer", 1)
    assert there.last_heard < there.at


def copy_of(store: Store) -> Store:
    found = open_memory_store()
    found._connection.deserialize("main", store._connection.serialize("main"))
    return found


@pytest.mark.parametrize(
    "restored_at", [(1_000, 1_050), (1_000, 1_000), (40_000, 2_000), (1_000, 1_000, 1_050, 900)], ids=str
)
async def test_however_soon_a_store_is_put_back_again_the_keyserver_has_the_keys_that_it_has(
    sottovoce_world: World, restored_at: tuple[int, ...]
) -> None:
    """Each time from the same copy, by clocks of which each may be behind the one before."""
    start = int(sottovoce_world.clock.now())

    def on(store: Store, after: int) -> Registration:
        return Registration(Local(store, inline=True, clock=lambda: (start + after) * 1000), directory)

    directory, keyserver = Directory(ORIGIN, sottovoce_world.network.of("alice")), sottovoce_world.network.keyserver
    original = open_memory_store()
    with original.transaction() as tables:
        account = prepare(tables, ORIGIN, ORIGIN, start)
    await on(original, 0).register(account, "alice")
    for after in restored_at:
        copy = copy_of(original)
        with copy.transaction() as tables:
            start_anew(tables, start + after)
        await on(copy, after).renew(account)
        (device,) = keyserver._accounts[account.account_id].devices.values()
        with copy.transaction() as tables:
            own = {number: tables.prekeys.one_time(number) for number in device.one_time}
            assert not tables.prekeys.unpublished(1)
        assert device.one_time == {number: prekey and prekey.public for number, prekey in own.items()}
        assert len(own) == STOCK
        copy.close()
    original.close()
