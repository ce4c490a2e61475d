"""The rows that the state machines read and write, and the contract of whoever keeps them.

A `State` is handed in for the length of one transaction: all that is written through it becomes durable, or nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from sottovoce_wire.frames import KeyClass, Ttl
from sottovoce_wire.ids import AccountId, DeviceId, EnvelopeId, MessageId, QueueId, SendKey

from ..crypto.identity import DeviceKeys
from ..crypto.prekeys import OneTimePrekey, OwnPrekeys
from ..crypto.ratchet import SkippedKey
from .content import ContactAddress


@dataclass(frozen=True, slots=True)
class Own:
    """What a device knows of itself: its server, account, keys, signed device list, and where contacts answer."""

    server: str
    account_id: AccountId
    root_public: bytes
    device: DeviceKeys
    device_list: bytes
    contact: ContactAddress


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
    """One session with one device. `ratchet` is the packed ratchet; `unanswered` is set until the peer has answered."""

    session_id: bytes
    account_id: AccountId
    device_id: DeviceId
    generation: int
    ratchet: bytes = field(repr=False)
    unanswered: FirstContact | None
    address_confirmed: bool

    @property
    def rank(self) -> tuple[int, bytes]:
        """The session with the greatest rank sends (spec: sessions)."""
        return self.generation, self.session_id


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


class Sessions(Protocol):
    """Sessions, skipped message keys and accepted handshakes."""

    def of_device(self, account_id: AccountId, device_id: DeviceId) -> Sequence[Session]:
        """All sessions with a device, the greatest rank first."""

    def get(self, session_id: bytes) -> Session | None:
        """The session of this id."""

    def put(self, session: Session) -> None:
        """Insert or replace."""

    def prune(self, account_id: AccountId, device_id: DeviceId, keep: int) -> None:
        """Wipe all but the `keep` greatest sessions with a device, and their skipped keys."""

    def skipped_key(self, session_id: bytes, ratchet_key: bytes, number: int) -> bytes | None:
        """A stored message key (32 bytes)."""

    def add_skipped(self, session_id: bytes, keys: Sequence[SkippedKey], *, keep: int) -> None:
        """Store message keys, then wipe all but the newest `keep` of the session."""

    def remove_skipped(self, session_id: bytes, ratchet_key: bytes, number: int) -> None:
        """Wipe a message key that was used."""

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

    def address(self, account_id: AccountId, device_id: DeviceId) -> Address | None:
        """Where a device is reached."""

    def put_address(self, account_id: AccountId, device_id: DeviceId, address: Address) -> None:
        """Insert or replace."""


class Inbox(Protocol):
    """What arrived."""

    def seen(self, digest: bytes) -> bool:
        """Whether an envelope with this SHA-256 is among the newest that were received."""

    def remember(self, digest: bytes) -> None:
        """Add to a ring of the newest digests."""

    def add(self, message: Incoming) -> bool:
        """Store a message; False if this account already sent one with this id."""

    def add_undecryptable(self, digest: bytes, reason: str, received_at: int) -> None:
        """Record an envelope that could not be decrypted, in a bounded table."""


class State(Protocol):
    """All tables, within one transaction."""

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
    def savepoint(self) -> Callable[[], AbstractContextManager[None]]:
        """A part of the transaction: what its block writes is taken back if it raises."""
