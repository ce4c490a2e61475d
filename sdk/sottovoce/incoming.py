"""What has arrived, handed to the application exactly once: messages, and events.

A message counts as handled when the application says so; a program that dies before is shown it again, and can tell.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from math import inf
from typing import Final, Generic, TypeAlias, TypeVar

import trio

from sottovoce_wire.ids import account_id_text

from . import errors
from .events import ConnectionChanged, Event
from .local import Local
from .message import Message, Sent, make_message
from .receipts import Receipts
from .store.database import Tables
from .store.inbox import Unhandled

T = TypeVar("T")

#: Changes of connections kept for an application that does not ask for events; they say nothing once they are old.
CHANGES_KEPT: Final = 100


#: Sends a text to an account, and does something else in the same transaction.
Reply: TypeAlias = Callable[[str, Callable[[Tables], None], str], Awaitable[Sent]]


class Incoming:
    """The messages and events of one client."""

    def __init__(self, local: Local, reply: Reply, receipts: Receipts) -> None:
        self._local = local
        self._reply = reply
        self._receipts = receipts
        self._arrived = trio.Event()
        self._shown: Sequence[int] = ()
        self._unseen: Sequence[int] = ()
        self._told: int | None = None
        self._changes: deque[ConnectionChanged] = deque(maxlen=CHANGES_KEPT)
        self._message_turn = trio.Lock()
        self._event_turn = trio.Lock()

    def wake(self) -> None:
        """Something may have arrived."""
        self._arrived.set()
        self._arrived = trio.Event()

    def changed(self, change: ConnectionChanged) -> None:
        """A connection is up or down."""
        self._changes.append(change)
        self.wake()

    def messages(self, timeout: float | None) -> AsyncIterator[Message]:
        """Messages in the order of arrival, until none has come for `timeout` seconds."""
        return Following(self._next_message, _seconds(timeout), self._unshow, self._message_turn)

    def pages(self, size: int, timeout: float | None) -> AsyncIterator[list[Message]]:
        """The same, up to `size` at a time."""
        return Following(partial(self._next_page, size), _seconds(timeout), self._unshow, self._message_turn)

    def events(self, timeout: float | None) -> AsyncIterator[Event]:
        """Events in the order in which they were noticed, until none has come for `timeout` seconds."""
        return Following(self._next_event, _seconds(timeout), self._untell, self._event_turn)

    async def _next_message(self, patience: float) -> Message | None:
        page = await self._next_page(1, patience)
        return None if page is None else page[0]

    async def _next_page(self, size: int, patience: float) -> list[Message] | None:
        """Count what was shown last as handled, and show what is next, in one transaction."""
        until = trio.current_time() + patience
        while True:
            arrived, shown, unseen = self._arrived, self._shown, self._unseen

            def hand_over(
                tables: Tables, shown: Sequence[int] = shown, unseen: Sequence[int] = unseen
            ) -> list[tuple[int, Message]]:
                for position in shown:
                    self._receipts.handled(tables, position)
                for position in unseen:
                    tables.inbox.mark_unseen(position)
                found = tables.inbox.unhandled(limit=size)
                for unhandled in found:
                    tables.inbox.mark_shown(unhandled.position)
                return [(unhandled.position, self._present(tables, unhandled)) for unhandled in found]

            following = await self._local.transact(hand_over)
            self._shown, self._unseen = [position for position, _ in following], ()
            if shown:
                self._receipts.wake()
            if following:
                return [message for _, message in following]
            if not await _happens(arrived, until):
                return None

    def _unshow(self, _: object) -> None:
        self._unseen, self._shown = self._shown, ()

    def _present(self, tables: Tables, unhandled: Unhandled) -> Message:
        who, position = unhandled.message.account_id, unhandled.position
        return make_message(
            unhandled,
            tables.peers.name_of(who),
            partial(self._reply, account_id_text(who), _nothing),
            partial(self._answer, account_id_text(who), position),
            partial(self._mark_handled, position),
        )

    async def _answer(self, who: str, position: int, text: str) -> Sent:
        sent = await self._reply(who, lambda tables: self._receipts.handled(tables, position), text)
        self._receipts.wake()
        return sent

    async def _mark_handled(self, position: int) -> None:
        await self._local.transact(lambda tables: self._receipts.handled(tables, position))
        self._receipts.wake()

    async def _next_event(self, patience: float) -> Event | None:
        """Forget the event that was told last, and tell the next."""
        until = trio.current_time() + patience
        while True:
            arrived, told = self._arrived, self._told
            if self._changes:
                return self._changes.popleft()

            def hand_over(tables: Tables, told: int | None = told) -> tuple[int, Event] | None:
                if told is not None:
                    tables.events.remove(told)
                following = tables.events.first()
                if following is not None:
                    tables.events.mark_told(following[0])
                return following

            following = await self._local.transact(hand_over)
            self._told = None
            if following is not None:
                self._told, event = following
                return event
            if not await _happens(arrived, until):
                return None

    def _untell(self, event: Event) -> None:
        if not isinstance(event, ConnectionChanged):
            self._told = None
        elif len(self._changes) < CHANGES_KEPT:
            self._changes.appendleft(event)


class Following(Generic[T]):
    """An iterator over what a function gives, which is told how long to wait, and gives None when it has.

    `put_back`: nobody has seen the item given last; it is the next, of every iterator over the same. `turn` is whose
    turn it is to read, the same for iterators over the same: two that wait would be given one item twice.
    """

    def __init__(
        self,
        following: Callable[[float], Awaitable[T | None]],
        patience: float,
        put_back: Callable[[T], None],
        turn: trio.Lock,
    ) -> None:
        self._following = following
        self._patience = patience
        self.put_back = put_back
        self._turn = turn

    def __aiter__(self) -> "Following[T]":
        return self

    async def __anext__(self) -> T:
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            raise already_reading() from None
        try:
            found = await self._following(self._patience)
        finally:
            self._turn.release()
        if found is None:
            raise StopAsyncIteration
        return found


def already_reading() -> errors.AlreadyReading:
    """What a second reader is told."""
    return errors.AlreadyReading("another task or thread is reading these from the same client")


async def _happens(event: trio.Event, until: float) -> bool:
    with trio.move_on_at(until):
        await event.wait()
        return True
    return False


def _seconds(timeout: float | None) -> float:
    if timeout is None:
        return inf
    if not timeout >= 0:
        raise errors.InvalidInput("a timeout is a number of seconds, and not negative")
    return timeout


def _nothing(_: Tables) -> None:
    pass
