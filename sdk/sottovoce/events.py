"""What a client tells its application besides messages: typed events, plain data.

Kept in the store until the application has seen them, but for `ConnectionChanged`. No event holds a message's text or
a key; accounts are named by their account id (52 characters).
"""

from datetime import datetime
from typing import Final, TypeAlias

import msgspec


class _Event(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """`at`: when it was noticed, on this machine's clock."""

    at: datetime


class RequestArrived(_Event, frozen=True):
    """Somebody whom the person has never written to has written. `Client.requests` has what they say."""

    account_id: str


class RequestsFull(_Event, frozen=True):
    """Strangers have written more than is kept. What they write now is dropped until requests are accepted, declined or
    blocked."""


class DevicesChanged(_Event, frozen=True):
    """An account has signed another list of devices. Messages go to the new ones from now on, and no longer to the
    removed ones. `added` and `removed` count all changes since the application was last told. `is_recovery`: it was
    recovered from its phrase, and every device counts as new; compare safety numbers if that is news to the person."""

    account_id: str
    added: int
    removed: int
    is_recovery: bool


class AccountForked(_Event, frozen=True):
    """Two device lists were signed for one place in an account's chain: somebody else may have its root key. Nothing is
    sent to it until `Client.settle_fork` says which list counts."""

    account_id: str


class AccountEnded(_Event, frozen=True):
    """The account has signed its last device list, which names no device. It reads and writes nothing any more."""

    account_id: str


class KeyserverBehind(_Event, frozen=True):
    """The keyserver serves an older device list than the account itself names: it is stale, or withholds."""

    account_id: str


class CloneSuspected(_Event, frozen=True):
    """Two messages came under one number of a session: one of the contact's devices runs from a copied store, or
    somebody else has its keys."""

    account_id: str


class SessionReplaced(_Event, frozen=True):
    """A contact's device, or this one, has lost what it needs to go on with the other: new keys take the place of those
    that messages went under. Nothing is to be done; what has no receipt is sent once more.

    `reason`: "peer" where the contact's device has made the new session, which it then has. Else this one has, and the
    other is still to answer on it: "failures" (its messages could not be read), "lost" (it no longer had the session),
    "unfinished" (it tried to make one in vain), "silence" (it has said nothing for long), "restored" (this store was
    put back from a copy), "refused" (the relay does not know its address any more), "ended" (all its keys were used).
    `last_heard`: when something came last on the old session. `count`: how many were replaced since the application was
    last told; of several the reason is the last one's, `last_heard` the earliest."""

    account_id: str
    reason: str
    last_heard: datetime
    count: int


class MessagesUnreadable(_Event, frozen=True):
    """`count` envelopes came that could not be read. Who sent them is not known; anybody can."""

    count: int


class MessagesExpired(_Event, frozen=True):
    """`count` messages waited at the relay for longer than they live, and are gone. The count is the relay's word; what
    it says in the moment in which the program is killed may be counted twice, or not at all."""

    count: int


class MessageFailed(_Event, frozen=True):
    """A message of one's own will not reach one of the recipient's devices. `message_id`: 32 hexadecimal digits."""

    account_id: str
    message_id: str
    reason: str


class StoreRestored(_Event, frozen=True):
    """The store is a copy of an earlier state. Nothing is sent under its old sessions; new ones are made."""


class WitnessUnwritable(_Event, frozen=True):
    """The place outside the store that tells a copy from the original cannot be written: a copy that is put back
    would not be noticed."""


class ConnectionChanged(_Event, frozen=True):
    """The connection to a relay is up, or is not and why. `purpose` is "receive" or "send"."""

    origin: str
    purpose: str
    is_up: bool
    trouble: str


Event: TypeAlias = (
    RequestArrived
    | RequestsFull
    | DevicesChanged
    | AccountForked
    | AccountEnded
    | KeyserverBehind
    | CloneSuspected
    | SessionReplaced
    | MessagesUnreadable
    | MessagesExpired
    | MessageFailed
    | StoreRestored
    | WitnessUnwritable
    | ConnectionChanged
)

_decoder: Final[msgspec.msgpack.Decoder[Event]] = msgspec.msgpack.Decoder(Event)


def subject_of(event: Event) -> str:
    """The message or account that an event is about, or nothing."""
    return getattr(event, "message_id", "") or getattr(event, "account_id", "")


def pack(event: Event) -> bytes:
    """The event as the store keeps it."""
    return msgspec.msgpack.encode(event)


def unpack(packed: bytes) -> Event:
    """Inverse of `pack`. Raises msgspec.DecodeError."""
    return _decoder.decode(packed)
