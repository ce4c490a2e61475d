"""The trio client: one account on one store, sending and receiving until its block ends.

This file joins the parts; receiving, sending, registration, sessions and the store each have their own.
"""

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import Final, TypeVar

import trio

from sottovoce_wire import limits
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import (
    AccountId,
    DeviceId,
    MessageId,
    account_id_text,
    check_username,
    parse_account_id,
)
from sottovoce_wire.origins import parse_origin

from . import errors
from .crypto import primitives
from .crypto.errors import CryptoRefusal
from .directory import Directory
from .local import Local, now_ms, unexpected
from .mending import Mender
from .message import Message, Sent, make_message
from .protocol import sessions
from .protocol.content import MAX_TEXT, Text
from .protocol.opening import Opener
from .protocol.state import Own
from .receiving import Receiver
from .registration import Registration, own_of, prepare
from .sending import Sender
from .store.account import Account
from .store.database import Tables, open_store
from .store.inbox import Unhandled

T = TypeVar("T")

#: How long the end of a client's block waits for the outbox to empty. What is left goes out at the next opening.
LINGER: Final = 2.0
UPKEEP_EVERY: Final = 300.0
#: How long `register` waits for the relay.
CONNECT_WITHIN: Final = 30.0


@asynccontextmanager
async def open_client(
    path: str | PathLike[str], *, server: str, passphrase: str | None = None, invite_code: str = ""
) -> AsyncIterator["Client"]:
    """Open the store at `path` (made if missing) and keep it connected to `server` while the block runs.

    `server` is an origin such as `https://chat.example`; plain http only on this machine. Without a `passphrase` the
    store's key lies beside it in `path`.key, readable by its owner alone. `invite_code` (up to 128 characters) is for a
    relay that does not take everybody: needed to register, and again where a relay has forgotten a device that was away
    for long. Needs no network to open.

    Raises StoreInUse, WrongPassphrase, PassphraseNeeded, StoreUnreadable, StoreVersion, StoreFailed, WrongServer (the
    store belongs to another server) or InvalidInput.
    Cancellation: everything sent stays in the outbox; everything received and not handled is shown again.
    """
    origin = _check(parse_origin, server)
    _check_invite_code(invite_code)
    store = await trio.to_thread.run_sync(open_store, Path(path), passphrase)
    directory = Directory(origin)
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                client = Client(Local(store), directory, origin, invite_code, nursery)
                await client._start()
                yield client
                await client._finish()
            except BaseException as error:  # carried past the nursery, which would wrap it in a group
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised
    finally:
        with trio.CancelScope(shield=True):
            await directory.aclose()
            await trio.to_thread.run_sync(store.close)


