"""What one connection still has to say: frames in order, counted in bytes, with room for answers to come.

Posting never waits, so that the writer can; whoever causes frames waits for room first. What is ready together leaves
in one message. No sockets here.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from sottovoce_hosting.budget import Budget
from sottovoce_wire import limits
from sottovoce_wire.frames import Deliver, Delivery, Goodbye, RelayFrame, encode, join, message
from sottovoce_wire.ids import QueueId

#: Beyond so much unsent, or asked for and not yet answered, a connection is not read and gets no pages.
ROOM: Final = 1024 * 1024
#: Beyond so much asked for and not yet answered, it is not read: what a sender has under way at a time passes through
#: in less time than an envelope is held, so that a fast one does not drive everything to the disk.
ASKED: Final = 256 * 1024
#: The same as ROOM while the connections together have too much: little answers get through.
_ALWAYS: Final = 16 * 1024
#: What all connections together may have unsent or unanswered.
ALL_ROOM: Final = 256 * 1024 * 1024
#: Bytes of one message, at most, as far as frames divide.
_MESSAGE: Final = limits.MAX_MESSAGE // 2
#: What an envelope takes beside its body in a Deliver frame, and the frame itself.
_ITEM: Final = 24


@dataclass(slots=True)
class Message:
    """Some frames on their way to the socket."""

    data: bytes
    frames: int
    size: int  # what they count for in the outbox


@dataclass(slots=True)
class _Encoded:
    data: bytes
    size: int


@dataclass(slots=True)
class _Envelopes:
    """A Deliver frame that others may still join."""

    queue: QueueId
    items: list[Delivery]
    size: int

    def takes(self, queue: QueueId, count: int, size: int) -> bool:
        return (
            self.queue == queue
            and len(self.items) + count <= limits.MAX_UNACKNOWLEDGED
            and self.size + size <= _MESSAGE
        )


class Outbox:
    """The frames to send. What is posted after `end` is dropped: the connection is closing."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._waiting: deque[_Encoded | _Envelopes] = deque()
        self._size = 0
        self._asked = 0  # of it, what is asked for and not yet answered
        self.posted = 0  # frames that were queued ever
        self.handed_over = 0  # and how many of these are with the socket
        self._ended = False
        self._is_closed = False
        self._goodbye: Goodbye | None = None
        self._arrived = trio.Event()
        self._eased = trio.lowlevel.ParkingLot()

    @property
    def has_room(self) -> bool:
        """Whether a page may be taken on."""
        return self._size < (_ALWAYS if self._budget.is_spent else ROOM)

    @property
    def may_hear(self) -> bool:
        """Whether another request may be taken on."""
        return self._asked < ASKED and self.has_room

    def post(self, frame: RelayFrame) -> bool:
        """Queue a frame. False if it was dropped."""
        if self._ended:
            return False
        data = encode(frame)
        self._add(_Encoded(data, len(data)))
        return True

    def deliver(self, queue: QueueId, items: Sequence[Delivery]) -> None:
        """Queue envelopes; they share a frame with those of the same queue that were queued just before."""
        if self._ended:
            return
        size = sum(len(item.body) for item in items) + _ITEM * len(items)
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, _Envelopes) and last.takes(queue, len(items), size):
            last.items.extend(items)
            last.size += size
            self._count(size)
        else:
            self._add(_Envelopes(queue, list(items), size + _ITEM))

    def end(self, goodbye: Goodbye | None) -> None:
        """Say this last, and nothing more."""
        self._ended = True
        self._goodbye = goodbye
        self._arrived.set()

    def reserve(self, size: int) -> None:
        """Count the bytes of a request whose answer is to come, so that unanswered requests are bounded."""
        self._asked += size
        self._count(size)

    def release(self, size: int) -> None:
        """The request is answered."""
        self._asked -= size
        self._ease(size)

    def close(self) -> None:
        """The connection is over: nothing is held any more."""
        self.end(None)
        self._waiting.clear()
        self._count(-self._size)
        self._is_closed = True

    async def take(self) -> Message | None:
        """Wait for frames and take as many as one message carries. None when there will be no more.

        Cancellation: nothing is lost.
        """
        while not self._waiting and not self._ended:
            self._arrived = trio.Event()
            await self._arrived.wait()
        if self._waiting:
            return self._fill()
        goodbye, self._goodbye = self._goodbye, None
        return Message(message(goodbye), 0, 0) if goodbye else None

    def sent(self, gone: Message) -> None:
        """A message that was taken is with the socket."""
        self.handed_over += gone.frames
        self._ease(gone.size)

    async def wait_for_room(self) -> None:
        """Wait until there is room. Cancellation: nothing changes."""
        while not self.has_room:
            await self._wait()

    async def wait_to_hear(self) -> None:
        """Wait until another request may be taken on. Cancellation: nothing changes."""
        while not self.may_hear:
            await self._wait()

    def _add(self, waiting: _Encoded | _Envelopes) -> None:
        self._waiting.append(waiting)
        self._count(waiting.size)
        self.posted += 1
        self._arrived.set()

    async def _wait(self) -> None:
        self._budget.wake(self._eased)
        await self._eased.park()

    def _ease(self, size: int) -> None:
        self._count(-size)
        self._eased.unpark_all()

    def _count(self, size: int) -> None:
        if not self._is_closed:
            self._size += size
            self._budget.change(size)

    def _fill(self) -> Message:
        encoded: list[bytes] = []
        size = 0
        while self._waiting and len(encoded) < limits.MAX_FRAMES:
            first = self._waiting[0]
            if encoded and size + first.size > _MESSAGE:
                break
            self._waiting.popleft()
            size += first.size
            encoded.append(first.data if isinstance(first, _Encoded) else encode(Deliver(first.queue, first.items)))
        return Message(join(encoded), len(encoded), size)
