"""Accounts as the application names them: names, links and ids, requests, contacts, safety numbers.

What accepting and blocking change stands in `protocol.contacts`; here it is looked up, done, and shown.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import trio

from sottovoce_wire import limits
from sottovoce_wire.errors import WireError
from sottovoce_wire.ids import AccountId, account_id_text, check_username, parse_account_id

from . import errors, invites
from .crypto import fingerprint
from .crypto.errors import CryptoRefusal
from .crypto.fingerprint import Comparison, ListState, SafetyCode
from .directory import Directory
from .local import Local
from .protocol import contacts, sessions
from .protocol.state import Incoming, Own
from .store.database import Tables

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contact:
    """An account that the person has written to, accepted or blocked.

    `name`: the username under which it was found, which the directory is trusted for at first contact only.
    `verified_at`: when the person compared safety numbers. `is_forked`: nothing is sent until `Client.settle_fork`.
    """

    account_id: str
    name: str | None
    is_blocked: bool
    verified_at: datetime | None
    is_forked: bool


@dataclass(frozen=True, slots=True)
class RequestedMessage:
    """One message of a request."""

    text: str = field(repr=False)
    sent_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody has written whom the person has not accepted: nothing was answered, and nothing will be
    before `accept`. At most 2,000 messages or 16 MiB are kept; `dropped` came after that and are gone."""

    account_id: str
    messages: tuple[RequestedMessage, ...]
    dropped: int
    _answer: Callable[[str, str], Awaitable[None]] = field(repr=False, compare=False)

    async def accept(self) -> None:
        """The account is a contact, and its messages come through `Client.messages`. Raises StoreFailed."""
        await self._answer(self.account_id, "accept")

    async def decline(self) -> None:
        """Delete the messages. The account may ask again. Raises StoreFailed."""
        await self._answer(self.account_id, "decline")

    async def block(self) -> None:
        """Delete the messages and show nothing of the account from now on. Raises StoreFailed."""
        await self._answer(self.account_id, "block")


@dataclass(frozen=True, slots=True)
class SafetyNumber:
    """What two people compare by other means. `digits`: 60, in twelve groups of five, the same on both sides. `code`:
    145 bytes for a QR code, which also tells the device lists apart."""

    digits: str
    code: bytes = field(repr=False)

    def compare(self, scanned: bytes) -> Comparison:
        """What the other person's code says. Raises InvalidInput if it is none."""
        try:
            return fingerprint.compare(SafetyCode.parse(scanned), SafetyCode.parse(self.code))
        except CryptoRefusal as refusal:
            raise errors.InvalidInput(f"this is not a safety code ({refusal.reason})") from None


class People:
    """The accounts that one client knows."""

    def __init__(
        self,
        local: Local,
        directory: Directory,
        server: str,
        changed: Callable[[], None],
        blocked: Callable[[], Awaitable[None]],
    ) -> None:
        self._local = local
        self._directory = directory
        self._server = server
        self._changed = changed
        self._blocked = blocked
        self._names: dict[str, AccountId] = {}

    async def resolve(self, who: str) -> AccountId:
        """The account that a username, account id or invite link names; a username is pinned when it is first found."""
        if invites.is_link(who):
            server, account_id = checked(invites.parse_link, who)
            if server != self._server:
                raise errors.InvalidInput(f"the link is to an account at {server}, and this client uses {self._server}")
            return account_id
        if len(who) > limits.MAX_USERNAME:
            return checked(parse_account_id, who)
        username = checked(check_username, who)
        known = self._names.get(username) or await self._local.transact(lambda tables: tables.peers.named(username))
        if known is None:
            found = await self._directory.find(username)
            known = await self._local.transact(lambda tables: tables.peers.pin_name(username, found))
        self._names[username] = known
        return known

    async def requests(self) -> list[Request]:
        """What waits to be accepted, one for each account."""
        waiting = await self._local.transact(lambda tables: tables.inbox.waiting())
        return [
            Request(account_id_text(who), tuple(map(_requested, said)), dropped, self.answer)
            for who, said, dropped in waiting
        ]

    async def answer(self, who: str, answer: str) -> None:
        """Accept, decline, block or unblock an account. Raises UnknownRecipient for one that never wrote."""
        account_id = await self.resolve(who)
        act: dict[str, Callable[[Tables, AccountId], None]] = {
            "accept": contacts.accept,
            "decline": contacts.decline,
            "block": contacts.block,
            "unblock": lambda tables, account_id: tables.peers.unblock(account_id),
        }

        def work(tables: Tables) -> None:
            _known(tables, account_id)
            act[answer](tables, account_id)

        await self._local.transact(work)
        self._changed()
        if answer == "block":
            await self._blocked()

    async def contacts(self) -> list[Contact]:
        """Every contact and every blocked account."""
        return await self._local.transact(lambda tables: [_contact(tables, who) for who in tables.peers.contacts()])

    async def contact(self, who: str) -> Contact:
        """What is known of an account. Raises UnknownRecipient if nothing is."""
        account_id = await self.resolve(who)

        def work(tables: Tables) -> Contact:
            _known(tables, account_id)
            return _contact(tables, account_id)

        return await self._local.transact(work)

    async def safety_number(self, own: Own, who: str) -> SafetyNumber:
        """The safety number with an account."""
        account_id = await self.resolve(who)
        device_list = await self._local.transact(lambda tables: _known(tables, account_id))
        lists = [ListState.of(sessions.parse_list(signed)) for signed in (own.device_list, device_list)]
        code = SafetyCode(own.account_id, account_id, lists[0], lists[1])
        digits = await trio.to_thread.run_sync(fingerprint.safety_number, own.account_id, account_id)
        return SafetyNumber(digits, code.pack())

    async def set_verified(self, who: str, is_verified: bool) -> None:
        """The person compared safety numbers with this account, or takes that back."""
        account_id = await self.resolve(who)
        now = self._local.now_ms() // 1000 if is_verified else None

        def work(tables: Tables) -> None:
            _known(tables, account_id)
            tables.peers.set_verified(account_id, now)

        await self._local.transact(work)

    async def settle_fork(self, who: str, *, take_other: bool) -> None:
        """Decide which of two device lists counts."""
        account_id, now = await self.resolve(who), self._local.now_ms() // 1000
        settle = partial(contacts.settle_fork, account_id=account_id, now=now, take_other=take_other)
        await self._local.transact(lambda tables: settle(tables))


def checked(parse: Callable[[str], T], text: str) -> T:
    """Parse what the caller gave; a WireError becomes InvalidInput."""
    try:
        return parse(text)
    except WireError as error:
        raise errors.InvalidInput(error.detail) from None


def moment(milliseconds: int) -> datetime:
    """The sender's clock is the sender's word: a time outside of what datetime can show becomes the nearest it can."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=UTC)


def _known(tables: Tables, account_id: AccountId) -> bytes:
    """The account's signed device list."""
    peer = tables.peers.get(account_id)
    if peer is None:
        raise errors.UnknownRecipient(
            "this client has never met that account",
            hint="if it has written, that is not fetched yet; or write to it",
        )
    return peer.device_list


def _contact(tables: Tables, account_id: AccountId) -> Contact:
    peers = tables.peers
    verified_at = peers.verified_at(account_id)
    return Contact(
        account_id_text(account_id),
        peers.name_of(account_id),
        peers.is_blocked(account_id),
        None if verified_at is None else moment(verified_at * 1000),
        peers.forked_list(account_id) is not None,
    )


def _requested(message: Incoming) -> RequestedMessage:
    return RequestedMessage(message.text, moment(message.sent_at), moment(message.received_at))
