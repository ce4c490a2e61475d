"""The worlds of programs that block or run on asyncio: what the trio world promises holds there too."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from sottovoce import errors
from sottovoce.testing import AioWorld, SyncWorld, World, aio_world, sync_world
from sottovoce.testing.fixtures import sottovoce_aio_world as sottovoce_aio_world
from sottovoce.testing.fixtures import sottovoce_sync_world as sottovoce_sync_world

PATIENCE = 60.0


def test_two_people_talk_and_nobody_can_read_along(sottovoce_sync_world: SyncWorld) -> None:
    alice = sottovoce_sync_world.person("alice")
    bob = sottovoce_sync_world.person("bob", accept_everyone=True)
    alice.send("bob", "a secret")
    message = next(bob.messages(timeout=PATIENCE))
    message.answer("well kept")
    assert next(alice.messages(timeout=PATIENCE)).text == "well kept"
    wire = sottovoce_sync_world.wire
    assert not wire.shows("a secret")
    assert {passed.sender for passed in wire.envelopes} == {"alice", "bob"}
    assert wire.reused() == []
    assert sottovoce_sync_world.origin.removeprefix("https://") in alice.invite_link()


def test_a_crash_shows_the_message_again_and_ends_the_calls_that_wait(sottovoce_sync_world: SyncWorld) -> None:
    world = sottovoce_sync_world
    alice, bob = world.person("alice"), world.person("bob", accept_everyone=True)
    alice.send("bob", "hello")
    assert next(bob.messages()).attempt == 1
    with pytest.raises(ValueError, match="bob is here already"):
        world.person("bob")
    world.crash("bob")
    with pytest.raises(errors.ClientClosed):
        next(bob.messages())
    with pytest.raises(KeyError):
        world.crash("bob")
    message = next(world.person("bob").messages())
    assert (message.text, message.attempt) == ("hello", 2)


def test_time_goes_by_at_once_when_the_test_says_so(sottovoce_sync_world: SyncWorld) -> None:
    world = sottovoce_sync_world
    alice, bob = world.person("alice"), world.person("bob", accept_everyone=True)
    before = world.clock.now()
    sent = alice.send("bob", "hello")
    next(bob.messages()).mark_handled()
    world.sleep(60)
    assert sent.status() == "read"
    assert 60 <= world.clock.now() - before < 60 + PATIENCE
    world.clock.advance(days=40)
    assert world.clock.now() - before > 40 * 86_400


def test_faults_take_effect_until_they_are_cleared(sottovoce_sync_world: SyncWorld) -> None:
    world = sottovoce_sync_world
    alice, bob = world.person("alice"), world.person("bob", accept_everyone=True)
    alice.send("bob", "first").wait_sent(timeout=PATIENCE)
    world.faults.drop(None, to="bob")
    with world.faults.offline("alice"):
        assert world.faults.is_offline("alice")
        sent = alice.send("bob", "lost")
        with pytest.raises(errors.TimedOut):
            sent.wait_sent(timeout=0)
    assert not world.faults.is_offline("alice")
    world.clock.advance(minutes=1)  # it connects again
    sent.wait_sent(timeout=PATIENCE)
    world.faults.clear()
    alice.send("bob", "found")
    read = bob.messages(timeout=PATIENCE)
    assert [next(read).text for _ in range(2)] == ["first", "found"]
    with pytest.raises(ValueError, match="at least one"):
        world.faults.drop(0)


def test_tasks_of_asyncio_share_a_world(sottovoce_aio_world: AioWorld) -> None:
    world = sottovoce_aio_world

    async def main() -> None:
        alice, bob = await world.person("alice"), await world.person("bob", accept_everyone=True)
        reading = asyncio.ensure_future(anext(bob.messages()))
        sent = await alice.send("bob", "hello")
        message = await reading
        await message.mark_handled()
        await asyncio.gather(world.sleep(30), world.sleep(60))
        assert await sent.status() == "read"
        with world.faults.keyserver.away(to="alice"), pytest.raises(errors.ServerUnreachable):
            await alice.send("carol", "hello")
        await world.crash("bob")
        bob = await world.person("bob", accept_everyone=True)
        assert [message.text async for message in bob.messages(timeout=0)] == []
        with pytest.raises(KeyError):
            await world.crash("carol")

    asyncio.run(main())


@pytest.mark.parametrize("made", [sync_world, aio_world])
def test_a_world_that_has_ended_leaves_no_thread(made: Callable[[], Any]) -> None:
    before = set(threading.enumerate())
    with made():
        assert len(set(threading.enumerate()) - before) == 1
    with suppress(ZeroDivisionError), made():
        _ = 1 / 0
    assert set(threading.enumerate()) <= before


def test_who_still_waits_when_a_world_ends_is_told() -> None:
    async def main() -> None:
        with aio_world() as world:
            bob = await world.person("bob")
            waiting = asyncio.ensure_future(anext(bob.messages()))
            await asyncio.sleep(0)
        with pytest.raises(errors.ClientClosed):
            await waiting
        with pytest.raises(errors.ClientClosed):
            await bob.contacts()

    asyncio.run(main())


@pytest.mark.parametrize("face", [SyncWorld, AioWorld])
def test_a_face_of_the_world_has_its_names_and_takes_what_it_takes(face: type) -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(face) == public(World) - {"network"} | {"sleep"}
    for method in ("person", "crash"):
        inner, shown = (inspect.signature(getattr(kind, method)) for kind in (World, face))
        assert list(shown.parameters.values()) == list(inner.parameters.values())
