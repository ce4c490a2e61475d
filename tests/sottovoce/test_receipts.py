"""Receipts between clients: who gets them, when, how many at once, and what is sent once more where none came."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from sottovoce import Client, errors, events, mending, receipts
from sottovoce.message import Status
from sottovoce.protocol import budgets
from sottovoce.protocol import receipts as rules
from sottovoce.protocol.content import MAX_RECEIPT
from sottovoce.store.database import Tables
from sottovoce.testing import World
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import Ttl
from tests.servers import ServerProcess
from tests.sottovoce.test_client import open_client
from tests.sottovoce.worlds import acquaint, look, texts, until
from tests.sottovoce.worlds import alice as alice
from tests.sottovoce.worlds import bob as bob
from tests.sottovoce.worlds import sottovoce_world as sottovoce_world
from tests.sottovoce.worlds import world as world

#: By then every receipt that is owed has gone out.
LONG = 60


def owed(tables: Tables) -> int:
    return tables.receipts.size()


# --- Who gets them, and when ---


async def test_receipts_come_some_seconds_later_and_all_in_one(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    before, began = len(world.wire.between("bob", "alice")), world.clock.now()
    handles = [await alice.send("bob", str(number)) for number in range(MAX_RECEIPT)]
    for sent in handles:
        await until(sent.wait_delivered)
    (receipt,) = world.wire.between("bob", "alice")[before:]
    assert 1 <= receipt.at - began <= 12


async def test_a_receipt_is_as_long_as_a_short_text(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    before = len(world.wire.between("bob", "alice"))
    handles = [await alice.send("bob", str(number)) for number in range(MAX_RECEIPT)]
    await until(handles[-1].wait_delivered)
    await bob.send("alice", "yes")
    await trio.sleep(LONG)
    receipt, text = world.wire.between("bob", "alice")[before:]
    assert len(receipt.body) == len(text.body)
    assert receipt.ttl == text.ttl


async def test_a_stranger_hears_nothing_before_being_accepted_and_then_that_it_came(
    autojump_clock: MockClock, world: World, alice: Client
) -> None:
    bob = await world.person("bob")
    sent = await alice.send("bob", "may I")
    await trio.sleep(LONG)
    assert world.wire.between("bob", "alice") == []
    assert await sent.status() is Status.SENT
    assert alice.account_id is not None
    await bob.accept(alice.account_id)
    await until(sent.wait_delivered)
    assert await texts(bob, 1) == ["may I"]
    await until(sent.wait_read)


@pytest.mark.parametrize("answer", ["decline", "block"])
async def test_whoever_was_turned_away_never_hears_of_it(
    autojump_clock: MockClock, world: World, alice: Client, answer: str
) -> None:
    """Not even when that account is a contact later."""
    bob = await world.person("bob")
    sent = await alice.send("bob", "may I")
    await trio.sleep(LONG)
    assert alice.account_id is not None
    await getattr(bob, answer)(alice.account_id)
    if answer == "block":
        await bob.unblock(alice.account_id)
    await bob.send("alice", "sorry")
    await trio.sleep(LONG)
    assert await sent.status() is Status.SENT


async def test_a_blocked_contact_gets_no_receipts(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    sent = await alice.send("bob", "are you there")
    await until(sent.wait_sent)
    await bob.block("alice")
    before = len(world.wire.between("bob", "alice"))
    await trio.sleep(LONG)
    assert len(world.wire.between("bob", "alice")) == before
    assert await look(bob, owed) == 0


async def test_a_forked_account_gets_none_until_the_person_has_decided(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    assert alice._own is not None
    own = alice._own
    await look(bob, lambda tables: tables.peers.set_forked_list(own.account_id, own.device_list))
    sent = await alice.send("bob", "are you there")
    await trio.sleep(LONG)
    assert await sent.status() is Status.SENT
    await look(bob, lambda tables: tables.peers.set_forked_list(own.account_id, None))
    bob._receipts.wake()
    await until(sent.wait_delivered)


async def test_whoever_sends_no_receipts_still_gets_them(
    autojump_clock: MockClock, world: World, alice: Client
) -> None:
    bob = await world.person("bob", accept_everyone=True, receipts=False)
    unheard = await alice.send("bob", "hello")
    assert await texts(bob, 1) == ["hello"]
    heard = await bob.send("alice", "hello yourself")
    assert await texts(alice, 1) == ["hello yourself"]
    await until(heard.wait_read)
    await trio.sleep(LONG)
    assert await unheard.status() is Status.SENT
    assert await look(bob, owed) == 0


async def test_receipts_are_not_answered(autojump_clock: MockClock, world: World, alice: Client, bob: Client) -> None:
    """One that was would be answered for ever. It is a sign of life, so that none is owed besides."""
    await acquaint(alice, bob)
    before = len(world.wire.between("bob", "alice")), len(world.wire.between("alice", "bob"))
    await (await alice.send("bob", "hello")).wait_delivered()
    world.clock.advance(days=2)
    await trio.sleep(mending.EVERY + LONG)
    assert len(world.wire.between("bob", "alice")) == before[0] + 1
    assert len(world.wire.between("alice", "bob")) == before[1] + 1


async def test_receipts_pass_between_real_stores_over_a_real_server(
    shared_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "SOONEST", 1)
    monkeypatch.setattr(rules, "LATEST", 2)
    async with (
        open_client(tmp_path / "a.db", server=shared_server.url) as alice,
        open_client(tmp_path / "b.db", server=shared_server.url) as bob,
    ):
        await alice.register("asker")
        await bob.register("teller")
        sent = await alice.send("teller", "hello")
        await until(sent.wait_delivered)
        assert await texts(bob, 1) == ["hello"]
        await until(sent.wait_read)


# --- Nothing grows ---


async def test_an_outbox_that_does_not_empty_gets_no_more_receipts(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob can receive, and what he sends is not taken."""
    monkeypatch.setattr(receipts, "ENOUGH_FOR_ONE", 2)
    await acquaint(alice, bob)
    world.faults.refuse(Code.QUEUE_FULL, None, to="alice", retry_after=LONG)
    for number in range(4 * MAX_RECEIPT):  # fewer than ask for a sign of life
        await alice.send("bob", str(number))
    await trio.sleep(LONG)
    assert await look(bob, lambda tables: tables.outbox.size()) == 2
    assert await look(bob, owed) == 2 * MAX_RECEIPT
    world.faults.clear()
    await until_nothing_is_owed(bob)


