"""Sottovoce for asyncio programs: the trio client's nouns as coroutines, under any event loop.

    async with sottovoce.aio.open_client("alice.db", server="https://chat.example") as me:
        await me.register("alice")
        await me.send("bob", "hello")
        async for message in me.messages():
            await message.reply("heard you")

Here is how an asyncio task waits. What a client does stands in the trio client alone, and its docstrings speak for
both: where they say *cancellation*, that of the asyncio task is meant, `asyncio.timeout` included.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import GenericAlias, TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args

from . import client, message, people
from ._bridge import Call, Each, Face, Hosted, Reading, Slot, direct, faces, plain, result_of, trio_thread, wrapped

Inner = TypeVar("Inner")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

__all__ = ["Client", "Message", "Request", "Sent", "open_client"]


async def _wait(call: Call[T]) -> T:
    """Make the call, and return or raise its outcome.

    Cancellation: cancels the call, and goes on when it has ended; a second one leaves it to end by itself."""
    ended = asyncio.Event()
    call.begin(partial(asyncio.get_running_loop().call_soon_threadsafe, ended.set))
    try:
        await ended.wait()
    except asyncio.CancelledError:
        call.cancel()
        await ended.wait()
        raise
    except BaseException:  # the coroutine was dropped: nothing can be waited for
        call.cancel()
        raise
    return call.result()


def _awaiting(
    method: Callable[Concatenate[Inner, P], Awaitable[R]], wrap: Callable[[Hosted[Any], R], T]
) -> Callable[Concatenate[Face[Inner], P], Coroutine[Any, Any, T]]:
    @faces(method, wrapped(result_of(method), wrap))
    async def awaiting(face: Face[Inner], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return wrap(face._hosted, await _wait(face._hosted.call(partial(method, face._inner, *args, **kwargs))))

    return awaiting


def _iterating(
    method: Callable[Concatenate[Inner, P], AsyncIterator[R]], wrap: Callable[[Hosted[Any], R], T], over: str
) -> Callable[Concatenate[Face[Inner], P], AsyncIterator[T]]:
    """`over`: the same for iterators over the same."""

    (item,) = get_args(result_of(method))

    @faces(method, GenericAlias(AsyncIterator, (wrapped(item, wrap),)))
    def iterating(face: Face[Inner], /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
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

    def __aiter__(self) -> "_Iterator[R, T]":
        return self

    async def __anext__(self) -> T:
        call = self._slot.fetch(self._items)
        try:
            item = await _wait(call)
            if item is not None:
                shown = self._wrap(self._hosted, item)
                self._slot.is_taken = True
                return shown
        except BaseException:
            call.cancel()  # also of what has come: it was not seen
            raise
        raise StopAsyncIteration


def _entering(
    method: Callable[Concatenate[Inner, P], AbstractAsyncContextManager[T]],
) -> Callable[Concatenate[Face[Inner], P], AbstractAsyncContextManager[T]]:
    """Of a context manager whose two ends may be reached in different tasks."""

    @faces(method, GenericAlias(AbstractAsyncContextManager, get_args(result_of(method))))
    def entering(face: Face[Inner], /, *args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _Entering(face._hosted, method(face._inner, *args, **kwargs))

    return entering


class _Entering(AbstractAsyncContextManager[T]):
    def __init__(self, hosted: Hosted[Any], inner: AbstractAsyncContextManager[T]) -> None:
        self._hosted = hosted
        self._inner = inner

    async def __aenter__(self) -> T:
        return await _wait(self._hosted.call(self._inner.__aenter__))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is GeneratorExit:  # the coroutine was dropped: nothing can be waited for
            return None
        return await _wait(self._hosted.call(partial(self._inner.__aexit__, kind, error, trace)))


class Sent(Face[message.Sent]):
    """A message on its way; see `sottovoce.Sent`."""

    __slots__ = ()

    id = Reading(message.Sent, lambda sent: sent.id)
    status = _awaiting(message.Sent.status, plain)
    wait_sent = _awaiting(message.Sent.wait_sent, plain)
    wait_delivered = _awaiting(message.Sent.wait_delivered, plain)
    wait_read = _awaiting(message.Sent.wait_read, plain)
    cancel = _awaiting(message.Sent.cancel, plain)


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
    reply = _awaiting(message.Message.reply, Sent)
    answer = _awaiting(message.Message.answer, Sent)
    mark_handled = _awaiting(message.Message.mark_handled, plain)
    processing = _entering(message.Message.processing)


class Request(Face[people.Request]):
    """What somebody has written whom the person has not accepted; see `sottovoce.Request`."""

    __slots__ = ()

    account_id = Reading(people.Request, lambda of: of.account_id)
    messages = Reading(people.Request, lambda of: of.messages)
    dropped = Reading(people.Request, lambda of: of.dropped)
    accept = _awaiting(people.Request.accept, plain)
    decline = _awaiting(people.Request.decline, plain)
    block = _awaiting(people.Request.block, plain)


class Client(Face[client.Client]):
    """An open client; made by `open_client`. See `sottovoce.Client`."""

    __slots__ = ()

    account_id = Reading(client.Client, lambda me: me.account_id)
    username = Reading(client.Client, lambda me: me.username)
    trouble = Reading(client.Client, lambda me: me.trouble)
    invite_link = direct(client.Client.invite_link, __name__)
    register = _awaiting(client.Client.register, plain)
    send = _awaiting(client.Client.send, Sent)
    sent = _awaiting(client.Client.sent, Sent)
    messages = _iterating(client.Client.messages, Message, "messages")
    pages = _iterating(client.Client.pages, Each(Message), "messages")
    events = _iterating(client.Client.events, plain, "events")
    wait_caught_up = _awaiting(client.Client.wait_caught_up, plain)
    look_up = _awaiting(client.Client.look_up, plain)
    requests = _awaiting(client.Client.requests, Each(Request))
    accept = _awaiting(client.Client.accept, plain)
    decline = _awaiting(client.Client.decline, plain)
    block = _awaiting(client.Client.block, plain)
    unblock = _awaiting(client.Client.unblock, plain)
    contacts = _awaiting(client.Client.contacts, plain)
    contact = _awaiting(client.Client.contact, plain)
    safety_number = _awaiting(client.Client.safety_number, plain)
    set_verified = _awaiting(client.Client.set_verified, plain)
    settle_fork = _awaiting(client.Client.settle_fork, plain)


class _Opening(AbstractAsyncContextManager[Client]):
    """The block of a client. Not a generator's: a dropped one is closed without being waited for."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[client.Client]]) -> None:
        self._opening = opening
        self._hosted: Hosted[client.Client]

    async def __aenter__(self) -> Client:
        self._hosted = Hosted(trio_thread(), self._opening)
        try:
            return Client(self._hosted, await _wait(self._hosted.open()))
        except BaseException as error:
            await self._close(error)
            raise

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._close(error)

    async def _close(self, error: BaseException | None) -> None:
        closing = self._hosted.close(at_once=error is not None)
        if isinstance(error, GeneratorExit) or not self._hosted.thread.is_alive():
            closing.begin(bool)  # the coroutine was dropped, or this is a fork: nothing can be waited for
        else:
            await _wait(closing)


def _opening(
    function: Callable[P, AbstractAsyncContextManager[client.Client]],
) -> Callable[P, AbstractAsyncContextManager[Client]]:
    @faces(function, AbstractAsyncContextManager[Client])
    def opening(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[Client]:
        return _Opening(partial(function, *args, **kwargs))

    return opening


open_client = _opening(client.open_client)
