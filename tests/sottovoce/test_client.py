"""Clients against a real server process: what works, what bad input gets, and what survives a failure."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio

import sottovoce
from sottovoce import Client, errors, receiving
from sottovoce.links import Link
from sottovoce.local import Local
from sottovoce.registration import prepare
from sottovoce.store.database import Tables, open_store
from sottovoce_relay.envelopes import closed_name, name_of
from sottovoce_wire.frames import SendResults, decode_relay_message
from sottovoce_wire.ids import send_key_hash
from tests.servers import ServerProcess

T = TypeVar("T")
PATIENCE = 60.0
open_client = partial(sottovoce.open_client, accept_everyone=True)


async def take(client: Client, count: int) -> list[str]:
    """The next `count` texts."""
    texts: list[str] = []
    with trio.fail_after(PATIENCE):
        async for message in client.messages():
            texts.append(message.text)
            if len(texts) == count:
                await message.mark_handled()
                break
    return texts


async def until_all_is_taken(client: Client) -> None:
    """Wait until the relay has answered for everything in the outbox."""
    settled = client._sender.settled
    with trio.fail_after(PATIENCE):
        while await client._local.transact(lambda tables: tables.outbox.size()):
            await settled.wait()
            settled = client._sender.settled


async def register(path: Path, server: ServerProcess, name: str) -> str:
    """Register and go away; returns the account id."""
    async with open_client(path, server=server.url) as client:
        await client.register(name)
        assert client.account_id is not None
        return client.account_id


async def test_two_people_talk(shared_server: ServerProcess, tmp_path: Path) -> None:
    opened = partial(open_client, server=shared_server.url)
    async with opened(tmp_path / "a.db") as alice, opened(tmp_path / "b.db") as bob:
        await alice.register("anna")
        await bob.register("boris")
        sent = await alice.send("boris", "hello")
        with trio.fail_after(PATIENCE):
            await sent.wait_sent()
            async for message in bob.messages():
                assert message.text == "hello"
                assert message.id == sent.id
                assert message.sender == message.account_id == alice.account_id
                assert abs((message.received_at - message.sent_at).total_seconds()) < PATIENCE
                await message.reply("heard you")
                break
            async for message in alice.messages():
                assert (message.sender, message.text) == ("boris", "heard you")
                break


async def test_what_was_sent_to_somebody_away_arrives_in_order_when_they_return(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    await register(tmp_path / "b.db", shared_server, "absent")
    lines = [f"line {number}" for number in range(200)] + ["", " ", "多語言 🌍 עברית", "x" * 40_000]
    async with open_client(tmp_path / "a.db", server=shared_server.url) as alice:
        await alice.register("writer")
        sent = [await alice.send("absent", line) for line in lines]
        with trio.fail_after(PATIENCE):
            for message in sent:
                await message.wait_sent()
    async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
        assert await take(bob, len(lines)) == lines
        with trio.fail_after(PATIENCE):
            await bob.wait_caught_up()


async def test_a_message_can_be_sent_to_an_account_id(shared_server: ServerProcess, tmp_path: Path) -> None:
    account_id = await register(tmp_path / "b.db", shared_server, "by-id")
    async with open_client(tmp_path / "a.db", server=shared_server.url) as alice:
        await alice.register("by-id-writer")
        await (await alice.send(account_id, "hello")).wait_sent()
    async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
        assert await take(bob, 1) == ["hello"]


async def test_a_handled_message_is_not_shown_again_and_an_unhandled_one_is(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    await register(tmp_path / "b.db", shared_server, "forgetful")
    async with open_client(tmp_path / "a.db", server=shared_server.url) as alice:
        await alice.register("reminder")
        for text in ("one", "two", "three"):
            await (await alice.send("forgetful", text)).wait_sent()
    opened = partial(open_client, tmp_path / "b.db", server=shared_server.url)

    async with opened() as bob:
        shown = []
        async for message in bob.messages():
            shown.append(message.text)
            if len(shown) == 2:
                break  # with the second in hand
        assert shown == ["one", "two"]
    async with opened() as bob:
        assert await take(bob, 1) == ["two"]
    async with opened() as bob:
        assert await take(bob, 1) == ["three"]


async def test_registering_again_changes_nothing(shared_server: ServerProcess, tmp_path: Path) -> None:
    first = await register(tmp_path / "a.db", shared_server, "steady")
    assert await register(tmp_path / "a.db", shared_server, "steady") == first


async def test_a_registration_whose_answer_was_lost_is_finished_by_repeating_it(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    first = await register(tmp_path / "a.db", shared_server, "interrupted")
    store = open_store(tmp_path / "a.db")
    with store.transaction() as tables:
        tables.account._execute("UPDATE account SET registered = 0, username = NULL, request_counter = 0")
    store.close()
    assert await register(tmp_path / "a.db", shared_server, "interrupted") == first


# --- What bad input gets ---


async def test_a_taken_name_is_refused_and_another_can_be_chosen(shared_server: ServerProcess, tmp_path: Path) -> None:
    await register(tmp_path / "a.db", shared_server, "coveted")
    async with open_client(tmp_path / "b.db", server=shared_server.url) as second:
        with pytest.raises(errors.NameTaken):
            await second.register("coveted")
        await second.register("coveted-too")


async def test_a_second_name_for_one_store_is_refused(shared_server: ServerProcess, tmp_path: Path) -> None:
    await register(tmp_path / "a.db", shared_server, "first-name")
    with pytest.raises(errors.AlreadyRegistered, match="first-name"):
        await register(tmp_path / "a.db", shared_server, "second-name")


@pytest.mark.parametrize("name", ["", "a", "A", "Bob", "1st", "a" * 33, "bob smith", "böb", "-x"])
async def test_a_name_that_is_none_is_refused(shared_server: ServerProcess, tmp_path: Path, name: str) -> None:
    async with open_client(tmp_path / "a.db", server=shared_server.url) as client:
        with pytest.raises(errors.InvalidInput):
            await client.register(name)


async def test_bad_sends_are_refused_and_leave_nothing(shared_server: ServerProcess, tmp_path: Path) -> None:
    async with open_client(tmp_path / "a.db", server=shared_server.url) as client:
        with pytest.raises(errors.NotRegistered):
            await client.send("nobody", "x")
        with pytest.raises(errors.NotRegistered):
            client.messages()
        await client.register("careful")
        assert client.account_id is not None
        for to, text, error in [
            ("nobody-at-all", "x", errors.UnknownRecipient),
            ("a" * 52, "x", errors.UnknownRecipient),
            ("a" * 51, "x", errors.InvalidInput),
            ("No Name", "x", errors.InvalidInput),
            ("", "x", errors.InvalidInput),
            ("careful", "x", errors.InvalidInput),
            (client.account_id, "x", errors.InvalidInput),
        ]:
            with pytest.raises(error):
                await client.send(to, text)
    await register(tmp_path / "b.db", shared_server, "patient")
    async with open_client(tmp_path / "a.db", server=shared_server.url) as client:
        with pytest.raises(errors.MessageTooLarge):
            await client.send("patient", "x" * 49_153)
        with pytest.raises(errors.InvalidInput):
            await client.send("patient", "\ud800")
        assert await client._local.transact(lambda tables: tables.outbox.size()) == 0


@pytest.mark.parametrize("url", ["http://example.com", "ftp://x", "chat.example", "https://u@x", "https://x/y", ""])
async def test_an_address_that_is_none_is_refused_before_anything_is_made(tmp_path: Path, url: str) -> None:
    with pytest.raises(errors.InvalidInput):
        async with open_client(tmp_path / "a.db", server=url):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("invite_code", ["x" * 129, "two\nlines", "\x1b[2J", "\ud800"])
async def test_an_invite_code_that_is_none_is_refused_before_anything_is_made(tmp_path: Path, invite_code: str) -> None:
    with pytest.raises(errors.InvalidInput):
        async with open_client(tmp_path / "a.db", server="http://127.0.0.1:1", invite_code=invite_code):
            pass
    assert list(tmp_path.iterdir()) == []


async def test_a_server_that_is_away_is_one_clear_error(tmp_path: Path) -> None:
    async with open_client(tmp_path / "a.db", server="http://127.0.0.1:1") as client:
        with pytest.raises(errors.ServerUnreachable, match=r"http://127\.0\.0\.1:1"):
            await client.register("lonely")


async def test_a_server_that_is_something_else_is_one_clear_error(tmp_path: Path) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with open_client(tmp_path / "a.db", server=f"http://127.0.0.1:{port}") as client:
            with pytest.raises(errors.WrongServer):
                await client.register("lost")
        nursery.cancel_scope.cancel()


async def test_a_store_of_another_server_is_refused(shared_server: ServerProcess, tmp_path: Path) -> None:
    await register(tmp_path / "a.db", shared_server, "loyal")
    with pytest.raises(errors.WrongServer, match=f"belongs to {shared_server.url}, not to http://127.0.0.1:1\n"):
        async with open_client(tmp_path / "a.db", server="http://127.0.0.1:1"):
            pass


async def test_a_store_with_an_account_knows_its_server_and_one_without_is_told_so(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    await register(tmp_path / "a.db", shared_server, "settled")
    async with open_client(tmp_path / "a.db") as client:
        assert client.invite_link().endswith(f"{shared_server.url.removeprefix('http')}/{client.account_id}")
    for _ in range(2):  # the first refusal has let go of the store
        with pytest.raises(errors.NotRegistered, match="no account yet"):
            async with open_client(tmp_path / "new.db"):
                pass


async def test_an_error_in_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_client(tmp_path / "a.db", server="http://127.0.0.1:1"):
            raise ZeroDivisionError


async def test_two_clients_on_one_store_are_refused(tmp_path: Path) -> None:
    async with open_client(tmp_path / "a.db", server="http://127.0.0.1:1"):
        with pytest.raises(errors.StoreInUse):
            async with open_client(tmp_path / "a.db", server="http://127.0.0.1:1"):
                pass


async def test_an_account_that_was_not_registered_yet_follows_its_keyserver_to_another_relay(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "a.db")
    with store.transaction() as tables:
        # What the keyserver said before it was set right.
        prepare(tables, shared_server.url, "http://127.0.0.1:1", int(time.time()))
    store.close()
    await register(tmp_path / "a.db", shared_server, "relocated")


# --- What survives ---


@pytest.mark.usefixtures("impatient")
async def test_nothing_is_acknowledged_before_it_is_stored(
    shared_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails while a page is being stored: the page comes again."""
    await register(tmp_path / "b.db", shared_server, "unlucky")
    async with open_client(tmp_path / "a.db", server=shared_server.url) as alice:
        await alice.register("insistent")
        for text in ("one", "two"):
            await (await alice.send("unlucky", text)).wait_sent()
    failed = trio.Event()
    genuine = receiving.Receiver._take_in

    async def fail_once(self: receiving.Receiver, page: Sequence[bytes], sealed_only: bool) -> None:
        if not failed.is_set():
            failed.set()
            raise errors.StoreFailed("the disk is full")
        await genuine(self, page, sealed_only)

    monkeypatch.setattr(receiving.Receiver, "_take_in", fail_once)
    async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
        assert await take(bob, 2) == ["one", "two"]
    assert failed.is_set()


