"""A world from an application's side: people who talk, faults that hit, a clock that leaps, a wire that tells all."""

import socket
import threading
from collections import Counter
from datetime import timedelta
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from sottovoce import Client, errors, events, testing
from sottovoce.testing import Delivered, World
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import Ttl
from tests.sottovoce.worlds import alice as alice
from tests.sottovoce.worlds import bob as bob
from tests.sottovoce.worlds import sottovoce_world as sottovoce_world
from tests.sottovoce.worlds import world as world

E = TypeVar("E")


async def texts(client: Client, count: int) -> list[str]:
    """The next texts, which all count as handled. Gives up after a minute of the world's time."""
    found: list[str] = []
    with trio.fail_after(60):
        async for message in client.messages():
            found.append(message.text)
            await message.mark_handled()
            if len(found) == count:
                break
    return found


async def nothing_more(client: Client) -> bool:
    """Whether no message comes for a minute of the world's time."""
    with trio.move_on_after(60):
        await texts(client, 1)
        return False
    return True


async def event(client: Client, kind: type[E]) -> E:
    """The next event of a kind."""
    with trio.fail_after(60):
        async for found in client.events():
            if isinstance(found, kind):
                return found
    raise AssertionError("events end")


def delivered_to(world: World, name: str) -> list[Delivered]:
    return [each for each in world.wire.deliveries if each.recipient == name]


async def acquaint(alice: Client, bob: Client) -> None:
    """Let both write, so that everything from now on is an ordinary message."""
    await alice.send("bob", "hello")
    assert await texts(bob, 1) == ["hello"]
    await bob.send("alice", "hello yourself")
    assert await texts(alice, 1) == ["hello yourself"]


async def test_two_people_talk_over_no_socket_and_no_thread(
    autojump_clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "socket")
    threads = threading.active_count()
    alice, bob = [await world.person(name, accept_everyone=True) for name in ("alice", "bob")]
    await acquaint(alice, bob)
    sent = await alice.send("bob", "how are you")
    await sent.wait_sent()
    assert await texts(bob, 1) == ["how are you"]
    assert threading.active_count() <= threads


async def test_a_world_needs_no_pytest_and_lets_errors_through_as_they_are(autojump_clock: MockClock) -> None:
    with pytest.raises(errors.UnknownRecipient):
        async with testing.world() as world:
            await (await world.person("alice")).send("nobody", "hello")


async def test_worlds_know_nothing_of_each_other(autojump_clock: MockClock, world: World, alice: Client) -> None:
    async with testing.world() as other:
        await other.person("alice")
        await other.person("bob")
        with pytest.raises(errors.UnknownRecipient):
            await alice.send("bob", "hello")


async def test_a_stranger_s_message_waits_unless_everyone_is_accepted(
    autojump_clock: MockClock, world: World, alice: Client
) -> None:
    bob = await world.person("bob")
    await alice.send("bob", "hello")
    assert await nothing_more(bob)
    assert len(await bob.requests()) == 1


