"""What blocking does to the key of the contact queue: between clients, on the relay, and over the end of a process."""

import pytest
import trio
from trio.testing import MockClock

from sottovoce import Client
from sottovoce.protocol import contact_key
from sottovoce.store.account import CONTACT
from sottovoce.store.database import Tables
from sottovoce.testing import World
from sottovoce.testing.fixtures import sottovoce_world as sottovoce_world
from sottovoce_wire import limits
from sottovoce_wire.ids import AccountId, SendKeyHash, parse_account_id, send_key_hash
from tests.sottovoce.worlds import PATIENCE, acquaint, look, texts


@pytest.fixture
def world(sottovoce_world: World) -> World:
    return sottovoce_world


@pytest.fixture
async def bob(world: World) -> Client:
    """Who blocks others."""
    return await world.person("bob", accept_everyone=True)


async def friends(world: World, bob: Client, *names: str) -> list[Client]:
    """People who are acquainted with Bob."""
    found = []
    for name in names:
        found.append(await world.person(name, accept_everyone=True))
        await acquaint(found[-1], bob)
    return found


def id_of(client: Client) -> AccountId:
    assert client.account_id is not None
    return parse_account_id(client.account_id)


async def key_used(writer: Client, reader: Client) -> SendKeyHash:
    """The hash of the key under which the writer sends to the reader."""
    reader_id = id_of(reader)

    def work(tables: Tables) -> SendKeyHash:
        session, *_ = tables.sessions.of_account(reader_id)
        address = tables.peers.address(reader_id, session.device_id)
        assert address is not None
        return send_key_hash(address.send_key)

    return await look(writer, work)


async def keys_at_relay(world: World, client: Client) -> dict[SendKeyHash, bool]:
    """The keys that the relay knows of the client's contact queue, and which of them are demoted."""
    queue = await look(client, lambda tables: tables.account.queue(CONTACT).owner.queue_id)
    return {key: known.dies_at is not None for key, known in world.network.relay.queues[queue].keys.items()}


async def current(client: Client) -> SendKeyHash:
    return send_key_hash(await look(client, lambda tables: tables.account.contact_key()))


async def settled(client: Client, within: int = 30) -> None:
    """The relay has heard of the new key, within so many seconds."""
    for _ in range(within):
        if await look(client, lambda tables: tables.account.next_contact_key()) is None:
            return
        await trio.sleep(1)
    raise AssertionError("the relay does not hear of the new key")


async def test_the_blocked_keeps_a_strangers_key_and_the_others_get_another_within_a_day(
    autojump_clock: MockClock, world: World, bob: Client
) -> None:
    alice, dave = await friends(world, bob, "alice", "dave")
    before = await key_used(dave, bob)
    await bob.block("dave")
    await settled(bob)
    now = await current(bob)
    assert await keys_at_relay(world, bob) == {before: True, now: False}
    assert await key_used(alice, bob) == before
    world.clock.advance(days=1)
    await trio.sleep(PATIENCE)
    assert await key_used(alice, bob) == now
    assert await key_used(dave, bob) == before
    assert world.wire.between("bob", "dave")[-1].at < world.clock.now() - limits.DAY


async def test_nobody_who_was_away_for_less_than_a_month_loses_anything(
    autojump_clock: MockClock, world: World, bob: Client
) -> None:
    alice, carol, _ = await friends(world, bob, "alice", "carol", "dave")
    with world.faults.offline("carol"):
        for number in range(3):
            await carol.send("bob", f"from afar {number}")
        await bob.block("dave")
        await settled(bob)
        await bob.send("carol", "where are you")
        await alice.send("bob", "I am here")
        assert await texts(bob, 1) == ["I am here"]
        world.clock.advance(days=29, hours=23)
    assert await texts(bob, 3) == [f"from afar {number}" for number in range(3)]
    assert await texts(carol, 1) == ["where are you"]
    await carol.send("bob", "back")
    assert await texts(bob, 1) == ["back"]
    await trio.sleep(PATIENCE)  # a session that Carol has made herself brings her the key with the first receipt
    now = await current(bob)
    assert await key_used(carol, bob) == now
    world.clock.advance(days=2)
    await trio.sleep(PATIENCE)
    assert await keys_at_relay(world, bob) == {now: False}
    for friend in (alice, carol):
        await friend.send("bob", "still")
        assert await texts(bob, 1) == ["still"]
    assert world.wire.reused() == []


async def test_two_are_blocked_offline_before_the_process_dies_and_the_relay_hears_of_one_key(
    autojump_clock: MockClock, world: World, bob: Client
) -> None:
    alice, _, erin = await friends(world, bob, "alice", "dave", "erin")
    before = await current(bob)
    with world.faults.offline("bob"):
        await bob.block("dave")
        await bob.block("erin")
        await alice.send("bob", "under the old key")
        assert await current(bob) == before, "nobody is given a key that the relay does not know"
        await world.crash("bob")
    bob = await world.person("bob", accept_everyone=True)
    assert await texts(bob, 1) == ["under the old key"]
    await settled(bob)
    assert await keys_at_relay(world, bob) == {before: True, await current(bob): False}
    assert await key_used(erin, bob) == before


async def test_one_after_the_other_is_blocked_and_each_has_a_key_that_is_worth_nothing(
    autojump_clock: MockClock, world: World, bob: Client
) -> None:
    _, dave, erin = await friends(world, bob, "alice", "dave", "erin")
    await bob.block("dave")
    await settled(bob)
    await bob.send("erin", "take this")
    assert await texts(erin, 1) == ["take this"]
    await bob.block("erin")
    await settled(bob)
    keys = await keys_at_relay(world, bob)
    assert keys[await key_used(dave, bob)]
    assert keys[await key_used(erin, bob)]
    assert await key_used(dave, bob) != await key_used(erin, bob)
    assert [key for key, is_demoted in keys.items() if not is_demoted] == [await current(bob)]


async def test_a_change_that_has_to_wait_is_made_when_it_may_be(
    autojump_clock: MockClock, world: World, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_key, "AT_ONCE", 1)
    _, dave = await friends(world, bob, "erin", "dave")
    await bob.block("erin")
    await settled(bob)
    await bob.send("dave", "take this")
    assert await texts(dave, 1) == ["take this"]
    shared = await current(bob)
    assert await key_used(dave, bob) == shared
    await bob.block("dave")
    await trio.sleep(PATIENCE)
    assert await current(bob) == shared
    assert not (await keys_at_relay(world, bob))[shared]
    world.clock.advance(seconds=contact_key.EVERY)
    await settled(bob, PATIENCE)
    assert (await keys_at_relay(world, bob))[shared]


async def test_blocking_a_stranger_leaves_the_connection_and_the_key_as_they_are(
    autojump_clock: MockClock, world: World
) -> None:
    bob, alice = await world.person("bob"), await world.person("alice")
    before, keys = await current(bob), await keys_at_relay(world, bob)
    await alice.send("bob", "may I")
    await trio.sleep(PATIENCE)
    (request,) = await bob.requests()
    await request.block()
    await trio.sleep(PATIENCE)
    assert await current(bob) == before
    assert await keys_at_relay(world, bob) == keys
