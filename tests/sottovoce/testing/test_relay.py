"""The relay in memory says what the real one says, conversation by conversation, on a real socket and database."""

import os
import random
from pathlib import Path

import msgspec
import pytest

from sottovoce_relay import sweeper
from sottovoce_wire import ids, limits
from sottovoce_wire.frames import (
    AddSendKey,
    DeleteQueue,
    DemoteSendKey,
    Hello,
    KeyClass,
    NewSendKey,
    Ping,
    Receive,
    RevokeSendKey,
    SendItem,
    SendMany,
    Target,
    Ttl,
    message,
)
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey, SendKeyHash
from tests.relay_clients import Mailbox
from tests.sottovoce.testing.contract import Conversation, Place, for_real, in_memory, real_relay

BOX, OTHER = Mailbox(), Mailbox()
ALL_KINDS = list(KeyClass)
GRACE = 120


async def a_first_letter(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.receive("owner", BOX)
    await place.send("sender", *[BOX.item(b"%d" % kind, kind) for kind in ALL_KINDS])
    await place.ack("owner", BOX, 2)
    await place.ack("owner", BOX, 2, 4)
    await place.ack("owner", BOX, 4)
    await place.say("owner", Ping(3))


async def a_backlog_under_credit(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.say("owner", place.create("owner", BOX))
    await place.send("sender", *[BOX.item(b"%d" % number) for number in range(6)])
    await place.say("owner", Receive(2, BOX.queue, 2, 4 * limits.MIB))
    await place.ack("owner", BOX, 0, 2)
    await place.ack("owner", BOX, 1)
    await place.send("sender", BOX.item(b"behind"))
    await place.ack("owner", BOX, place.delivered["owner", BOX.queue])
    await place.ack("owner", BOX, place.delivered["owner", BOX.queue])
    await place.ack("owner", BOX, place.delivered["owner", BOX.queue])


async def a_credit_in_bytes(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.receive("owner", BOX, size=limits.MAX_ENVELOPE)
    for number in range(3):
        await place.send("sender", BOX.item(bytes([number]) * 40_000, KeyClass.STRANGER))
    await place.ack("owner", BOX, 1)
    await place.ack("owner", BOX, 2)


async def repeats_and_conflicts(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.say("owner", place.create("owner", BOX))
    for kind in ALL_KINDS:
        first = BOX.item(b"first", kind, bytes([kind]) * 16)
        await place.send("sender", first, first)
        await place.send("sender", first, BOX.item(b"second", kind, bytes([kind]) * 16))
    await place.say("owner", Receive(2, BOX.queue, 256, 4 * limits.MIB))
    await place.ack("owner", BOX, place.delivered["owner", BOX.queue])
    await place.send("sender", BOX.item(b"first", KeyClass.CONTACT, bytes([KeyClass.CONTACT]) * 16))


async def refusals(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.receive("owner", BOX)
    wrong = SendItem(BOX.queue, SendKey(bytes(32)), EnvelopeId(bytes(16)), Ttl.DAY, b"x")
    await place.send("sender", OTHER.item(b"x"), wrong, BOX.item(bytes(limits.MAX_ENVELOPE + 1)), BOX.item(b"fits"))
    await place.send("sender", OTHER.item(bytes(limits.MAX_ENVELOPE + 1)), OTHER.item(b"x", ttl=Ttl.NOW))
    await place.say("owner", RevokeSendKey(5, BOX.queue, ids.send_key_hash(BOX.keys[KeyClass.GROUP])))
    await place.send("sender", BOX.item(b"x", KeyClass.GROUP), BOX.item(b"y", KeyClass.CONTACT))


async def demoted_keys(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.receive("owner", BOX)
    key = ids.send_key_hash(BOX.keys[KeyClass.CONTACT])
    await place.say("owner", DemoteSendKey(5, BOX.queue, key), DemoteSendKey(6, BOX.queue, SendKeyHash(bytes(32))))
    await place.send("sender", BOX.item(b"a", envelope_id=bytes(16)), BOX.item(b"b", envelope_id=bytes(16)))
    await place.say("owner", AddSendKey(7, BOX.queue, NewSendKey(key, KeyClass.CONTACT)))
    await place.pass_time(limits.DEMOTED_LIFETIME)
    await place.send("sender", BOX.item(b"c"))


async def one_body_for_many(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.receive("owner", BOX)
    await place.receive("owner", OTHER)
    boxes = [BOX, OTHER, Mailbox()]
    targets = [Target(box.queue, box.keys[KeyClass.GROUP], EnvelopeId(bytes(16))) for box in boxes]
    await place.say("sender", SendMany(9, Ttl.WEEK, b"to all", targets))
    await place.say("sender", SendMany(9, Ttl.WEEK, b"to one", targets[:1]))
    await place.say("sender", SendMany(9, Ttl.NOW, b"for now", targets))


async def what_is_for_now(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.say("owner", place.create("owner", BOX))
    await place.send("sender", BOX.item(b"nobody is there", ttl=Ttl.NOW))
    await place.say("owner", Receive(2, BOX.queue, 256, 4 * limits.MIB))
    await place.send("sender", *[BOX.item(b"now", kind, ttl=Ttl.NOW) for kind in ALL_KINDS])


async def a_second_connection(place: Place) -> None:
    await place.connect("first", "sender")
    await place.receive("first", BOX)
    await place.send("sender", *[BOX.item(b"%d" % number, KeyClass.STRANGER) for number in range(4)])
    await place.ack("first", BOX, 0, 2)
    await place.connect("second")
    await place.say("second", place.open("second", BOX), Receive(2, BOX.queue, 256, 4 * limits.MIB))
    await place.ack("second", BOX, 3)
    await place.hang_up("second")
    await place.send("sender", BOX.item(b"while nobody is there"))
    await place.connect("third")
    await place.receive("third", BOX)


async def requests_that_fail(place: Place) -> None:
    await place.connect("owner")
    elsewhere = place.signature("owner", BOX, "https://elsewhere.example")
    create, proof = place.create("owner", BOX), place.open("owner", BOX)
    await place.say("owner", proof)
    for frame in (create, proof):
        await place.say("owner", msgspec.structs.replace(frame, signature=elsewhere))
    await place.say(
        "owner", AddSendKey(4, BOX.queue, BOX.send_keys[0]), RevokeSendKey(5, BOX.queue, SendKeyHash(bytes(32)))
    )
    await place.say("owner", DemoteSendKey(6, BOX.queue, SendKeyHash(bytes(32))), DeleteQueue(7, BOX.queue))
    await place.say("owner", Receive(8, BOX.queue, 1, limits.MAX_ENVELOPE))


async def too_many(place: Place) -> None:
    await place.connect("owner")
    keys = [NewSendKey(SendKeyHash(number.to_bytes(32, "big")), KeyClass.GROUP) for number in range(260)]
    create = place.create("owner", BOX)
    await place.say("owner", type(create)(1, create.owner_key, create.signature, keys[:256], ""))
    await place.say("owner", AddSendKey(2, BOX.queue, keys[3]), AddSendKey(3, BOX.queue, keys[257]))
    await place.say("owner", type(create)(4, create.owner_key, create.signature, keys[4:260], ""))
    for number in range(limits.MAX_QUEUES_PER_CONNECTION):
        await place.say("owner", place.create("owner", Mailbox(), number))
    await place.say("owner", place.create("owner", BOX, 99))


async def a_deleted_queue(place: Place) -> None:
    await place.connect("owner", "other", "sender")
    await place.receive("owner", BOX)
    await place.say("other", place.open("other", BOX))
    await place.send("sender", BOX.item(b"lost"))
    await place.say("other", DeleteQueue(5, BOX.queue))
    await place.say("other", DeleteQueue(6, BOX.queue))
    await place.send("sender", BOX.item(b"nobody"))
    await place.connect("again")
    await place.say("again", place.open("again", BOX))
    await place.receive("again", BOX)
    await place.say("again", DeleteQueue(7, BOX.queue), Ping(1))


async def time_runs_out(place: Place) -> None:
    await place.connect("owner", "sender", "witness")
    await place.receive("witness", OTHER)
    await place.say("owner", place.create("owner", BOX))
    for box in (BOX, OTHER):
        await place.send("sender", box.item(b"short", ttl=Ttl.HOUR), box.item(b"long", ttl=Ttl.DAY))
    await place.pass_time(limits.HOUR - 1)
    await place.send("sender", BOX.item(b"third", ttl=Ttl.HOUR))
    await place.pass_time(GRACE + 1)  # the witness hears of its loss, so the other one's is counted too
    await place.say("owner", Receive(2, BOX.queue, 256, 4 * limits.MIB))
    await place.hang_up("owner")  # without a word: it may never have heard
    await place.connect("again")
    await place.receive("again", BOX)
    await place.ack("again", BOX, 1)
    await place.note_loss()
    await place.hang_up("again")
    await place.connect("third")
    await place.receive("third", BOX)


async def what_is_late_is_not_delivered(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.say("owner", place.create("owner", BOX))
    await place.send("sender", BOX.item(b"short", ttl=Ttl.HOUR), BOX.item(b"long"))
    await place.pass_time(limits.HOUR)
    await place.say("owner", Receive(2, BOX.queue, 256, 4 * limits.MIB))
    await place.ack("owner", BOX, 1)


async def a_forgotten_queue(place: Place) -> None:
    await place.connect("owner", "sender", "witness")
    await place.receive("witness", OTHER)
    await place.say("owner", place.create("owner", BOX))
    await place.send("sender", OTHER.item(b"short", ttl=Ttl.HOUR), BOX.item(b"long"))
    await place.pass_time(91 * limits.DAY)
    await place.send("sender", OTHER.item(b"short", ttl=Ttl.HOUR))
    await place.pass_time(limits.HOUR + GRACE)  # a second loss: the sweep that told the first is over
    await place.send("sender", OTHER.item(b"received all the time"), BOX.item(b"nobody"))
    await place.connect("again")
    await place.say("again", place.open("again", BOX))


async def a_full_queue(place: Place) -> None:
    await place.connect("owner", "sender")
    await place.say("owner", place.create("owner", BOX), place.create("owner", OTHER))
    for start in (0, 250):
        items = [BOX.item(b"i", KeyClass.INVITE, number.to_bytes(16, "big")) for number in range(start, start + 250)]
        await place.send("sender", *items)
    late = [BOX.item(b"i", KeyClass.INVITE, os.urandom(16)) for _ in range(2)]
    await place.send("sender", *late, OTHER.item(b"elsewhere"))
    await place.send("sender", BOX.item(b"in front"), late[0], BOX.item(b"behind"))
    await place.say("owner", Receive(2, BOX.queue, 256, 4 * limits.MIB))
    await place.ack("owner", BOX, 200)
    await place.send("sender", late[0])


def rule_breaker(data: bytes, *, greeted: bool = True) -> Conversation:
    """Somebody who says this, after Hello or at once."""

    async def conversation(place: Place) -> None:
        if greeted:
            await place.connect("rude")
        else:
            place.talkers["rude"] = await place.dial()
        await place.say_bytes("rude", data)

    conversation.__name__ = f"rule_breaker_{data[:12].hex()}_{greeted}"
    return conversation


async def a_bad_ack(place: Place) -> None:
    for name, upto, singles in (("one", 9, []), ("two", 0, [9])):
        await place.connect(name, "sender")
        await place.receive(name, BOX)
        await place.send("sender", BOX.item(b"x", KeyClass.STRANGER))
        await place.ack(name, BOX, upto, *singles)
        await place.hang_up("sender")
    await place.connect("three", "four", "five")
    await place.ack("three", BOX, 0)
    await place.say("four", place.open("four", BOX))
    await place.ack("four", BOX, 0)
    await place.receive("five", BOX)
    await place.say("five", Receive(3, BOX.queue, 1, limits.MAX_ENVELOPE), Ping(1))


RUDE = [
    rule_breaker(message(Ping(1)), greeted=False),
    rule_breaker(message(Hello([2, 3])), greeted=False),
    rule_breaker(message(Hello([1]))),
    rule_breaker(b"\x91\x92\x09\x01\x00"),
    rule_breaker(b"\x91\x92\x64\x01"),
    rule_breaker(b"\x90"),
    rule_breaker(b"\x91\x91\x09"),
    rule_breaker(b"\xc1"),
    rule_breaker(message(Ping(1), Hello([1]), Ping(2))),
]


def by_chance(seed: int) -> Conversation:
    """Two owners that come and go, and a sender, for a hundred steps."""

    async def conversation(place: Place) -> None:
        dice = random.Random(seed)  # noqa: S311 - the same conversation each time
        boxes, sent = [BOX, OTHER], [BOX.item(b"one", envelope_id=bytes(16))]
        await place.connect("sender", "owner")
        for box in boxes:
            await place.say("owner", place.create("owner", box))
        receiving: set[QueueId] = set()
        for step in range(100):
            box = dice.choice(boxes)
            match dice.choice(["send", "send", "again", "now", "receive", "ack", "ack", "single", "leave", "time"]):
                case "send":
                    kinds = [dice.choice(ALL_KINDS) for _ in range(dice.randint(1, 5))]
                    items = [
                        box.item(dice.randbytes(dice.choice([1, 300, 30_000])), kind, dice.randbytes(16), Ttl.WEEK)
                        for kind in kinds
                    ]
                    sent += items
                    await place.send("sender", *items)
                case "again":
                    await place.send("sender", dice.choice(sent))
                case "now":
                    await place.send("sender", box.item(b"now", dice.choice(ALL_KINDS), ttl=Ttl.NOW))
                case "receive" if box.queue not in receiving:
                    receiving.add(box.queue)
                    await place.say("owner", Receive(step, box.queue, dice.randint(1, 9), limits.MAX_ENVELOPE))
                case "ack" if place.delivered.get(("owner", box.queue)):
                    await place.ack("owner", box, dice.randint(0, place.delivered["owner", box.queue]))
                case "single" if place.delivered.get(("owner", box.queue)):
                    await place.ack("owner", box, 0, dice.randint(1, place.delivered["owner", box.queue]))
                case "leave":
                    await place.hang_up("owner")
                    receiving.clear()
                    place.delivered.clear()
                    await place.connect("owner")
                    for each in boxes:
                        await place.say("owner", place.open("owner", each))
                case "time":
                    await place.pass_time(1)

    conversation.__name__ = f"by_chance_{seed}"
    return conversation


CONVERSATIONS: list[Conversation] = [
    a_first_letter,
    a_backlog_under_credit,
    a_credit_in_bytes,
    repeats_and_conflicts,
    refusals,
    demoted_keys,
    one_body_for_many,
    what_is_for_now,
    a_second_connection,
    requests_that_fail,
    too_many,
    a_deleted_queue,
    time_runs_out,
    what_is_late_is_not_delivered,
    a_forgotten_queue,
    a_full_queue,
    a_bad_ack,
    *RUDE,
    *[by_chance(seed) for seed in range(6)],
]


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda conversation: conversation.__name__)
async def test_the_relay_in_memory_says_what_the_real_one_says(
    conversation: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(sweeper, "JUMP_SECONDS", float("inf"))
    async with real_relay(tmp_path) as (origin, clock):
        expected = await in_memory(origin, conversation)
        assert await for_real(origin, clock, conversation, expected, tmp_path) == expected