async def test_an_outbox_that_others_fill_keeps_no_receipt_from_who_has_nothing_waiting(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await acquaint(alice, bob)
    carol = await world.person("carol", accept_everyone=True)
    await acquaint(carol, bob)
    monkeypatch.setattr(mending, "OUTBOX_ENOUGH", 1)
    world.faults.refuse(Code.QUEUE_FULL, None, to="carol", retry_after=LONG)
    for text in ("for nobody", "to hear of"):
        await bob.send("carol", text)
    await until((await alice.send("bob", "hello")).wait_delivered)


async def until_nothing_is_owed(client: Client) -> None:
    for _ in range(100):
        if await look(client, lambda tables: tables.receipts.size() + tables.outbox.size()) == 0:
            return
        await trio.sleep(LONG)
    raise AssertionError("receipts are still owed")


async def test_receipts_survive_the_end_of_the_program(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    sent = await alice.send("bob", "hello")
    await until(sent.wait_sent)
    await trio.sleep(0.5)
    await world.crash("bob")
    assert await sent.status() is Status.SENT
    await world.person("bob", accept_everyone=True)
    await until(sent.wait_delivered)


# --- Once more ---


def forget_sessions(tables: Tables) -> None:
    """What a store is like that was put back from before it had any session; its messages stay."""
    for name in ("sessions", "skipped_keys", "accepted_handshakes"):
        tables.sessions._execute(f"DELETE FROM {name}")  # noqa: S608 - fixed names
    tables.sessions._unpacked.clear()
    tables.routing._tags.clear()


def repeats(tables: Tables) -> list[int]:
    """How often each message was sent once more."""
    return [count for (count,) in tables.sent._execute("SELECT repeats FROM sent_messages ORDER BY position")]


async def test_what_was_lost_with_a_session_comes_once_more_in_order_and_is_shown_once(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    """Bob has read one message and told nobody, and lost his sessions before the others came."""
    await acquaint(alice, bob)
    world.faults.drop(None, sender="bob", to="alice")
    seen = await alice.send("bob", "seen")
    assert await texts(bob, 1) == ["seen"]
    await trio.sleep(LONG)
    await look(bob, forget_sessions)
    lost = [await alice.send("bob", text) for text in ("lost", "lost too")]
    await until(lost[-1].wait_sent)
    await trio.sleep(LONG)
    world.faults.clear()
    await bob.send("alice", "I have lost everything")
    assert await texts(bob, 2) == ["lost", "lost too"]
    for sent in (seen, *lost):
        await until(sent.wait_delivered)
    assert await texts(alice, 1) == ["I have lost everything"]
    await trio.sleep(LONG)
    assert [message.text async for message in bob.messages(timeout=LONG)] == []


async def test_what_has_a_receipt_is_not_sent_again(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    await until((await alice.send("bob", "seen")).wait_delivered)
    await look(bob, forget_sessions)
    await bob.send("alice", "I have lost everything")
    await trio.sleep(mending.EVERY + LONG)
    assert await look(alice, repeats) == [0, 0]


async def test_a_text_is_wiped_once_there_is_a_receipt_or_after_a_week(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    def kept(tables: Tables) -> list[str]:
        return [text for (text,) in tables.sent._execute("SELECT text FROM sent_messages WHERE text IS NOT NULL")]

    await acquaint(alice, bob)
    with world.faults.offline("bob"):
        await until((await alice.send("bob", "for a week")).wait_sent)
        assert await look(alice, kept) == ["for a week"]
        world.clock.advance(days=7)
        await trio.sleep(mending.EVERY + LONG)
        assert await look(alice, kept) == []
        sent = await alice.send("bob", "for a moment")
    await until(sent.wait_delivered)
    assert await look(alice, kept) == []


async def test_a_message_is_forgotten_after_a_month(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    sent = await alice.send("bob", "long ago")
    await until(sent.wait_delivered)
    world.clock.advance(days=31)
    await trio.sleep(mending.EVERY + LONG)
    with pytest.raises(errors.InvalidInput):
        await sent.status()


# --- Addresses that are no more ---


async def test_an_address_that_the_relay_does_not_know_is_looked_up_once_more(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    """Bob's contact key is gone. What was refused reaches him through the directory's address."""
    await acquaint(alice, bob)
    world.faults.refuse(Code.REFUSED, to="bob")
    sent = [await alice.send("bob", text) for text in ("one", "two")]
    assert sorted(await texts(bob, 2)) == ["one", "two"]
    for each in sent:
        await until(each.wait_read)
    await alice.send("bob", "three")
    assert await texts(bob, 1) == ["three"]
    assert [message.text async for message in bob.messages(timeout=LONG)] == []


async def test_a_queue_that_is_gone_for_good_fails_and_the_keyserver_is_left_alone(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    world.faults.refuse(Code.REFUSED, None, to="bob")
    asked = len([each for each in world.wire.requests if each.who == "alice"])
    for _ in range(5):
        sent = await alice.send("bob", "nobody there")
        with pytest.raises(errors.DeliveryFailed, match="refused"):
            await until(sent.wait_sent)
        await trio.sleep(LONG)
    assert len([each for each in world.wire.requests if each.who == "alice"]) == asked + 1
    failed = [event async for event in alice.events(timeout=0) if isinstance(event, events.MessageFailed)]
    assert len(failed) == 5


async def test_what_is_refused_fails_when_the_recipient_has_no_keys_any_more(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client
) -> None:
    await acquaint(alice, bob)
    await world.crash("bob")
    world.clock.advance(days=31)
    world.faults.refuse(Code.REFUSED, to="bob")
    sent = await alice.send("bob", "anybody there", ttl=Ttl.HOUR)
    with pytest.raises(errors.DeliveryFailed, match="refused"):
        await until(sent.wait_sent)


# --- What was held ---


async def test_a_message_that_only_time_opens_is_shown_and_receipted_without_another_coming(
    autojump_clock: MockClock, world: World, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session has no steps left for this hour."""
    await acquaint(alice, bob)
    monkeypatch.setattr(budgets, "STEPS_PER_HOUR", 0)
    world.faults.drop(budgets.FREE_STEPS + 1, sender="alice", to="bob")
    for _ in range(budgets.FREE_STEPS + 1):
        await alice.send("bob", "lost")
    sent = await alice.send("bob", "from far ahead")
    await trio.sleep(LONG)
    assert await look(bob, lambda tables: len(tables.held.all())) == 1
    monkeypatch.undo()
    with trio.fail_after(2 * limits.HOUR):
        async for message in bob.messages():
            assert message.text == "from far ahead"
            break
    with trio.fail_after(LONG):
        await sent.wait_delivered()
