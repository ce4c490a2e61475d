"""The same conversation with the relay in memory and with the real one, written down so that the two can be compared.

What may differ is taken out: nonces, words for people, how deliveries are cut into frames, and the order of what a
relay says at one time about different things. A conversation says; what is heard after each step, the relay in memory
decides, and the real one is waited for until it has said as much.
"""

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec
import trio

from sottovoce.testing.relay import Connection, MemoryRelay
from sottovoce_hosting.testing import start_server
from sottovoce_relay.app import open_relay
from sottovoce_relay.settings import RelaySettings
from sottovoce_wire import limits
from sottovoce_wire.frames import (
    Ack,
    ClientFrame,
    CreateQueue,
    Deliver,
    Failed,
    Goodbye,
    Hello,
    OpenQueue,
    Ping,
    Receive,
    RelayFrame,
    Send,
    SendItem,
    Welcome,
    decode_relay_message,
    message,
)
from sottovoce_wire.ids import QueueId
from sottovoce_wire.records import owner_challenge
from tests.relay_clients import PATIENCE, Client, Mailbox, open_socket

Entry: TypeAlias = tuple[Any, ...]
#: What each connection heard in one step.
Step: TypeAlias = dict[str, list[Entry]]
Conversation: TypeAlias = Callable[["Place"], Awaitable[None]]

#: Rates are not a part of the contract: the kit has none.
NO_RATES = dict.fromkeys(("connection_rate", "address_rate", "stranger_rate", "invite_rate", "contact_rate"), 1e9)


class Talker(Protocol):
    """One connection: raw messages out, frames in. `count` is how many entries are to come, if that is known."""

    async def say(self, data: bytes) -> None: ...
    async def hear(self, count: int | None) -> list[RelayFrame]: ...
    async def hang_up(self) -> None: ...


@dataclass
class Clock:
    """Unix time, as the conversation wants it."""

    now: float = 1_800_000_000

    def __call__(self) -> float:
        return self.now


@dataclass
class Place:
    """A relay at `origin`, real or not, and what was heard from it. `before` is what another was heard to say."""

    origin: str
    clock: Clock
    dial: Callable[[], Awaitable[Talker]]
    before: list[Step] | None = None
    folder: Path | None = None  # the real one's data
    talkers: dict[str, Talker] = field(default_factory=dict)
    nonces: dict[str, bytes] = field(default_factory=dict)
    delivered: dict[tuple[str, QueueId], int] = field(default_factory=dict)  # numbers heard on a connection
    steps: list[Step] = field(default_factory=list)

    async def connect(self, *names: str) -> None:
        """Connections that were welcomed."""
        for who in names:
            self.talkers[who] = await self.dial()
            await self.say(who, Hello([limits.PROTOCOL_VERSION]))

    async def say(self, who: str, *frames: ClientFrame) -> None:
        """Say these in one message, and write down what everybody hears then."""
        await self.say_bytes(who, message(*frames))

    async def say_bytes(self, who: str, data: bytes) -> None:
        await self.talkers[who].say(data)
        await self._listen()

    async def hang_up(self, who: str) -> None:
        """End a connection."""
        await self.talkers.pop(who).hang_up()

    async def pass_time(self, seconds: float) -> None:
        """The wall clock goes on, and what is due is done, as far as anybody hears of it."""
        self.clock.now += seconds
        await self._listen()

    async def note_loss(self) -> None:
        """Wait until it is written down that an owner was told of a loss, which is after all else that is heard."""
        if self.folder is not None:
            query = "SELECT count(*) FROM queues WHERE expired_told > 0"
            with closing(sqlite3.connect(self.folder / "relay.db")) as database, trio.fail_after(PATIENCE):
                while database.execute(query).fetchone() == (0,):  # noqa: ASYNC110 - it happens in a database
                    await trio.sleep(0.001)

    async def end(self) -> None:
        """Whoever still talks is answered a ping, and hears nothing else."""
        for who in list(self.talkers):
            await self.say(who, Ping(7))

    async def _listen(self) -> None:
        counts = None if self.before is None else self.before[len(self.steps)]
        step: Step = {}
        for who, talker in list(self.talkers.items()):
            heard = await talker.hear(None if counts is None else len(counts.get(who, ())))
            if entries := [entry for frame in heard for entry in self._entries(who, frame)]:
                step[who] = sorted(entries, key=repr)
            if any(entry[0] == "Goodbye" for entry in entries):
                await self.hang_up(who)
        self.steps.append(step)

    def _entries(self, who: str, frame: RelayFrame) -> list[Entry]:
        match frame:
            case Welcome():
                self.nonces[who] = frame.nonce
                return [as_entry(msgspec.structs.replace(frame, nonce=b""))]
            case Deliver():
                self.delivered[who, frame.queue] = frame.items[-1].number
                return [("Delivery", frame.queue, *msgspec.structs.astuple(item)) for item in frame.items]
            case Failed() | Goodbye():
                return [as_entry(msgspec.structs.replace(frame, detail=""))]
        return [as_entry(frame)]

    # --- What is said often --------------------------------------------------------------------------------------

    def create(self, who: str, box: Mailbox, request: int = 1) -> CreateQueue:
        return CreateQueue(request, box.owner_key, self.signature(who, box), box.send_keys, "")

    def open(self, who: str, box: Mailbox, request: int = 1) -> OpenQueue:
        return OpenQueue(request, box.owner_key, self.signature(who, box))

    def signature(self, who: str, box: Mailbox, origin: str = "") -> bytes:
        return box.owner.sign(owner_challenge(origin or self.origin, self.nonces[who], box.queue)).signature

    async def receive(self, who: str, box: Mailbox, count: int = 256, size: int = 4 * limits.MIB) -> None:
        await self.say(who, self.create(who, box), Receive(2, box.queue, count, size))

    async def send(self, who: str, *items: SendItem) -> None:
        await self.say(who, Send(3, list(items)))

    async def ack(self, who: str, box: Mailbox, upto: int, *singles: int) -> None:
        await self.say(who, Ack(box.queue, upto, list(singles)))


