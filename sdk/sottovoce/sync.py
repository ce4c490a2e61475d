"""Sottovoce for programs that block: the trio client's nouns, each call waiting in the thread that makes it.

    with sottovoce.sync.open_client("alice.db", server="https://chat.example") as me:
        me.register("alice")
        me.send("bob", "hello").wait_sent(timeout=10)
        for message in me.messages():
            message.reply("heard you")

Here is how a blocking program waits. What a client does stands in the trio client alone, and its docstrings speak for
both. Ctrl-C ends a call that waits, as a timeout does where one can be given. Several threads may use one client; after
its block, or when another thread ends that, calls raise ClientClosed.
"""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from types import GenericAlias, TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, get_args

import trio

from . import client, errors, message, people
from ._bridge import Call, Each, Face, Hosted, Reading, Slot, direct, faces, plain, result_of, trio_thread, wrapped

Inner = TypeVar("Inner")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

__all__ = ["Client", "Message", "Request", "Sent", "open_client"]

#: What ends a call from outside, in a program that blocks.
CTRL_C: Final = "Ctrl-C"


def _wait(call: Call[T]) -> T:
    """Make the call, and return or raise its outcome. Ctrl-C cancels it, and is raised when it has ended; a second one
    leaves it to end by itself."""
    if call.thread.is_current():
        raise errors.InvalidInput("a blocking call on the thread that all clients live on would wait for itself")
    ended = threading.Lock()
    ended.acquire()
    try:
        call.begin(ended.release)
        ended.acquire()
    except BaseException:
        call.cancel()
        call.begin(ended.release)
        if not call.has_ended:
            ended.acquire()
        raise
    return call.result()


async def _within(seconds: float | None, function: Callable[[], Awaitable[T]]) -> T:
    if seconds is None:
        return await function()
    if not seconds >= 0:
        raise errors.InvalidInput("a timeout is a number of seconds, and not negative")
    with trio.move_on_after(seconds):
        return await function()
    raise errors.TimedOut(f"not within {seconds:g} seconds")


