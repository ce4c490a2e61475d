"""What one connection still has to say: encoded frames in order, counted in bytes, with room for answers to come.

Posting never waits, so that the writer can; whoever causes frames waits for room first. No sockets here.
"""

from collections import deque
from typing import Final

import trio

from sottovoce_wire.frames import RelayFrame, encode

#: Beyond so much unsent, or asked for and not yet answered, a connection is not read and gets no pages.
ROOM: Final = 1024 * 1024


class Outbox:
    """The frames to send. What is posted after `end` is dropped: the connection is closing."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._size = 0
        self.posted = 0  # frames that were queued ever
        self.handed_over = 0  # and how many of these are with the socket
        self._ended = False
        self._arrived = trio.Event()
        self._eased = trio.lowlevel.ParkingLot()

    @property
    def has_room(self) -> bool:
        """Whether a page or another request may be taken on."""
        return self._size < ROOM

    def post(self, frame: RelayFrame) -> bool:
        """Queue a frame. False if it was dropped."""
        if self._ended:
            return False
        data = encode(frame)
        self._frames.append(data)
        self._size += len(data)
        self.posted += 1
        self._arrived.set()
        return True

    def end(self) -> None:
        """Nothing more is said."""
        self._ended = True
        self._arrived.set()

    def reserve(self, size: int) -> None:
        """Count the bytes of a request whose answer is to come, so that unanswered requests are bounded."""
        self._size += size

    def release(self, size: int) -> None:
        """The request is answered."""
        self._size -= size
        self._eased.unpark_all()

    async def take(self) -> list[bytes]:
        """Wait for frames and take all. Empty when there will be no more. Cancellation: nothing is lost."""
        while not self._frames and not self._ended:
            self._arrived = trio.Event()
            await self._arrived.wait()
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def sent(self, frame: bytes) -> None:
        """A frame that was taken is with the socket."""
        self.handed_over += 1
        self.release(len(frame))

    async def wait_for_room(self) -> None:
        """Wait until there is room. Cancellation: nothing changes."""
        while not self.has_room:
            await self._eased.park()
