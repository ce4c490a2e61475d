"""A keyserver that is away, withholds, swaps, rolls back or raves: one clear error, and nothing sent under its keys.
Those who know each other do not need it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from sottovoce import Client, errors, events
from sottovoce.crypto import identity
from sottovoce.mending import EVERY
from sottovoce.protocol import sessions
from sottovoce.protocol.healing import SILENT_FOR
from sottovoce.store.database import Tables
from sottovoce.testing import KeyserverFaults, World
from sottovoce_wire import records
from sottovoce_wire.ids import AccountId
from sottovoce_wire.records import ListFlag
from tests.sottovoce.worlds import acquaint, look, texts
from tests.sottovoce.worlds import alice as alice
from tests.sottovoce.worlds import bob as bob
from tests.sottovoce.worlds import sottovoce_world as sottovoce_world
from tests.sottovoce.worlds import world as world

Fault = Callable[[KeyserverFaults], AbstractContextManager[None]]

#: What Alice is told when she writes to Bob for the first time.
FAULTS: Final[dict[str, tuple[Fault, type[errors.SottovoceError]]]] = {
    "away": (lambda keyserver: keyserver.away(), errors.ServerUnreachable),
    "slow": (lambda keyserver: keyserver.slow(3600), errors.ServerUnreachable),
    "withholds": (lambda keyserver: keyserver.withhold("bob"), errors.UnknownRecipient),
    "withholds prekeys": (lambda keyserver: keyserver.withhold_prekeys("bob"), errors.NoDevices),
    "swaps": (lambda keyserver: keyserver.swap("bob", "mallory"), errors.UntrustedKeys),
    "swaps devices": (lambda keyserver: keyserver.swap_devices("bob", "mallory"), errors.UntrustedKeys),
    "swaps prekeys": (lambda keyserver: keyserver.swap_prekeys("bob", "mallory"), errors.UntrustedKeys),
    "raves": (lambda keyserver: keyserver.babble(), errors.WrongServer),
}


@pytest.mark.parametrize(("fault", "error"), FAULTS.values(), ids=FAULTS.keys())
async def test_a_bad_keyserver_stops_a_first_message_with_a_clear_error_and_nothing_else(
    autojump_clock: MockClock,
    world: World,
    alice: Client,
    bob: Client,
    fault: Fault,
    error: type[errors.SottovoceError],
) -> None:
    mallory = await world.person("mallory", accept_everyone=True)
    await acquaint(alice, mallory)
    with fault(world.faults.keyserver):
        with pytest.raises(error):
            await alice.send("bob", "under false keys")
        assert await look(alice, lambda tables: tables.outbox.size()) == 0
        await alice.send("mallory", "one needs no keyserver")  # among those who know each other
        assert await texts(mallory, 1) == ["one needs no keyserver"]
    assert world.wire.between("alice", "bob") == []
    await alice.send("bob", "under true keys")
    assert await texts(bob, 1) == ["under true keys"]
    assert world.wire.reused() == []


async def test_the_oldest_prekeys_are_as_good_as_the_newest_for_a_month_and_then_no_good(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    world.clock.advance(days=20)
    await trio.sleep(EVERY)
    with world.faults.keyserver.roll_back("bob"):
        await alice.send("bob", "under keys that were replaced")
        assert await texts(bob, 1) == ["under keys that were replaced"]
        world.clock.advance(days=11)
        carol = await world.person("carol")
        with pytest.raises(errors.NoDevices):
            await carol.send("bob", "under keys that have expired")


async def test_what_is_lost_by_a_one_time_prekey_that_was_given_twice_comes_days_later(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    carol = await world.person("carol", accept_everyone=True)
    with world.faults.keyserver.repeat_one_time_prekeys():
        await alice.send("bob", "the first to ask")
        assert await texts(bob, 1) == ["the first to ask"]
        await carol.send("bob", "the second")
        await trio.sleep(EVERY)
    assert [type(event) for event in await told(bob)] == [events.MessagesUnreadable]
    world.clock.advance(seconds=SILENT_FOR)
    await trio.sleep(2 * EVERY)
    assert await texts(bob, 1) == ["the second"]
    assert world.wire.reused() == []


async def test_a_device_list_that_the_keyserver_rolls_back_is_not_taken(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    bob_id = world.network.keyserver.account_of("bob")
    newer = await advance_list(world, bob)
    await alice.send("bob", "under the newer list")
    assert await texts(bob, 1) == ["under the newer list"]
    with world.faults.keyserver.roll_back("bob"):
        await look(alice, lambda tables: lose_sessions(tables, bob_id))
        await alice.send("bob", "which needs new keys")
        assert await texts(bob, 1) == ["which needs new keys"]
    known = await look(alice, lambda tables: tables.peers.get(bob_id))
    assert known is not None
    assert known.device_list == newer


async def test_a_keyserver_that_withholds_a_list_is_told_of_and_the_list_taken_when_it_comes(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    bob_id = world.network.keyserver.account_of("bob")
    with world.faults.keyserver.withhold_news("bob", to="alice"):
        newer = await advance_list(world, bob)
        bob = await again(world, "bob")
        await bob.send("alice", "I have another list")
        assert await texts(alice, 1) == ["I have another list"]
        assert [type(event) for event in await told(alice)] == [events.KeyserverBehind]
    await trio.sleep(2 * EVERY)
    known = await look(alice, lambda tables: tables.peers.get(bob_id))
    assert known is not None
    assert known.device_list == newer


async def told(client: Client) -> list[events.Event]:
    """What a client has to tell within some minutes, but for its connections."""
    return [event async for event in client.events(timeout=EVERY) if not isinstance(event, events.ConnectionChanged)]


async def again(world: World, name: str) -> Client:
    await world.crash(name)
    return await world.person(name, accept_everyone=True)


async def advance_list(world: World, person: Client) -> bytes:
    """The list that follows a person's, with the same device: the person has it from the next life on, and the
    keyserver now."""
    newer = await look(person, make_next_list)
    keyserver = world.network.keyserver
    assert person.username is not None
    keyserver._accounts[keyserver.account_of(person.username)].device_list = newer
    return newer


def make_next_list(tables: Tables) -> bytes:
    account, root = tables.account.get(), tables.account.root()
    assert account is not None
    assert root is not None
    payload, _ = records.split_signed(account.device_list)
    newer = identity.make_device_list(
        root,
        [account.device.consent(account.account_id)],
        version=2,
        previous=records.device_list_hash(payload),
        time=records.DeviceList.parse(payload).time,
        flag=ListFlag.NORMAL,
    )
    tables.account._execute("UPDATE account SET device_list = ?", (newer,))
    return newer


def lose_sessions(tables: Tables, account_id: AccountId) -> None:
    for session in tables.sessions.of_account(account_id):
        sessions.wipe(tables, session)
