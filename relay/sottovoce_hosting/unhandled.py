"""What was read from peers and is not handled yet: bounded for each connection, and for all together.

Messages only pass through here. What they mean, and sockets, stand elsewhere.
"""

from collections import deque
from typing import Any, Final, TypeAlias

import trio

from .budget import Budget

Message: TypeAlias = dict[str, Any]

#: Bytes of whole messages that one connection may hold before it is read no further.
_MOST_HELD: Final = 2**20
#: A connection that holds less is read whatever others hold: health checks and pings get through.
_ALWAYS_READ: Final = 2**14
#: What a message counts for beside its bytes, so that many small ones are bounded too.
_OVERHEAD: Final = 256
#: Messages that are put or taken without letting other tasks run.
_TURN: Final = 64


class Inbox:
    """The messages for one handler.

    Nobody waits for the budget for ever: a whole message is given back by its handler, which needs no other for that,
    and the part of one by its connection's deadline, which goes on while it waits.

    Taking a message that is there costs no turn of the scheduler, or most of the time would go there; every 64th lets
    the others run.
    """

    __slots__ = ("_arrived", "_budget", "_eased", "_is_closed", "_messages", "_part", "_put", "_taken", "_whole")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._messages: deque[Message] = deque()
        self._whole = 0
        self._part = 0
        self._put = 0
        self._taken = 0
        self._is_closed = False
        self._arrived = trio.lowlevel.ParkingLot()
        self._eased = trio.lowlevel.ParkingLot()

    async def put(self, message: Message) -> None:
        """Add a message, and wait while the handler is behind. Once it has ended messages are dropped."""
        self._put += 1
        if not self._is_closed:
            self._messages.append(message)
            self._hold(_size_of(message))
            if self._arrived:
                self._arrived.unpark()
        if self._is_closed or self._put % _TURN == 0:
            await trio.lowlevel.checkpoint()
        while self._whole > _MOST_HELD and not self._is_closed:
            await self._eased.park()

    def note_part(self, size: int) -> None:
        """So many bytes are here of a message that is not whole."""
        if not self._is_closed:
            self._budget.change(size - self._part)
            self._part = size

    @property
    def has_to_wait(self) -> bool:
        """Whether nothing may be added before the budget has room."""
        return self._budget.is_spent and self._whole + self._part >= _ALWAYS_READ

    async def receive(self) -> Message:
        """The next message. Cancellation: none is lost."""
        if self._taken % _TURN == 0:
            await trio.lowlevel.checkpoint()
        while not self._messages:
            await self._arrived.park()
        return self._take()

    def receive_ready(self) -> Message | None:
        """The next message if it is here; None when it is time to `receive`."""
        return self._take() if self._messages and self._taken % _TURN else None

    def close(self) -> None:
        """The handler has ended: nothing is held any more."""
        self.note_part(0)
        self._is_closed = True
        self._messages.clear()
        self._hold(-self._whole)
        self._eased.unpark_all()

    def _take(self) -> Message:
        message = self._messages.popleft()
        self._taken += 1
        self._hold(-_size_of(message))
        if self._eased:
            self._eased.unpark_all()
        return message

    def _hold(self, size: int) -> None:
        self._whole += size
        self._budget.change(size)


def _size_of(message: Message) -> int:
    return _OVERHEAD + len(message.get("bytes") or message.get("text") or message.get("body") or b"")
