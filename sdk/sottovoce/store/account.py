"""The device's own account: keys, signed list, queues, and the counters that must never repeat.

The account's root key lies here wrapped under a key that the database does not hold. Spec: store.
"""

from dataclasses import dataclass, field
from typing import Final

import apsw

from sottovoce_wire import ids, labels, limits
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import AccountId, SendKey

from .. import errors
from ..crypto import primitives
from ..crypto.errors import CryptoRefusal
from ..crypto.identity import DeviceKeys, OwnerKey, RootKey

INTAKE: Final = "intake"
CONTACT: Final = "contact"


@dataclass(frozen=True, slots=True)
class Account:
    """The account row, with its keys parsed. `server` is the keyserver's origin, `relay` that of the queues' relay.
    The one-time prekeys that the keyserver is to hand out begin with `one_time_from`."""

    server: str
    root_public: bytes
    device: DeviceKeys
    device_list: bytes
    registered: bool
    username: str | None
    relay: str | None
    published_at: int
    one_time_from: int

    @property
    def account_id(self) -> AccountId:
        """The hash of the root key."""
        return ids.account_id_of(self.root_public)


@dataclass(frozen=True, slots=True)
class OwnQueue:
    """A queue of this device, and the send key that is handed out."""

    owner: OwnerKey
    send_key: SendKey = field(repr=False)
    key_class: KeyClass


class RootLock:
    """The key (32 bytes) under which the account's root key is wrapped, until it is dropped. `stays_open`: it never is,
    as in a store in memory, which has nowhere else to keep it."""

    __slots__ = ("_key", "_stays_open")

    def __init__(self, key: bytes, *, stays_open: bool = False) -> None:
        self._key: bytes | None = key
        self._stays_open = stays_open

    def wrap(self, root: RootKey) -> bytes:
        """The root key as the database keeps it (60 bytes)."""
        assert self._key is not None  # noqa: S101 - an account is made once, and registered after
        return primitives.wrap_key(self._key, root.entropy, labels.WRAPPED_ROOT + root.public)

    def unwrap(self, wrapped: bytes, public: bytes) -> RootKey | None:
        """The root key; None once the key is dropped. Raises CryptoRefusal if it is not that of `public`."""
        if self._key is None:
            return None
        return RootKey.from_entropy(primitives.unwrap_key(self._key, wrapped, labels.WRAPPED_ROOT + public))

    def drop(self) -> None:
        """From now on the root key cannot be had of this store, until it is opened again."""
        if not self._stays_open:
            self._key = None


