"""What the pages define is called as their text says, by people of the testing kit: every line of it runs."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import sottovoce
from sottovoce import errors, events
from sottovoce.testing import AioWorld, SyncWorld, World
from tests.docs import pages
from tests.docs.pages import running

PATIENCE = 60.0


async def hear(person: sottovoce.Client) -> str:
    """The next text."""
    with trio.fail_after(PATIENCE):
        return (await anext(person.messages())).text


async def event(person: sottovoce.Client, kind: type[sottovoce.Event]) -> sottovoce.Event:
    """The next event of a kind."""
    with trio.fail_after(PATIENCE):
        async for found in person.events():
            if isinstance(found, kind):
                return found
    raise AssertionError


async def test_bots(sottovoce_world: World, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    alice = await sottovoce_world.person("alice")
    with running("bots") as page:
        nursery.start_soon(page.names["echo"], await sottovoce_world.person("echo", accept_everyone=True))
        await alice.send("echo", "hello")
        assert await hear(alice) == "hello"
        await _shop_ends_three_times_and_goes_on(sottovoce_world, alice, page.names["shop"])

        desk = await sottovoce_world.person("desk", accept_everyone=True)
        await alice.send("desk", "two loaves")
        assert await page.names["one_order"](desk) == "two loaves"
        assert await hear(alice) == "We have your order."
        assert [message.text async for message in desk.messages(timeout=1)] == []

        await sottovoce_world.crash("desk")
        await alice.send("desk", "one more")
        await (await alice.send("desk", "and milk")).wait_sent()
        desk = await sottovoce_world.person("desk", accept_everyone=True)
        assert await page.names["read_what_is_here"](desk) == ["one more", "and milk"]


async def _shop_ends_three_times_and_goes_on(world: World, alice: sottovoce.Client, shop) -> None:  # type: ignore[no-untyped-def]
    await world.person("shop", accept_everyone=True)
    for text in ("bread", "gold", "milk"):
        await alice.send("shop", text)
    for _ in range(3):
        await world.crash("shop")
        with pytest.raises(KeyError), trio.fail_after(PATIENCE):
            await shop(await world.person("shop", accept_everyone=True))
    await world.crash("shop")
    reopened = await world.person("shop", accept_everyone=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shop, reopened)
        assert [await hear(alice) for _ in range(3)] == [
            "That is 3 a piece.",
            "I cannot answer that, and have tried three times.",
            "That is 2 a piece.",
        ]
        nursery.cancel_scope.cancel()


async def test_people(sottovoce_world: World, autojump_clock: MockClock) -> None:
    alice, bob, mallory = [await sottovoce_world.person(name) for name in ("alice", "bob", "mallory")]
    with running("people") as page:
        await alice.send("bob", "about the invoice")
        await mallory.send("bob", "buy this")
        for _ in range(2):
            await event(bob, events.RequestArrived)
        await page.names["answer_requests"](bob)
        assert (await hear(bob), await bob.requests()) == ("about the invoice", [])

        await bob.look_up("alice")
        await page.names["silence"](bob, "mallory")
        described = await page.names["describe_contacts"](bob)
        assert sorted(described) == ["alice", "mallory is blocked"]
        with pytest.raises(errors.Blocked):
            await bob.send("mallory", "go away")
        await page.names["make_up"](bob, "mallory")
        await mallory.send("bob", "once more")
        await event(bob, events.RequestArrived)

        await page.names["greet_by_link"](bob, alice.invite_link())
        assert await hear(alice) == "hello, you gave me your link"
        digits = [await page.names["show_digits"](*each) for each in ((alice, "bob"), (bob, "alice"))]
        assert digits[0] == digits[1]
        assert len(digits[0].split()) == 12
        await page.names["they_were_the_same"](alice, "bob")
        assert (await alice.contact("bob")).verified_at == sottovoce_world.clock.utc().replace(microsecond=0)
        scanned = (await bob.safety_number("alice")).code
        assert await page.names["scan"](alice, "bob", scanned)


async def test_events(
    sottovoce_world: World, autojump_clock: MockClock, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    alice = await sottovoce_world.person("alice")
    bob, carol = [await sottovoce_world.person(name) for name in ("bob", "carol")]
    with running("events") as page:
        nursery.start_soon(page.names["run"], bob)
        await alice.send("bob", "hello")
        await trio.sleep(1)
        await bob.accept("alice")
        assert await hear(alice) == "hello"
        assert f"somebody new has written: {alice.account_id}" in capsys.readouterr().out

        assert page.names["status_line"](bob) == "connected"
        with sottovoce_world.faults.offline("bob"):
            await bob.send("alice", "too late", ttl=sottovoce.Ttl.HOUR)
            await trio.sleep(2 * 3600)
            assert page.names["status_line"](bob).startswith("trying again: nothing answers at ")
            assert await page.names["tell"](bob, "carol", "are you there?") == "not sent (server_unreachable)"
        await trio.sleep(60)
        assert await page.names["tell"](bob, "carol", "are you there?") == "sent"
        assert (await page.names["tell"](bob, "dave", "and you?")).endswith("ask the person for the account id")
        printed = capsys.readouterr().out
    assert f"a message to {alice.account_id} will not arrive: " in printed
    assert "no messages come in at present: " in printed
    assert "noticed: ConnectionChanged" in printed
    assert carol.trouble is None


async def test_delivery(sottovoce_world: World, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    alice = await sottovoce_world.person("alice")
    bob, station = [await sottovoce_world.person(name, accept_everyone=True) for name in ("bob", "station")]

    async def read() -> None:
        async for _ in bob.messages():
            pass

    nursery.start_soon(read)
    with running("delivery") as page:
        with trio.fail_after(PATIENCE):
            await page.names["follow"](alice)
        sent = await alice.send("bob", "once more")
        await sent.wait_read()
        assert await page.names["what_became_of"](alice, sent.id) == "read"
        await page.names["measure"](alice, 21.46)
        assert (await hear(station), sottovoce_world.wire.between("alice", "station")[0].ttl) == (
            "21.5",
            sottovoce.Ttl.HOUR,
        )
        with sottovoce_world.faults.offline("alice"):
            assert await page.names["change_ones_mind"](alice)


def test_faces(sottovoce_sync_world: SyncWorld, sottovoce_aio_world: AioWorld) -> None:
    """The page's own tests."""
    with running("faces") as page:
        page.names["test_what_waits_is_read_once"](sottovoce_sync_world)
        page.names["test_the_agent_shouts"](sottovoce_aio_world)


