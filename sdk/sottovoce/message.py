"""What the application holds: a message that arrived, and one that was sent."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

import trio

from sottovoce_wire.ids import MessageId, account_id_text

from . import errors
from .people import moment
from .store.inbox import Unhandled

#: The failure of a message that the application took back.
CANCELLED: Final = "cancelled"
#: What a failure means, and what to do. Others are the relay's codes, and faults of one of the two.
MEANINGS: Final = {
    "refused": "their device no longer has a mailbox there; if they have set it up anew, send the message again",
    "expired": "no relay took it for as long as it lives; if it still matters, send it again",
    "blocked": "you have blocked them; unblock them, and send it again",
}


class Status(StrEnum):
    """What has become of a message that was sent."""

    WAITING = "waiting"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Progress:
    """The same in detail. `waiting`: whether an envelope waits for a relay; `failure`: why a device will not get it."""

    waiting: bool
    is_delivered: bool
    is_read: bool
    failure: str | None

    @property
    def status(self) -> Status:
        """What matters most: a receipt proves more than whatever a relay said."""
        if self.is_delivered:
            return Status.READ if self.is_read else Status.DELIVERED
        if self.failure is not None:
            return Status.CANCELLED if self.failure == CANCELLED else Status.FAILED
        return Status.WAITING if self.waiting else Status.SENT


class Sent:
    """A message that is safely in the outbox, encrypted; it goes out by itself, also after a restart.

    `id`: 32 hexadecimal digits, the same on every device; `Client.sent` gives the handle for it again.
    All raise StoreFailed, and InvalidInput where the message is no longer remembered: 31 days, and the newest 100,000.
    """

    def __init__(
        self,
        message_id: MessageId,
        progress: Callable[[MessageId], Awaitable[Progress]],
        cancel: Callable[[MessageId], Awaitable[bool]],
    ) -> None:
        self.id = message_id.hex()
        self._message_id = message_id
        self._progress = progress
        self._cancel = cancel
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<Sent {self.id}>"

    def _wake(self) -> None:
        """Something has become of the message."""
        self._changed.set()
        self._changed = trio.Event()

    async def status(self) -> Status:
        """What has become of the message by now. `failed`: at least one device will not get it, and none has said that
        it has."""
        return (await self._progress(self._message_id)).status

    async def wait_sent(self) -> None:
        """Wait until the relay has accepted the message for each of the recipient's devices.

        Raises DeliveryFailed if a relay refused it for good, if it waited longer than it lives, or if it was cancelled.
        Waits as long as the relay is away.
        Cancellation: stops waiting; the message goes out all the same."""
        await self._wait(lambda progress: progress.failure is None and not progress.waiting)

    async def wait_delivered(self) -> None:
        """Wait until one of the recipient's devices says that it has the message.

        A recipient who has not accepted this account, or sends no receipts, says nothing: it waits for ever.
        Raises DeliveryFailed as `wait_sent`. Cancellation: as there."""
        await self._wait(lambda progress: progress.is_delivered)

    async def wait_read(self) -> None:
        """Wait until the recipient's application says that it has handled the message. As `wait_delivered`."""
        await self._wait(lambda progress: progress.is_read)

    async def cancel(self) -> bool:
        """Take the message back. True: nothing of it was given to any connection, and nothing will be.

        False: it has gone out, or may have, and nothing was changed. Of a message that an earlier run of the program
        has left nobody knows, so that the answer is False.
        Cancellation: it was taken back, or not."""
        return await self._cancel(self._message_id)

    async def _wait(self, is_over: Callable[[Progress], bool]) -> None:
        while True:
            changed = self._changed
            progress = await self._progress(self._message_id)
            if is_over(progress):
                return
            if progress.failure is not None:
                raise errors.DeliveryFailed(
                    f"the message does not reach every device ({progress.failure})", hint=MEANINGS.get(progress.failure)
                )
            await changed.wait()


@dataclass(frozen=True, slots=True)
class Message:
    """A message that arrived. It counts as handled, and is not shown again, when the next one is asked for, or once
    `mark_handled` has returned.

    `sender`: the name under which this client found the account, else the account id (52 characters). `attempt`: 1, or
    more if it was shown before to a program that ended without having handled it.
    """

    id: str
    sender: str
    account_id: str
    text: str = field(repr=False)
    sent_at: datetime
    received_at: datetime
    attempt: int
    _reply: Callable[[str], Awaitable[Sent]] = field(repr=False, compare=False)
    _answer: Callable[[str], Awaitable[Sent]] = field(repr=False, compare=False)
    _mark_handled: Callable[[], Awaitable[None]] = field(repr=False, compare=False)

    async def reply(self, text: str) -> Sent:
        """Send `text` to the sender. Raises what `Client.send` raises. Cancellation: as there."""
        return await self._reply(text)

    async def answer(self, text: str) -> Sent:
        """Send `text` to the sender and count this message as handled, in one step: a program that is killed has done
        both or neither. Raises what `Client.send` raises. Cancellation: as there."""
        return await self._answer(text)

    @asynccontextmanager
    async def processing(self) -> AsyncIterator[None]:
        """Handle the message in the block: it counts as handled once that has ended, and not if it raises."""
        yield
        await self.mark_handled()

    async def mark_handled(self) -> None:
        """The program is done with this message, and leaves without asking for the next. Raises StoreFailed.

        Cancellation: it counts as handled, or not."""
        await self._mark_handled()


def make_message(
    unhandled: Unhandled,
    name: str | None,
    reply: Callable[[str], Awaitable[Sent]],
    answer: Callable[[str], Awaitable[Sent]],
    mark_handled: Callable[[], Awaitable[None]],
) -> Message:
    """The application's view of a stored message; `name` is a pinned username of the sender."""
    incoming = unhandled.message
    account_id = account_id_text(incoming.account_id)
    return Message(
        incoming.message_id.hex(),
        name or account_id,
        account_id,
        incoming.text,
        moment(incoming.sent_at),
        moment(incoming.received_at),
        unhandled.attempts + 1,
        reply,
        answer,
        mark_handled,
    )
