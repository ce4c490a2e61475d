"""What the commands do: thin programs on the SDK, with standard input and output at their ends."""

import json as jsonlib
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import trio

from .. import Client, Event, Message, Sent, errors, events, invites, open_client
from ..message import MEANINGS
from ..protocol.content import MAX_TEXT

Work: TypeAlias = Callable[[], Awaitable[None]]

#: Where a new account is made, if nothing else is said.
DEFAULT_SERVER: Final = "http://127.0.0.1:8480"
#: Messages encrypted ahead of the relay's answers, so that a long input does not fill the store first.
AHEAD: Final = 512
_KEPT: Final = "kept in the store, they go out next time"
#: Not printable by themselves, but part of text: line ends, tabs, and the joiners of many scripts and emoji.
_HARMLESS: Final = "\n\t\u200c\u200d"


@dataclass(frozen=True)
class Place:
    """Which store, on which server (None: the store's own), what opens either, and how the command is spelled here."""

    server: str | None
    store: Path
    passphrase: str | None = field(repr=False)
    invite_code: str = field(repr=False)
    command: str = "sottovoce"


class NotSent(Exception):  # noqa: N818 - an outcome
    """The server has not accepted everything in time; the rest waits in the store."""


def opened(place: Place, *, create: bool = False, accept_everyone: bool = False) -> AbstractAsyncContextManager[Client]:
    """A client on the place's store. Only `register` makes a store: looking must not decide how it is locked."""
    if not create and not place.store.exists():
        raise errors.NotRegistered(
            f"there is no store at {place.store}", hint=f"register a name first: {place.command} register NAME"
        )
    return open_client(
        place.store,
        server=place.server,
        passphrase=place.passphrase,
        invite_code=place.invite_code,
        accept_everyone=accept_everyone,
    )


async def _tell(client: Client, command: str, partner: str = "") -> None:
    """A line on stderr for whatever happens besides messages: why nothing moves, what was lost, who has written. A
    request of `partner` (an account id), with whom the person means to talk, is accepted."""
    told = ""
    async for event in client.events():
        if isinstance(event, events.RequestArrived) and event.account_id == partner:
            await client.accept(partner)
            continue
        line = await _failed(client, event) if isinstance(event, events.MessageFailed) else _line(event, command)
        if line and line != told:
            print(f"sottovoce: {printable(line)}", file=sys.stderr)
        told = line or told


def _line(event: Event, command: str) -> str:
    """An event in words; nothing for one that needs none."""
    match event:
        case events.ConnectionChanged(is_up=False, trouble=trouble) if trouble:
            return f"{trouble}; trying again"
        case events.RequestArrived(account_id=who):
            return f"somebody new has written, {who}: see `{command} requests`"
        case events.RequestsFull():
            return f"strangers have written more than is kept: see `{command} requests`"
        case events.DevicesChanged(account_id=who, is_recovery=True):
            return f"{who} has recovered the account: every device is new, compare safety numbers"
        case events.DevicesChanged(account_id=who, added=added, removed=removed):
            return f"{who} has other devices: {added} added, {removed} removed"
        case events.AccountForked(account_id=who):
            return f"somebody else may have the keys of {who}: nothing is sent there until you decide"
        case events.AccountEnded(account_id=who):
            return f"{who} has given up the account"
        case events.KeyserverBehind(account_id=who):
            return f"the keyserver serves old keys of {who}"
        case events.CloneSuspected(account_id=who):
            return f"a device of {who} runs from a copy, or somebody else has its keys"
        case events.MessagesExpired(count=count):
            return f"{count} messages expired before this device came"
        case events.MessagesUnreadable(count=count):
            return f"{count} envelopes could not be read"
        case events.StoreRestored():
            return "this store is an older copy; new sessions are made"
    return ""


async def _failed(client: Client, event: events.MessageFailed) -> str:
    """In words, by the name under which the person knows whom they wrote to."""
    who = (await client.contact(event.account_id)).name or event.account_id
    return f"a message to {who} does not reach every device: {MEANINGS.get(event.reason, event.reason)}"


async def register(place: Place, name: str) -> None:
    """Claim a name, and print who this store is."""
    try:
        await _register(place, name)
    except errors.NotRegistered:  # no server was named, and a store without an account knows none
        await _register(replace(place, server=DEFAULT_SERVER), name)


async def _register(place: Place, name: str) -> None:
    async with opened(place, create=True) as client:
        await client.register(name)
        _print_account("registered as", client, place)


async def whoami(place: Place) -> None:
    """Print who this store is."""
    async with opened(place) as client:
        _print_account("name      ", client, place)


def _print_account(name_is: str, client: Client, place: Place) -> None:
    server, _ = invites.parse_link(client.invite_link())
    print(f"{name_is} {client.username}\naccount id {client.account_id}")
    print(f"server     {server}\nstore      {place.store}")


async def send(place: Place, to: str, text: str, wait: float) -> None:
    """Send one message, or one for each line of the standard input, and wait until all are accepted."""
    if not text.strip():
        raise errors.InvalidInput("the message is empty", hint="nothing was sent; put the text in quotes")
    async with opened(place) as client:
        outgoing = _Outgoing(client, to, wait)
        work = outgoing.send_lines if text == "-" else partial(outgoing.send, text)
        async with outgoing.interruptible():
            await beside(partial(_tell, client, place.command), work)
            await outgoing.finish()


