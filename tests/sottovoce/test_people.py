"""Requests, contacts, links and events as an application meets them, with a real server between."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from sottovoce import Client, Event, Request, errors, events, open_client
from tests.servers import ServerProcess

PATIENCE = 60.0


@pytest.fixture
async def two(shared_server: ServerProcess, tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    """Two registered people who have never met."""
    async with AsyncExitStack() as stack:
        people = []
        for who in ("a", "b"):
            person = await stack.enter_async_context(open_client(tmp_path / f"{who}.db", server=shared_server.url))
            await person.register(f"{who}-{tmp_path.name.replace('_', '-')}"[:32].rstrip("-"))
            people.append(person)
        yield people[0], people[1]


def name(client: Client) -> str:
    assert client.username is not None
    return client.username


async def event(client: Client, kind: type[Event]) -> Event:
    """The next event of this kind."""
    with trio.fail_after(PATIENCE):
        async for happened in client.events():
            if isinstance(happened, kind):
                return happened
    raise AssertionError("events end")


async def requested(client: Client) -> Request:
    """The one request, once it is there."""
    await event(client, events.RequestArrived)
    (request,) = await client.requests()
    return request


async def heard(client: Client) -> str:
    with trio.fail_after(PATIENCE):
        async for message in client.messages():
            return message.text
    raise AssertionError("messages end")


async def test_a_stranger_waits_until_it_is_accepted_and_then_both_talk(two: tuple[Client, Client]) -> None:
    alice, bob = two
    await alice.send(name(bob), "may I")
    request = await requested(bob)
    assert request.account_id == alice.account_id
    assert [message.text for message in request.messages] == ["may I"]
    assert "may I" not in repr(request)
    assert await bob.contacts() == []
    await request.accept()
    assert await heard(bob) == "may I"
    (contact,) = await bob.contacts()
    assert (contact.account_id, contact.name, contact.is_blocked) == (alice.account_id, None, False)
    await bob.send(request.account_id, "you may")
    assert await heard(alice) == "you may"


async def test_a_declined_request_is_gone(two: tuple[Client, Client]) -> None:
    alice, bob = two
    await alice.send(name(bob), "may I")
    await (await requested(bob)).decline()
    assert await bob.requests() == []
    await alice.send(name(bob), "please")
    assert [message.text for message in (await requested(bob)).messages] == ["please"]


async def test_nothing_of_a_blocked_contact_is_shown_and_nothing_is_sent_to_it(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    async with open_client(tmp_path / "a.db", server=shared_server.url) as alice:
        await alice.register("blocked-from-the-start")
        assert alice.account_id is not None
        async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
            await bob.register("blocks-from-the-start")
            assert bob.account_id is not None
            await (await bob.send(name(alice), "hello")).wait_sent()
            await bob.block(alice.account_id)
        await (await requested(alice)).accept()
        await (await alice.send(bob.account_id, "unseen")).wait_sent()
        async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
            with trio.fail_after(PATIENCE):
                await bob.wait_caught_up()
            with pytest.raises(errors.Blocked) as refused:
                await bob.send(name(alice), "no")
            assert "unblock" in refused.value.diagnostics()
            await bob.unblock(alice.account_id)
            assert bob.account_id is not None
            await alice.send(bob.account_id, "seen")
            request = await requested(bob)
            assert [message.text for message in request.messages] == ["seen"]


async def test_a_relay_takes_the_new_key_and_goes_on_taking_what_comes_under_the_one_of_the_blocked(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    async with open_client(tmp_path / "a.db", server=shared_server.url, accept_everyone=True) as alice:
        await alice.register("blocked-in-the-end")
        async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
            await bob.register("blocks-in-the-end")
            await bob.send(name(alice), "hello")
            assert await heard(alice) == "hello"
            await (await alice.send(name(bob), "hello yourself")).wait_sent()
            assert await heard(bob) == "hello yourself"
            before = await bob._local.transact(lambda tables: tables.account.contact_key())
            await bob.block(name(alice))
        async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
            with trio.fail_after(PATIENCE):
                await bob.wait_caught_up()
            assert await bob._local.transact(lambda tables: tables.account.next_contact_key()) is None
            assert await bob._local.transact(lambda tables: tables.account.contact_key()) != before
            await bob.unblock(name(alice))
            await alice.send("blocks-in-the-end", "may I")
            assert [message.text for message in (await requested(bob)).messages] == ["may I"]


async def test_who_has_the_link_needs_no_directory_and_a_link_to_another_server_says_so(
    two: tuple[Client, Client],
) -> None:
    alice, bob = two
    link = bob.invite_link()
    assert await alice.look_up(link) == bob.account_id
    await alice.send(link, "hello")
    assert (await requested(bob)).account_id == alice.account_id
    foreign = f"sottovoce://elsewhere.example/{bob.account_id}"
    for wrong in (foreign, "sottovoce://x", f"{link}x", "sottovoce://" + "x" * 1_000):
        with pytest.raises(errors.InvalidInput):
            await alice.send(wrong, "lost")


async def test_two_people_see_one_safety_number_and_their_codes_agree(two: tuple[Client, Client]) -> None:
    alice, bob = two
    await alice.send(name(bob), "hello")
    await requested(bob)
    assert alice.account_id is not None
    ours, theirs = await alice.safety_number(name(bob)), await bob.safety_number(alice.account_id)
    assert ours.digits == theirs.digits
    assert ours.compare(theirs.code).matches
    with pytest.raises(errors.InvalidInput):
        ours.compare(b"something else")
    assert (await alice.contact(name(bob))).verified_at is None
    await alice.set_verified(name(bob))
    assert (await alice.contact(name(bob))).verified_at is not None
    await alice.set_verified(name(bob), False)
    assert (await alice.contact(name(bob))).verified_at is None


async def test_an_account_that_was_never_met_is_unknown(two: tuple[Client, Client]) -> None:
    alice, bob = two
    for ask in (alice.contact, alice.accept, alice.block, alice.decline, alice.safety_number, alice.set_verified):
        with pytest.raises(errors.UnknownRecipient):
            await ask(name(bob))


async def test_a_connection_that_comes_up_is_an_event(two: tuple[Client, Client]) -> None:
    alice, _ = two
    change = await event(alice, events.ConnectionChanged)
    assert isinstance(change, events.ConnectionChanged)
    assert (change.purpose, change.is_up, change.trouble) == ("receive", True, "")


async def test_an_event_that_was_not_asked_past_is_told_again_after_a_restart(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
        await bob.register("retold")
        async with open_client(tmp_path / "a.db", server=shared_server.url) as alice:
            await alice.register("teller")
            await (await alice.send("retold", "hello")).wait_sent()
        await event(bob, events.RequestArrived)
    async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
        await event(bob, events.RequestArrived)
        (request,) = await bob.requests()
        await request.accept()
    async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
        assert await heard(bob) == "hello"


async def test_a_program_that_dies_with_a_message_in_hand_can_tell_when_it_sees_it_again(
    two: tuple[Client, Client],
) -> None:
    alice, bob = two
    await bob.send(name(alice), "hello")
    request = await requested(alice)
    await request.accept()
    attempts = []
    for _ in range(2):
        async for message in alice.messages():
            attempts.append(message.attempt)
            break
        alice._incoming._shown = ()  # as after a restart
    async for message in alice.messages():
        async with message.processing():
            attempts.append(message.attempt)
        break
    assert attempts == [1, 2, 3]
    alice._incoming._shown = ()
    await bob.send(name(alice), "next")
    assert await heard(alice) == "next"


async def test_an_answer_goes_out_and_its_message_counts_as_handled_in_one_step(two: tuple[Client, Client]) -> None:
    alice, bob = two
    await bob.send(name(alice), "question")
    await (await requested(alice)).accept()
    async for message in alice.messages():
        await message.answer("answer")
        break
    alice._incoming._shown = ()  # as after a restart
    await bob.send(name(alice), "next")
    assert await heard(alice) == "next"
    assert await heard(bob) == "answer"


async def test_an_answer_that_cannot_be_sent_leaves_its_message_unhandled(two: tuple[Client, Client]) -> None:
    alice, bob = two
    await bob.send(name(alice), "question")
    await (await requested(alice)).accept()
    async for message in alice.messages():
        with pytest.raises(errors.MessageTooLarge):
            await message.answer("x" * 100_000)
        await alice.block(message.account_id)
        with pytest.raises(errors.Blocked):
            await message.answer("blocked")
        break
    alice._incoming._shown = ()
    assert await heard(alice) == "question"
