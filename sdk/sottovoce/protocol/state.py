"""The rows that the state machines read and write, and the contract of whoever keeps them.

A `State` is handed in for the length of one transaction: all that is written through it becomes durable, or nothing,
and what is kept in memory follows: a ratchet that moved without being stored is never seen again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from sottovoce_wire.frames import KeyClass, Ttl
from sottovoce_wire.ids import AccountId, DeviceId, EnvelopeId, MessageId, QueueId, SendKey

from ..crypto.identity import DeviceKeys
from ..crypto.prekeys import OneTimePrekey, OwnPrekeys
from ..crypto.ratchet import Ratchet, SkippedKey
from ..events import Event
from .content import ReceiptKind
from .routing import Routing


@dataclass(frozen=True, slots=True)
class ContactQueue:
    """Where contacts answer: a relay's origin, and a queue there. The key that opens it is the store's: it changes."""

    origin: str
    queue: QueueId


@dataclass(frozen=True, slots=True)
class Own:
    """What a device knows of itself: its server, account, keys, signed device list, and where contacts answer.

    `accepts_everyone`: whoever writes is a contact at once. `sends_receipts`: contacts are told what has come and was
    read."""

    server: str
    account_id: AccountId
    root_public: bytes
    device: DeviceKeys
    device_list: bytes
    contact: ContactQueue
    accepts_everyone: bool = False
    sends_receipts: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """A queue to send to, and the key that opens it."""

    origin: str
    queue: QueueId
    send_key: SendKey = field(repr=False)
    key_class: KeyClass


@dataclass(frozen=True, slots=True)
class Peer:
    """Another account, as far as it has proven itself: root key (32) and its newest signed device list."""

    account_id: AccountId
    root_public: bytes
    device_list: bytes


@dataclass(frozen=True, slots=True)
class FirstContact:
    """What an initiator repeats until it is answered: its handshake, and the prekey record that it seals to."""

    handshake: bytes
    prekey_record: bytes


@dataclass(frozen=True, slots=True)
class Session:
    """One session with one device. Times are unix seconds.

    `ratchet` moves when it is used; whoever moves it puts the session in the same transaction. `unanswered` is set
    until the peer has answered, `replaced_at` once another session sends. `failures`: messages under known tags that
    did not open since the last that did. `owed`: messages that ask for an answer since this side's last, `answer_by`
    when it is due. `silent` and `silent_since` are the same of the other side: what was sent since something came.
    `told_from`: the chain of the peer's from which on it has this device's present address; None if it was not sent to
    it. `address_confirmed`: a message of such a chain has come.
    """

    session_id: bytes
    account_id: AccountId
    device_id: DeviceId
    generation: int
    ratchet: Ratchet = field(repr=False, compare=False)
    unanswered: FirstContact | None
    address_confirmed: bool = False
    replaced_at: int | None = None
    heard_at: int = 0
    failures: int = 0
    owed: int = 0
    answer_by: int | None = None
    silent: int = 0
    silent_since: int | None = None
    told_from: int | None = None

    @property
    def rank(self) -> tuple[int, bytes]:
        """The session with the greatest rank sends (spec: sessions)."""
        return self.generation, self.session_id


class Want(StrEnum):
    """Why a device is to get a new handshake (spec: sessions, healing)."""

    FAILURES = "failures"
    LOST = "lost"
    UNFINISHED = "unfinished"
    SILENCE = "silence"
    RESTORED = "restored"
    REFUSED = "refused"


class Held(NamedTuple):
    """What is known of a message that was not opened yet. `is_searched`: every session's header keys were tried. One
    that `session_id` has no steps for waits until `retry_at`, in unix seconds."""

    position: int
    tag: bytes
    is_searched: bool
    session_id: bytes | None
    retry_at: int


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that was received, as the application will see it. Times are milliseconds since 1970."""

    message_id: MessageId
    account_id: AccountId
    device_id: DeviceId
    text: str = field(repr=False)
    sent_at: int
    received_at: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One envelope for one device, final: it is sent again as it is, and never encrypted again."""

    message_id: MessageId
    account_id: AccountId
    device_id: DeviceId
    envelope_id: EnvelopeId
    address: Address
    ttl: Ttl
    body: bytes = field(repr=False)


class OwnAccount(Protocol):
    """The device's own account: the keys of its contact queue."""

    def contact_key(self) -> SendKey:
        """The key that contacts are given."""

    def next_contact_key(self) -> SendKey | None:
        """The key that is to take its place, once the relay knows it."""

    def prepare_contact_key(self, key: SendKey) -> None:
        """This key is to take its place."""

    def replace_contact_key(self, now: int) -> None:
        """The next key has taken its place."""

    def contact_keys_replaced(self, since: int) -> tuple[int, int | None]:
        """How many keys were replaced since then, and when the last one was."""


