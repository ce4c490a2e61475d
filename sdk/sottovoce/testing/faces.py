"""Worlds for programs that block or run on asyncio: the trio world, on a thread of its own.

    with sottovoce.testing.sync_world() as world:
        alice = world.person("alice")
        bob = world.person("bob", accept_everyone=True)
        alice.send("bob", "hello")

Here is how such a test reaches its world. What a world does stands in `world` alone.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial, wraps
from math import inf
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import trio
from trio.testing import MockClock

from .. import aio, sync
from .._bridge import Face, Hosted, TrioThread, faces
from ..client import Client
from .bad_keyserver import KeyserverFaults
from .clock import Clock
from .faults import Faults
from .network import ORIGIN
from .wire import Wire
from .world import World, world

P = ParamSpec("P")
T = TypeVar("T")


class _House(Face[World]):
    """What the worlds of both faces have in common. Made by `sync_world` and `aio_world`.

    `clock`, `faults` and `wire` are the trio world's: a call of theirs happens on its thread, and waits for it, which
    takes no time; what they hold is given as it is then.
    """

    __slots__ = ("_asleep", "_people")

    def __init__(self, hosted: Hosted[World], inner: World) -> None:
        super().__init__(hosted, inner)
        self._people: dict[str | None, Hosted[Client]] = {}
        self._asleep = 0

    @property
    def clock(self) -> Clock:
        """The time of day for everybody. It goes on at its usual pace, and by leaps with `advance` and `sleep`."""
        return cast("Clock", _There(self._hosted.thread, self._inner.clock))

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return cast("Faults", _There(self._hosted.thread, self._inner.faults))

    @property
    def wire(self) -> Wire:
        """What passed between clients and servers."""
        return cast("Wire", _There(self._hosted.thread, self._inner.wire))

    @property
    def origin(self) -> str:
        """The servers' address, as accounts and invite links name it."""
        return ORIGIN

    async def _sleep(self, seconds: float) -> None:
        """Under a clock that leaps whenever trio waits."""
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)  # noqa: S101 - `_house` made it
        self._asleep += 1
        clock.autojump_threshold = 0
        try:
            await trio.sleep(seconds)
        finally:
            self._asleep -= 1
            clock.autojump_threshold = 0 if self._asleep else inf


def _coming_sync(
    method: Callable[Concatenate[World, P], Awaitable[Client]],
) -> Callable[Concatenate["SyncWorld", P], sync.Client]:
    @faces(method, sync.Client, sync.CTRL_C)
    def coming(here: "SyncWorld", /, *args: P.args, **kwargs: P.kwargs) -> sync.Client:
        hosted = _lodging(here, partial(method, here._inner, *args, **kwargs))
        client = sync._wait(hosted.open())
        here._people[client.username] = hosted
        return sync.Client(hosted, client)

    return coming


def _coming_aio(
    method: Callable[Concatenate[World, P], Awaitable[Client]],
) -> Callable[Concatenate["AioWorld", P], Coroutine[Any, Any, aio.Client]]:
    @faces(method, aio.Client)
    async def coming(here: "AioWorld", /, *args: P.args, **kwargs: P.kwargs) -> aio.Client:
        hosted = _lodging(here, partial(method, here._inner, *args, **kwargs))
        client = await aio._wait(hosted.open())
        here._people[client.username] = hosted
        return aio.Client(hosted, client)

    return coming


class SyncWorld(_House):
    """The world of a program that blocks; made by `sync_world`. See `World`."""

    __slots__ = ()

    person = _coming_sync(World.person)

    def crash(self, name: str) -> None:
        """The person's client ends between two transactions, as when its process is killed; `person` opens it again.

        Calls that wait on it raise ClientClosed. Raises KeyError for somebody who is not here."""
        sync._wait(self._people.pop(name).close(at_once=True))

    def sleep(self, seconds: float) -> None:
        """Let time go by, with all that clients and servers do in it; it takes no time of the machine's."""
        sync._wait(self._hosted.thread.call(partial(self._sleep, seconds)))


class AioWorld(_House):
    """The world of a program that runs on asyncio; made by `aio_world`. See `World`."""

    __slots__ = ()

    person = _coming_aio(World.person)

    async def crash(self, name: str) -> None:
        """The person's client ends between two transactions, as when its process is killed; `person` opens it again.

        Calls that wait on it raise ClientClosed. Raises KeyError for somebody who is not here. Cancellation: it ends
        all the same."""
        await aio._wait(self._people.pop(name).close(at_once=True))

    async def sleep(self, seconds: float) -> None:
        """Let time go by, with all that clients and servers do in it; it takes no time of the machine's.

        Cancellation: wakes up."""
        await aio._wait(self._hosted.thread.call(partial(self._sleep, seconds)))


def sync_world() -> AbstractContextManager[SyncWorld]:
    """A new world for clients of `sottovoce.sync`, which ends with the block: calls that wait then raise ClientClosed.

    Its people may be used by several threads."""
    return _house(SyncWorld)


def aio_world() -> AbstractContextManager[AioWorld]:
    """A new world for clients of `sottovoce.aio`, which ends with the block: calls that wait then raise ClientClosed.

    A plain `with`, inside or around `asyncio.run`: it begins and ends within milliseconds."""
    return _house(AioWorld)


@contextmanager
def _house(kind: Callable[[Hosted[World], World], T]) -> Iterator[T]:
    """Under a clock that goes on by itself: one that always leaps when trio waits would not wait for other threads."""
    hosted = Hosted(TrioThread(MockClock(rate=1)), world)
    try:
        yield kind(hosted, sync._wait(hosted.open()))
    finally:
        try:
            sync._wait(hosted.close(at_once=True))
        finally:
            hosted.thread.end()


def _lodging(here: _House, coming: Callable[[], Awaitable[Client]]) -> Hosted[Client]:
    return Hosted(here._hosted.thread, partial(_staying, here._inner, coming))


@asynccontextmanager
async def _staying(where: World, coming: Callable[[], Awaitable[Client]]) -> AsyncIterator[Client]:
    client = await coming()
    try:
        yield client
    finally:
        with trio.CancelScope(shield=True), suppress(KeyError):  # the world may have ended before
            await where.crash(str(client.username))


class _There:
    """What belongs to another thread: each call and each reading happens there, and is waited for."""

    def __init__(self, thread: TrioThread, of: object) -> None:
        self._thread = thread
        self._of = of

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._shown(_there(self._thread, partial(getattr, self._of, name)))

    def _shown(self, found: Any) -> Any:
        if isinstance(found, KeyserverFaults):
            return _There(self._thread, found)
        if isinstance(found, AbstractContextManager):
            return _Block(self._thread, found)
        if callable(found):
            return wraps(found)(
                lambda *args, **kwargs: self._shown(_there(self._thread, partial(found, *args, **kwargs)))
            )
        return list(found) if isinstance(found, list) else found


class _Block(AbstractContextManager[T]):
    """A block whose two ends happen on another thread."""

    def __init__(self, thread: TrioThread, inner: AbstractContextManager[T]) -> None:
        self._thread = thread
        self._inner = inner

    def __enter__(self) -> T:
        return _there(self._thread, self._inner.__enter__)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return _there(self._thread, partial(self._inner.__exit__, kind, error, trace))


def _there(thread: TrioThread, function: Callable[[], T]) -> T:
    async def call() -> T:
        return function()

    return sync._wait(thread.call(call))
