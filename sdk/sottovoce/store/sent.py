"""What was sent: what became of it, and its text as long as it may have to be sent once more."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import apsw

from sottovoce_wire import limits
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import AccountId, DeviceId, MessageId

from ..protocol.content import ReceiptKind

#: Messages whose state is known, and how long, in seconds: the longest life of an envelope, and a day.
KEPT: Final = 100_000
KEPT_FOR: Final = 31 * limits.DAY
#: Messages whose text is kept until there is a receipt, how long, and how often one is sent once more.
TEXTS: Final = 10_000
TEXT_KEPT_FOR: Final = 7 * limits.DAY
REPEATS: Final = 2
#: Messages sent once more in one transaction.
REPEATED_AT_ONCE: Final = 64

_DEVICE_ID: Final = 16


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message as it was encrypted for these devices. `sent_at` in milliseconds since 1970."""

    message_id: MessageId
    account_id: AccountId
    devices: tuple[DeviceId, ...]
    text: str = field(repr=False)
    ttl: Ttl
    sent_at: int


class Progress(NamedTuple):
    """What has become of a message. Times are milliseconds since 1970; `failure` says why a device will not get it."""

    delivered_at: int | None
    read_at: int | None
    failure: str | None


class Repeats(NamedTuple):
    """A device that is to get once more what was sent after one position and up to another, as far as it has no
    receipt."""

    account_id: AccountId
    device_id: DeviceId
    after: int
    upto: int