def as_entry(frame: RelayFrame) -> Entry:
    return (type(frame).__name__, *msgspec.structs.astuple(frame))


@dataclass
class MemoryTalker:
    """A connection to the relay in memory. All that it says is there when it was spoken to."""

    heard: deque[RelayFrame]
    relay: MemoryRelay
    connection: Connection

    async def say(self, data: bytes) -> None:
        self.connection.hear(data)

    async def hear(self, count: int | None) -> list[RelayFrame]:
        self.relay.tend()
        heard = list(self.heard)
        self.heard.clear()
        return heard

    async def hang_up(self) -> None:
        self.connection.close()


async def in_memory(origin: str, conversation: Conversation) -> list[Step]:
    """What the relay in memory says."""
    clock = Clock()
    relay = MemoryRelay(origin, clock)

    async def dial() -> MemoryTalker:
        heard: deque[RelayFrame] = deque()

        def say(data: bytes | None) -> None:
            heard.extend([] if data is None else decode_relay_message(data))

        return MemoryTalker(heard, relay, relay.connect("somebody", say))

    place = Place(origin, clock, dial)
    await conversation(place)
    await place.end()
    return place.steps


@dataclass
class SocketTalker:
    """A connection to a real relay, held open by a task of its own: they end in any order."""

    client: Client
    over: trio.Event
    gone: trio.Event

    async def say(self, data: bytes) -> None:
        await self.client.socket.send_message(data)

    async def hear(self, count: int | None) -> list[RelayFrame]:
        assert count is not None
        heard: list[RelayFrame] = []
        while sum(len(frame.items) if isinstance(frame, Deliver) else 1 for frame in heard) < count:
            heard.append(await self.client.hear())
        return heard

    async def hang_up(self) -> None:
        self.over.set()
        await self.gone.wait()


async def _hold_open(origin: str, *, task_status: trio.TaskStatus[SocketTalker]) -> None:
    async with open_socket(origin) as socket:
        talker = SocketTalker(Client(socket, origin), trio.Event(), trio.Event())
        task_status.started(talker)
        await talker.over.wait()
    talker.gone.set()


async def for_real(
    origin: str, clock: Clock, conversation: Conversation, before: list[Step], folder: Path
) -> list[Step]:
    """What the real relay at `origin` says, whose data is in `folder`."""
    async with trio.open_nursery() as nursery:

        async def dial() -> SocketTalker:
            talker: SocketTalker = await nursery.start(_hold_open, origin)
            return talker

        place = Place(origin, clock, dial, before, folder)
        await conversation(place)
        await place.end()
        for who in list(place.talkers):
            await place.hang_up(who)
    return place.steps


@asynccontextmanager
async def real_relay(folder: Path) -> AsyncIterator[tuple[str, Clock]]:
    """A relay on a real socket and a real database: its origin and its clock."""
    clock = Clock()
    settings = RelaySettings.model_validate({"data": folder, "port": 0, "queue_min_free_bytes": 0, **NO_RATES})
    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, lambda origins: [open_relay(settings, origins, clock)], settings)
        try:
            yield server.url, clock
        finally:
            server.stop.set()
