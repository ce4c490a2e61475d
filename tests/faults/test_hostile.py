"""Clients that mean harm, on real sockets, to a relay of its own process: it lives, serves others, and forgets them.

Openings and broken frames of WebSocket itself stand in tests/sottovoce_hosting; here is what needs the whole relay.
"""

import itertools
import os
import random
import signal
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio_websocket

from sottovoce_hosting.testing import read_until_closed
from sottovoce_relay.app import PATH
from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import (
    CaughtUp,
    Deliver,
    Failed,
    Goodbye,
    Hello,
    KeyClass,
    Ping,
    Pong,
    Send,
    SendMany,
    SendResults,
    Target,
    Ttl,
    encode,
    message,
)
from sottovoce_wire.ids import EnvelopeId
from tests.faults import scale
from tests.faults.conversations import everything_said, in_messages
from tests.faults.history import History, Kind, complaints
from tests.faults.load import Owner, Sender, keep_busy
from tests.faults.memory import KIB, MIB, memory_of
from tests.faults.mutations import damaged, shuffled
from tests.relay_clients import PATIENCE, Client, Mailbox, RelayProcess, run_relay_process

CONNECTIONS = 10_000 if scale.FULL else 1_000
CONVERSATIONS = 20_000 if scale.FULL else 300
AT_ONCE = 50
HALVES, HALVES_MEMORY = 150, 100 * MIB
READERS = 10
LAST = 77
#: What allocators and caches make of it, however many connections there were.
NOISE = 10 * MIB
#: A relay that keeps 20 KiB of every connection for ever: what the measurements below must see.
LEAKING = """
from sottovoce_relay import gateway
kept, serve = [], gateway.Gateway.serve
async def leak(*args):
    kept.append(bytearray(b"x" * 20 * 1024))
    await serve(*args)
gateway.Gateway.serve = leak
from sottovoce_relay.cli import main
main()
"""


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[RelayProcess]:
    """A relay that is asked in the end whether it is well: it stops in order, and no peer made it log an error."""
    async with run_relay_process(tmp_path) as process:
        yield process
        await serves(process)
        code, log = await process.end(signal.SIGTERM)
        assert code == 0
        assert '"level": "error"' not in log, log


async def serves(relay: RelayProcess) -> None:
    """An honest owner and an honest sender get what they want."""
    box = Mailbox()
    async with relay.connect() as owner, relay.connect() as sender:
        await owner.create(box)
        await owner.receive(box)
        await owner.expect(CaughtUp)
        await sender.say(Send(1, [box.item(b"honest")]))
        delivered = await owner.expect(Deliver)
        assert [item.body for item in delivered.items] == [b"honest"]
        await owner.ack(box, 1)
        assert [result.code for result in (await sender.expect(SendResults)).results] == [Code.ACCEPTED]


async def many(count: int, act: Callable[[], Awaitable[None]]) -> None:
    """Do this so many times, a few at once."""
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            with trio.fail_after(PATIENCE):
                await act()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(some)


