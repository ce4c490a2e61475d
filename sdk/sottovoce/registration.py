"""The device's account at the keyserver: making it, publishing its prekeys, renewing them on schedule."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import trio

from sottovoce_wire import directory as wire
from sottovoce_wire import labels, limits, records
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import AccountId, SendKey
from sottovoce_wire.records import ListFlag

from . import errors
from .crypto import identity, primitives
from .crypto.identity import DeviceKeys, OwnerKey, RootKey
from .crypto.prekeys import OwnPrekeys
from .directory import CounterConflict, Directory, NumberConflict, Signer
from .local import Local
from .protocol.opening import ACCEPTED_HANDSHAKES
from .protocol.state import ContactQueue, Own
from .store.account import CONTACT, INTAKE, Account, OwnQueue
from .store.counter import renumber, start_above
from .store.database import Tables
from .store.prekeys import STOCK

B = TypeVar("B", wire.Register, wire.Publish)
T = TypeVar("T")

REFILL_BELOW: Final = 50
ROTATE_AFTER: Final = 7 * limits.DAY
PUBLISH_AFTER: Final = limits.DAY
STALE_AFTER: Final = 14 * limits.DAY
#: Private prekeys live this long after they were replaced: the longest life of an envelope, and a day.
WIPE_AFTER: Final = 31 * limits.DAY


def own_of(tables: Tables, account: Account) -> Own:
    """What the session manager needs to know of this device. The relay must be known."""
    queue = tables.account.queue(CONTACT)
    contact = ContactQueue(account.relay or "", queue.owner.queue_id)
    return Own(account.server, account.account_id, account.root_public, account.device, account.device_list, contact)


def prepare(tables: Tables, server: str, relay: str, now: int) -> Account:
    """The store's account; made at `now`, with keys, queues and prekeys, if there is none. Nobody is told of it yet."""
    account = tables.account.get()
    if account is None:
        _create(tables, server, now)
    if account is None or not account.registered:
        tables.account.set_relay(relay)
    account = tables.account.get()
    assert account is not None  # noqa: S101 - made just above
    return account


def _create(tables: Tables, server: str, now: int) -> None:
    root, device = RootKey.generate(), DeviceKeys.generate()
    device_list = identity.make_device_list(
        root,
        [device.consent(root.account_id)],
        version=1,
        previous=records.NO_LIST_HASH,
        time=now,
        flag=ListFlag.NORMAL,
    )
    tables.account.create(server, root, device, device_list)
    for kind, key_class in ((INTAKE, KeyClass.STRANGER), (CONTACT, KeyClass.CONTACT)):
        send_key = SendKey(primitives.random_bytes(32))
        tables.account.add_queue(kind, OwnQueue(OwnerKey.generate(), send_key, key_class))
    tables.prekeys.add(OwnPrekeys.generate(device, root.account_id, 1, now))
    tables.prekeys.make_one_time(STOCK)


class Registration:
    """Tells the keyserver about this device. Every change is made durable here before it is said there."""

    def __init__(self, local: Local, directory: Directory) -> None:
        self._local = local
        self._directory = directory
        self._fresh_until = 0
        self._renewing = trio.Lock()  # two at once could publish in the other order than they were numbered

    def _now(self) -> int:
        return self._local.now_ms() // 1000

    async def register(self, account: Account, username: str) -> None:
        """Claim `username` and publish everything, all or nothing. Raises NameTaken and what `Directory` raises.

        Cancellation: the name may or may not be registered; calling again finds out."""

        def sign(tables: Tables) -> wire.Register:
            publish = _publish_body(tables, self._now())
            claim = _claim(tables, account.account_id, username, self._now())
            return wire.Register(account.root_public, account.device_list, publish, claim)

        request, _ = await self._tell(sign, partial(self._directory.register, _signer(account)))

        def confirm(tables: Tables) -> None:
            tables.account.set_registered(username)
            _confirm(tables, request.publish, self._now())

        await self._local.transact(confirm)
        with trio.CancelScope(shield=True):
            await self._local.transact(lambda tables: tables.account.lock_root())

    async def renew(self, account: Account) -> None:
        """Rotate and refill prekeys as their schedule says, and publish if there is anything new or a day has passed.

        Cancellation: safe; the next call goes on."""
        async with self._renewing:
            if not await self._local.transact(lambda tables: _renewal_due(tables, self._now())):
                return
            if await self._publish(account, refills=True) < REFILL_BELOW:
                await self._publish(account, refills=False)

    async def keep_fresh(self, account: Account) -> None:
        """A device whose published prekeys are older than 14 days sends nothing before it has renewed them.

        Raises what `renew` raises. Cancellation: safe."""
        now = self._now()
        if now < self._fresh_until:
            return
        created = await self._local.transact(lambda tables: tables.prekeys.published_created())
        if not 0 <= now - created < STALE_AFTER:
            await self.renew(account)
        self._fresh_until = now + PUBLISH_AFTER

    async def _publish(self, account: Account, *, refills: bool) -> int:
        """How many one-time prekeys the keyserver has now. With `refills`, more are made where these are few, in the
        transaction that confirms the publication: else a kill would have them forgotten for a day."""
        publish = partial(self._directory.publish, _signer(account))
        request, remaining = await self._tell(lambda tables: _publish_body(tables, self._now()), publish)

        def confirm(tables: Tables) -> None:
            _confirm(tables, request, self._now())
            if refills and remaining < REFILL_BELOW:
                tables.prekeys.make_one_time(STOCK - remaining)

        await self._local.transact(confirm)
        return remaining

    async def _tell(self, sign: Callable[[Tables], B], tell: Callable[[int, B], Awaitable[T]]) -> tuple[B, T]:
        """Tell the keyserver what `sign` makes of the store; once more with numbers above those that it knows, if this
        store was put back from a copy and another copy has told it something since."""
        try:
            return await self._signed(sign, tell)
        except NumberConflict as conflict:
            last = conflict.last
        if await self._local.transact(lambda tables: start_above(tables, last, self._now())):
            with suppress(NumberConflict):
                return await self._signed(sign, tell)
        raise errors.ServerRefused("the keyserver refuses every number of this device's records")

    async def _signed(self, sign: Callable[[Tables], B], tell: Callable[[int, B], Awaitable[T]]) -> tuple[B, T]:
        """Under a fresh counter; once more above the keyserver's, if a lost answer left ours behind."""
        request = await self._local.transact(sign)
        counter = await self._local.transact(lambda tables: tables.account.next_counter())
        try:
            return request, await tell(counter, request)
        except CounterConflict as conflict:
            last = conflict.last
        counter = await self._local.transact(lambda tables: tables.account.next_counter(above=last))
        try:
            return request, await tell(counter, request)
        except CounterConflict:
            raise errors.ServerRefused("the keyserver refuses every request counter") from None


