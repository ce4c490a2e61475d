"""The trio client: one account on one store, sending and receiving until its block ends.

This file joins the parts; receiving, sending, registration, sessions and the store each have their own.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Final

import trio

from sottovoce_wire import limits
from sottovoce_wire.frames import Ttl
from sottovoce_wire.ids import MessageId, account_id_text, check_username
from sottovoce_wire.origins import parse_origin

from . import errors, invites
from .connection import Connection
from .directory import Directory
from .events import ConnectionChanged, Event
from .incoming import Incoming
from .local import Local, unexpected
from .mending import Mender
from .message import Message, Sent
from .network import Internet, Network
from .outgoing import Writer
from .people import Contact, People, Request, SafetyNumber, checked, moment
from .protocol import contact_key
from .protocol.opening import Opener
from .protocol.state import Own
from .receipts import Receipts
from .receiving import Receiver
from .registration import Registration, own_of, prepare
from .sending import Sender
from .store.account import Account
from .store.database import Tables, open_store
from .store.unlock import unlock_by

#: How long the end of a client's block waits for the outbox to empty. What is left goes out at the next opening.
LINGER: Final = 5.0
#: Messages in a page of `Client.pages`.
PAGE: Final = 64
MOST_IN_A_PAGE: Final = 1_000
UPKEEP_EVERY: Final = 300.0
#: How long `register` waits for the relay.
CONNECT_WITHIN: Final = 30.0


@dataclass(frozen=True, slots=True)
class Choices:
    """What the application chose when it opened a client; see `open_client`."""

    invite_code: str = ""
    accept_everyone: bool = False
    receipts: bool = True


@asynccontextmanager
async def open_client(
    path: str | PathLike[str],
    *,
    server: str | None = None,
    passphrase: str | None = None,
    keyring: bool = False,
    invite_code: str = "",
    accept_everyone: bool = False,
    receipts: bool = True,
    proxy: str | None = None,
) -> AsyncIterator["Client"]:
    """Open the store at `path` (made if missing) and keep it connected to `server` while the block runs.

    `server` is an origin such as `https://chat.example`; plain http only on this machine. It may be left out where the
    store has an account, which knows its server. Without a `passphrase` the store's key lies beside it in `path`.key,
    readable by its owner alone; with `keyring` what opens it is kept by the system's keyring (extra `keyring`).
    `invite_code` (up to 128 characters) is for a relay that does not take everybody: needed to register, and again
    where a relay has forgotten a device that was away for long. `accept_everyone`: whoever writes is a contact at once,
    as a service wants it; otherwise strangers wait in `Client.requests`. `receipts`: contacts are told, some seconds
    later, that their messages came and were handled. `proxy`: `socks5h://host:port` or `http://host:port` for every
    connection. Needs no network to open.

    Raises StoreInUse, WrongPassphrase, PassphraseNeeded, KeyringNeeded, KeyringUnavailable, StoreUnreadable,
    StoreVersion, StoreFailed, WrongServer (the store belongs to another server), NotRegistered (no `server` is given,
    and the store has no account) or InvalidInput.
    Cancellation: everything sent stays in the outbox; everything received and not handled is shown again.
    """
    origin = None if server is None else checked(parse_origin, server)
    _check_invite_code(invite_code)
    network = Internet(proxy)
    local = Local(await trio.to_thread.run_sync(open_store, Path(path), unlock_by(passphrase, keyring=keyring)))
    origin = origin or await _server_of(local)
    async with running(local, network, origin, Choices(invite_code, accept_everyone, receipts)) as client:
        yield client


async def _server_of(local: Local) -> str:
    """The server that the store's account is at. Raises NotRegistered; if it raises anything, the store is closed."""
    try:
        account = await local.transact(lambda tables: tables.account.get())
        if account is None:
            raise errors.NotRegistered("this store has no account yet", hint="register a name first, at a server")
    except BaseException:
        with trio.CancelScope(shield=True):
            await local.close()
        raise
    return account.server


@asynccontextmanager
async def running(local: Local, network: Network, origin: str, choices: Choices) -> AsyncIterator["Client"]:
    """A client at work on an open store, which is closed at the end. `origin` is canonical."""
    directory = Directory(origin, network)
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                client = Client(local, directory, network, origin, choices, nursery)
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
            await local.close()