class Sessions(Protocol):
    """Sessions, skipped message keys and accepted handshakes."""

    def of_device(self, account_id: AccountId, device_id: DeviceId) -> Sequence[Session]:
        """All sessions with a device, the greatest rank first."""

    def of_account(self, account_id: AccountId) -> Sequence[Session]:
        """All sessions with the devices of an account."""

    def sending(self, account_id: AccountId, device_id: DeviceId) -> Session | None:
        """The session of the greatest rank with a device."""

    def get(self, session_id: bytes) -> Session | None:
        """The session of this id."""

    def peek(self, session_id: bytes) -> Session | None:
        """The same for a look alone: its ratchet must not be moved."""

    def put(self, session: Session) -> None:
        """Insert or replace."""

    def wipe(self, session_id: bytes) -> None:
        """Wipe a session and its skipped keys."""

    def replaced(self, before: int) -> Sequence[Session]:
        """The sessions that were replaced before this time."""

    def retire(self, now: int) -> Sequence[tuple[AccountId, DeviceId]]:
        """No session sends any more, from `now` on; returns the devices that there were sending ones with."""

    def tell_address(self, now: int, within: int) -> None:
        """All peers are to be given the device's address again, contacts that have ever answered by a random time
        within so many seconds."""

    def owing(self, messages: int, now: int) -> Sequence[Session]:
        """The sending sessions with contacts on which an answer is due: after so many messages, or by the time."""

    def silent(self, messages: int, since: int) -> Sequence[Session]:
        """The sending sessions on which nothing came after so many messages, or since then."""

    def skipped_key(self, session_id: bytes, chain: int, number: int) -> SkippedKey | None:
        """The stored keys of a message that has not come."""

    def skipped_tags(self, session_id: bytes) -> Sequence[bytes]:
        """The tags of all stored keys of a session."""

    def add_skipped(self, session_id: bytes, keys: Sequence[SkippedKey], now: int, *, keep: int) -> Sequence[bytes]:
        """Store message keys, then wipe all but the newest `keep` of the session; returns the tags of those wiped."""

    def remove_skipped(self, session_id: bytes, chain: int, number: int) -> None:
        """Wipe the keys of a message that came."""

    def expire_skipped(self, before: int) -> Sequence[tuple[bytes, bytes]]:
        """Wipe keys stored before this time; returns (session id, tag) of each."""

    def give_up(self, session_id: bytes, chain: int, number: int) -> None:
        """Keys up to this number of a chain were given up; only the newest chain is remembered."""

    def is_given_up(self, session_id: bytes, chain: int, number: int) -> bool:
        """Whether a number of a chain lies where keys were given up."""

    def accepted(self, handshake_digest: bytes) -> bytes | None:
        """The session id that this handshake made."""

    def accepted_count(self, record_id: int) -> int:
        """How many accepted handshakes to these prekeys are remembered."""

    def accept(self, handshake_digest: bytes, session_id: bytes, record_id: int) -> None:
        """Remember a handshake as long as the prekeys that it was made to."""


