"""What the application holds: a message that arrived, and one that was sent."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

from sottovoce_wire.ids import AccountId, MessageId, account_id_text

from .protocol.state import Incoming


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

    async def wait_sent(self) -> None:
        """Wait until the relay has accepted the message for each of the recipient's devices.

        Raises DeliveryFailed if a relay refused it for good. Waits as long as the relay is away.
        Cancellation: stops waiting; the message goes out all the same."""
        await self._settle(self)


@dataclass(frozen=True, slots=True)
class Message:
    """A message that arrived. It counts as handled, and is not shown again, when the next one is asked for, or once
    `mark_handled` has returned.

    `sender`: the name under which this client found the account, else the account id (52 characters).
    """

    id: str
    sender: str
    account_id: str
    text: str = field(repr=False)
    sent_at: datetime
    received_at: datetime
    _reply: Callable[[str, str], Awaitable[Sent]] = field(repr=False, compare=False)
    _mark_handled: Callable[[], Awaitable[None]] = field(repr=False, compare=False)

    async def reply(self, text: str) -> Sent:
        """Send `text` to the sender. Raises what `Client.send` raises. Cancellation: as there."""
        return await self._reply(self.account_id, text)

    async def mark_handled(self) -> None:
        """The program is done with this message, and leaves without asking for the next. Raises StoreFailed.

        Cancellation: it counts as handled, or not."""
        await self._mark_handled()


def make_message(
    incoming: Incoming,
    name: str | None,
    reply: Callable[[str, str], Awaitable[Sent]],
    mark_handled: Callable[[], Awaitable[None]],
) -> Message:
    """The application's view of a stored message; `name` is a pinned username of the sender."""
    account_id = account_id_text(AccountId(incoming.account_id))
    return Message(
        incoming.message_id.hex(),
        name or account_id,
        account_id,
        incoming.text,
        _moment(incoming.sent_at),
        _moment(incoming.received_at),
        reply,
        mark_handled,
    )


def _moment(milliseconds: int) -> datetime:
    """The sender's clock is the sender's word: a time outside of what datetime can show becomes the nearest it can."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=UTC)
