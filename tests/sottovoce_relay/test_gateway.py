"""Connections that break the rules, say nothing, never read, or come while the relay stops."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
import trio
import trio.testing
import trio_websocket
from sqlalchemy import select

from sottovoce_hosting.database import Database, DatabaseError, open_database
from sottovoce_hosting.guard import RECEIVE_READY
from sottovoce_hosting.service import Origins
from sottovoce_relay import outbox, storage
from sottovoce_relay.app import MIGRATIONS, _assemble
from sottovoce_relay.delivery import MAX_PUSH
from sottovoce_relay.envelopes import Loss
from sottovoce_relay.gateway import Gateway, Relay
from sottovoce_relay.settings import FIRST_FRAME_SECONDS, GOODBYE_SECONDS, IDLE_SECONDS, RelaySettings
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import (
    Ack,
    AddSendKey,
    CaughtUp,
    ClientFrame,
    CreateQueue,
    DeleteQueue,
    Deliver,
    DeliverNow,
    DemoteSendKey,
    Done,
    Failed,
    Gap,
    Goodbye,
    Hello,
    KeyClass,
    NewSendKey,
    OpenQueue,
    Ping,
    Pong,
    Receive,
    RelayFrame,
    RevokeSendKey,
    Send,
    SendMany,
    SendResults,
    Target,
    Ttl,
    Welcome,
    decode_relay_message,
    message,
)
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey, SendKeyHash, send_key_hash
from sottovoce_wire.records import owner_challenge
from tests.sottovoce_relay.conftest import Mailbox
from tests.sottovoce_relay.parts import Unreliable, roomy_space, stored_bodies

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from trio.testing import MockClock

    from tests.sottovoce_relay.conftest import Client, ServedRelay

F = TypeVar("F", bound=RelayFrame)


# --- Over real sockets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("text", Code.MALFORMED),
        ("", Code.MALFORMED),
        (b"", Code.MALFORMED),
        (b"\xff", Code.MALFORMED),
        (message(Ping(1)) + b"\x00", Code.TRAILING_BYTES),
        (bytes(limits.MAX_MESSAGE + 1), Code.FRAME_TOO_LARGE),
        (message(Hello([1])), Code.UNEXPECTED_FRAME),
    ],
)
async def test_a_message_that_breaks_a_rule_is_answered_with_goodbye_and_the_relay_lives(
    relay: ServedRelay, said: bytes | str, code: Code
) -> None:
    async with relay.connect() as client:
        await client.socket.send_message(said)
        assert (await client.goodbye()).code is code
    async with relay.connect() as client:
        await client.say(Ping(1))
        assert await client.expect(Pong) == Pong(1)


async def test_a_message_far_above_the_limit_ends_the_connection_and_nothing_else(relay: ServedRelay) -> None:
    async with relay.socket() as socket:
        with suppress(trio_websocket.ConnectionClosed):
            await socket.send_message(bytes(4 * limits.MAX_MESSAGE))
        with pytest.raises(trio_websocket.ConnectionClosed):
            await socket.get_message()
    assert await relay.server.is_alive()


async def test_a_first_frame_that_is_not_hello_ends_the_connection(relay: ServedRelay) -> None:
    async with relay.socket() as socket:
        await socket.send_message(message(Ping(1)))
        (goodbye,) = decode_relay_message(cast("bytes", await socket.get_message()))
        assert isinstance(goodbye, Goodbye)
        assert goodbye.code is Code.UNEXPECTED_FRAME


async def test_two_connections_have_different_nonces(relay: ServedRelay) -> None:
    async with relay.connect() as one, relay.connect() as two:
        assert one.nonce != two.nonce


def examples(client: Client, box: Mailbox) -> list[bytes]:
    """One valid frame of each kind."""
    key = NewSendKey(SendKeyHash(bytes(32)), KeyClass.GROUP)
    return [
        message(frame)
        for frame in (
            Hello([1]),
            CreateQueue(1, box.owner_key, client.signature(box), [key], ""),
            OpenQueue(1, box.owner_key, client.signature(box)),
            AddSendKey(1, box.queue, key),
            RevokeSendKey(1, box.queue, key.key_hash),
            Receive(1, box.queue, 3, limits.MAX_ENVELOPE),
            Ack(box.queue, 0, []),
            Send(1, [box.item(b"body"), box.item(b"body", KeyClass.STRANGER)]),
            SendMany(1, Ttl.DAY, b"body", [Target(box.queue, SendKey(bytes(32)), EnvelopeId(bytes(16)))]),
            DemoteSendKey(1, box.queue, key.key_hash),
            DeleteQueue(1, QueueId(bytes(16))),
            Ping(1),
        )
    ]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` with a few bytes changed, taken out, put in or cut off; or bytes that never were a frame."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        length = chance.choice((0, 0, 1, 2))
        changed[at : at + length] = chance.randbytes(chance.choice((0, 1, 1, 3)))
    return chance.choice((bytes(changed), bytes(changed[: chance.randrange(len(changed) + 1)]), chance.randbytes(40)))


async def test_hundreds_of_damaged_frames_harm_nobody(relay: ServedRelay, box: Mailbox) -> None:
    chance = random.Random(8480)  # noqa: S311 - the same frames on every run
    async with relay.owner(box) as owner:
        frames = 0
        while frames < 400:
            async with relay.connect() as client:
                valid = examples(client, box)
                try:
                    await client.create(box)
                    for _ in range(20):
                        await client.socket.send_message(damaged(chance.choice(valid), chance))
                        frames += 1
                    await client.say(Ping(1))
                    while not isinstance(await client.hear(), Pong | Goodbye):
                        pass
                except trio_websocket.ConnectionClosed:
                    pass
        assert await relay.server.is_alive()
        assert await owner.send([box.item(b"fine")]) == [Code.ACCEPTED]


# --- Without sockets, where time is the test's --------------------------------------------------------------------


class Asgi:
    """The two ends of an ASGI WebSocket: what the client does, and what the relay says to it."""

    def __init__(self, peer: object = None) -> None:
        self.client, self._incoming = trio.open_memory_channel[dict[str, Any]](100)
        self.client.send_nowait({"type": "websocket.connect"})
        self.scope = {"extensions": {RECEIVE_READY: self._receive_ready}, "state": {"peer": peer}}
        self.events: list[dict[str, Any]] = []
        self._said = trio.lowlevel.ParkingLot()
        self._flows = trio.lowlevel.ParkingLot()
        self.is_stalled = False

    def _receive_ready(self) -> dict[str, Any] | None:
        try:
            return self._incoming.receive_nowait()
        except trio.WouldBlock:
            return None

    async def receive(self) -> dict[str, Any]:
        return await self._incoming.receive()

    async def send(self, event: dict[str, Any]) -> None:
        while self.is_stalled:
            await self._flows.park()
        self.events.append(event)
        self._said.unpark_all()

    def flow(self) -> None:
        """The client reads again."""
        self.is_stalled = False
        self._flows.unpark_all()

    def say(self, *frames: ClientFrame) -> None:
        self.say_bytes(message(*frames))

    def say_bytes(self, data: bytes) -> None:
        self.client.send_nowait({"type": "websocket.receive", "bytes": data, "text": None})

    async def hear_until(self, kind: type[F], count: int = 1) -> F:
        """The frame of this kind that was heard as the `count`-th of them."""
        with trio.fail_after(20):
            while True:
                heard = [frame for frame in self.heard if isinstance(frame, kind)]
                if len(heard) >= count:
                    return heard[count - 1]
                await self._said.park()

    @property
    def heard(self) -> list[Any]:
        """All frames so far."""
        said = [event["bytes"] for event in self.events if event["type"] == "websocket.send"]
        return [frame for data in said for frame in decode_relay_message(data)]

    def bodies(self) -> list[bytes]:
        """All that was delivered so far."""
        return [item.body for frame in self.heard if isinstance(frame, Deliver) for item in frame.items]


def assembled(database: Database, **chosen: object) -> Relay:
    """What the connections of a relay share."""
    settings = RelaySettings.model_validate(chosen)
    return _assemble(settings, Origins("https://relay.example", []), lambda: 1_800_000_000, database, roomy_space(), 1)


@pytest.fixture
async def gateway() -> Gateway:
    """A gateway whose connections get no further than frames that need no database."""
    return Gateway(assembled(cast("Database", None)))  # never asked


async def serve(gateway: Gateway, asgi: Asgi) -> None:
    await gateway.serve(asgi.scope, asgi.receive, asgi.send)


async def test_a_connection_without_hello_is_too_slow(gateway: Gateway, autojump_clock: MockClock) -> None:
    asgi = Asgi()
    await serve(gateway, asgi)
    assert trio.current_time() == pytest.approx(FIRST_FRAME_SECONDS)
    assert [frame.code for frame in asgi.heard] == [Code.TOO_SLOW]
    assert asgi.events[-1] == {"type": "websocket.close", "code": 1008}


async def test_a_connection_lives_while_it_pings_and_no_longer(gateway: Gateway, autojump_clock: MockClock) -> None:
    asgi = Asgi()
    asgi.say(Hello([1]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, gateway, asgi)
        for number in range(20):
            await trio.sleep(IDLE_SECONDS - 1)
            asgi.say(Ping(number))
    assert trio.current_time() == pytest.approx(20 * (IDLE_SECONDS - 1) + IDLE_SECONDS)
    assert asgi.heard[1:-1] == [Pong(number) for number in range(20)]
    assert asgi.heard[-1].code is Code.TOO_SLOW


async def test_a_client_that_does_not_take_goodbye_is_dropped(gateway: Gateway, autojump_clock: MockClock) -> None:
    asgi = Asgi()
    asgi.say(Hello([1]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, gateway, asgi)
        await trio.sleep(1)
        asgi.is_stalled = True
        asgi.say_bytes(b"malformed")
    assert trio.current_time() == pytest.approx(1 + GOODBYE_SECONDS)


async def test_a_client_that_never_reads_is_not_read_any_more_and_is_dropped(
    gateway: Gateway, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ROOM", 100)
    asgi = Asgi()
    asgi.say(Hello([1]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, gateway, asgi)
        await trio.sleep(1)
        asgi.is_stalled = True
        for number in range(90):
            asgi.say(Ping(number))
        await trio.sleep(1)
        assert 50 < asgi.client.statistics().current_buffer_used < 70
    assert trio.current_time() == pytest.approx(1 + IDLE_SECONDS + GOODBYE_SECONDS)


async def test_a_disconnect_ends_the_connection_even_while_it_says_something(
    gateway: Gateway, autojump_clock: MockClock
) -> None:
    asgi = Asgi()
    asgi.say(Hello([1]))
    asgi.is_stalled = True
    asgi.client.send_nowait({"type": "websocket.disconnect"})

    async def accept_only(event: dict[str, Any]) -> None:
        if event["type"] != "websocket.accept":
            await asgi.send(event)

    with trio.fail_after(1):
        await gateway.serve(asgi.scope, asgi.receive, accept_only)


async def test_nothing_is_heard_after_goodbye(gateway: Gateway, autojump_clock: MockClock) -> None:
    asgi = Asgi()
    for data in (message(Hello([1])), b"malformed", message(Ping(1)), b"malformed again"):
        asgi.say_bytes(data)
    await serve(gateway, asgi)
    assert [type(frame) for frame in asgi.heard] == [Welcome, Goodbye]


async def test_drain_says_goodbye_to_everybody_and_to_who_comes_after(
    gateway: Gateway, autojump_clock: MockClock
) -> None:
    clients = [Asgi(), Asgi(), Asgi()]
    async with trio.open_nursery() as nursery:
        for asgi in clients[:2]:
            asgi.say(Hello([1]))
            nursery.start_soon(serve, gateway, asgi)
        await trio.sleep(1)
        assert len(gateway) == 2
        await gateway.drain()
        assert len(gateway) == 0
        await serve(gateway, clients[2])
    for asgi in clients:
        assert asgi.heard[-1].code is Code.SHUTTING_DOWN
        assert asgi.events[-1] == {"type": "websocket.close", "code": 1012}


async def test_unanswered_requests_are_bounded(gateway: Gateway, box: Mailbox, autojump_clock: MockClock) -> None:
    """The writer is not running: nothing is answered, so after a quarter of a mebibyte nothing more is heard."""
    asgi = Asgi()
    asgi.say(Hello([1]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, gateway, asgi)
        for _ in range(60):
            asgi.say(Send(1, [box.item(bytes(60_000))]))
        await trio.sleep(1)
        assert 53 < asgi.client.statistics().current_buffer_used < 57
        nursery.cancel_scope.cancel()
    assert not any(isinstance(frame, SendResults | Goodbye) for frame in asgi.heard)


async def test_many_small_requests_without_an_answer_are_bounded_too(
    gateway: Gateway, box: Mailbox, autojump_clock: MockClock
) -> None:
    asgi = Asgi()
    asgi.say(Hello([1]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, gateway, asgi)
        for _ in range(60):
            asgi.say(*[Send(1, [box.item(b"1")]) for _ in range(100)])
        await trio.sleep(1)
        assert 45 < asgi.client.statistics().current_buffer_used < 55
        nursery.cancel_scope.cancel()


async def test_who_sends_faster_than_its_rate_is_told_when_to_try_again(
    box: Mailbox, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    gateway = Gateway(assembled(cast("Database", None), connection_rate=1))
    asgi = Asgi()
    nursery.start_soon(serve, gateway, asgi)
    asgi.say(Hello([1]), Send(1, [box.item(b"1") for _ in range(10)]), Send(2, [box.item(b"1"), box.item(b"2")]))
    answer = await asgi.hear_until(SendResults)
    assert (answer.request, [result.code for result in answer.results]) == (2, [Code.TRY_AGAIN] * 2)
    assert all(0 < result.retry_after_ms <= 2000 for result in answer.results)


async def test_proofs_count_against_the_rate_before_they_are_checked(
    box: Mailbox, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    gateway = Gateway(assembled(cast("Database", None), connection_rate=1))  # ten at once, which is one proof
    asgi = Asgi()
    nursery.start_soon(serve, gateway, asgi)
    asgi.say(Hello([1]), *(OpenQueue(number, box.owner_key, bytes(64)) for number in range(3)))
    await asgi.hear_until(Failed, 3)
    assert [frame.code for frame in asgi.heard[1:]] == [Code.BAD_SIGNATURE, Code.TRY_AGAIN, Code.TRY_AGAIN]


async def test_a_message_of_many_frames_lets_others_go_on_between_them(gateway: Gateway, nursery: trio.Nursery) -> None:
    asgi, count = Asgi(), limits.MAX_FRAMES - 1
    nursery.start_soon(serve, gateway, asgi)
    asgi.say(Hello([1]), *(Ping(number) for number in range(count)))
    await asgi.hear_until(Pong, count)
    said = [event["bytes"] for event in asgi.events if event["type"] == "websocket.send"]
    assert max(len(decode_relay_message(data)) for data in said) < count / 4


async def test_connections_of_one_address_block_share_a_rate_and_those_of_no_address_have_none(
    box: Mailbox, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    gateway = Gateway(assembled(cast("Database", None), address_rate=1))
    one, two, other, unknown = Asgi("block"), Asgi("block"), Asgi("another"), Asgi(None)
    for number, asgi in enumerate((one, two, other, unknown)):
        nursery.start_soon(serve, gateway, asgi)
        asgi.say(Hello([1]), Send(number, [box.item(b"1") for _ in range(10)]), Ping(1))
        await asgi.hear_until(Pong)
    assert [any(isinstance(frame, SendResults) for frame in asgi.heard) for asgi in (one, two, other, unknown)] == [
        False,
        True,
        False,
        False,
    ]


# --- Over a real database, where the test decides when the client speaks -------------------------------------------


@pytest.fixture
async def relay_parts(tmp_path: Path) -> AsyncIterator[Relay]:
    """What the connections of a relay share."""
    async with open_database(tmp_path / "relay.db", MIGRATIONS) as database, trio.open_nursery() as nursery:
        relay = assembled(Unreliable(database), hold_ms=1000)
        nursery.start_soon(relay.writer.run)
        yield relay
        nursery.cancel_scope.cancel()


async def owner_connection(gateway: Gateway, box: Mailbox, nursery: trio.Nursery) -> Asgi:
    """A connection that has proven `box`."""
    asgi = Asgi()
    nursery.start_soon(serve, gateway, asgi)
    asgi.say(Hello([1]))
    nonce = (await asgi.hear_until(Welcome)).nonce
    signature = box.owner.sign(owner_challenge("https://relay.example", nonce, box.queue)).signature
    asgi.say(CreateQueue(1, box.owner_key, signature, box.send_keys, ""))
    await asgi.hear_until(Done)
    return asgi


async def live_connection(
    gateway: Gateway, box: Mailbox, nursery: trio.Nursery, count: int = 1, size: int = limits.MAX_ENVELOPE
) -> Asgi:
    """A connection that receives `box` and has caught up."""
    asgi = await owner_connection(gateway, box, nursery)
    asgi.say(Receive(2, box.queue, count, size))
    await asgi.hear_until(CaughtUp)
    return asgi


async def told(relay: Relay) -> int:
    """How many lost envelopes count as told, once everything that waits for the writer is done."""
    await trio.testing.wait_all_tasks_blocked()
    await relay.writer.flush()
    return await relay.database.read(lambda c: c.execute(select(storage.queues.c.expired_told)).scalar_one())


async def test_a_loss_counts_as_told_once_the_client_has_spoken_after_it(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    asgi = await live_connection(Gateway(relay_parts), box, nursery)
    relay_parts.bus.lost([Loss(box.queue, 1, 0)])
    await asgi.hear_until(Gap)
    assert await told(relay_parts) == 0
    asgi.say(Ping(1))
    await asgi.hear_until(Pong)
    assert await told(relay_parts) == 1


async def test_a_loss_that_is_not_yet_with_the_socket_is_not_told_by_what_the_client_says(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    asgi = await live_connection(Gateway(relay_parts), box, nursery)
    asgi.is_stalled = True
    relay_parts.bus.lost([Loss(box.queue, 1, 0)])
    asgi.say(Ping(1))
    assert await told(relay_parts) == 0


async def test_a_loss_after_goodbye_is_not_told(relay_parts: Relay, box: Mailbox, nursery: trio.Nursery) -> None:
    asgi = await live_connection(Gateway(relay_parts), box, nursery)
    asgi.is_stalled = True
    asgi.say(Hello([1]))  # refused: what comes after is dropped
    await trio.testing.wait_all_tasks_blocked()
    relay_parts.bus.lost([Loss(box.queue, 1, 0)])
    asgi.say(Ping(1))
    assert await told(relay_parts) == 0


async def test_a_connection_without_room_gets_nothing_from_memory_and_a_page_when_it_reads_again(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(relay_parts)
    owner, sender = await live_connection(gateway, box, nursery, count=10), Asgi()
    nursery.start_soon(serve, gateway, sender)
    monkeypatch.setattr(outbox, "ROOM", 1)
    owner.is_stalled = True
    owner.say(Ping(1))
    await trio.testing.wait_all_tasks_blocked()
    sender.say(Hello([1]))
    await sender.hear_until(Welcome)
    sender.say(Send(1, [box.item(b"now", ttl=Ttl.NOW), box.item(b"one"), box.item(b"two", KeyClass.STRANGER)]))
    assert (await sender.hear_until(SendResults)).results[2].code is Code.ACCEPTED
    assert relay_parts.intake.held_bytes == 0
    assert relay_parts.metrics.registry.get_sample_value("sottovoce_relay_delivered_total") == 0
    owner.flow()
    while len(owner.bodies()) < 2:
        await owner.hear_until(Deliver, len([frame for frame in owner.heard if isinstance(frame, Deliver)]) + 1)
    assert owner.bodies() == [b"one", b"two"]
    assert not any(isinstance(frame, DeliverNow) for frame in owner.heard)


async def test_a_queue_that_cannot_be_read_ends_its_connection(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    asgi = await owner_connection(Gateway(relay_parts), box, nursery)

    async def fail(_: object) -> None:
        raise DatabaseError("the disk went away")

    monkeypatch.setattr(relay_parts.database, "read", fail)
    asgi.say(Receive(2, box.queue, 1, limits.MAX_ENVELOPE))
    assert (await asgi.hear_until(Goodbye)).code is Code.INTERNAL


async def test_connections_read_one_after_another_so_that_the_writer_is_the_next(
    relay_parts: Relay, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, boxes = Gateway(relay_parts), [Mailbox() for _ in range(5)]
    owners = [await owner_connection(gateway, box, nursery) for box in boxes]
    read, waiting = relay_parts.database.read, trio.lowlevel.ParkingLot()

    async def stall(work: Callable[[Connection], Any]) -> object:
        await waiting.park()
        return await read(work)

    monkeypatch.setattr(relay_parts.database, "read", stall)
    for owner, box in zip(owners, boxes, strict=True):
        owner.say(Receive(2, box.queue, 1, limits.MAX_ENVELOPE))
    for _ in boxes:
        with trio.fail_after(20):
            while not len(waiting):  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()
        assert len(waiting) == 1
        waiting.unpark()
    for owner in owners:
        await owner.hear_until(CaughtUp)


async def test_what_cannot_be_written_is_tried_again_by_the_client(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    asgi = await owner_connection(Gateway(relay_parts), box, nursery)
    cast("Unreliable", relay_parts.database).outcomes = ["fails"]
    key = NewSendKey(SendKeyHash(bytes(32)), KeyClass.GROUP)
    asgi.say(AddSendKey(5, box.queue, key))
    failed = await asgi.hear_until(Failed)
    assert (failed.request, failed.code) == (5, Code.TRY_AGAIN)
    asgi.say(AddSendKey(6, box.queue, key))
    assert await asgi.hear_until(Done, 2) == Done(6)


async def test_the_end_of_a_connection_leaves_nothing_held_and_nobody_listening(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    gateway = Gateway(relay_parts)
    owner, sender = await live_connection(gateway, box, nursery, count=10), Asgi()
    nursery.start_soon(serve, gateway, sender)
    sender.say(Hello([1]), Send(1, [box.item(b"held")]))
    await owner.hear_until(Deliver)
    assert relay_parts.intake.held_bytes == 4
    owner.client.send_nowait({"type": "websocket.disconnect"})
    await sender.hear_until(SendResults)
    assert (relay_parts.intake.held_bytes, len(relay_parts.bus), len(gateway)) == (0, 0, 1)


async def test_a_queue_that_is_deleted_elsewhere_ends_the_connection_that_receives_it(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    gateway = Gateway(relay_parts)
    receiving, other = await live_connection(gateway, box, nursery), await owner_connection(gateway, box, nursery)
    other.say(DeleteQueue(5, box.queue))
    assert await other.hear_until(Done, 2) == Done(5)
    await trio.testing.wait_all_tasks_blocked()
    assert (receiving.heard[-1].code, len(relay_parts.bus)) == (Code.UNKNOWN_QUEUE, 0)


async def test_who_proved_a_queue_that_was_made_anew_since_gets_nothing_of_the_new_one(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    gateway = Gateway(relay_parts)
    old, other = await owner_connection(gateway, box, nursery), await owner_connection(gateway, box, nursery)
    other.say(DeleteQueue(5, box.queue))
    await other.hear_until(Done, 2)
    await owner_connection(gateway, box, nursery)
    sender = Asgi()
    nursery.start_soon(serve, gateway, sender)
    sender.say(Hello([1]), Send(1, [box.item(b"new", KeyClass.STRANGER)]))
    await sender.hear_until(SendResults)
    old.say(Receive(6, box.queue, 1, limits.MAX_ENVELOPE))
    assert (await old.hear_until(Goodbye)).code is Code.UNKNOWN_QUEUE
    assert old.bodies() == []
    assert await stored_bodies(relay_parts.database, box.queue) == [b"new"]


async def test_a_queue_that_was_deleted_elsewhere_gets_no_key_any_more(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    gateway = Gateway(relay_parts)
    one, other = await owner_connection(gateway, box, nursery), await owner_connection(gateway, box, nursery)
    other.say(DeleteQueue(5, box.queue))
    await other.hear_until(Done, 2)
    one.say(AddSendKey(6, box.queue, NewSendKey(SendKeyHash(bytes(32)), KeyClass.GROUP)))
    failed = await one.hear_until(Failed)
    assert (failed.request, failed.code) == (6, Code.UNKNOWN_QUEUE)


async def test_more_than_one_push_takes_is_pushed_without_an_acknowledgement(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    gateway, count = Gateway(relay_parts), 15
    owner = await live_connection(gateway, box, nursery, count=256, size=limits.MAX_UNACKNOWLEDGED_BYTES)
    sender = Asgi()
    nursery.start_soon(serve, gateway, sender)
    items = [box.item(bytes([number]) * 60_000) for number in range(count)]
    assert count * 60_000 > MAX_PUSH
    sender.say(Hello([1]), Send(1, [box.item(b"first")]))  # what comes now is decided at once and together
    await owner.hear_until(Deliver)
    sender.say(Send(2, items))
    await trio.testing.wait_all_tasks_blocked()
    assert owner.bodies()[1:] == [item.body for item in items]
    frames = [frame for frame in owner.heard if isinstance(frame, Deliver)]
    assert max(sum(len(item.body) for item in frame.items) for frame in frames) <= MAX_PUSH


async def test_who_deletes_the_queue_that_it_receives_stays_connected_and_owns_it_no_more(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    owner = await live_connection(Gateway(relay_parts), box, nursery)
    owner.say(DeleteQueue(5, box.queue), Receive(6, box.queue, 1, limits.MAX_ENVELOPE), Ping(7))
    assert (await owner.hear_until(Failed)).code is Code.QUEUE_NOT_PROVEN
    assert await owner.hear_until(Pong) == Pong(7)
    assert len(relay_parts.bus) == 0


async def test_what_is_ephemeral_is_passed_on_to_who_is_connected(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    gateway = Gateway(relay_parts)
    owner, sender = await live_connection(gateway, box, nursery), Asgi()
    nursery.start_soon(serve, gateway, sender)
    sender.say(Hello([1]), Send(1, [box.item(b"typing", ttl=Ttl.NOW)]))
    assert (await sender.hear_until(SendResults)).results[0].code is Code.ACCEPTED
    passed = await owner.hear_until(DeliverNow)
    assert [(item.key_class, item.body) for item in passed.items] == [(KeyClass.CONTACT, b"typing")]


async def test_an_acknowledgement_lets_go_on_what_waits_in_memory(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    gateway = Gateway(relay_parts)
    owner, sender = await live_connection(gateway, box, nursery, count=1), Asgi()
    nursery.start_soon(serve, gateway, sender)
    sender.say(Hello([1]), Send(1, [box.item(b"1"), box.item(b"2"), box.item(b"3")]))
    for number in (1, 2, 3):
        await owner.hear_until(Deliver, number)
        assert owner.bodies() == [b"1", b"2", b"3"][:number]
        owner.say(Ack(box.queue, number, []))
    answer = await sender.hear_until(SendResults)
    assert [result.code for result in answer.results] == [Code.ACCEPTED] * 3
    assert relay_parts.metrics.never_written == 3


async def test_a_deleted_or_revoked_door_is_closed_also_if_who_closed_it_is_gone(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    gateway = Gateway(relay_parts)
    owner, sender = await owner_connection(gateway, box, nursery), Asgi()
    nursery.start_soon(serve, gateway, sender)
    sender.say(Hello([1]), Send(1, [box.item(b"1")]))
    assert (await sender.hear_until(SendResults)).results[0].code is Code.ACCEPTED
    owner.say(RevokeSendKey(5, box.queue, send_key_hash(box.keys[KeyClass.CONTACT])))
    owner.client.send_nowait({"type": "websocket.disconnect"})
    await trio.testing.wait_all_tasks_blocked()
    await relay_parts.writer.flush()
    sender.say(Send(2, [box.item(b"2")]))
    assert (await sender.hear_until(SendResults, 2)).results[0].code is Code.REFUSED