def _signer(account: Account) -> Signer:
    return Signer(account.account_id, account.device)


def _claim(tables: Tables, account_id: AccountId, username: str, now: int) -> bytes:
    """The root key's own word that the account wants this name."""
    root = tables.account.root()
    assert root is not None  # noqa: S101 - it is locked when the account is registered, and not before
    return root.sign(labels.USERNAME_CLAIM, records.UsernameClaim(account_id, now, username).pack())


def _renewal_due(tables: Tables, now: int) -> bool:
    """Rotate prekeys that are a week old, worn out, or made by a clock that was ahead; whether to publish anything."""
    account, current = tables.account.get(), tables.prekeys.current()
    if account is None or current is None:
        return False
    age = now - current.created
    worn = tables.sessions.accepted_count(current.record_id) >= ACCEPTED_HANDSHAKES // 2 and age >= limits.DAY
    if age >= ROTATE_AFTER or age < 0 or worn:
        _rotate(tables, account, current.record_id + 1, now)
        return True
    if not tables.prekeys.is_newest_published() or tables.prekeys.unpublished(1):
        return True
    return abs(now - account.published_at) >= PUBLISH_AFTER


def _rotate(tables: Tables, account: Account, record_id: int, now: int) -> None:
    """New prekeys. Those of a store that begins anew are all replaced while the keyserver has not heard of it."""
    if any(prekey.id == account.one_time_from for prekey in tables.prekeys.unpublished(1)):
        renumber(tables, record_id, now)
    else:
        tables.prekeys.add(OwnPrekeys.generate(account.device, account.account_id, record_id, now))


def _publish_body(tables: Tables, now: int) -> wire.Publish:
    account, current = tables.account.get(), tables.prekeys.current()
    if account is None or account.relay is None or current is None:
        raise errors.NotRegistered("this store has no account yet")
    intake = tables.account.queue(INTAKE)
    contact = records.ContactRecord(
        account.account_id,
        account.device.device_id,
        tables.account.next_contact_sequence(),
        now,
        now + limits.RECORD_LIFETIME,
        intake.owner.queue_id,
        intake.send_key,
        account.relay,
    )
    fresh = tables.prekeys.unpublished(limits.MAX_ONE_TIME_PREKEYS)
    return wire.Publish(
        current.record,
        account.device.sign_record(labels.CONTACT_RECORD, contact.pack()),
        [wire.OneTimePrekey(prekey.id, prekey.public) for prekey in fresh],
        account.one_time_from,
    )


def _confirm(tables: Tables, published: wire.Publish, now: int) -> None:
    """The keyserver has taken this: older prekeys are replaced, and wiped when no envelope can need them any more."""
    payload, _ = records.split_signed(published.prekey_record)
    tables.account.set_published(now)
    tables.prekeys.replace_older(records.PrekeyRecord.parse(payload).record_id, now)
    tables.prekeys.wipe_replaced(now - WIPE_AFTER)
    if published.one_time_prekeys:
        tables.prekeys.mark_published(published.one_time_prekeys[-1].id)