async def test_receipts_take_seconds_of_the_world_s_time(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    began = trio.current_time()
    sent = await alice.send("bob", "have you read this")
    await texts(bob, 1)
    with trio.fail_after(60):
        await sent.wait_read()
    assert trio.current_time() - began >= 1


async def test_who_sends_no_receipts_is_silent(autojump_clock: MockClock, world: World, alice: Client) -> None:
    bob = await world.person("bob", accept_everyone=True, receipts=False)
    await acquaint(alice, bob)
    sent = await alice.send("bob", "have you read this")
    await texts(bob, 1)
    with pytest.raises(trio.TooSlowError), trio.fail_after(3600):
        await sent.wait_delivered()


async def test_somebody_is_in_a_world_once(autojump_clock: MockClock, world: World, alice: Client) -> None:
    with pytest.raises(ValueError, match="alice is here already"):
        await world.person("alice")
    with pytest.raises(KeyError):
        await world.crash("bob")


async def test_whoever_crashes_goes_on_with_their_store(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    await alice.send("bob", "are you there")
    with trio.fail_after(60):
        shown = await anext(bob.messages())
    await world.crash("bob")
    bob = await world.person("bob", accept_everyone=True)
    with trio.fail_after(60):
        again = await anext(bob.messages())
    assert (shown.text, again.text, again.id) == ("are you there", "are you there", shown.id)


async def test_a_crashed_client_reaches_its_store_no_more(autojump_clock: MockClock, world: World, bob: Client) -> None:
    await world.crash("bob")
    await world.person("bob", accept_everyone=True)
    with pytest.raises(errors.StoreFailed):
        await anext(bob.messages())


async def test_a_crashed_client_reads_what_was_sent_meanwhile(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    await world.crash("bob")
    await alice.send("bob", "one")
    await alice.send("bob", "two")
    assert await texts(await world.person("bob", accept_everyone=True), 2) == ["one", "two"]


# --- Faults -----------------------------------------------------------------------------------------------------


async def test_what_is_dropped_never_arrives(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    world.faults.drop(to="bob")
    sent = await alice.send("bob", "lost")
    await sent.wait_sent()
    await alice.send("bob", "found")
    assert await texts(bob, 1) == ["found"]


async def test_what_is_delayed_is_overtaken(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    world.faults.delay(30, to="bob")
    for text in ("one", "two", "three"):
        await alice.send("bob", text)
    began = trio.current_time()
    assert await texts(bob, 3) == ["two", "three", "one"]
    assert 30 <= trio.current_time() - began < 31


async def test_what_is_duplicated_is_shown_once(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    world.faults.duplicate(None, to="bob")
    for text in ("one", "two"):
        await alice.send("bob", text)
    assert await texts(bob, 2) == ["one", "two"]
    assert await nothing_more(bob)
    assert [count for _, count in Counter(each.body for each in delivered_to(world, "bob")).most_common(2)] == [2, 2]


async def test_what_is_reordered_comes_in_reverse(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    world.faults.reorder(3, sender="alice", to="bob")
    for text in ("one", "two", "three", "four"):
        await alice.send("bob", text)
    assert await texts(bob, 4) == ["three", "two", "one", "four"]


async def test_what_reorder_has_gathered_comes_when_faults_are_cleared(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    world.faults.reorder(3, to="bob")
    await alice.send("bob", "one")
    assert await nothing_more(bob)
    world.faults.clear()
    assert await texts(bob, 1) == ["one"]


async def test_what_is_corrupted_is_not_shown(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    world.faults.corrupt(to="bob")
    await alice.send("bob", "damaged")
    await alice.send("bob", "intact")
    assert await texts(bob, 1) == ["intact"]


async def test_a_sender_that_is_told_to_try_again_is_shown_once(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    before = len(world.wire.between("alice", "bob"))
    world.faults.lie(Code.TRY_AGAIN, to="bob")
    await (await alice.send("bob", "once")).wait_sent()
    assert await texts(bob, 1) == ["once"]
    assert await nothing_more(bob)
    first, second = world.wire.between("alice", "bob")[before : before + 2]
    assert first.body == second.body


async def test_what_a_relay_takes_and_calls_refused_is_shown_once(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    before = len(world.wire.between("alice", "bob"))
    world.faults.lie(to="bob")
    await alice.send("bob", "taken")
    assert await texts(bob, 1) == ["taken"]
    assert await nothing_more(bob)
    assert world.wire.between("alice", "bob")[before].body in [each.body for each in delivered_to(world, "bob")]


async def test_a_full_queue_is_tried_again(autojump_clock: MockClock, world: World, alice: Client, bob: Client) -> None:
    await acquaint(alice, bob)
    world.faults.refuse(to="bob", retry_after=20)
    began = trio.current_time()
    await (await alice.send("bob", "late")).wait_sent()
    assert 20 <= trio.current_time() - began < 25
    assert await texts(bob, 1) == ["late"]


async def test_a_fault_hits_those_that_it_names(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    world.faults.drop(None, sender="bob")
    world.faults.drop(None, to="carol")
    await alice.send("bob", "to bob")
    assert await texts(bob, 1) == ["to bob"]
    await bob.send("alice", "to alice")
    assert await nothing_more(alice)
    with pytest.raises(ValueError, match="at least one"):
        world.faults.drop(0)


async def test_clients_whose_connections_are_cut_connect_again(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    for who in ("bob", None):
        world.faults.cut(who)
        await alice.send("bob", "after the cut")
        assert await texts(bob, 1) == ["after the cut"]


async def test_who_is_offline_sends_later_and_reads_later(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    with world.faults.offline("alice"):
        sent = await alice.send("bob", "written offline")
        await bob.send("alice", "for later")
        assert await nothing_more(bob)
        assert alice.trouble is not None
        assert bob.trouble is None
    await sent.wait_sent()
    assert await texts(bob, 1) == ["written offline"]
    assert await texts(alice, 1) == ["for later"]


async def test_what_is_slow_comes_later_and_in_its_order(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    began = trio.current_time()
    with world.faults.slow(20, "bob"):
        for number in range(5):
            sent = await alice.send("bob", f"{number}")
            await sent.wait_sent()
        assert trio.current_time() == began, "Alice has a good connection"
    await alice.send("bob", "5")
    assert await texts(bob, 6) == [f"{number}" for number in range(6)]
    assert 5 < trio.current_time() - began < 40


async def test_a_cut_takes_what_a_slow_network_has_under_way(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    before = len(delivered_to(world, "bob"))
    with world.faults.slow(50, "bob"):
        await (await alice.send("bob", "once")).wait_sent()
    world.faults.cut("bob")
    assert await texts(bob, 1) == ["once"]
    assert await nothing_more(bob)
    first, second = delivered_to(world, "bob")[before : before + 2]
    assert first.body == second.body


async def test_nobody_reaches_a_server_while_everybody_is_offline(
    autojump_clock: MockClock, world: World, alice: Client
) -> None:
    with world.faults.offline(), pytest.raises(errors.ServerUnreachable):
        await alice.send("bob", "hello")


# --- The clock --------------------------------------------------------------------------------------------------


async def test_what_nobody_fetches_in_time_expires(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    await world.crash("bob")
    await (await alice.send("bob", "for an hour", ttl=Ttl.HOUR)).wait_sent()
    await (await alice.send("bob", "for a day", ttl=Ttl.DAY)).wait_sent()
    world.clock.advance(hours=2)
    bob = await world.person("bob", accept_everyone=True)
    assert await texts(bob, 1) == ["for a day"]
    assert (await event(bob, events.MessagesExpired)).count == 1


async def test_messages_carry_the_world_s_time(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    for _ in range(2):
        world.clock.advance(days=20)
        await alice.send("bob", "hello")
        with trio.fail_after(60):
            message = await anext(bob.messages())
        await message.mark_handled()
        assert abs(message.sent_at - world.clock.utc()) < timedelta(seconds=1)


async def test_a_person_s_clock_may_be_wrong(autojump_clock: MockClock, world: World, alice: Client) -> None:
    bob = await world.person("bob", accept_everyone=True, clock_ahead=timedelta(hours=-20))
    await bob.send("alice", "hello")
    with trio.fail_after(60):
        message = await anext(alice.messages())
    assert abs(world.clock.utc() - message.sent_at - timedelta(hours=20)) < timedelta(seconds=1)


async def test_a_leap_is_for_timers_too_where_trio_s_clock_is_the_test_s(
    autojump_clock: MockClock, world: World
) -> None:
    before, now = trio.current_time(), world.clock.now()
    world.clock.advance(hours=3, seconds=5)
    assert trio.current_time() - before == 3 * 3600 + 5
    assert world.clock.now() - now == 3 * 3600 + 5
    with pytest.raises(ValueError, match="does not go back"):
        world.clock.advance(seconds=-1)


async def test_a_leap_under_the_real_clock_moves_the_time_of_day_alone(sottovoce_world: World) -> None:
    before, now = trio.current_time(), sottovoce_world.clock.now()
    sottovoce_world.clock.advance(weeks=1)
    assert trio.current_time() - before < 3600
    assert sottovoce_world.clock.now() - now >= 7 * 86400