def reset(stream: trio.SocketStream) -> None:
    """Drop a connection without a word: the peer gets a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


# --- Memory -----------------------------------------------------------------------------------------------------


async def growth(relay: RelayProcess, act: Callable[[], Awaitable[None]]) -> int:
    """Bytes that the relay holds more after CONNECTIONS times this than after the first few hundred."""
    descriptors = descriptors_of(relay)
    held = []
    for count in (500, CONNECTIONS):
        await many(count, act)
        with trio.fail_after(PATIENCE):
            while descriptors_of(relay) > descriptors:  # who was dropped is noticed a moment later
                await serves(relay)
        held.append(memory_of(relay.process.pid))
    return held[1] - held[0]


def descriptors_of(relay: RelayProcess) -> int:
    """How many files and connections it has open."""
    return len(os.listdir(f"/proc/{relay.process.pid}/fd"))


async def upgraded(relay: RelayProcess) -> trio.SocketStream:
    """A WebSocket that is ours down to the byte."""
    stream = await relay.stream()
    await stream.send_all(
        b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" % PATH.encode()
    )
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
    return stream


async def drop_at_once(relay: RelayProcess) -> None:
    reset(await relay.stream())


async def drop_after_upgrade(relay: RelayProcess) -> None:
    reset(await upgraded(relay))


async def drop_after_hello(relay: RelayProcess) -> None:
    stream = await upgraded(relay)
    await stream.send_all(frame(message(Hello([limits.PROTOCOL_VERSION]), Ping(1))))
    assert await stream.receive_some(), "it is welcome"
    reset(stream)


async def drop_after_half_a_message(relay: RelayProcess) -> None:
    stream = await upgraded(relay)
    await stream.send_all(frame(bytes(MIB))[: 2**15])
    reset(stream)


async def test_of_connections_that_are_opened_and_dropped_nothing_stays(relay: RelayProcess) -> None:
    acts = itertools.cycle([drop_at_once, drop_after_upgrade, drop_after_hello, drop_after_half_a_message])
    grown = await growth(relay, lambda: next(acts)(relay))
    if grown >= NOISE:  # what allocators take for a busier moment than before, they take once; a leak goes on
        grown = await growth(relay, lambda: next(acts)(relay))
    assert grown < NOISE


async def test_a_leak_of_twenty_kibibytes_a_connection_is_seen(tmp_path: Path) -> None:
    async with run_relay_process(tmp_path, code=LEAKING) as relay:
        assert await growth(relay, partial(drop_after_upgrade, relay)) > 0.9 * CONNECTIONS * 20 * KIB


async def test_half_messages_that_are_held_open_take_bounded_memory_and_hinder_nobody(relay: RelayProcess) -> None:
    before = memory_of(relay.process.pid)
    async with AsyncExitStack() as held, trio.open_nursery() as nursery:
        for _ in range(HALVES):
            stream = await held.enter_async_context(await upgraded(relay))
            nursery.start_soon(stream.send_all, frame(bytes(MIB))[: MIB - 1])
        await serves(relay)
        assert memory_of(relay.process.pid) - before < HALVES_MEMORY
        nursery.cancel_scope.cancel()


async def test_a_message_that_comes_byte_by_byte_is_heard_and_hinders_nobody(relay: RelayProcess) -> None:
    stream = await upgraded(relay)
    said = frame(message(Hello([limits.PROTOCOL_VERSION]), Ping(LAST)))
    for at in range(len(said)):
        await stream.send_all(said[at : at + 1])
        if at == len(said) // 2:
            await serves(relay)
    answer = b""
    with trio.fail_after(PATIENCE):
        while not answer.endswith(encode(Pong(LAST))):
            answer += await stream.receive_some()
    await stream.aclose()


async def test_owners_that_never_read_take_bounded_memory_and_hinder_nobody(relay: RelayProcess) -> None:
    boxes = [Mailbox() for _ in range(READERS)]
    before = memory_of(relay.process.pid)
    async with AsyncExitStack() as held:
        async with relay.connect() as sender:
            for box in boxes:
                await sender.create(box)
            targets = [Target(box.queue, box.keys[KeyClass.CONTACT], EnvelopeId(os.urandom(16))) for box in boxes]
            for number in range(64):
                await sender.say(SendMany(number, Ttl.DAY, bytes(limits.MAX_ENVELOPE), targets))
                results = (await sender.expect(SendResults)).results
                assert {result.code for result in results} == {Code.ACCEPTED}
        for box in boxes:
            owner = await held.enter_async_context(relay.connect())
            await owner.open(box)
            await owner.receive(box)
        await serves(relay)
        assert memory_of(relay.process.pid) - before < READERS * 2 * MIB + 16 * MIB


# --- A fuzzer over the live socket ------------------------------------------------------------------------------


def frame(payload: bytes) -> bytes:
    """A WebSocket frame that carries a binary message; its mask is zero."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BBI", 0x82, 0x80 | size, 0) + payload
    if size < 2**16:
        return struct.pack(">BBHI", 0x82, 0x80 | 126, size, 0) + payload
    return struct.pack(">BBQI", 0x82, 0x80 | 127, size, 0) + payload


async def talk(relay: RelayProcess, rng: random.Random) -> None:
    """A conversation with faults in its frames. Whatever the relay answers, it is what a relay may say."""
    async with relay.socket() as websocket:
        client = Client(websocket, relay.url)
        try:
            if rng.random() < 0.8:
                await client.greet()
            for data in shuffled(rng, in_messages(everything_said(client, Mailbox()))[bool(client.nonce) :]):
                await websocket.send_message(data)
            await client.say(Ping(LAST))
            while (answer := await client.hear()) != Pong(LAST):
                assert not isinstance(answer, Failed) or answer.code is not Code.INTERNAL
                if isinstance(answer, Goodbye):
                    assert answer.code is not Code.INTERNAL
                    return
        except trio_websocket.ConnectionClosed:
            pass  # a message beyond all limits


async def babble(relay: RelayProcess, rng: random.Random) -> None:
    """A conversation with faults in the bytes of WebSocket."""
    client = Client.__new__(Client)
    client.origin, client.nonce = relay.url, bytes(32)
    said = b"".join(frame(data) for data in in_messages(everything_said(client, Mailbox())))
    stream = await upgraded(relay)
    with suppress(trio.BrokenResourceError):
        await stream.send_all(damaged(rng, said))
        await stream.send_eof()
    await read_until_closed(stream)


async def test_no_conversation_with_faults_harms_the_relay_or_an_honest_one_beside_it(relay: RelayProcess) -> None:
    rng = random.Random(scale.SEED)  # noqa: S311 - nobody guesses here
    history = History()
    box = Mailbox()
    owner, sender = Owner(box, history, rng), Sender(0, [box], KeyClass.CONTACT, history, rng, window=2)
    async with relay.connect() as client:
        await client.create(box)
    async with keep_busy(relay, [owner, sender]) as honest:
        await history.until(Kind.ACKED, 10)
        await many(CONVERSATIONS, lambda: rng.choice([talk, talk, talk, babble])(relay, rng))
        await history.until(Kind.ACKED, history.counts[Kind.ACKED] + 10)
        honest.cancel_scope.cancel()
    async with relay.connect() as client:
        await sender.finish(client)
    async with relay.connect() as client:
        await owner.drain(client)
    assert complaints(history.events) == []
