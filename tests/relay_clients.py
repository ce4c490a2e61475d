"""Owners and senders of a relay on a real socket, and the relay as a process: what the relay's tests share.

No assertions about the relay stand here beyond what a client needs to go on.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import pytest
import trio
import trio_websocket
from nacl.signing import SigningKey

from sottovoce_relay.app import PATH
from sottovoce_wire import ids, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import (
    Ack,
    ClientFrame,
    CreateQueue,
    Done,
    Goodbye,
    Hello,
    KeyClass,
    NewSendKey,
    OpenQueue,
    Receive,
    RelayFrame,
    Send,
    SendItem,
    SendResults,
    Ttl,
    Welcome,
    decode_relay_message,
    message,
)
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey
from sottovoce_wire.records import owner_challenge
from tests.observer import sitecustomize as observer

F = TypeVar("F", bound=RelayFrame)

#: Far longer than a passing test needs.
PATIENCE: Final = 20.0
#: `sottovoce-relay`, wherever it is installed.
RELAY: Final = "from sottovoce_relay.cli import main; main()"


@dataclass(frozen=True)
class Mailbox:
    """A queue as its owner knows it: one key of each class."""

    owner: SigningKey = field(default_factory=SigningKey.generate)
    keys: dict[KeyClass, SendKey] = field(default_factory=lambda: {kind: SendKey(os.urandom(32)) for kind in KeyClass})

    @property
    def owner_key(self) -> bytes:
        return bytes(self.owner.verify_key)

    @property
    def queue(self) -> QueueId:
        return ids.queue_id_of(self.owner_key)

    @property
    def send_keys(self) -> list[NewSendKey]:
        return [NewSendKey(ids.send_key_hash(key), kind) for kind, key in self.keys.items()]

    def item(
        self, body: bytes, kind: KeyClass = KeyClass.CONTACT, envelope_id: bytes | None = None, ttl: Ttl = Ttl.DAY
    ) -> SendItem:
        """An envelope for this queue."""
        return SendItem(self.queue, self.keys[kind], EnvelopeId(envelope_id or os.urandom(16)), ttl, body)


class Client:
    """One connection to a relay, frame by frame."""

    def __init__(self, socket: trio_websocket.WebSocketConnection, origin: str) -> None:
        self.socket = socket
        self.origin = origin
        self.nonce = b""
        self._heard: deque[RelayFrame] = deque()

    async def say(self, *frames: ClientFrame) -> None:
        """Say these in one message."""
        await self.socket.send_message(message(*frames))

    async def hear(self) -> RelayFrame:
        while not self._heard:
            with trio.fail_after(PATIENCE):
                data = await self.socket.get_message()
            assert isinstance(data, bytes)
            self._heard.extend(decode_relay_message(data))
        return self._heard.popleft()

    async def expect(self, kind: type[F]) -> F:
        frame = await self.hear()
        assert isinstance(frame, kind), frame
        return frame

    async def hear_until(self, kind: type[F]) -> F:
        """The next frame of this kind; others are passed over."""
        while True:
            frame = await self.hear()
            if isinstance(frame, kind):
                return frame

    async def greet(self) -> None:
        await self.say(Hello([limits.PROTOCOL_VERSION]))
        self.nonce = (await self.expect(Welcome)).nonce

    def signature(self, box: Mailbox) -> bytes:
        return box.owner.sign(owner_challenge(self.origin, self.nonce, box.queue)).signature

    async def create(self, box: Mailbox) -> None:
        await self.say(CreateQueue(1, box.owner_key, self.signature(box), box.send_keys, ""))
        assert await self.expect(Done) == Done(1)

    async def open(self, box: Mailbox) -> None:
        await self.say(OpenQueue(2, box.owner_key, self.signature(box)))
        assert await self.expect(Done) == Done(2)

    async def receive(self, box: Mailbox, count: int = 256, size: int = limits.MAX_UNACKNOWLEDGED_BYTES) -> None:
        await self.say(Receive(3, box.queue, count, size))
        assert await self.expect(Done) == Done(3)

    async def send(self, items: Sequence[SendItem]) -> list[Code]:
        """Send and hear what became of each item."""
        await self.say(Send(4, list(items)))
        answer = await self.expect(SendResults)
        assert answer.request == 4
        return [result.code for result in answer.results]

    async def ack(self, box: Mailbox, upto: int, *singles: int) -> None:
        await self.say(Ack(box.queue, upto, list(singles)))

    async def goodbye(self) -> Goodbye:
        """The relay's last frame, after which it closes."""
        last = await self.hear_until(Goodbye)
        with pytest.raises(trio_websocket.ConnectionClosed), trio.fail_after(PATIENCE):
            await self.socket.get_message()
        return last