class SentTable:
    """Tables `sent_messages` and `wanted_repeats`. Satisfies `protocol.state.SentMessages`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.execute
        self._news: set[MessageId] = set()

    def add(self, message: SentMessage) -> None:
        """Remember a message that is in the outbox."""
        self._execute(
            "INSERT INTO sent_messages (message_id, account_id, devices, text, ttl, sent_at) VALUES (?, ?, ?, ?, ?, ?)",
            (
                message.message_id,
                message.account_id,
                b"".join(message.devices),
                message.text,
                int(message.ttl),
                message.sent_at,
            ),
        )
        self._execute("UPDATE sent_messages SET text = NULL WHERE position = last_insert_rowid() - ?", (TEXTS,))
        self._execute("DELETE FROM sent_messages WHERE position <= last_insert_rowid() - ?", (KEPT,))

    def progress(self, message_id: MessageId) -> Progress | None:
        """What has become of a message; None if none of this id is remembered."""
        row = self._execute(
            "SELECT delivered_at, read_at, failure FROM sent_messages WHERE message_id = ?", (message_id,)
        ).get
        return None if row is None else Progress(*row)

    def fresh(self, message_id: MessageId) -> int:
        """For how many devices a message was encrypted of which nothing has become yet; 0 for any other."""
        row = self._execute(
            "SELECT length(devices) FROM sent_messages WHERE message_id = ?"
            " AND delivered_at IS NULL AND failure IS NULL AND repeats = 0",
            (message_id,),
        ).get
        return 0 if row is None else row // _DEVICE_ID

    def receipted(
        self, account_id: AccountId, message_ids: Sequence[MessageId], kind: ReceiptKind, now_ms: int
    ) -> None:
        """An account says that these were delivered or read. Only what was sent to it is changed."""
        read_at = now_ms if kind is ReceiptKind.READ else None
        for message_id in message_ids:
            changed = self._execute(
                "UPDATE sent_messages SET delivered_at = coalesce(delivered_at, ?), read_at = ?, text = NULL"
                " WHERE message_id = ? AND account_id = ? AND read_at IS NULL RETURNING 1",
                (now_ms, read_at, message_id, account_id),
            ).fetchall()
            if changed:
                self._news.add(message_id)

    def take_news(self) -> set[MessageId]:
        """The messages that receipts came for since the last call."""
        news, self._news = self._news, set()
        return news

    def fail(self, message_id: MessageId, reason: str) -> bool:
        """A device will not get the message; the first reason stays. False if that was known, or there is no such
        message."""
        failed = self._execute(
            "UPDATE sent_messages SET failure = ?, text = NULL WHERE message_id = ? AND failure IS NULL RETURNING 1",
            (reason, message_id),
        ).fetchall()
        return bool(failed)

    def expire(self, now_ms: int) -> None:
        """Wipe what is too old: texts first, then all."""
        self._execute(
            "UPDATE sent_messages SET text = NULL WHERE text IS NOT NULL AND sent_at < ?",
            (now_ms - TEXT_KEPT_FOR * 1000,),
        )
        self._execute("DELETE FROM sent_messages WHERE sent_at < ?", (now_ms - KEPT_FOR * 1000,))

    # --- Once more ---

    def want_repeats(self, account_id: AccountId, device_id: DeviceId, due_at: int | None) -> None:
        """All that was sent to a device so far, and has no receipt, is to be sent once more at `due_at` (unix seconds),
        or after the device is heard."""
        self._execute(
            "INSERT OR REPLACE INTO wanted_repeats (account_id, device_id, after, upto, due_at)"
            " SELECT ?, ?, 0, max(position), ? FROM sent_messages HAVING max(position) IS NOT NULL",
            (account_id, device_id, due_at),
        )

    def device_heard(self, account_id: AccountId, device_id: DeviceId, due_at: int) -> None:
        """What waits for the device to be heard is due then."""
        self._execute(
            "UPDATE wanted_repeats SET due_at = ? WHERE account_id = ? AND device_id = ? AND due_at IS NULL",
            (due_at, account_id, device_id),
        )

    def are_repeats_due(self, now: int) -> bool:
        """Whether something is to be sent once more."""
        return bool(self.repeats_due(now))

    def repeats_due(self, now: int) -> list[Repeats]:
        """The devices that are to get something once more."""
        rows = self._execute(
            "SELECT account_id, device_id, after, upto FROM wanted_repeats WHERE due_at <= ?"
            " AND account_id IN (SELECT account_id FROM peers WHERE is_contact AND forked_list IS NULL)",
            (now,),
        )
        return [Repeats(AccountId(account), DeviceId(device), after, upto) for account, device, after, upto in rows]

    def take_lost(self, repeats: Repeats, now_ms: int) -> list[SentMessage]:
        """The first messages that a device is to get once more, and that are not out of date; they count as sent once
        more. Empty if there is none left: then no more is wanted."""
        rows = self._execute(
            "SELECT position, message_id, devices, text, ttl, sent_at FROM sent_messages"
            " WHERE account_id = ? AND text IS NOT NULL AND position > ? AND position <= ? AND repeats < ?"
            " ORDER BY position LIMIT ?",
            (repeats.account_id, repeats.after, repeats.upto, REPEATS, REPEATED_AT_ONCE),
        )
        found = {position: _sent(repeats.account_id, *row) for position, *row in rows}
        self._continue(repeats, max(found, default=repeats.upto))
        lost = {at: sent for at, sent in found.items() if _is_lost(sent, repeats.device_id, now_ms)}
        for position in lost:
            self._execute("UPDATE sent_messages SET repeats = repeats + 1 WHERE position = ?", (position,))
        return list(lost.values())

    def _continue(self, repeats: Repeats, after: int) -> None:
        """What is left is behind `after`."""
        device = repeats.account_id, repeats.device_id
        if after < repeats.upto:
            query = "UPDATE wanted_repeats SET after = ? WHERE account_id = ? AND device_id = ?"
            self._execute(query, (after, *device))
        else:
            self._execute("DELETE FROM wanted_repeats WHERE account_id = ? AND device_id = ?", device)

    def give_up_repeats(self, account_id: AccountId, device_id: DeviceId) -> None:
        """Nothing is sent to the device once more."""
        self._execute("DELETE FROM wanted_repeats WHERE account_id = ? AND device_id = ?", (account_id, device_id))


def _sent(account_id: AccountId, message_id: bytes, devices: bytes, text: str, ttl: int, sent_at: int) -> SentMessage:
    ids = [DeviceId(devices[at : at + _DEVICE_ID]) for at in range(0, len(devices), _DEVICE_ID)]
    return SentMessage(MessageId(message_id), account_id, tuple(ids), text, Ttl(ttl), sent_at)


def _is_lost(sent: SentMessage, device_id: DeviceId, now_ms: int) -> bool:
    """Whether a device that it was sent to can still want it."""
    lives = min(sent.ttl.seconds, TEXT_KEPT_FOR) * 1000
    return device_id in sent.devices and sent.sent_at + lives > now_ms
