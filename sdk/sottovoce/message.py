"""What the application holds: a message that arrived, and one that was sent."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import trio

from sottovoce_wire.ids import MessageId, account_id_text

from .people import moment
from .store.inbox import Unhandled


class Sent:
    """A message that is safely in the outbox, encrypted; it goes out by itself, also after a restart.

    `id`: 32 hexadecimal digits, the same on every device.
    """

    def __init__(self, message_id: MessageId, settle: Callable[["Sent"], Awaitable[None]]) -> None:
        self.message_id = message_id
        self.id = message_id.hex()
        self.changed = trio.Event()
        self._settle = settle

    def __repr__(self) -> str:
        return f"<Sent {self.id}>"

    def wake(self) -> None:
        """Something has become of the message."""
        self.changed.set()
        self.changed = trio.Event()

    async def wait_sent(self) -> None:
        """Wait until the relay has accepted the message for each of the recipient's devices.

        Raises DeliveryFailed if a relay refused it for good. Waits as long as the relay is away.
        Cancellation: stops waiting; the message goes out all the same."""
        await self._settle(self)


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
    _reply: Callable[[str, str], Awaitable[Sent]] = field(repr=False, compare=False)
    _mark_handled: Callable[[], Awaitable[None]] = field(repr=False, compare=False)

    async def reply(self, text: str) -> Sent:
        """Send `text` to the sender. Raises what `Client.send` raises. Cancellation: as there."""
        return await self._reply(self.account_id, text)

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
    reply: Callable[[str, str], Awaitable[Sent]],
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
        mark_handled,
    )
