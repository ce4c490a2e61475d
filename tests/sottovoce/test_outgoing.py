"""What becomes of a message: its handle, from the outbox to the last receipt, and how it fails or is taken back."""

from dataclasses import replace

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from sottovoce import Client, errors, events
from sottovoce.crypto import identity
from sottovoce.crypto.identity import DeviceKeys, RootKey
from sottovoce.message import Status
from sottovoce.store.database import Tables
from sottovoce.testing import World
from sottovoce_wire import records
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import Ttl
from sottovoce_wire.records import ListFlag
from tests.sottovoce.worlds import PATIENCE, acquaint, look, texts, until
from tests.sottovoce.worlds import alice as alice
from tests.sottovoce.worlds import bob as bob
from tests.sottovoce.worlds import sottovoce_world as sottovoce_world
from tests.sottovoce.worlds import world as world


def root_of(tables: Tables) -> RootKey:
    root = tables.account.root()
    assert root is not None, "a store in memory keeps it open"
    return root


async def told(client: Client) -> list[events.Event]:
    """The events that are here, but for those of connections."""
    found = [event async for event in client.events(timeout=0)]
    return [event for event in found if not isinstance(event, events.ConnectionChanged)]


async def test_a_message_waits_is_sent_is_delivered_and_read(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    with world.faults.offline("alice"):
        sent = await alice.send("bob", "a long way")
        assert await sent.status() is Status.WAITING
    with world.faults.offline("bob"):
        await until(sent.wait_sent)
        assert await sent.status() is Status.SENT
    await until(sent.wait_delivered)
    assert await sent.status() is Status.DELIVERED
    assert await texts(bob, 1) == ["a long way"]
    await until(sent.wait_read)
    assert await sent.status() is Status.READ
    assert await told(alice) == []


async def test_a_handle_is_found_again_by_its_id(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    sent = await alice.send("bob", "hello")
    await until(sent.wait_sent)
    assert await alice.sent(sent.id) is sent
    await world.crash("alice")
    alice = await world.person("alice", accept_everyone=True)
    again = await alice.sent(sent.id)
    assert again.id == sent.id
    assert await texts(bob, 1) == ["hello"]
    await until(again.wait_read)


@pytest.mark.parametrize("unknown", ["", "no", "00" * 16, "00" * 17, "é" * 32])
async def test_an_id_that_is_none_has_no_handle(autojump_clock: MockClock, alice: Client, unknown: str) -> None:
    with pytest.raises(errors.InvalidInput):
        await alice.sent(unknown)


async def test_a_handle_says_its_id_and_nothing_else(autojump_clock: MockClock, alice: Client, bob: Client) -> None:
    sent = await alice.send("bob", "a secret")
    assert repr(sent) == f"<Sent {sent.id}>"


# --- Failing ---


async def test_a_refused_message_fails_on_the_handle_and_as_an_event(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    world.faults.refuse(Code.ENVELOPE_TOO_LARGE, to="bob")
    sent = await alice.send("bob", "too large for this relay")
    for waiting in (sent.wait_sent, sent.wait_delivered, sent.wait_read):
        with pytest.raises(errors.DeliveryFailed, match="envelope_too_large"):
            await until(waiting)
    assert await sent.status() is Status.FAILED
    (event,) = await told(alice)
    assert isinstance(event, events.MessageFailed)
    assert (event.message_id, event.account_id, event.reason) == (sent.id, bob.account_id, "envelope_too_large")


async def test_a_message_that_waits_longer_than_it_lives_fails(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    with world.faults.offline("alice"):
        sent = await alice.send("bob", "news", ttl=Ttl.HOUR)
        world.clock.advance(hours=1)
        with pytest.raises(errors.DeliveryFailed, match="expired"):
            await until(sent.wait_sent)
    assert await sent.status() is Status.FAILED
    assert [type(event) for event in await told(alice)] == [events.MessageFailed]


async def test_what_waits_for_an_account_that_is_blocked_meanwhile_fails_and_is_not_sent(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    before = len(world.wire.between("alice", "bob"))
    with world.faults.offline("alice"):
        sent = [await alice.send("bob", "regretted") for _ in range(70)]
        await alice.block("bob")
    with pytest.raises(errors.DeliveryFailed, match="blocked"):
        await until(sent[-1].wait_sent)
    await trio.sleep(PATIENCE)
    assert len(world.wire.between("alice", "bob")) == before
    assert await look(alice, lambda tables: tables.outbox.size()) == 0


async def test_a_fork_that_sending_finds_is_told_to_who_waits_for_events(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    account_id, root = bob._registered().account_id, await look(bob, root_of)

    def fork(tables: Tables) -> None:
        known = tables.peers.get(account_id)
        assert known is not None
        other = identity.make_device_list(
            root,
            [DeviceKeys.generate().consent(account_id)],
            version=1,
            previous=records.NO_LIST_HASH,
            time=0,
            flag=ListFlag.NORMAL,
        )
        tables.peers.put(replace(known, device_list=other))

    await look(alice, fork)
    found: list[events.Event] = []

    async def wait() -> None:
        async for event in alice.events():
            if isinstance(event, events.AccountForked):
                found.append(event)
                return

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(errors.AccountForked):
                await alice.send("bob", "hello")
    assert len(found) == 1


# --- Cancelling ---


async def test_a_message_that_no_connection_had_is_taken_back(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    with world.faults.offline("alice"):
        sent = await alice.send("bob", "on second thoughts")
        assert await sent.cancel()
        assert await sent.status() is Status.CANCELLED
        assert not await sent.cancel()
        await alice.send("bob", "instead")
    with pytest.raises(errors.DeliveryFailed, match="cancelled"):
        await sent.wait_sent()
    assert await texts(bob, 1) == ["instead"]
    assert await told(alice) == []


async def test_whoever_waits_for_a_message_hears_that_it_was_taken_back(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    with world.faults.offline("alice"):
        sent = await alice.send("bob", "never mind")

        async def wait() -> None:
            with pytest.raises(errors.DeliveryFailed, match="cancelled"):
                await sent.wait_read()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert await sent.cancel()


async def test_a_message_that_a_relay_may_have_is_not_taken_back(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    """The relay says that it has no room: it was asked, and could have lied."""
    await acquaint(alice, bob)
    world.faults.refuse(Code.QUEUE_FULL, to="bob", retry_after=5)
    sent = await alice.send("bob", "too late")
    await trio.sleep(1)
    assert await sent.status() is Status.WAITING
    assert not await sent.cancel()
    await until(sent.wait_sent)
    assert not await sent.cancel()
    assert await texts(bob, 1) == ["too late"]


# --- Order ---


async def test_messages_arrive_in_the_order_of_sending_though_the_address_changed_in_between(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    """Until bob answers, what alice writes goes to his queue for strangers, and more of it than one window waits."""
    before, after = [f"before {number}" for number in range(270)], [f"after {number}" for number in range(10)]
    await alice.send("bob", "hello")
    assert await texts(bob, 1) == ["hello"]
    with world.faults.offline("alice"):
        await until((await bob.send("alice", "hello yourself")).wait_sent)
        for text in before:
            await alice.send("bob", text)
    with world.faults.offline("bob"):
        assert await texts(alice, 1) == ["hello yourself"]
        for text in after:
            last = await alice.send("bob", text)
        await until(last.wait_sent)
    assert await texts(bob, 280) == before + after


async def test_messages_arrive_in_the_order_of_sending_though_others_are_held_back(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    """Bob's queue is full, Carol's is not: Carol's go out, and Bob's keep their order."""
    carol = await world.person("carol", accept_everyone=True)
    await acquaint(alice, bob)
    await acquaint(alice, carol)
    world.faults.refuse(Code.QUEUE_FULL, 3, to="bob", retry_after=30)
    for number in range(100):
        await alice.send("bob", str(number))
        await alice.send("carol", str(number))
    assert await texts(carol, 100) == [str(number) for number in range(100)]
    assert await look(alice, lambda tables: tables.outbox.size()) > 0
    assert await texts(bob, 100) == [str(number) for number in range(100)]