@asynccontextmanager
async def open_socket(origin: str) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """A connection that has said nothing yet.

    On a stream of our own: trio-websocket leaves the one that it opens itself open when the server closes first.
    """
    host, _, port = origin.removeprefix("http://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
        socket = await trio_websocket.wrap_client_stream(nursery, stream, host, PATH)
        try:
            yield socket
        finally:
            with trio.move_on_after(PATIENCE):
                await socket.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def connect(origin: str) -> AsyncIterator[Client]:
    """A connection that was welcomed."""
    async with open_socket(origin) as socket:
        client = Client(socket, origin)
        await client.greet()
        yield client


@dataclass(frozen=True)
class RelayProcess:
    """The command `sottovoce-relay serve`, running."""

    process: trio.Process
    url: str
    _log: bytearray

    def connect(self) -> AbstractAsyncContextManager[Client]:
        return connect(self.url)

    def socket(self) -> AbstractAsyncContextManager[trio_websocket.WebSocketConnection]:
        """A connection that has said nothing yet."""
        return open_socket(self.url)

    async def stream(self) -> trio.SocketStream:
        """A raw connection."""
        return await trio.open_tcp_stream("127.0.0.1", int(self.url.rpartition(":")[2]))

    @property
    def log(self) -> str:
        """All that was logged until now."""
        return self._log.decode()

    async def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; returns the exit code and all that was logged."""
        self.process.send_signal(number)
        with trio.fail_after(PATIENCE):
            code = await self.process.wait()
        return code, self._log.decode()


#: One address plays all the clients of a world: without this, tests would meet the limits that are there for strangers.
#: What the limits do has tests of its own.
UNLIMITED: Final = {
    f"SOTTOVOCE_SERVER_{name}": str(value)
    for name, value in {
        "connection_rate": 1e9,
        "address_rate": 1e9,
        "stranger_rate": 1e9,
        "invite_rate": 1e9,
        "contact_rate": 1e9,
        "queues_per_hour": 10**9,
        "queue_min_free_bytes": 0,
        "max_connections_per_block": 10**6,
        "connections_per_second": 1e9,
        "log_level": "debug",
    }.items()
}


def relay_command(data: Path, code: str = RELAY) -> list[str]:
    """`sottovoce-relay serve` on a free port."""
    return [sys.executable, "-c", code, "serve", "--data", str(data), "--port", "0"]


@asynccontextmanager
async def run_relay_process(
    data: Path, *, wrapper: Sequence[str] = (), code: str = RELAY, **environment: str
) -> AsyncIterator[RelayProcess]:
    """Run the command while a block runs. `wrapper` is a command that executes the one that follows it."""
    process = await trio.lowlevel.open_process(
        [*wrapper, *relay_command(data, code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **UNLIMITED, **environment},
    )
    assert process.stdout is not None
    log = bytearray()
    async with process.stdout, trio.open_nursery() as nursery:
        nursery.start_soon(_collect, process, log)
        try:
            with trio.fail_after(PATIENCE):
                ready = bytes(await process.stdout.receive_some()).decode()
            assert " ready at " in ready, ready
            yield RelayProcess(process, ready.splitlines()[0].split()[-1], log)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
    observer.keep(log.decode())  # what it could not write down itself: some tests take its disk away


async def _collect(process: trio.Process, log: bytearray) -> None:
    assert process.stderr is not None
    async with process.stderr:
        async for piece in process.stderr:
            log += piece