async def listen(place: Place, json: bool, count: int | None, accept_everyone: bool) -> None:
    """Print messages as they arrive."""
    if count is not None and count < 1:
        raise errors.InvalidInput("--count is at least 1")
    async with opened(place, accept_everyone=accept_everyone) as client:
        tell = partial(_tell, client, place.command)
        await beside(tell, partial(_print_messages, client, json, count))


async def chat(place: Place, to: str, json: bool, wait: float) -> None:
    """Send lines and print messages at the same time, until the input ends."""
    async with opened(place) as client:
        outgoing = _Outgoing(client, to, wait)

        async def talk() -> None:
            await outgoing.send_lines(skip_blank=True)
            await outgoing.finish()

        partner = await client.look_up(to)

        async def hear() -> None:
            tell = partial(_tell, client, place.command, partner)
            await beside(tell, partial(_print_messages, client, json, None))

        async with outgoing.interruptible():
            await beside(hear, talk)


async def beside(other: Work, main: Work) -> None:
    """Run `main` with `other` beside it, which ends with it. Raises what either raises, not in a group."""
    raised: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def run(work: Work) -> None:
            try:
                await work()
            except Exception as error:
                raised.append(error)
                nursery.cancel_scope.cancel()

        nursery.start_soon(run, other)
        await run(main)
        nursery.cancel_scope.cancel()
    if raised:
        raise raised[0]


async def _print_messages(client: Client, json: bool, count: int | None) -> None:
    shown = 0
    async for message in client.messages():
        print(_as_json(message) if json else _as_text(message), flush=True)
        shown += 1
        if shown == count:
            await message.mark_handled()
            return


def _as_json(message: Message) -> str:
    name = message.sender if message.sender != message.account_id else None
    return jsonlib.dumps(
        {
            "id": message.id,
            "sender": message.account_id,
            "name": name,
            "text": message.text,
            "sent_at": message.sent_at.isoformat(),
            "received_at": message.received_at.isoformat(),
        }
    )


def _as_text(message: Message) -> str:
    """Further lines of a message are indented, so that none of them looks like another message."""
    return f"{message.sender}: " + printable(message.text).replace("\n", "\n    ")


def printable(text: str) -> str:
    """The text without control characters: a message must not steer the terminal of whoever reads it."""
    return "".join(c if c.isprintable() or c in _HARMLESS else c.encode("unicode_escape").decode() for c in text)


async def _lines() -> AsyncGenerator[bytes, None]:
    """The standard input's lines without their ends, each as soon as it is there.

    Read by the descriptor, not by `sys.stdin`: a thread that waits in a buffered read crashes the interpreter's end.
    """
    rest = b""
    while piece := await trio.to_thread.run_sync(os.read, 0, 2**16, abandon_on_cancel=True):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_TEXT:
            raise errors.MessageTooLarge(f"a line has more than {MAX_TEXT} bytes")
    if rest:
        yield rest


class _Outgoing:
    """Messages on their way to one recipient, at most AHEAD of them unanswered."""

    def __init__(self, client: Client, to: str, wait: float) -> None:
        if not wait >= 0:
            raise errors.InvalidInput("--wait is a number of seconds")
        self._client = client
        self._to = to
        self._wait = wait
        self._unanswered: deque[Sent] = deque()

    async def send(self, text: str) -> None:
        self._unanswered.append(await self._client.send(self._to, text))
        if len(self._unanswered) > AHEAD:
            await self._settle_first()

    async def send_lines(self, *, skip_blank: bool = False) -> None:
        number = 0
        async with aclosing(_lines()) as lines:
            async for line in lines:
                number += 1
                if skip_blank and not line.strip():
                    continue
                try:
                    await self.send(line.decode("utf-8"))
                except UnicodeDecodeError:
                    await self.finish()
                    raise errors.InvalidInput(f"line {number} is not UTF-8; the lines before it are sent") from None

    async def finish(self) -> None:
        while self._unanswered:
            await self._settle_first()

    @asynccontextmanager
    async def interruptible(self) -> AsyncGenerator[None, None]:
        """If the block is interrupted, a line on stderr says what becomes of messages that are not sent yet."""
        try:
            yield
        except BaseException as ended:
            if not isinstance(ended, Exception):
                with trio.CancelScope(shield=True), suppress(errors.SottovoceError):
                    waiting = [sent for sent in self._unanswered if await sent.status() == "waiting"]
                    if waiting:
                        print(f"sottovoce: {len(waiting)} not sent yet; {_KEPT}", file=sys.stderr)
            raise

    async def _settle_first(self) -> None:
        """Wait for the oldest. Raises NotSent if the relay accepts nothing in time, DeliveryFailed if it refuses."""
        with trio.move_on_after(self._wait) as patience:
            await self._unanswered[0].wait_sent()
        if patience.cancelled_caught:
            reason = self._client.trouble or "the server does not answer"
            raise NotSent(f"{len(self._unanswered)} not sent yet ({reason}); {_KEPT}")
        self._unanswered.popleft()