class AccountTable:
    """Tables `account`, `own_queues` and `contact_keys_replaced`. Satisfies `protocol.state.OwnAccount`."""

    def __init__(self, connection: apsw.Connection, root_lock: RootLock) -> None:
        self._execute = connection.execute
        self._root_lock = root_lock

    def get(self) -> Account | None:
        """The account of this store, if one was made."""
        row = self._execute(
            "SELECT server, root_public, device, device_list, registered, username, relay, published_at, one_time_from"
            " FROM account"
        ).get
        if row is None:
            return None
        server, root_public, device, device_list, registered, username, relay, published_at, one_time_from = row
        return Account(
            server,
            root_public,
            DeviceKeys.unpack(device),
            device_list,
            bool(registered),
            username,
            relay,
            published_at,
            one_time_from,
        )

    def create(self, server: str, root: RootKey, device: DeviceKeys, device_list: bytes) -> None:
        """Store a new account, not yet registered."""
        self._execute(
            "INSERT INTO account VALUES (1, ?, ?, ?, ?, ?, 0, NULL, NULL, 0, 0, 0, 0)",
            (server, root.public, self._root_lock.wrap(root), device.pack(), device_list),
        )

    def root(self) -> RootKey | None:
        """The root key of the account, which there is, while it may have to sign; None from its registration on, which
        is all that it signs. Raises StoreUnreadable."""
        wrapped, public = self._execute("SELECT wrapped_root, root_public FROM account").get
        try:
            return self._root_lock.unwrap(wrapped, public)
        except CryptoRefusal:
            raise errors.StoreUnreadable("the store's key file belongs to another") from None

    def lock_root(self) -> None:
        """Forget what opens the root key if the account is registered. Outside the transaction that registered it."""
        if self._execute("SELECT registered FROM account").get:
            self._root_lock.drop()

    def set_relay(self, relay: str) -> None:
        """The relay on which this device's queues are."""
        self._execute("UPDATE account SET relay = ?", (relay,))

    def set_registered(self, username: str) -> None:
        """The keyserver has confirmed the account and its name."""
        self._execute("UPDATE account SET registered = 1, username = ?", (username,))

    def set_published(self, now: int) -> None:
        """The keyserver has confirmed the current records."""
        self._execute("UPDATE account SET published_at = ?", (now,))

    def set_one_time_from(self, prekey_id: int) -> None:
        """Those that the keyserver is to hand out begin with this id; all others it drops."""
        self._execute("UPDATE account SET one_time_from = ?", (prekey_id,))

    def next_counter(self, above: int = 0) -> int:
        """A request counter never used before, greater than `above`; it counts as used from the commit on."""
        return self._next("request_counter", above)

    def next_contact_sequence(self) -> int:
        """A contact record sequence never used before."""
        return self._next("contact_sequence", 0)

    def skip_to(self, number: int) -> None:
        """The next contact record has a sequence above this one."""
        self._execute("UPDATE account SET contact_sequence = max(contact_sequence, ?)", (number,))

    def _next(self, column: str, above: int) -> int:
        value: int = self._execute(
            f"UPDATE account SET {column} = max({column}, ?) + 1 RETURNING {column}",  # noqa: S608 - two fixed names
            (above,),
        ).get
        return value

    def queue(self, kind: str) -> OwnQueue:
        """The queue of this kind."""
        seed, send_key, key_class = self._execute(
            "SELECT owner_seed, send_key, key_class FROM own_queues WHERE kind = ?", (kind,)
        ).get
        return OwnQueue(OwnerKey.from_seed(seed), SendKey(send_key), KeyClass(key_class))

    def contact_key(self) -> SendKey:
        """The key that contacts are given."""
        return SendKey(self._execute("SELECT send_key FROM own_queues WHERE kind = ?", (CONTACT,)).get)

    def next_contact_key(self) -> SendKey | None:
        """The key that is to take its place, once the relay knows it."""
        key: bytes | None = self._execute("SELECT next_key FROM own_queues WHERE kind = ?", (CONTACT,)).get
        return None if key is None else SendKey(key)

    def prepare_contact_key(self, key: SendKey) -> None:
        """This key is to take its place."""
        self._execute("UPDATE own_queues SET next_key = ? WHERE kind = ?", (key, CONTACT))

    def replace_contact_key(self, now: int) -> None:
        """The next key, which there is, has taken its place."""
        self._execute("UPDATE own_queues SET send_key = next_key, next_key = NULL WHERE kind = ?", (CONTACT,))
        self._execute("DELETE FROM contact_keys_replaced WHERE replaced_at <= ?", (now - limits.DEMOTED_LIFETIME,))
        self._execute("INSERT INTO contact_keys_replaced (replaced_at) VALUES (?)", (now,))

    def contact_keys_replaced(self, since: int) -> tuple[int, int | None]:
        """How many keys were replaced since then, and when the last one was (unix seconds)."""
        count: int = self._execute("SELECT count(*) FROM contact_keys_replaced WHERE replaced_at > ?", (since,)).get
        query = "SELECT replaced_at FROM contact_keys_replaced ORDER BY position DESC LIMIT 1"
        return count, self._execute(query).get

    def add_queue(self, kind: str, queue: OwnQueue) -> None:
        """Store a new queue's keys, before the relay hears of it."""
        self._execute(
            "INSERT INTO own_queues VALUES (?, ?, ?, ?, NULL)",
            (kind, queue.owner.seed, queue.send_key, int(queue.key_class)),
        )