class Prekeys(Protocol):
    """The device's own prekeys."""

    def records(self, wire_id: int) -> Sequence[OwnPrekeys]:
        """The prekeys whose record id is `wire_id` modulo 256, newest first."""

    def one_time(self, prekey_id: int) -> OneTimePrekey | None:
        """A one-time prekey that has not been used."""

    def use_one_time(self, prekey_id: int) -> None:
        """Wipe a one-time prekey."""


class Peers(Protocol):
    """Other accounts and where their devices are reached."""

    def get(self, account_id: AccountId) -> Peer | None:
        """What is known of an account."""

    def put(self, peer: Peer) -> None:
        """Insert or replace."""

    def is_contact(self, account_id: AccountId) -> bool:
        """Whether the person has written to this account, or accepted its request."""

    def is_blocked(self, account_id: AccountId) -> bool:
        """Whether nothing of this account is shown."""

    def add_contact(self, account_id: AccountId) -> None:
        """This account, which is known, is a contact, and blocked no longer."""

    def block(self, account_id: AccountId) -> None:
        """Nothing of this account is shown from now on."""

    def unblock(self, account_id: AccountId) -> None:
        """The account is a stranger again."""

    def forked_list(self, account_id: AccountId) -> bytes | None:
        """A second signed list for one place in the account's chain."""

    def set_forked_list(self, account_id: AccountId, device_list: bytes | None) -> None:
        """Keep it beside the known one; None when the person has decided."""

    def announce(self, account_id: AccountId, version: int) -> None:
        """The account itself names this version of its device list, which is newer than the known one."""

    def reached(self, account_id: AccountId, version: int) -> None:
        """This version of the list is known."""

    def address(self, account_id: AccountId, device_id: DeviceId) -> Address | None:
        """Where a device is reached."""

    def put_address(self, account_id: AccountId, device_id: DeviceId, address: Address) -> None:
        """Insert or replace."""


class Inbox(Protocol):
    """What arrived."""

    def seen(self, *digests: bytes) -> bool:
        """Whether one of these is among the newest that were remembered."""

    def remember(self, digest: bytes) -> None:
        """Add to a ring of the newest digests."""

    def remember_opened(self, digest: bytes) -> None:
        """The same for a message that was opened: what nobody can open pushes none of these out."""

    def add(self, message: Incoming, *, is_request: bool) -> bool:
        """Store a message; False if this account already sent one with this id. A request waits to be accepted."""

    def request(self, account_id: AccountId) -> tuple[int, int]:
        """(messages, bytes of text) of an account that wait to be accepted."""

    def requests(self) -> tuple[int, int]:
        """(accounts, bytes of text) that wait to be accepted."""

    def drop_request(self, account_id: AccountId) -> None:
        """Count a message of an account that was not kept."""

    def accept(self, account_id: AccountId) -> None:
        """What an account has written is shown to the application."""

    def decline(self, account_id: AccountId) -> None:
        """What an account has written, and nobody accepted, is deleted."""

    def add_undecryptable(self, digest: bytes, reason: str, received_at: int) -> None:
        """Record an envelope that could not be decrypted, in a table that is bounded for each reason."""


class Receipts(Protocol):
    """Receipts that are owed, in a bounded table."""

    def owe(self, account_id: AccountId, message_id: MessageId, due_at: int) -> None:
        """A stored message was received, and read if it is handled; to be told at `due_at`, in milliseconds."""

    def owed(self, account_id: AccountId, kind: ReceiptKind, limit: int) -> list[MessageId]:
        """The first messages of an account that it is to be told this of."""

    def given(self, account_id: AccountId, message_ids: Sequence[MessageId]) -> None:
        """It is told."""

    def forget(self, account_id: AccountId) -> None:
        """The account is told nothing."""