class Client:
    """An open client; made by `open_client`."""

    def __init__(
        self, local: Local, directory: Directory, origin: str, invite_code: str, nursery: trio.Nursery
    ) -> None:
        self._local = local
        self._directory = directory
        self._origin = origin
        self._invite_code = invite_code
        self._nursery = nursery
        self._registration = Registration(local, directory)
        self._sender = Sender(local, origin, nursery, self._settled)
        self._registering = trio.Lock()
        self._receiver: Receiver | None = None
        self._receiving = trio.CancelScope()
        self._account: Account | None = None
        self._own: Own | None = None
        self._arrived = trio.Event()
        self._shown: int | None = None
        self._names: dict[str, AccountId] = {}
        self._sent: weakref.WeakValueDictionary[MessageId, Sent] = weakref.WeakValueDictionary()

    # --- The account ---

    @property
    def account_id(self) -> str | None:
        """The account id (52 characters), or None before `register`."""
        return account_id_text(self._own.account_id) if self._own is not None else None

    @property
    def username(self) -> str | None:
        """The registered name."""
        return self._account.username if self._account is not None else None

    @property
    def trouble(self) -> errors.SottovoceError | None:
        """Why there is no connection at present, or None. The client goes on trying."""
        if self._receiver is not None and self._receiver.trouble is not None:
            return self._receiver.trouble
        return next(iter(self._sender.trouble.values()), None)

    @property
    def expired(self) -> int:
        """How many messages the relay has reported, since this client was opened, that expired before they were
        fetched."""
        return 0 if self._receiver is None else self._receiver.expired

    async def register(self, username: str) -> None:
        """Make an account and claim `username` (2 to 32 of a-z, 0-9, dot, underscore, hyphen, a letter first).

        Calling it again with the same name does nothing. Raises NameTaken, AlreadyRegistered, InvalidInput,
        ServerUnreachable, WrongServer, RegistrationClosed, ServerRefused.
        Cancellation: the name may or may not be registered; call again to find out.
        """
        _check(check_username, username)
        async with self._registering:
            if self._account is None or not self._account.registered:
                await self._register(username)
            elif self._account.username != username:
                raise errors.AlreadyRegistered(f"this store is registered as {self._account.username}")

    async def _register(self, username: str) -> None:
        relay = await self._directory.relay()
        account = await self._local.transact(lambda tables: prepare(tables, self._origin, relay))
        await self._connect(account)
        await self._wait_connected()
        await self._registration.register(account, username)
        self._account = await self._local.transact(lambda tables: tables.account.get())
        self._nursery.start_soon(self._upkeep, account)

    async def _start(self) -> None:
        self._nursery.start_soon(self._local.tidy_when_idle)
        account = await self._local.transact(lambda tables: tables.account.get())
        if account is None:
            return
        if account.server != self._origin:
            raise errors.WrongServer(f"this store belongs to {account.server}")
        if account.registered:
            await self._connect(account)
            self._nursery.start_soon(self._upkeep, account)
            for origin in await self._local.transact(lambda tables: tables.outbox.origins()):
                self._sender.wake(origin)

    async def _connect(self, account: Account) -> None:
        """Keep an owner connection from now on, to the account's relay: an unregistered account may have a new one."""
        self._account = account
        self._own = await self._local.transact(lambda tables: own_of(tables, account))
        self._receiving.cancel()
        self._receiving = trio.CancelScope()
        opener = Opener(self._own)
        mender = Mender(self._local, self._directory, self._own, opener, self._sender.wake)
        self._receiver = Receiver(
            self._local, self._own, opener, self._wake_readers, mender.wake, invite_code=self._invite_code
        )
        self._nursery.start_soon(self._receive, self._receiver, mender, self._receiving, self._own.contact.origin)

    async def _receive(self, receiver: Receiver, mender: Mender, scope: trio.CancelScope, origin: str) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mender.run)
                await receiver.run(origin)

    async def _wait_connected(self) -> None:
        assert self._receiver is not None  # noqa: S101 - the caller has connected
        with trio.move_on_after(CONNECT_WITHIN):
            while not self._receiver.ready.is_set():
                if self._receiver.trouble is not None:
                    raise self._receiver.trouble
                with trio.move_on_after(0.1):
                    await self._receiver.ready.wait()
            return
        raise errors.ServerUnreachable("the relay does not answer")

    async def _upkeep(self, account: Account) -> None:
        """Renew prekeys whenever their schedule says so. A keyserver that is away is asked again the next time."""
        while True:
            try:
                await self._registration.renew(account)
            except errors.SottovoceError:
                pass  # what cannot go on without it says so itself, when something is sent
            except Exception as error:
                unexpected(error)
            await trio.sleep(UPKEEP_EVERY)

    async def _finish(self) -> None:
        """Give the outbox a moment."""
        if self.trouble is None:
            with trio.move_on_after(LINGER):
                settled = self._sender.settled
                while await self._local.transact(lambda tables: tables.outbox.size()) > 0:
                    await settled.wait()
                    settled = self._sender.settled

    # --- Sending ---

    async def send(self, to: str, text: str) -> Sent:
        """Encrypt `text` for every device of `to` and put it in the outbox; it is durable when this returns.

        `to` is a username or an account id. A name is looked up once and pinned: the keyserver is trusted for it at
        first contact; an account id proves itself. Raises NotRegistered, UnknownRecipient, NoDevices, UntrustedKeys,
        MessageTooLarge, InvalidInput, ServerUnreachable (only where keys must be fetched), StoreFailed.
        Cancellation: either nothing happened, or the message goes out.
        """
        own = self._registered()
        assert self._account is not None  # noqa: S101 - it is registered
        await self._registration.keep_fresh(self._account)
        account_id = await self._resolve(to)
        if account_id == own.account_id:
            raise errors.InvalidInput("a message to oneself has no recipient")
        if len(_utf8(text)) > MAX_TEXT:
            raise errors.MessageTooLarge(f"a message has at most {MAX_TEXT} bytes of text")
        message_id = MessageId(primitives.random_bytes(16))
        await self._encrypt(own, account_id, Text(message_id, now_ms(), text))
        sent = Sent(message_id, self._wait_settled)
        self._sent[message_id] = sent
        return sent

    async def _resolve(self, to: str) -> AccountId:
        """The account that `to` names; a username is pinned when it is first found."""
        if len(to) > limits.MAX_USERNAME:
            return _check(parse_account_id, to)
        username = _check(check_username, to)
        known = self._names.get(username) or await self._local.transact(lambda tables: tables.peers.named(username))
        if known is None:
            found = await self._directory.find(username)
            known = await self._local.transact(lambda tables: tables.peers.pin_name(username, found))
        self._names[username] = known
        return known

    async def _encrypt(self, own: Own, account_id: AccountId, text: Text) -> None:
        """Put the text in the outbox, after fetching the bundles of devices that there is no session with."""
        now = now_ms() // 1000

        def put(tables: Tables) -> set[str]:
            """The relays that there is something for."""
            envelopes = sessions.fan_out(tables, own, account_id, text, Ttl.MONTH, now)
            if not envelopes:
                raise errors.NoDevices("none of the recipient's devices can be written to at present")
            for envelope in envelopes:
                tables.outbox.add(envelope, now)
            return {envelope.address.origin for envelope in envelopes}

        def put_or_ask(tables: Tables) -> set[str] | list[DeviceId]:
            """As `put`, or the devices whose bundles are needed first (empty: all)."""
            missing = sessions.missing(tables, account_id, now)
            return put(tables) if missing == [] else missing or []

        def put_after(tables: Tables) -> set[str]:
            sessions.learn(tables, peer)
            for bundle in bundles:
                device_id = bundle.entry.device_id
                if exhausted or sessions.sending_session(tables, account_id, device_id, now) is None:
                    sessions.start(tables, own, bundle, now)
            return put(tables)

        exhausted = False
        try:
            done = await self._local.transact(put_or_ask)
        except CryptoRefusal:  # a session that cannot go on: its chain or its prekeys have ended
            exhausted, done = True, []
        if isinstance(done, list):
            peer, bundles = await self._directory.bundles(account_id, done or None, now)
            try:
                done = await self._local.transact(put_after)
            except CryptoRefusal as refusal:
                raise errors.UntrustedKeys(f"the recipient's keys are not to be trusted ({refusal.reason})") from None
        for origin in done:
            self._sender.wake(origin)

    def _settled(self, message_id: MessageId) -> None:
        sent = self._sent.get(message_id)
        if sent is not None:
            sent.changed.set()
            sent.changed = trio.Event()

    async def _wait_settled(self, sent: Sent) -> None:
        while True:
            changed = sent.changed
            waiting, failures = await self._local.transact(
                lambda tables: (tables.outbox.waiting(sent.message_id), tables.outbox.failures(sent.message_id))
            )
            if failures:
                raise errors.DeliveryFailed(f"the relay refused the message ({Code(failures[0]).name.lower()})")
            if waiting == 0:
                return
            await changed.wait()

    # --- Receiving ---

    def messages(self) -> AsyncIterator[Message]:
        """Messages in the order of arrival, waiting for more for ever. One consumer at a time.

        A message counts as handled when the next is asked for, or by `Message.mark_handled`; a program that ends
        before sees it again. Raises NotRegistered, StoreFailed.
        Cancellation: loses nothing.
        """
        self._registered()
        return _Messages(self._next_message)

    async def wait_caught_up(self) -> None:
        """Wait until all that had waited at the relay when this client connected is stored here.

        Cancellation: stops waiting, nothing else."""
        self._registered()
        assert self._receiver is not None  # noqa: S101 - a registered client has one
        await self._receiver.caught_up.wait()

    async def _next_message(self) -> Message:
        """Count the message that was shown last as handled, and show the next, in one transaction."""
        while True:
            arrived, shown = self._arrived, self._shown

            def hand_over(tables: Tables, shown: int | None = shown) -> tuple[int, Message] | None:
                if shown is not None:
                    tables.inbox.mark_handled(shown)
                found = tables.inbox.unhandled(limit=1)
                return (found[0].position, self._present(tables, found[0])) if found else None

            following = await self._local.transact(hand_over)
            self._shown = None
            if following is not None:
                self._shown, message = following
                return message
            await arrived.wait()

    def _present(self, tables: Tables, unhandled: Unhandled) -> Message:
        async def mark_handled() -> None:
            await self._local.transact(lambda tables: tables.inbox.mark_handled(unhandled.position))

        name = tables.peers.name_of(unhandled.message.account_id)
        return make_message(unhandled.message, name, self.send, mark_handled)

    def _wake_readers(self) -> None:
        self._arrived.set()
        self._arrived = trio.Event()

    def _registered(self) -> Own:
        if self._own is None or self._account is None or not self._account.registered:
            raise errors.NotRegistered("this store has no registered account")
        return self._own


class _Messages:
    """The iterator behind `Client.messages`."""

    def __init__(self, following: Callable[[], Awaitable[Message]]) -> None:
        self._following = following

    def __aiter__(self) -> "_Messages":
        return self

    async def __anext__(self) -> Message:
        return await self._following()


def _check(parse: Callable[[str], T], text: str) -> T:
    """Parse what the caller gave; a WireError becomes InvalidInput."""
    try:
        return parse(text)
    except WireError as error:
        raise errors.InvalidInput(error.detail) from None


def _check_invite_code(text: str) -> None:
    if len(text) > limits.MAX_REGISTRATION_CODE or not text.isprintable():
        raise errors.InvalidInput(f"an invite code has at most {limits.MAX_REGISTRATION_CODE} printable characters")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise errors.InvalidInput("the text holds a lone surrogate, which no encoding can carry") from None