async def test_stores(server: str, tmp_path: Path) -> None:
    path = str(tmp_path / "alice.db")
    with running("stores") as page:
        await page.names["open_guarded"](path, server, "one")
        with pytest.raises(errors.PassphraseNeeded):
            await _say(path, server, "nothing")
        page.names["unguard"](path, "one")
        await _say(path, server, *map(str, range(400)))
        assert page.names["look"](path) == "intact"
        page.names["guard"](path, "two")
        assert page.names["look"](path, "two") == "intact"
        whole = (tmp_path / "alice.db").read_bytes()
        assert set(page.names["rescue"](path, "two")) == {str(number) for number in range(400)}
        (tmp_path / "alice.db").write_bytes(whole[: len(whole) // 2])
        assert page.names["look"](path, "two").startswith("damaged: ")
        assert set(page.names["rescue"](path, "two")) < {str(number) for number in range(400)}


async def _say(path: str, server: str, *texts: str) -> None:
    """Somebody says these to the person whose store it is."""
    async with sottovoce.open_client(path, server=server, accept_everyone=True) as alice:
        async with sottovoce.open_client(f"{path}.friend", server=server) as friend:
            await friend.register("friend")
            for sent in [await friend.send("alice", text) for text in texts]:
                await sent.wait_sent()
        assert sorted([await hear(alice) for _ in texts]) == sorted(texts)


def test_every_page_with_definitions_is_called_here() -> None:
    defining = {page for page in pages.pages() if page != pages.TESTED_ELSEWHERE and pages.definitions(page)}
    assert {f"test_{page}" for page in defining} <= set(globals())
