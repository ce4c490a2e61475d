"""The one trio thread that the faces for blocking and for asyncio programs share, and how a call gets there and back.

Clients live on that thread; here is how others reach them. What a client does never stands here, nor how a face waits.
"""

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import trio

from . import errors
from .local import unexpected

C = TypeVar("C")
Inner = TypeVar("Inner")
P = ParamSpec("P")
T = TypeVar("T")


class Call(Generic[T]):
    """One run of an async function on the trio thread. `outcome` is there once it has ended, however it ended."""

    def __init__(
        self, thread: "TrioThread", nursery: Callable[[], trio.Nursery | None], function: Callable[[], Awaitable[T]]
    ) -> None:
        self.outcome: Future[T] = Future()
        self.thread = thread
        self._nursery = nursery
        self._function = function
        self._scope = trio.CancelScope()
        self._is_begun = False

    def begin(self) -> None:
        """Have it started. More than once does no harm: who was interrupted here cannot know how far it came."""
        self.thread.watch(self)
        self._post(self._start)

    def cancel(self) -> None:
        """Have it cancelled, even before it has begun. It ends, with an outcome."""
        self._post(self._scope.cancel)

    def refuse(self, error: BaseException) -> None:
        """This is its outcome, unless it has one."""
        with suppress(InvalidStateError):
            self.outcome.set_exception(error)

    def _post(self, function: Callable[[], object]) -> None:
        if not self.thread.post(function):
            self.refuse(_closed())

    def _start(self) -> None:
        nursery = self._nursery()
        if nursery is None:
            self.refuse(_closed())
        elif not self._is_begun:
            self._is_begun = True
            nursery.start_soon(self._run)

    async def _run(self) -> None:
        """Whatever the function raises is its outcome, and goes no further: the thread is everybody's."""
        error: BaseException = _closed()
        try:
            with self._scope:
                self.outcome.set_result(await self._function())
        except trio.Cancelled:
            pass  # the client is being closed
        except BaseException as raised:
            error = raised
        self.refuse(error)


class TrioThread:
    """A daemon thread that runs trio until the process ends."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._token: Future[trio.lowlevel.TrioToken] = Future()
        self.nursery: trio.Nursery | None = None
        self._unfinished: set[Call[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="sottovoce", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it takes calls. Not in a child of the process that started it: a fork copies no threads."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether this is the caller's own thread, where waiting for a call would be waiting for oneself."""
        return threading.get_ident() == self._thread.ident

    def call(self, function: Callable[[], Awaitable[T]]) -> Call[T]:
        """A call that no client's end cancels."""
        return Call(self, lambda: self.nursery, function)

    def watch(self, call: Call[Any]) -> None:
        """See to it that the call has an outcome if the thread should end."""
        self._unfinished.add(call)
        call.outcome.add_done_callback(lambda _: self._unfinished.discard(call))

    def post(self, function: Callable[[], object]) -> bool:
        """Run a function there, soon. False if the thread takes no calls."""
        if not self.is_alive():
            return False
        try:
            self._token.result().run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except Exception as error:
            unexpected(error)
        finally:
            for call in list(self._unfinished):
                call.refuse(_closed())

    async def _serve(self) -> None:
        async with trio.open_nursery() as self.nursery:
            self._token.set_result(trio.lowlevel.current_trio_token())
            await trio.sleep_forever()


class Hosted(Generic[C]):
    """A client, opened and closed by a task of the trio thread, and the calls that others make on it."""

    def __init__(self, thread: TrioThread, opening: Callable[[], AbstractAsyncContextManager[C]]) -> None:
        self.thread = thread
        self._opening = opening
        self._scope = trio.CancelScope()
        self._calls: trio.Nursery | None = None
        self._leave = trio.Event()
        self._left: trio.Event | None = None
        self._failure: BaseException | None = None
        self._slots: dict[str, Slot[Any]] = {}

    def open(self) -> Call[C]:
        """A call that opens the client. Interrupted, it leaves nothing open."""

        async def start() -> C:
            assert self.thread.nursery is not None  # noqa: S101 - the call runs in it
            client: C = await self.thread.nursery.start(self._host)
            return client

        return self.thread.call(start)

    def close(self, *, at_once: bool) -> Call[None]:
        """A call that ends the client's block, `at_once` as an exception in the block would. Other calls on it end with
        ClientClosed. Interrupted, it closes at once. It raises what the end of the block raises."""
        return self.thread.call(partial(self._close, at_once))

    def call(self, function: Callable[[], Awaitable[T]]) -> Call[T]:
        """A call that the client's end cancels."""
        return Call(self.thread, lambda: self._calls, function)

    def slot(self, name: str) -> "Slot[Any]":
        """The slot of this name."""
        return self._slots.setdefault(name, Slot())

    async def _host(self, *, task_status: trio.TaskStatus[C]) -> None:
        self._left = trio.Event()
        is_open = False
        try:
            with self._scope:
                async with self._opening() as client, trio.open_nursery() as self._calls:
                    is_open = True
                    task_status.started(client)
                    await self._wait_for_leave(self._calls)
        except trio.Cancelled:
            raise
        except BaseException as error:
            if not is_open:
                raise
            self._failure = error
        finally:
            self._left.set()

    async def _wait_for_leave(self, calls: trio.Nursery) -> None:
        try:
            await self._leave.wait()
        finally:
            self._calls = None
            calls.cancel_scope.cancel()

    async def _close(self, at_once: bool) -> None:
        if self._left is None:  # never begun
            return
        if at_once:
            self._scope.cancel()
        self._leave.set()
        try:
            await self._left.wait()
        finally:
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._left.wait()
        if self._failure is not None:
            raise self._failure


