"""Connections that break the rules, say nothing, never read, or come while the relay stops."""

from __future__ import annotations

import os
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

import sottovoce_relay
from sottovoce_hosting.database import Database, open_database
from sottovoce_hosting.service import Origins
from sottovoce_relay import outbox, storage
from sottovoce_relay.bus import Bus
from sottovoce_relay.envelopes import Loss, Quotas
from sottovoce_relay.gateway import Gateway, Relay
from sottovoce_relay.settings import FIRST_FRAME_SECONDS, GOODBYE_SECONDS, IDLE_SECONDS
from sottovoce_relay.writer import Writer
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import (
    Ack,
    AddSendKey,
    CaughtUp,
    CreateQueue,
    Done,
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
    SendResults,
    Welcome,
    decode_relay_frame,
    encode,
)
from sottovoce_wire.ids import SendKeyHash
from sottovoce_wire.records import owner_challenge

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.sottovoce_relay.conftest import Client, Mailbox, ServedRelay

F = TypeVar("F", bound=RelayFrame)


# --- Over real sockets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("text", Code.MALFORMED),
        ("", Code.MALFORMED),
        (b"", Code.MALFORMED),
        (b"\xff", Code.MALFORMED),
        (b"\x92\x09\x01\x00", Code.TRAILING_BYTES),
        (bytes(limits.MAX_FRAME + 1), Code.FRAME_TOO_LARGE),
        (encode(Hello([1])), Code.UNEXPECTED_FRAME),
    ],
)
async def test_a_message_that_breaks_a_rule_is_answered_with_goodbye_and_the_relay_lives(
    relay: ServedRelay, message: bytes | str, code: Code
) -> None:
    async with relay.connect() as client:
        await client.socket.send_message(message)
        assert (await client.goodbye()).code is code
    async with relay.connect() as client:
        await client.say(Ping(1))
        assert await client.expect(Pong) == Pong(1)


async def test_a_message_far_above_the_limit_ends_the_connection_and_nothing_else(relay: ServedRelay) -> None:
    async with relay.socket() as socket:
        with suppress(trio_websocket.ConnectionClosed):
            await socket.send_message(bytes(4 * limits.MAX_FRAME))
        with pytest.raises(trio_websocket.ConnectionClosed):
            await socket.get_message()
    assert await relay.server.is_alive()


async def test_a_first_frame_that_is_not_hello_ends_the_connection(relay: ServedRelay) -> None:
    async with relay.socket() as socket:
        await socket.send_message(encode(Ping(1)))
        goodbye = decode_relay_frame(cast("bytes", await socket.get_message()))
        assert isinstance(goodbye, Goodbye)
        assert goodbye.code is Code.UNEXPECTED_FRAME


async def test_two_connections_have_different_nonces(relay: ServedRelay) -> None:
    async with relay.connect() as one, relay.connect() as two:
        assert one.nonce != two.nonce