@pytest.mark.usefixtures("impatient")
async def test_a_failed_store_while_sending_sends_nothing_and_says_so(
    shared_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(tmp_path / "b.db", shared_server, "recipient")
    async with open_client(tmp_path / "a.db", server=shared_server.url) as alice:
        await alice.register("out-of-disk")
        await (await alice.send("recipient", "before")).wait_sent()
        with monkeypatch.context() as patched:
            patched.setattr(Local, "transact", _fail)
            with pytest.raises(errors.StoreFailed):
                await alice.send("recipient", "never")
        await (await alice.send("recipient", "after")).wait_sent()
    async with open_client(tmp_path / "b.db", server=shared_server.url) as bob:
        assert await take(bob, 2) == ["before", "after"]


async def _fail(_self: Local, _work: Callable[[Tables], T]) -> T:
    raise errors.StoreFailed("the disk is full")


@pytest.mark.usefixtures("impatient")
async def test_a_server_killed_in_the_middle_of_a_thousand_lines_loses_and_repeats_nothing(
    server: ServerProcess, tmp_path: Path
) -> None:
    """What was unanswered goes again: the same bytes under the same ids, in order, before anything new."""
    await register(tmp_path / "b.db", server, "bob")
    lines = [f"line {number}" for number in range(1000)]
    async with open_client(tmp_path / "a.db", server=server.url) as alice:
        await alice.register("alice")
        changes = alice.events()
        for line in lines[:500]:
            await alice.send("bob", line)
        server.freeze()
        for line in lines[500:510]:  # so that something is in flight
            await alice.send("bob", line)
        server.kill()
        with trio.fail_after(PATIENCE):
            while not alice._sender.trouble:  # until then, answers that came before the end are still being heard
                await anext(changes)
        unanswered = await alice._local.transact(_outbox)
        for line in lines[510:]:
            await alice.send("bob", line)
        assert (await alice._local.transact(_outbox))[: len(unanswered)] == unanswered
        await trio.to_thread.run_sync(server.start)
        await until_all_is_taken(alice)
    assert unanswered, "nothing was in flight: the test proves nothing"
    stored = _stored(server)
    assert len(stored) == 1000
    assert all(body in (stored.get(name), stored.get(closed_name(name, body))) for name, body in unanswered)
    async with open_client(tmp_path / "b.db", server=server.url) as bob:
        assert await take(bob, 1000) == lines
        with trio.fail_after(PATIENCE):
            await bob.wait_caught_up()
        assert await bob._local.transact(lambda tables: tables.inbox.unhandled(1)) == []


async def test_an_envelope_is_in_the_outbox_when_its_answer_arrives(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent is not accepted: were it gone before, a crash between the two would lose it."""
    receive = Link.receive
    waiting: list[int] = []
    await register(tmp_path / "b.db", server, "bob")
    async with open_client(tmp_path / "a.db", server=server.url) as alice:
        await alice.register("alice")

        async def watched(link: Link) -> bytes:
            message = await receive(link)
            if any(isinstance(frame, SendResults) for frame in decode_relay_message(message)):
                waiting.append(await alice._local.transact(lambda tables: tables.outbox.size()))
            return message

        monkeypatch.setattr(Link, "receive", watched)
        await alice.send("bob", "hello")
        await until_all_is_taken(alice)
    assert waiting == [1]


def _outbox(tables: Tables) -> list[tuple[bytes, bytes]]:
    """What waits, in order: the name under which the relay is to store it (made of the envelope id), and the bytes."""
    rows = tables.outbox._execute("SELECT queue, send_key, envelope_id, body FROM outbox ORDER BY position")
    return [(name_of(queue + send_key_hash(key), envelope_id), body) for queue, key, envelope_id, body in rows]


def _stored(server: ServerProcess) -> dict[bytes, bytes]:
    """What the relay holds, read from its database file."""
    with sqlite3.connect(server.folder / "relay.db") as database:
        return dict(database.execute("SELECT name, body FROM envelopes").fetchall())


async def test_what_is_no_text_or_no_time_to_live_is_refused(shared_server: ServerProcess, tmp_path: Path) -> None:
    async with open_client(tmp_path / "a.db", server=shared_server.url) as alice:
        await alice.register("careless")
        for text, ttl in ((None, sottovoce.Ttl.DAY), (b"bytes", sottovoce.Ttl.DAY), ("text", 60)):
            with pytest.raises(errors.InvalidInput):
                await alice.send("nobody", text, ttl=ttl)  # type: ignore[arg-type]
