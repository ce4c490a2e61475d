"""Senders and owners that keep a relay busy, over any number of its lives, and write down what they see.

What they may see stands in history.py. Each survives its connection: on the next it goes on where a client should.
"""

import enum
import itertools
import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import trio
import trio_websocket

from sottovoce_wire.errors import Code
from sottovoce_wire.frames import (
    Ack,
    Acked,
    CaughtUp,
    ClientFrame,
    Deliver,
    Goodbye,
    KeyClass,
    Send,
    SendItem,
    SendMany,
    SendResults,
    Target,
    Ttl,
)
from sottovoce_wire.ids import EnvelopeId
from tests.faults.history import Envelope, History, Kind
from tests.relay_clients import Client, Mailbox, RelayProcess

_MAX_ITEMS: Final = 6
_MAX_FRAMES: Final = 4
_TRY_AGAIN: Final = frozenset({Code.TRY_AGAIN, Code.QUEUE_FULL})
#: How it shows that the relay has ended, in whatever a client is doing.
_GONE: Final = (trio_websocket.ConnectionClosed, trio_websocket.HandshakeError, trio.BrokenResourceError, OSError)
_connections: Final[Iterator[int]] = itertools.count(1)


def body_of(sender: int, number: int) -> bytes:
    """The body with this number: recognised when it comes, and of a length of its own."""
    return b"%d %d " % (sender, number) + bytes(number * 7919 % 1500)


def envelope_of(queue: bytes, body: bytes) -> Envelope:
    """Which envelope this is. Its body must be what was sent, byte for byte."""
    sender, number, _ = body.split(b" ", 2)
    assert body == body_of(int(sender), int(number)), "a body is not what was sent"
    return Envelope(queue, int(sender), int(number))


@dataclass(frozen=True)
class Parcel:
    """What goes out in one frame: several envelopes, or one body to several queues."""

    items: Sequence[SendItem]
    is_shared: bool

    def frame(self, request: int) -> ClientFrame:
        if not self.is_shared:
            return Send(request, list(self.items))
        targets = [Target(item.queue, item.send_key, item.envelope_id) for item in self.items]
        return SendMany(request, self.items[0].ttl, self.items[0].body, targets)

    def without(self, results: Sequence[Code]) -> "Parcel":
        """What is left to be sent after these answers."""
        left = [item for item, code in zip(self.items, results, strict=True) if code in _TRY_AGAIN]
        return Parcel(left, self.is_shared)