class Slot(Generic[T]):
    """The item of an iterator that was fetched last, until whoever asked for it has it.

    To fetch a message is to be shown it, and to ask for the next is to have handled it: one that comes when its reader
    was just interrupted must wait here for the next reader.
    """

    def __init__(self) -> None:
        self._item: T | None = None
        self._fetching = trio.Lock()
        self._reader = threading.Lock()

    @contextmanager
    def reader(self) -> Iterator[None]:
        """One reader at a time. Raises InvalidInput if there is one."""
        if not self._reader.acquire(blocking=False):
            raise errors.InvalidInput("another thread or task waits for the next already; one at a time can")
        try:
            yield
        finally:
            self._reader.release()

    async def fetch(self, items: AsyncIterator[T]) -> T | None:
        """The next item, or None after the last. On the trio thread."""
        async with self._fetching:  # an interrupted fetch may not have ended yet
            if self._item is None:
                self._item = await anext(items, None)
            return self._item

    def taken(self) -> None:
        """The reader has it."""
        self._item = None


class Face(Generic[Inner]):
    """An object of a face: the trio client's own object, and the client on whose thread it lives."""

    __slots__ = ("_hosted", "_inner")

    def __init__(self, hosted: Hosted[Any], inner: Inner) -> None:
        self._hosted = hosted
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Face) and type(other) is type(self) and bool(other._inner == self._inner)

    def __hash__(self) -> int:
        return hash(self._inner)


class Reading(Generic[Inner, T]):
    """A property that reads one from the inner object, in the caller's thread: nothing that waits."""

    def __init__(self, kind: type[Inner], read: Callable[[Inner], T]) -> None:
        self._kind = kind
        self._read = read

    def __set_name__(self, _owner: type, name: str) -> None:
        self.__doc__ = getattr(getattr(self._kind, name, None), "__doc__", None)

    @overload
    def __get__(self, face: None, owner: type) -> "Reading[Inner, T]": ...
    @overload
    def __get__(self, face: Face[Inner], owner: type) -> T: ...
    def __get__(self, face: Face[Inner] | None, owner: type) -> "T | Reading[Inner, T]":
        return self if face is None else self._read(face._inner)


def direct(method: Callable[Concatenate[Inner, P], T]) -> Callable[Concatenate[Face[Inner], P], T]:
    """A method that only reads, in the caller's thread."""

    @wraps(method)
    def direct(face: Face[Inner], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(face._inner, *args, **kwargs)

    return direct


def each(wrap: Callable[[Hosted[Any], Inner], T]) -> Callable[[Hosted[Any], Iterable[Inner]], list[T]]:
    """Wraps every object of a result."""
    return lambda hosted, inner: [wrap(hosted, one) for one in inner]


def plain(_hosted: Hosted[Any], result: T) -> T:
    """Wraps nothing: the result is plain data."""
    return result


def trio_thread() -> TrioThread:
    """The process's trio thread, started when it is first asked for, and again after a fork."""
    global _current
    with _starting:
        if _current is None or not _current.is_alive():
            _current = TrioThread()
        return _current


def _closed() -> errors.ClientClosed:
    return errors.ClientClosed("this client is closed, or was opened by the process that this one was forked from")


def _after_fork() -> None:
    global _starting
    _starting = threading.Lock()  # somebody may have held it


_starting = threading.Lock()
_current: TrioThread | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