def examples(client: Client, box: Mailbox) -> list[bytes]:
    """One valid frame of each kind."""
    key = NewSendKey(SendKeyHash(bytes(32)), KeyClass.GROUP)
    return [
        encode(frame)
        for frame in (
            Hello([1]),
            CreateQueue(1, box.owner_key, client.signature(box), [key]),
            OpenQueue(1, box.owner_key, client.signature(box)),
            AddSendKey(1, box.queue, key),
            RevokeSendKey(1, box.queue, key.key_hash),
            Receive(1, box.queue, 3, limits.MAX_ENVELOPE),
            Ack(box.queue, 0, []),
            Send(1, [box.item(b"body"), box.item(b"body", KeyClass.STRANGER)]),
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

    def __init__(self) -> None:
        self.client, self._incoming = trio.open_memory_channel[dict[str, Any]](100)
        self.client.send_nowait({"type": "websocket.connect"})
        self.events: list[dict[str, Any]] = []
        self._said = trio.lowlevel.ParkingLot()
        self.is_stalled = False

    async def receive(self) -> dict[str, Any]:
        return await self._incoming.receive()

    async def send(self, event: dict[str, Any]) -> None:
        if self.is_stalled:
            await trio.sleep_forever()
        self.events.append(event)
        self._said.unpark_all()

    def say(self, data: bytes) -> None:
        self.client.send_nowait({"type": "websocket.receive", "bytes": data, "text": None})

    async def hear_until(self, kind: type[F]) -> F:
        """The first frame of this kind that was ever heard."""
        with trio.fail_after(20):
            while True:
                for frame in self.heard:
                    if isinstance(frame, kind):
                        return frame
                await self._said.park()

    @property
    def heard(self) -> list[Any]:
        return [decode_relay_frame(event["bytes"]) for event in self.events if event["type"] == "websocket.send"]


@pytest.fixture
def gateway() -> Gateway:
    """A gateway whose connections get no further than frames that need no database."""
    database = cast("Database", None)  # never asked
    bus = Bus()
    origins = Origins("https://relay.example", [])
    return Gateway(Relay(origins, Quotas(), lambda: 0, database, bus, Writer(database, bus, Quotas())))


async def test_a_connection_without_hello_is_too_slow(gateway: Gateway, autojump_clock: MockClock) -> None:
    asgi = Asgi()
    await gateway.serve({}, asgi.receive, asgi.send)
    assert trio.current_time() == pytest.approx(FIRST_FRAME_SECONDS)
    assert [frame.code for frame in asgi.heard] == [Code.TOO_SLOW]
    assert asgi.events[-1] == {"type": "websocket.close", "code": 1008}


async def test_a_connection_lives_while_it_pings_and_no_longer(gateway: Gateway, autojump_clock: MockClock) -> None:
    asgi = Asgi()
    asgi.say(encode(Hello([1])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.serve, {}, asgi.receive, asgi.send)
        for number in range(20):
            await trio.sleep(IDLE_SECONDS - 1)
            asgi.say(encode(Ping(number)))
    assert trio.current_time() == pytest.approx(20 * (IDLE_SECONDS - 1) + IDLE_SECONDS)
    assert asgi.heard[1:-1] == [Pong(number) for number in range(20)]
    assert asgi.heard[-1].code is Code.TOO_SLOW


async def test_a_client_that_does_not_take_goodbye_is_dropped(gateway: Gateway, autojump_clock: MockClock) -> None:
    asgi = Asgi()
    asgi.say(encode(Hello([1])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.serve, {}, asgi.receive, asgi.send)
        await trio.sleep(1)
        asgi.is_stalled = True
        asgi.say(b"malformed")
    assert trio.current_time() == pytest.approx(1 + GOODBYE_SECONDS)


async def test_a_client_that_never_reads_is_not_read_any_more_and_is_dropped(
    gateway: Gateway, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ROOM", 100)
    asgi = Asgi()
    asgi.say(encode(Hello([1])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.serve, {}, asgi.receive, asgi.send)
        await trio.sleep(1)
        asgi.is_stalled = True
        for number in range(90):
            asgi.say(encode(Ping(number)))
        await trio.sleep(1)
        assert 50 < asgi.client.statistics().current_buffer_used < 70
    assert trio.current_time() == pytest.approx(1 + IDLE_SECONDS + GOODBYE_SECONDS)


async def test_a_disconnect_ends_the_connection_even_while_it_says_something(
    gateway: Gateway, autojump_clock: MockClock
) -> None:
    asgi = Asgi()
    asgi.say(encode(Hello([1])))
    asgi.is_stalled = True
    asgi.client.send_nowait({"type": "websocket.disconnect"})

    async def accept_only(event: dict[str, Any]) -> None:
        if event["type"] != "websocket.accept":
            await asgi.send(event)

    with trio.fail_after(1):
        await gateway.serve({}, asgi.receive, accept_only)


async def test_nothing_is_heard_after_goodbye(gateway: Gateway, autojump_clock: MockClock) -> None:
    asgi = Asgi()
    for data in (encode(Hello([1])), b"malformed", encode(Ping(1)), b"malformed again"):
        asgi.say(data)
    await gateway.serve({}, asgi.receive, asgi.send)
    assert [type(frame) for frame in asgi.heard] == [Welcome, Goodbye]


async def test_drain_says_goodbye_to_everybody_and_to_who_comes_after(
    gateway: Gateway, autojump_clock: MockClock
) -> None:
    clients = [Asgi(), Asgi(), Asgi()]
    async with trio.open_nursery() as nursery:
        for asgi in clients[:2]:
            asgi.say(encode(Hello([1])))
            nursery.start_soon(gateway.serve, {}, asgi.receive, asgi.send)
        await trio.sleep(1)
        await gateway.drain()
        await gateway.serve({}, clients[2].receive, clients[2].send)
    for asgi in clients:
        assert asgi.heard[-1].code is Code.SHUTTING_DOWN
        assert asgi.events[-1] == {"type": "websocket.close", "code": 1012}


async def test_unanswered_requests_are_bounded(gateway: Gateway, autojump_clock: MockClock) -> None:
    """The writer is not running: nothing is answered, so after a mebibyte nothing more is heard."""
    asgi = Asgi()
    asgi.say(encode(Hello([1])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.serve, {}, asgi.receive, asgi.send)
        data = encode(Send(1, [])).replace(b"\x90", b"\x91\x95" + b"\xc4\x10" + bytes(16) + b"\xc4\x20" + bytes(32))
        data += b"\xc4\x10" + bytes(16) + b"\x01" + b"\xc5\xea\x60" + os.urandom(60_000)
        for _ in range(60):
            asgi.say(data)
        await trio.sleep(1)
        assert 40 < asgi.client.statistics().current_buffer_used < 44
        nursery.cancel_scope.cancel()
    assert not any(isinstance(frame, SendResults | Goodbye) for frame in asgi.heard)


# --- Over a real database, where the test decides when the client speaks -------------------------------------------


@pytest.fixture
async def relay_parts(tmp_path: Path) -> AsyncIterator[Relay]:
    """What the connections of a relay share."""
    assert sottovoce_relay.__file__
    migrations = Path(sottovoce_relay.__file__).with_name("migrations")
    async with open_database(tmp_path / "relay.db", migrations) as database, trio.open_nursery() as nursery:
        bus = Bus()
        writer = Writer(database, bus, Quotas())
        nursery.start_soon(writer.run)
        yield Relay(Origins("https://relay.example", []), Quotas(), lambda: 0, database, bus, writer)
        nursery.cancel_scope.cancel()


async def live_connection(gateway: Gateway, box: Mailbox, nursery: trio.Nursery) -> Asgi:
    """A connection that receives `box` and has caught up."""
    asgi = Asgi()
    nursery.start_soon(gateway.serve, {}, asgi.receive, asgi.send)
    asgi.say(encode(Hello([1])))
    nonce = (await asgi.hear_until(Welcome)).nonce
    signature = box.owner.sign(owner_challenge("https://relay.example", nonce, box.queue)).signature
    asgi.say(encode(CreateQueue(1, box.owner_key, signature, box.send_keys)))
    await asgi.hear_until(Done)
    asgi.say(encode(Receive(2, box.queue, 1, limits.MAX_ENVELOPE)))
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
    asgi.say(encode(Ping(1)))
    await asgi.hear_until(Pong)
    assert await told(relay_parts) == 1


async def test_a_loss_that_is_not_yet_with_the_socket_is_not_told_by_what_the_client_says(
    relay_parts: Relay, box: Mailbox, nursery: trio.Nursery
) -> None:
    asgi = await live_connection(Gateway(relay_parts), box, nursery)
    asgi.is_stalled = True
    relay_parts.bus.lost([Loss(box.queue, 1, 0)])
    asgi.say(encode(Ping(1)))
    assert await told(relay_parts) == 0


async def test_a_loss_after_goodbye_is_not_told(relay_parts: Relay, box: Mailbox, nursery: trio.Nursery) -> None:
    asgi = await live_connection(Gateway(relay_parts), box, nursery)
    asgi.is_stalled = True
    asgi.say(encode(Hello([1])))  # refused: what comes after is dropped
    await trio.testing.wait_all_tasks_blocked()
    relay_parts.bus.lost([Loss(box.queue, 1, 0)])
    asgi.say(encode(Ping(1)))
    assert await told(relay_parts) == 0