@dataclass
class Sender:
    """Sends to some queues, as fast as answers allow; over a new connection first what was not answered, in order."""

    name: int
    boxes: Sequence[Mailbox]
    kind: KeyClass
    history: History
    rng: random.Random
    window: int = 40  # frames that it leaves unanswered
    goodbye: Code | None = None  # why the relay ended the last connection, if it said so
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _requests: Iterator[int] = field(default_factory=itertools.count)
    _unanswered: dict[int, Parcel] = field(default_factory=dict)

    async def run(self, client: Client) -> None:
        """Send until the connection is closed. Raises ConnectionClosed when all is heard."""
        async with self._resumed(client) as room:
            with suppress(trio_websocket.ConnectionClosed):
                await self._say_for_ever(client, room)
            await trio.sleep_forever()  # what the relay said before it closed is still to be heard

    async def _say_for_ever(self, client: Client, room: trio.Semaphore) -> None:
        while True:
            await room.acquire()
            frames = [self._say(self._parcel())]
            while len(frames) < self.rng.randint(1, _MAX_FRAMES) and room.value:
                room.acquire_nowait()
                frames.append(self._say(self._parcel()))
            await client.say(*frames)

    async def finish(self, client: Client) -> None:
        """Send what was not answered until it is, and nothing new."""
        async with self._resumed(client) as room:
            while self._unanswered:
                await room.acquire()

    @asynccontextmanager
    async def _resumed(self, client: Client) -> AsyncIterator[trio.Semaphore]:
        waiting, self._unanswered = self._unanswered, {}
        room = trio.Semaphore(max(0, self.window - len(waiting)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear, client, room)
            for frame in [self._say(parcel) for parcel in waiting.values()]:
                await client.say(frame)
            yield room
            nursery.cancel_scope.cancel()

    def _parcel(self) -> Parcel:
        boxes = self.rng.sample(self.boxes, self.rng.randint(1, len(self.boxes)))
        if is_shared := self.rng.random() < 0.3:
            body = body_of(self.name, next(self._numbers))
            return Parcel([self._item(box, body) for box in boxes], is_shared)
        bodies = (body_of(self.name, next(self._numbers)) for _ in range(self.rng.randint(1, _MAX_ITEMS)))
        return Parcel([self._item(self.rng.choice(boxes), body) for body in bodies], is_shared)

    def _item(self, box: Mailbox, body: bytes) -> SendItem:
        return SendItem(box.queue, box.keys[self.kind], EnvelopeId(os.urandom(16)), Ttl.DAY, body)

    def _say(self, parcel: Parcel) -> ClientFrame:
        request = next(self._requests)
        self._unanswered[request] = parcel
        for item in parcel.items:
            self.history.note(Kind.SAID, envelope_of(item.queue, item.body))
        return parcel.frame(request)

    async def _hear(self, client: Client, room: trio.Semaphore) -> None:
        while True:
            match await client.hear():
                case SendResults(request, results):
                    await self._answered(client, room, request, [result.code for result in results])
                case Goodbye(code):
                    self.goodbye = code

    async def _answered(self, client: Client, room: trio.Semaphore, request: int, codes: Sequence[Code]) -> None:
        parcel = self._unanswered.pop(request)
        for item, code in zip(parcel.items, codes, strict=True):
            assert code is Code.ACCEPTED or code in _TRY_AGAIN, code
            kind = Kind.ACCEPTED if code is Code.ACCEPTED else Kind.REFUSED
            self.history.note(kind, envelope_of(item.queue, item.body))
        left = parcel.without(codes)
        if left.items:
            await trio.sleep(0.02)  # a client that is told to try again does not do so at once
            await client.say(self._say(left))
        else:
            room.release()


@enum.unique
class Pace(enum.Enum):
    """How soon an owner acknowledges."""

    AT_ONCE = "at once"
    SLOWLY = "some of it, sometimes, and out of order"
    RESTLESS = "at once, but it goes away and comes back all the time, and leaves something behind"
    ABSENT = "not there"


@dataclass
class Owner:
    """Takes what comes in one queue."""

    box: Mailbox
    history: History
    rng: random.Random
    pace: Pace = Pace.AT_ONCE
    goodbye: Code | None = None

    async def run(self, client: Client) -> None:
        """Take and acknowledge until the connection is closed, or for a while."""
        await self._take(client, is_patient=True)

    async def drain(self, client: Client) -> None:
        """Take and acknowledge until the relay says that all that waited is gone."""
        self.pace = Pace.AT_ONCE
        await self._take(client, is_patient=False)

    async def _take(self, client: Client, is_patient: bool) -> None:
        connection = next(_connections)
        leaves_after = self.rng.randint(1, 30) if self.pace is Pace.RESTLESS else 0
        waiting: dict[int, Envelope] = {}
        await client.create(self.box)
        await client.receive(self.box)
        while True:
            match await client.hear():
                case Deliver(queue, items):
                    for item in items:
                        waiting[item.number] = envelope_of(queue, item.body)
                        self.history.note(Kind.DELIVERED, waiting[item.number], connection)
                    leaves_after -= 1
                    if leaves_after == 0:
                        return
                    with suppress(trio_websocket.ConnectionClosed):  # what came before is still to be heard
                        await self._acknowledge(client, list(waiting))
                case Acked(_, upto, singles):
                    for number in [number for number in waiting if number <= upto or number in singles]:
                        self.history.note(Kind.ACKED, waiting.pop(number), connection)
                case CaughtUp() if not is_patient:
                    return
                case Goodbye(code):
                    self.goodbye = code

    async def _acknowledge(self, client: Client, numbers: Sequence[int]) -> None:
        if self.pace is not Pace.SLOWLY:
            await client.ack(self.box, numbers[-1])
        elif len(numbers) > 20:
            singles = sorted(self.rng.sample(numbers[10:20], 3))
            await client.say(Ack(self.box.queue, numbers[self.rng.randrange(10)], singles))


@asynccontextmanager
async def keep_busy(relay: RelayProcess, parts: Sequence[Sender | Owner]) -> AsyncIterator[trio.Nursery]:
    """Run all of them until the relay ends."""

    async def run(part: Sender | Owner) -> None:
        try:
            while True:
                async with relay.connect() as client:
                    await part.run(client)
        except* _GONE:
            pass

    async with trio.open_nursery() as nursery:
        for part in parts:
            nursery.start_soon(run, part)
        yield nursery
        await relay.process.wait()
        # All that was said is heard by now; only who was shaking hands does not notice that nobody is there.
        nursery.cancel_scope.deadline = trio.current_time() + 1