def _blocking(
    method: Callable[Concatenate[Inner, P], Awaitable[R]], wrap: Callable[[Hosted[Any], R], T]
) -> Callable[Concatenate[Face[Inner], P], T]:
    @faces(method, wrapped(result_of(method), wrap), CTRL_C)
    def blocking(face: Face[Inner], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return wrap(face._hosted, _wait(face._hosted.call(partial(method, face._inner, *args, **kwargs))))

    return blocking


def _iterating(
    method: Callable[Concatenate[Inner, P], AsyncIterator[R]], wrap: Callable[[Hosted[Any], R], T], over: str
) -> Callable[Concatenate[Face[Inner], P], Iterator[T]]:
    """`over`: the same for iterators over the same."""

    (item,) = get_args(result_of(method))

    @faces(method, GenericAlias(Iterator, (wrapped(item, wrap),)), CTRL_C)
    def iterating(face: Face[Inner], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = method(face._inner, *args, **kwargs)
        return _Iterator(face._hosted, face._hosted.slot(over), items, wrap)

    return iterating


class _Iterator(Generic[R, T]):
    def __init__(
        self, hosted: Hosted[Any], slot: Slot[R], items: AsyncIterator[R], wrap: Callable[[Hosted[Any], R], T]
    ) -> None:
        self._hosted = hosted
        self._slot = slot
        self._items = items
        self._wrap = wrap

    def __iter__(self) -> "_Iterator[R, T]":
        return self

    def __next__(self) -> T:
        call = self._slot.fetch(self._items)
        try:
            item = _wait(call)
            if item is not None:
                shown = self._wrap(self._hosted, item)
                self._slot.is_taken = True
                return shown
        except BaseException:
            call.cancel()  # also of what has come: it was not seen
            raise
        raise StopIteration


def _entering(
    method: Callable[Concatenate[Inner, P], AbstractAsyncContextManager[T]],
) -> Callable[Concatenate[Face[Inner], P], AbstractContextManager[T]]:
    """Of a context manager whose two ends may be reached in different tasks."""

    @faces(method, GenericAlias(AbstractContextManager, get_args(result_of(method))), CTRL_C)
    def entering(face: Face[Inner], /, *args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[T]:
        return _Entering(face._hosted, method(face._inner, *args, **kwargs))

    return entering


class _Entering(AbstractContextManager[T]):
    def __init__(self, hosted: Hosted[Any], inner: AbstractAsyncContextManager[T]) -> None:
        self._hosted = hosted
        self._inner = inner

    def __enter__(self) -> T:
        return _wait(self._hosted.call(self._inner.__aenter__))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is GeneratorExit:  # perhaps the garbage collector's, on any thread
            return None
        return _wait(self._hosted.call(partial(self._inner.__aexit__, kind, error, trace)))


class Sent(Face[message.Sent]):
    """A message on its way; see `sottovoce.Sent`."""

    __slots__ = ()

    id = Reading(message.Sent, lambda sent: sent.id)
    status = _blocking(message.Sent.status, plain)
    cancel = _blocking(message.Sent.cancel, plain)

    def wait_sent(self, *, timeout: float | None = None) -> None:
        """Wait until the relay has accepted the message for each of the recipient's devices.

        Raises TimedOut after `timeout` seconds, and what `sottovoce.Sent.wait_sent` raises. Ctrl-C: stops waiting; the
        message goes out all the same."""
        _wait(self._hosted.call(partial(_within, timeout, self._inner.wait_sent)))

    def wait_delivered(self, *, timeout: float | None = None) -> None:
        """Wait until one of the recipient's devices says that it has the message, which some never do.

        Raises TimedOut after `timeout` seconds, and what `sottovoce.Sent.wait_delivered` raises. Ctrl-C: as
        `wait_sent`."""
        _wait(self._hosted.call(partial(_within, timeout, self._inner.wait_delivered)))

    def wait_read(self, *, timeout: float | None = None) -> None:
        """Wait until the recipient's application says that it has handled the message. As `wait_delivered`."""
        _wait(self._hosted.call(partial(_within, timeout, self._inner.wait_read)))


class Message(Face[message.Message]):
    """A message that arrived; see `sottovoce.Message`."""

    __slots__ = ()

    id = Reading(message.Message, lambda of: of.id)
    sender = Reading(message.Message, lambda of: of.sender)
    account_id = Reading(message.Message, lambda of: of.account_id)
    text = Reading(message.Message, lambda of: of.text)
    sent_at = Reading(message.Message, lambda of: of.sent_at)
    received_at = Reading(message.Message, lambda of: of.received_at)
    attempt = Reading(message.Message, lambda of: of.attempt)
    reply = _blocking(message.Message.reply, Sent)
    answer = _blocking(message.Message.answer, Sent)
    mark_handled = _blocking(message.Message.mark_handled, plain)
    processing = _entering(message.Message.processing)


class Request(Face[people.Request]):
    """What somebody has written whom the person has not accepted; see `sottovoce.Request`."""

    __slots__ = ()

    account_id = Reading(people.Request, lambda of: of.account_id)
    messages = Reading(people.Request, lambda of: of.messages)
    dropped = Reading(people.Request, lambda of: of.dropped)
    accept = _blocking(people.Request.accept, plain)
    decline = _blocking(people.Request.decline, plain)
    block = _blocking(people.Request.block, plain)


class Client(Face[client.Client]):
    """An open client, which several threads may use; made by `open_client`. See `sottovoce.Client`."""

    __slots__ = ()

    account_id = Reading(client.Client, lambda me: me.account_id)
    username = Reading(client.Client, lambda me: me.username)
    trouble = Reading(client.Client, lambda me: me.trouble)
    invite_link = direct(client.Client.invite_link, __name__)
    register = _blocking(client.Client.register, plain)
    send = _blocking(client.Client.send, Sent)
    sent = _blocking(client.Client.sent, Sent)
    messages = _iterating(client.Client.messages, Message, "messages")
    pages = _iterating(client.Client.pages, Each(Message), "messages")
    events = _iterating(client.Client.events, plain, "events")
    look_up = _blocking(client.Client.look_up, plain)
    requests = _blocking(client.Client.requests, Each(Request))
    accept = _blocking(client.Client.accept, plain)
    decline = _blocking(client.Client.decline, plain)
    block = _blocking(client.Client.block, plain)
    unblock = _blocking(client.Client.unblock, plain)
    contacts = _blocking(client.Client.contacts, plain)
    contact = _blocking(client.Client.contact, plain)
    safety_number = _blocking(client.Client.safety_number, plain)
    set_verified = _blocking(client.Client.set_verified, plain)
    settle_fork = _blocking(client.Client.settle_fork, plain)

    def wait_caught_up(self, *, timeout: float | None = None) -> None:
        """Wait until all that had waited at the relay when this client connected is stored here.

        Raises NotRegistered, and TimedOut after `timeout` seconds. Ctrl-C: stops waiting, nothing else."""
        _wait(self._hosted.call(partial(_within, timeout, self._inner.wait_caught_up)))


class _Opening(AbstractContextManager[Client]):
    """The block of a client. Not a generator's: what the garbage collector ends must not wait."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[client.Client]]) -> None:
        self._opening = opening
        self._hosted: Hosted[client.Client]

    def __enter__(self) -> Client:
        self._hosted = Hosted(trio_thread(), self._opening)
        try:
            return Client(self._hosted, _wait(self._hosted.open()))
        except BaseException as error:
            self._close(error)
            raise

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._close(error)

    def _close(self, error: BaseException | None) -> None:
        closing = self._hosted.close(at_once=error is not None)
        if isinstance(error, GeneratorExit) or not self._hosted.thread.is_alive():
            closing.begin(bool)  # perhaps the garbage collector's, on any thread; or this is a fork
        else:
            _wait(closing)


def _opening(
    function: Callable[P, AbstractAsyncContextManager[client.Client]],
) -> Callable[P, AbstractContextManager[Client]]:
    @faces(function, AbstractContextManager[Client], CTRL_C)
    def opening(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[Client]:
        return _Opening(partial(function, *args, **kwargs))

    return opening


open_client = _opening(client.open_client)
