"""The relay as a process: what a kill leaves, how it stops, what it logs and what it never loads."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import trio
import trio_websocket

from sottovoce_relay.app import PATH
from sottovoce_wire import ids, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import CaughtUp, Deliver, KeyClass, Receive, Send, SendItem, SendResults, Ttl
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey

if TYPE_CHECKING:
    from tests.sottovoce_relay.conftest import Client, Mailbox, RelayProcess, RunRelay


async def backlog(relay: RelayProcess, box: Mailbox) -> list[bytes]:
    """Everything that waits in the queue, acknowledged."""
    got: list[bytes] = []
    async with relay.connect() as owner:
        await owner.open(box)
        await owner.receive(box)
        while not isinstance(frame := await owner.hear(), CaughtUp):
            if isinstance(frame, Deliver):
                got += [item.body for item in frame.items]
                await owner.ack(box, frame.items[-1].number)
    return got


async def pour(client: Client, box: Mailbox, said: list[int], accepted: list[int], enough: trio.Event) -> None:
    """Send numbered envelopes, up to 100 ahead of the answers, until the connection breaks."""
    room = trio.Semaphore(100)

    async def hear_answers() -> None:
        while True:
            answer = await client.expect(SendResults)
            assert [result.code for result in answer.results] == [Code.ACCEPTED]
            accepted.append(answer.request)
            room.release()
            if len(accepted) >= 500:
                enough.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear_answers)
            for number in range(9_000):
                await room.acquire()
                said.append(number)
                await client.say(Send(number, [box.item(b"%d" % number + bytes(500))]))
    except* trio_websocket.ConnectionClosed:
        pass


async def test_what_was_accepted_survives_sigkill_and_nothing_comes_twice_or_out_of_order(
    run_relay: RunRelay, box: Mailbox
) -> None:
    said: list[int] = []
    accepted: list[int] = []
    async with run_relay() as relay, relay.connect() as owner, relay.connect() as sender:
        await owner.create(box)
        async with trio.open_nursery() as nursery:
            enough = trio.Event()
            nursery.start_soon(pour, sender, box, said, accepted, enough)
            await enough.wait()
            code, _ = await relay.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert len(accepted) < len(said), "something must have been unanswered, or the kill came too late to show anything"
    async with run_relay() as relay:
        got = [int(body.rstrip(b"\x00")) for body in await backlog(relay, box)]
    assert got == list(range(len(got)))
    assert len(got) >= len(accepted)


async def test_what_was_acknowledged_stays_gone_after_sigkill(run_relay: RunRelay, box: Mailbox) -> None:
    async with run_relay() as relay, relay.connect() as owner:
        await owner.create(box)
        await owner.send([box.item(b"taken"), box.item(b"left")])
        await owner.receive(box)
        await owner.expect(Deliver)
        await owner.ack(box, 1)
        await owner.hear()
        await relay.end(signal.SIGKILL)
    async with run_relay() as relay:
        assert await backlog(relay, box) == [b"left"]


async def test_sigterm_says_goodbye_to_clients_and_exits_in_order(run_relay: RunRelay, box: Mailbox) -> None:
    async with run_relay() as relay, relay.connect() as owner, relay.connect() as idle:
        await owner.create(box)
        await owner.receive(box)
        await owner.expect(CaughtUp)
        for number in range(50):
            await owner.say(Send(number, [box.item(b"in time")]))
        code, log = await relay.end(signal.SIGTERM)
        assert (await owner.goodbye()).code is Code.SHUTTING_DOWN
        assert (await idle.goodbye()).code is Code.SHUTTING_DOWN
    assert code == 0, log
    assert '"level": "error"' not in log


def spellings(secret: bytes) -> list[str]:
    """How bytes may look in a log."""
    in_base64 = [encode(secret).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)]
    return [secret.hex(), repr(secret)[2:-1], *in_base64]


async def test_no_log_line_holds_an_id_a_key_or_a_payload(run_relay: RunRelay, box: Mailbox) -> None:
    body, envelope_id = os.urandom(300), os.urandom(16)
    async with run_relay() as relay:
        async with relay.connect() as owner:
            await owner.create(box)
            item = box.item(body, KeyClass.STRANGER, envelope_id)
            wrong = SendItem(box.queue, SendKey(os.urandom(32)), EnvelopeId(envelope_id), Ttl.DAY, body)
            await owner.send([item, item, wrong])
            await owner.receive(box)
            await owner.expect(Deliver)
            await owner.say(Receive(1, QueueId(os.urandom(16)), 1, limits.MAX_ENVELOPE))
            await owner.hear()
            await owner.ack(box, 99)
            await owner.goodbye()
        async with relay.connect() as hostile:
            await hostile.socket.send_message(b"\x93\x02" + body)
            await hostile.goodbye()
        stream = await trio.open_tcp_stream("127.0.0.1", int(relay.url.rpartition(":")[2]))
        async with stream:
            await stream.send_all(b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: \xff\r\n" + body + b"\r\n\r\n")
            await stream.receive_some()
        _, log = await relay.end(signal.SIGTERM)
    secrets = [box.queue, box.owner_key, body, body[:20], envelope_id, *box.keys.values()]
    secrets += [ids.send_key_hash(key) for key in box.keys.values()]
    for secret in secrets:
        assert not any(spelling in log for spelling in spellings(secret))
    assert "127.0.0.1" not in log


def test_the_relay_never_loads_the_sdk_or_a_cipher() -> None:
    """In a fresh interpreter: every module of the package, and what they bring along."""
    code = """
import importlib, pkgutil, sys
import sottovoce_relay
for module in pkgutil.walk_packages(sottovoce_relay.__path__, "sottovoce_relay."):
    importlib.import_module(module.name)
print(*(name for name in sys.modules if name == "sottovoce" or name.startswith(("sottovoce.", "cryptography"))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
