"""The load generator's owners and senders: one connection to a relay each.

Envelopes are encoded and masked before the clock starts. What is measured stands in relay.py, sockets in wire.py.
Nothing here is fit for real use: no timeouts, no second try.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from nacl.signing import SigningKey

from sottovoce_wire import frames, ids, limits
from sottovoce_wire.errors import Code
from sottovoce_wire.ids import EnvelopeId, QueueId, SendKey
from sottovoce_wire.records import owner_challenge

from .wire import BenchError, Wire, dial, framed

BODY: Final = 1024

# --- Queues and what is sent to them ------------------------------------------------------------------------


@dataclass(frozen=True)
class Mailbox:
    """A queue with one send key, as its owner knows it."""

    key_class: frames.KeyClass = frames.KeyClass.CONTACT
    owner: SigningKey = field(default_factory=SigningKey.generate)
    send_key: SendKey = field(default_factory=lambda: SendKey(os.urandom(32)))
    queue: QueueId = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "queue", ids.queue_id_of(bytes(self.owner.verify_key)))

    def item(self) -> frames.SendItem:
        """An envelope of 1 KiB for this queue."""
        envelope = EnvelopeId(os.urandom(16))
        return frames.SendItem(self.queue, self.send_key, envelope, frames.Ttl.DAY, os.urandom(BODY))


def make_sends(boxes: Sequence[Mailbox], count: int, batch: int) -> list[bytes]:
    """`count` envelopes, to the mailboxes in turn, `batch` in a frame and one frame in a message. For `send_all`."""
    items = (boxes[number % len(boxes)].item() for number in range(count))
    numbers = range(0, count, batch)
    return [
        framed(frames.message(frames.Send(request, [next(items) for _ in range(min(batch, count - start))])))
        for request, start in enumerate(numbers)
    ]


def make_fan_out(request: int, boxes: Sequence[Mailbox]) -> bytes:
    """One body of 1 KiB for all the mailboxes."""
    targets = [frames.Target(box.queue, box.send_key, EnvelopeId(os.urandom(16))) for box in boxes]
    return framed(frames.message(frames.SendMany(request, frames.Ttl.DAY, os.urandom(BODY), targets)))


# --- A connection to a relay ----------------------------------------------------------------------------------


class Tally:
    """Counts up to a goal; `reached` has the time (perf_counter) when it is there."""

    def __init__(self, goal: int) -> None:
        self._left = goal
        self.reached: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def add(self, count: int) -> None:
        """Raises BenchError where there is more than there can be."""
        self._left -= count
        if self._left == 0:
            self.reached.set_result(time.perf_counter())
        elif self._left < 0:
            raise BenchError(f"{-self._left} envelopes more than were sent")


class Client:
    """One welcomed connection: of an owner, with `acknowledge`, or of a sender."""

    def __init__(self, origin: str, acknowledge: "Acknowledge | None") -> None:
        self.link: Wire
        self.received: dict[QueueId, int] = {}
        self.tally: Tally | None = None  # of deliveries
        self._origin = origin
        self._acknowledge = acknowledge
        self._welcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._done: dict[int, asyncio.Future[None]] = {}  # requests by number
        self._caught_up: dict[QueueId, asyncio.Future[None]] = {}
        self._unsent: list[bytes] = []  # the last one goes first
        self._unanswered = 0
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, origin: str, acknowledge: "Acknowledge | None" = None) -> "Client":
        """Connect and say Hello. Raises BenchError or OSError."""
        client = cls(origin, acknowledge)
        client.link = await dial(origin, client._hear)
        client.say(frames.Hello([limits.PROTOCOL_VERSION]))
        client.link.flush()
        await client.link.wait(client._welcome)
        return client

    def say(self, frame: frames.ClientFrame) -> None:
        """Queue a frame in a message of its own."""
        self.link.say(framed(frames.message(frame)))

    async def create(self, *boxes: Mailbox) -> None:
        """Create these queues, all at once, or prove them again."""
        nonce = self._welcome.result()
        for number, box in enumerate(boxes):
            signature = box.owner.sign(owner_challenge(self._origin, nonce, box.queue)).signature
            key = frames.NewSendKey(ids.send_key_hash(box.send_key), box.key_class)
            self.say(frames.CreateQueue(number, bytes(box.owner.verify_key), signature, [key], ""))
        await self._all_done(len(boxes))

    async def receive(self, *boxes: Mailbox) -> None:
        """Start delivery of queues that were created on this connection."""
        for number, box in enumerate(boxes):
            self._caught_up[box.queue] = asyncio.get_running_loop().create_future()
            self.received[box.queue] = 0
            self.say(frames.Receive(number, box.queue, limits.MAX_UNACKNOWLEDGED, limits.MAX_UNACKNOWLEDGED_BYTES))
        await self._all_done(len(boxes))

    async def caught_up(self) -> None:
        """Wait until all that waited was delivered, acknowledged and is gone from the relay."""
        for told in self._caught_up.values():
            await self.link.wait(told)

    async def send_all(self, messages: Sequence[bytes], window: int) -> None:
        """Say what `make_sends` made, at most `window` unanswered. Raises BenchError unless all is accepted."""
        self.begin(len(messages))
        self._unsent = list(reversed(messages))
        for _ in range(min(window, len(messages))):
            self.link.say(self._unsent.pop())
        self.link.flush()
        await self.answered()

    def begin(self, count: int) -> None:
        """So many Sends are to come: said by `send_all`, or one by one on the link."""
        self._answered = asyncio.get_running_loop().create_future()
        self._unanswered = count

    async def answered(self) -> None:
        """Wait until all of them are accepted. Raises BenchError if one is not."""
        await self.link.wait(self._answered)

    async def _all_done(self, count: int) -> None:
        self._done = {number: asyncio.get_running_loop().create_future() for number in range(count)}
        self.link.flush()
        for done in list(self._done.values()):
            await self.link.wait(done)

    # --- One method for each frame -------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        for frame in frames.decode_relay_message(data):
            _HEARD.get(type(frame), Client._unexpected)(self, frame)

    def _hear_welcome(self, frame: frames.Welcome) -> None:
        self._welcome.set_result(frame.nonce)

    def _hear_done(self, frame: frames.Done) -> None:
        self._done.pop(frame.request).set_result(None)

    def _hear_results(self, frame: frames.SendResults) -> None:
        for result in frame.results:
            if result.code is not Code.ACCEPTED:
                raise BenchError(f"an envelope was refused: {result.code.name}")
        self._unanswered -= 1
        if self._unsent:
            self.link.say(self._unsent.pop())
        elif self._unanswered == 0:
            self._answered.set_result(None)

    def _hear_delivery(self, frame: frames.Deliver) -> None:
        received = self.received[frame.queue] = self.received[frame.queue] + len(frame.items)
        if frame.items[-1].number != received:
            raise BenchError("delivery numbers do not count 1, 2, 3")
        if self._acknowledge is not None:
            self._acknowledge(self, frame)
        if self.tally is not None:
            self.tally.add(len(frame.items))

    def _hear_caught_up(self, frame: frames.CaughtUp) -> None:
        self._caught_up[frame.queue].set_result(None)

    def _hear_nothing(self, frame: frames.Acked) -> None:
        """That what was acknowledged is gone is news only at the end: CaughtUp says it."""

    def _unexpected(self, frame: frames.RelayFrame) -> None:
        raise BenchError(f"the relay said {frame}")


_HEARD: Final[Mapping[type[frames.RelayFrame], Callable[[Client, Any], None]]] = {
    frames.Welcome: Client._hear_welcome,
    frames.Done: Client._hear_done,
    frames.SendResults: Client._hear_results,
    frames.Deliver: Client._hear_delivery,
    frames.CaughtUp: Client._hear_caught_up,
    frames.Acked: Client._hear_nothing,
}


# --- When an owner acknowledges -------------------------------------------------------------------------------

Acknowledge: TypeAlias = Callable[[Client, frames.Deliver], None]


def at_once(client: Client, frame: frames.Deliver) -> None:
    """Acknowledge what a frame brought, without having stored it."""
    client.say(frames.Ack(frame.queue, frame.items[-1].number, []))


class Committing:
    """An owner that stores first: one commit at a time, and each takes all that came during the one before."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._uncommitted: dict[QueueId, int] = {}
        self._is_committing = False

    def __call__(self, client: Client, frame: frames.Deliver) -> None:
        """Acknowledge later."""
        self._uncommitted[frame.queue] = frame.items[-1].number
        if not self._is_committing:
            self._commit(client)

    def _commit(self, client: Client) -> None:
        self._is_committing = bool(self._uncommitted)
        if self._uncommitted:
            page, self._uncommitted = self._uncommitted, {}
            asyncio.get_running_loop().call_later(self._seconds, self._committed, client, page)

    def _committed(self, client: Client, page: dict[QueueId, int]) -> None:
        for queue, upto in page.items():
            client.say(frames.Ack(queue, upto, []))
        client.link.flush()
        self._commit(client)
