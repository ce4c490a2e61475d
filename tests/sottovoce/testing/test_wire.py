"""What the recorder can prove, and that each proof would notice."""

import pytest
import trio
from trio.testing import MockClock

from sottovoce.testing import Delivered, Passed, Wire, World
from sottovoce_wire import directory as wire_directory
from sottovoce_wire.frames import (
    Deliver,
    DeliverNow,
    Delivery,
    KeyClass,
    Passing,
    Send,
    SendItem,
    SendMany,
    Target,
    Ttl,
    message,
)
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey

QUEUE = QueueId(bytes(16))


def passed(*bodies: bytes) -> Wire:
    """A wire on which these went by."""
    wire = Wire()
    for body in bodies:
        wire.said(
            0, "alice", message(Send(1, [SendItem(QUEUE, SendKey(bytes(32)), EnvelopeId(bytes(16)), Ttl.DAY, body)]))
        )
    return wire


async def conversation(world: World) -> None:
    """Thirty messages, some of them lost, repeated, or sent again after a crash."""
    alice, bob = [await world.person(name, accept_everyone=True) for name in ("alice", "bob")]
    await alice.send("bob", "the secret number 0")
    world.faults.drop(2, to="bob")
    world.faults.lie(sender="bob")
    heard = bob.messages()
    with trio.fail_after(600):
        for number in range(1, 30):
            await alice.send("bob", f"the secret number {number}")
            if number == 15:
                await world.crash("alice")
                alice = await world.person("alice", accept_everyone=True)
            if number % 5 == 0:
                await (await anext(heard)).reply("the secret answer")


async def test_nothing_that_people_say_is_in_what_servers_see(
    autojump_clock: MockClock, sottovoce_world: World
) -> None:
    await conversation(sottovoce_world)
    wire = sottovoce_world.wire
    assert len(wire.envelopes) > 30
    assert not wire.shows("secret")
    assert wire.shows(wire.envelopes[0].body)
    assert wire.shows(b"\x05alice"), "the claim to the name, in base64 inside JSON"
    with pytest.raises(ValueError, match="nothing"):
        wire.shows("")


async def test_no_key_and_no_nonce_is_used_twice(autojump_clock: MockClock, sottovoce_world: World) -> None:
    await conversation(sottovoce_world)
    wire = sottovoce_world.wire
    assert {envelope.is_sealed for envelope in wire.envelopes} == {True, False}
    assert wire.reused() == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"\x01" + b"t" * 8 + b"1" * 12 + b"body", b"\x01" + b"t" * 8 + b"2" * 12 + b"body"),
        (b"\x01" + b"s" * 8 + b"1" * 12 + b"body", b"\x01" + b"t" * 8 + b"1" * 12 + b"body"),
        (b"\x02\x00" + b"e" * 1120 + b"one", b"\x02\x00" + b"e" * 1120 + b"other"),
    ],
    ids=["a number of a chain", "a nonce", "an encapsulated key"],
)
def test_two_envelopes_that_share_a_key_are_found(one: bytes, other: bytes) -> None:
    between = b"\x01" + b"between!" + b"x" * 12 + b"body"
    assert [{a.body, b.body} for a, b in passed(one, between, other).reused()] == [{one, other}]


def test_the_same_bytes_sent_again_use_nothing_twice() -> None:
    body = b"\x01" + b"t" * 8 + b"1" * 12 + b"body"
    assert passed(body, body).reused() == []


def test_a_body_for_many_is_on_the_wire_once_for_each() -> None:
    wire = Wire()
    targets = [Target(QUEUE, SendKey(bytes(32)), EnvelopeId(bytes([number]) * 16)) for number in range(3)]
    wire.said(7, "alice", message(SendMany(1, Ttl.WEEK, b"\x01to all", targets)))
    assert wire.envelopes == [Passed(7, "alice", None, Ttl.WEEK, b"\x01to all")] * 3


def test_what_is_no_message_is_kept_all_the_same() -> None:
    wire = Wire()
    wire.said(0, "alice", b"\xc1 plain")
    assert wire.envelopes == []
    assert wire.shows("plain")


def test_what_is_delivered_stands_with_whom_it_is_for() -> None:
    wire = Wire()
    items = [Delivery(number, KeyClass.CONTACT, b"\x01body") for number in (1, 2)]
    wire.heard(3, "bob", message(Deliver(QUEUE, items), DeliverNow(QUEUE, [Passing(KeyClass.CONTACT, b"\x01now")])))
    assert wire.deliveries == [Delivered(3, "bob", body) for body in (b"\x01body", b"\x01body", b"\x01now")]
    assert wire.shows("now")


async def test_requests_stand_with_who_asked(autojump_clock: MockClock, sottovoce_world: World) -> None:
    await sottovoce_world.person("alice")
    asked = [(each.who, each.path, each.status) for each in sottovoce_world.wire.requests]
    assert asked[:2] == [("alice", wire_directory.PATH_INFO, 200), ("alice", wire_directory.PATH_REGISTER, 200)]