class Client:
    """An open client; made by `open_client`."""

    def __init__(
        self,
        local: Local,
        directory: Directory,
        network: Network,
        origin: str,
        choices: Choices,
        nursery: trio.Nursery,
    ) -> None:
        self._local = local
        self._directory = directory
        self._network = network
        self._origin = origin
        self._choices = choices
        self._nursery = nursery
        self._registration = Registration(local, directory)
        self._sender = Sender(local, origin, nursery, self._settled, network, self._connection_changed, self._mend)
        self._receipts = Receipts(local, self._sender.wake, is_on=choices.receipts)
        self._incoming = Incoming(local, self._reply, self._receipts)
        self._people = People(local, directory, origin, self._arrived, self._renew_contact_key)
        self._writer = Writer(local, directory, self._sender.wake, self._incoming.wake)
        self._registering = trio.Lock()
        self._receiver: Receiver | None = None
        self._mender: Mender | None = None
        self._receiving = trio.CancelScope()
        self._account: Account | None = None
        self._own: Own | None = None

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
        return next(iter([*self._sender.trouble.values()]), None)  # a copy: other threads may ask

    async def register(self, username: str) -> None:
        """Make an account and claim `username` (2 to 32 of a-z, 0-9, dot, underscore, hyphen, a letter first).

        Calling it again with the same name does nothing. Raises NameTaken, AlreadyRegistered, InvalidInput,
        ServerUnreachable, WrongServer, RegistrationClosed, ServerRefused.
        Cancellation: the name may or may not be registered; call again to find out.
        """
        checked(check_username, username)
        async with self._registering:
            if self._account is None or not self._account.registered:
                await self._register(username)
            if self.username != username:
                raise errors.AlreadyRegistered(f"this store is registered as {self.username}")

    async def _register(self, username: str) -> None:
        """Also where an earlier call was cancelled, or failed, after the keyserver had confirmed and before its end."""
        account = await self._local.transact(_registered_account)
        if account is None:
            await self._claim(username)
            account = await self._local.transact(_registered_account)
            assert account is not None  # noqa: S101 - just registered
        self._account = account
        self._nursery.start_soon(self._upkeep, account)

    async def _claim(self, username: str) -> None:
        relay = await self._directory.relay()
        now = self._local.now_ms() // 1000
        account = await self._local.transact(lambda tables: prepare(tables, self._origin, relay, now))
        await self._connect(account)
        await self._wait_connected()
        await self._registration.register(account, username)

    async def _start(self) -> None:
        self._nursery.start_soon(self._local.tidy_when_idle)
        account = await self._local.transact(lambda tables: tables.account.get())
        if account is None:
            return
        if account.server != self._origin:
            raise errors.WrongServer(
                f"this store belongs to {account.server}, not to {self._origin}",
                hint="leave the server out, or use another store for another server",
            )
        if account.registered:
            await self._connect(account)
            self._nursery.start_soon(self._upkeep, account)
            for origin in await self._local.transact(lambda tables: tables.outbox.origins()):
                self._sender.wake(origin)

    async def _connect(self, account: Account) -> None:
        """Keep an owner connection from now on, to the account's relay: an unregistered account may have a new one."""
        self._account = account
        own = await self._local.transact(lambda tables: own_of(tables, account))
        self._own = replace(own, accepts_everyone=self._choices.accept_everyone, sends_receipts=self._choices.receipts)
        self._receiving.cancel()
        self._receiving = trio.CancelScope()
        opener = Opener(self._own)
        settled = self._writer.settled
        self._mender = Mender(
            self._local, self._directory, self._own, opener, self._sender.wake, settled, self._arrived
        )
        self._receiver = Receiver(
            self._local,
            self._own,
            opener,
            self._arrived,
            self._mend,
            network=self._network,
            invite_code=self._choices.invite_code,
            changed=self._connection_changed,
            receipted=settled,
        )
        self._nursery.start_soon(self._receive, self._receiver, self._mender, self._receiving, self._own)

    async def _receive(self, receiver: Receiver, mender: Mender, scope: trio.CancelScope, own: Own) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(mender.run)
                nursery.start_soon(self._receipts.run, own)
                await receiver.run(own.contact.origin)

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
        """Renew prekeys whenever their schedule says so, and the contact key where blocking had to wait for it. A
        keyserver that is away is asked again the next time."""
        while True:
            try:
                await self._renew_contact_key()
                await self._registration.renew(account)
            except errors.SottovoceError:
                pass  # what cannot go on without it says so itself, when something is sent
            except Exception as error:
                unexpected(error)
            await trio.sleep(UPKEEP_EVERY)

    async def _renew_contact_key(self) -> None:
        """Have the relay hear of a new key of the contact queue at once, if one is due."""
        now = self._local.now_ms() // 1000
        due = await self._local.transact(lambda tables: contact_key.due(tables, now))
        if due is not None and self._receiver is not None:
            self._receiver.renew()

    def _connection_changed(self, now: Connection) -> None:
        trouble = "" if now.trouble is None else str(now.trouble)
        at = moment(self._local.now_ms())
        self._incoming.changed(ConnectionChanged(at, now.origin, now.purpose, now.is_up, trouble))

    def _settled(self, message_id: MessageId) -> None:
        self._writer.settled([message_id])
        self._incoming.wake()

    def _arrived(self) -> None:
        self._incoming.wake()
        self._receipts.wake()

    def _mend(self) -> None:
        if self._mender is not None:
            self._mender.wake()

    async def _finish(self) -> None:
        """Give the outbox a moment."""
        if self.trouble is None:
            with trio.move_on_after(LINGER):
                settled = self._sender.settled
                while await self._local.transact(lambda tables: tables.outbox.size()) > 0:
                    await settled.wait()
                    settled = self._sender.settled

    # --- Messages ---

    async def send(self, to: str, text: str, *, ttl: Ttl = Ttl.MONTH) -> Sent:
        """Encrypt `text` for every device of `to` and put it in the outbox; it is durable when this returns.

        `to` is a username, an account id or an invite link. A name is looked up once and pinned: the keyserver is
        trusted for it at first contact; ids and links prove themselves. Whoever is written to is a contact. `ttl`: how
        long the relay keeps it for a recipient who is away. Raises NotRegistered, UnknownRecipient, NoDevices,
        UntrustedKeys, AccountForked, Blocked, MessageTooLarge, InvalidInput, StoreFailed, and ServerUnreachable only
        where keys must be fetched. Cancellation: either nothing happened, or the message goes out.
        """
        return await self._write(to, text, ttl)

    async def _reply(self, to: str, also: Callable[[Tables], None], text: str) -> Sent:
        return await self._write(to, text, Ttl.MONTH, also)

    async def _write(self, to: str, text: str, ttl: Ttl, also: Callable[[Tables], None] = lambda _: None) -> Sent:
        own = self._registered()
        _check_message(text, ttl)
        assert self._account is not None  # noqa: S101 - it is registered
        await self._registration.keep_fresh(self._account)
        return await self._writer.write(own, await self._people.resolve(to), text, ttl, also)

    async def sent(self, message_id: str) -> Sent:
        """The handle of a message that was sent before, also by an earlier run of the program, by its id.

        Raises InvalidInput for an id that is none or is not known, StoreFailed. Cancellation: nothing has happened."""
        return await self._writer.sent(message_id)

    def messages(self, *, timeout: float | None = None) -> AsyncIterator[Message]:
        """Messages of contacts in the order of arrival, waiting for more for ever. One reader at a time, of `pages`
        too: a second that asks meanwhile gets AlreadyReading.

        A message counts as handled when the next is asked for, or by `Message.mark_handled`; a program that ends
        before sees it again. What strangers write waits in `requests`. `timeout`: the iterator ends when nothing has
        come for so many seconds; with 0 after what is here already. Raises NotRegistered, InvalidInput, StoreFailed.
        Cancellation: loses nothing.
        """
        self._registered()
        return self._incoming.messages(timeout)

    def pages(self, size: int = PAGE, *, timeout: float | None = None) -> AsyncIterator[list[Message]]:
        """As `messages`, up to `size` at a time, as they are there: for programs that take in much. All of a page count
        as handled when the next is asked for, or each by `Message.mark_handled`.

        Raises what `messages` raises, and InvalidInput. Cancellation: loses nothing."""
        self._registered()
        if not 1 <= size <= MOST_IN_A_PAGE:
            raise errors.InvalidInput(f"a page has 1 to {MOST_IN_A_PAGE} messages")
        return self._incoming.pages(size, timeout)

    def events(self, *, timeout: float | None = None) -> AsyncIterator[Event]:
        """What happens besides (`sottovoce.events`), waiting for more for ever. One reader at a time: a second that
        asks meanwhile gets AlreadyReading.

        An event is kept until the next is asked for; the newest 1,000 of a kind, where nobody asks. Changes of
        connections are not kept over a restart. `timeout` as in `messages`. Raises InvalidInput, StoreFailed.
        Cancellation: loses nothing."""
        return self._incoming.events(timeout)

    async def wait_caught_up(self) -> None:
        """Wait until all that had waited at the relay when this client connected is stored here.

        Cancellation: stops waiting, nothing else."""
        self._registered()
        assert self._receiver is not None  # noqa: S101 - a registered client has one
        await self._receiver.caught_up.wait()

    # --- People. `who` is a username, an account id or an invite link; all raise InvalidInput, UnknownRecipient and
    # StoreFailed, and ServerUnreachable where a name is looked up for the first time.

    async def look_up(self, who: str) -> str:
        """The account id (52 characters) that a name, a link or an id names."""
        return account_id_text(await self._people.resolve(who))

    async def requests(self) -> list[Request]:
        """What strangers have written, until it is accepted or declined: of 200 accounts and 64 MiB at most.

        Nobody of them has been answered in any way. Raises StoreFailed."""
        return await self._people.requests()

    async def accept(self, who: str) -> None:
        """Make an account that has written a contact; its messages come through `messages`."""
        await self._people.answer(who, "accept")

    async def decline(self, who: str) -> None:
        """Delete what a stranger has written. The account may ask again."""
        await self._people.answer(who, "decline")

    async def block(self, who: str) -> None:
        """Keep and show nothing of what an account writes from now on, and send it nothing. What was accepted before
        stays. It is not told.

        If it was a contact, the others are given a new key to this device's contact queue, and the one that it has is
        worth what a stranger's is; after more than 50 in a month that can take 12 hours."""
        await self._people.answer(who, "block")

    async def unblock(self, who: str) -> None:
        """The account is a stranger again. What it wrote meanwhile is gone."""
        await self._people.answer(who, "unblock")

    async def contacts(self) -> list[Contact]:
        """Every account that was written to, accepted or blocked. Raises StoreFailed."""
        return await self._people.contacts()

    async def contact(self, who: str) -> Contact:
        """What is known of one account."""
        return await self._people.contact(who)

    def invite_link(self) -> str:
        """A link by which others reach this account without trusting a directory. Raises NotRegistered."""
        return invites.invite_link(self._origin, self._registered().account_id)

    async def safety_number(self, who: str) -> SafetyNumber:
        """What the two people compare, to know that no server stands between them. Raises NotRegistered besides."""
        return await self._people.safety_number(self._registered(), who)

    async def set_verified(self, who: str, is_verified: bool = True) -> None:
        """Note that the person compared safety numbers with this account; the key it is pinned to never changes."""
        await self._people.set_verified(who, is_verified)

    async def settle_fork(self, who: str, *, take_other: bool) -> None:
        """After AccountForked: which list counts, the one that was known or the other. Messages go out again."""
        await self._people.settle_fork(who, take_other=take_other)

    def _registered(self) -> Own:
        if self._own is None or self._account is None or not self._account.registered:
            raise errors.NotRegistered("this store has no registered account")
        return self._own


def _registered_account(tables: Tables) -> Account | None:
    """The account, if it is registered. Then nothing needs its root key any more."""
    account = tables.account.get()
    if account is None or not account.registered:
        return None
    tables.account.lock_root()
    return account


def _check_message(text: object, ttl: object) -> None:
    """Not every caller has a type checker."""
    if not isinstance(text, str) or not isinstance(ttl, Ttl):
        raise errors.InvalidInput("a message is a str, and its time to live one of sottovoce.Ttl")


def _check_invite_code(text: str) -> None:
    if len(text) > limits.MAX_REGISTRATION_CODE or not text.isprintable():
        raise errors.InvalidInput(f"an invite code has at most {limits.MAX_REGISTRATION_CODE} printable characters")