class SentMessages(Protocol):
    """What was sent, and what became of it."""

    def receipted(
        self, account_id: AccountId, message_ids: Sequence[MessageId], kind: ReceiptKind, now_ms: int
    ) -> None:
        """An account says that these were delivered or read. Only what was sent to it is changed."""

    def want_repeats(self, account_id: AccountId, device_id: DeviceId, due_at: int | None) -> None:
        """All that was sent to a device so far, and has no receipt, is to be sent once more at `due_at` (unix seconds),
        or after the device is heard."""

    def device_heard(self, account_id: AccountId, device_id: DeviceId, due_at: int) -> None:
        """What waits for the device to be heard is due then."""

    def are_repeats_due(self, now: int) -> bool:
        """Whether something is to be sent once more."""


class Events(Protocol):
    """What the application is to be told."""

    def add(self, event: Event) -> None:
        """Keep an event until the application has seen it, in a bounded table."""

    def withdraw(self, kind: type[Event], subject: str) -> None:
        """What an event of this kind says of this is true no longer."""


class HeldMessages(Protocol):
    """Messages that belong to no session yet, in a bounded table."""

    def add(
        self,
        message: bytes,
        digest: bytes,
        tag: bytes,
        now: int,
        *,
        is_searched: bool,
        session_id: bytes | None = None,
        retry_at: int = 0,
    ) -> Sequence[bytes]:
        """Hold a message, until `retry_at` for the session if one is named; returns the digests of those that had to go
        for it, oldest first."""

    def all(self) -> Sequence[Held]:
        """Those held, oldest first."""

    def message(self, position: int) -> bytes | None:
        """The message itself, if it is still held."""

    def mark_searched(self, position: int) -> None:
        """Every session's header keys were tried on this one."""

    def unmark(self) -> None:
        """There are new header keys to try on all."""

    def wait(self, position: int, session_id: bytes, retry_at: int) -> None:
        """It belongs to `session_id`, and waits until `retry_at`."""

    def remove(self, position: int) -> None:
        """It was opened, or never will be."""

    def expire(self, before: int) -> Sequence[bytes]:
        """Remove what was held before this time; returns the digests."""


class Wants(Protocol):
    """Devices that are to get a new handshake, and when they got one."""

    def last(self, account_id: AccountId, device_id: DeviceId, want: Want) -> int | None:
        """When a handshake was last made for this reason."""

    def add(self, account_id: AccountId, device_id: DeviceId, want: Want) -> None:
        """A handshake is wanted."""

    def is_wanted(self, account_id: AccountId, device_id: DeviceId, *wants: Want) -> bool:
        """Whether a handshake is wanted for one of these reasons."""

    def of_contacts(self) -> Sequence[tuple[AccountId, DeviceId]]:
        """The devices of contacts with which a handshake is wanted."""

    def done(self, account_id: AccountId, device_id: DeviceId, now: int) -> None:
        """A handshake was made, or is given up for this time: nothing is wanted any more."""


class State(Protocol):
    """All tables, within one transaction."""

    @property
    def account(self) -> OwnAccount:
        """The device's own account."""

    @property
    def sessions(self) -> Sessions:
        """Sessions."""

    @property
    def prekeys(self) -> Prekeys:
        """Own prekeys."""

    @property
    def peers(self) -> Peers:
        """Other accounts."""

    @property
    def inbox(self) -> Inbox:
        """What arrived."""

    @property
    def held(self) -> HeldMessages:
        """Messages without a session."""

    @property
    def wants(self) -> Wants:
        """Handshakes to be made."""

    @property
    def receipts(self) -> Receipts:
        """Receipts that are owed."""

    @property
    def sent(self) -> SentMessages:
        """What was sent."""

    @property
    def events(self) -> Events:
        """What the application is to be told."""

    @property
    def routing(self) -> Routing:
        """The table of tags, as the rows have it. Change it only when nothing can fail any more but the store."""

    @property
    def savepoint(self) -> Callable[[], AbstractContextManager[None]]:
        """A part of the transaction: what its block writes is taken back if it raises."""
