"""The one trio thread that the faces for blocking and for asyncio programs share, and how a call gets there and back.

Clients live on that thread; here is how others reach them. What a client does never stands here, nor how a face waits.
"""

import inspect
import os
import threading
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Concatenate, Generic, Never, ParamSpec, TypeVar, cast, overload

import trio

from . import errors
from .incoming import Following, already_reading
from .local import unexpected

C = TypeVar("C")
Inner = TypeVar("Inner")
P = ParamSpec("P")
T = TypeVar("T")


class Call(Generic[T]):
    """One run of an async function on the trio thread. It ends, and tells so, whatever happens.

    It shares no `Condition`, `Event` or `Future` between threads: Ctrl-C at the wrong moment leaves the lock inside
    taken for ever, and the trio thread, which is everybody's, waiting for it. `scope` is what cancels it, for who needs
    to know there.
    """

    def __init__(
        self,
        thread: "TrioThread",
        nursery: Callable[[], trio.Nursery | None],
        function: Callable[[], Awaitable[T]],
        unwanted: Callable[[T], object] = lambda _: None,
        scope: trio.CancelScope | None = None,
    ) -> None:
        self.thread = thread
        self.has_ended = False
        self._nursery = nursery
        self._function = function
        self._unwanted = unwanted
        self._scope = scope or trio.CancelScope()
        self._is_begun = False
        self._tell: Callable[[], object] = bool
        self._results: list[T] = []
        self._error: BaseException | None = None

    def begin(self, tell: Callable[[], object]) -> None:
        """Have it started; `tell` is called once it has ended, on some thread. To begin it again does no harm: who was
        interrupted here cannot know how far it came."""
        self._tell = tell
        self.thread.unfinished.add(self)
        self._post(self._start)

    def cancel(self) -> None:
        """Have it cancelled, even before it has begun. It ends all the same; a result that it has by then goes to
        `unwanted`, on the trio thread."""
        self._post(self._cancel)

    def result(self) -> T:
        """What the function returned, or raise what it raised, or ClientClosed. Only once it has ended."""
        if self._results:
            return self._results[0]
        raise self._error or _closed()

    def end(self) -> None:
        """It ends now, with what it has."""
        self.thread.unfinished.discard(self)
        if not self.has_ended:
            self.has_ended = True
            with suppress(RuntimeError):  # nobody waits: the event loop is closed
                self._tell()

    def _post(self, function: Callable[[], object]) -> None:
        if not self.thread.post(function):
            self.end()

    def _start(self) -> None:
        nursery = self._nursery()
        if nursery is None or self.has_ended:
            self.end()
        elif not self._is_begun:
            self._is_begun = True
            nursery.start_soon(self._run)

    async def _run(self) -> None:
        """Whatever the function raises is the call's, and goes no further: the thread is everybody's."""
        try:
            with self._scope:
                self._results.append(await self._function())
        except trio.Cancelled:
            pass  # the client is being closed
        except BaseExceptionGroup as group:
            self._error = group.split(trio.Cancelled)[1]  # nothing, if the client is being closed
        except BaseException as error:
            self._error = error
        if self._scope.cancel_called:
            self._discard()
        self.end()

    def _cancel(self) -> None:
        if not self._scope.cancel_called and self.has_ended:
            self._discard()
        self._scope.cancel()

    def _discard(self) -> None:
        for result in self._results:
            self._unwanted(result)


class TrioThread:
    """A daemon thread that runs trio until the process ends, or until `end`. `clock`: trio's, in place of the real."""

    def __init__(self, clock: trio.abc.Clock | None = None) -> None:
        self.nursery: trio.Nursery | None = None
        self.unfinished: set[Call[Any]] = set()
        self._clock = clock
        self._pid = os.getpid()
        self._token: trio.lowlevel.TrioToken | None = None
        self._starting = threading.Lock()
        self._starting.acquire()
        self._thread = threading.Thread(target=self._run, name="sottovoce", daemon=True)
        self._thread.start()
        self._starting.acquire()
        if self._token is None:
            raise errors.Unexpected("the thread that all clients live on could not be started")

    def is_alive(self) -> bool:
        """Whether it takes calls. Not in a child of the process that started it: a fork copies no threads."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether this is the caller's own thread, where waiting for a call would be waiting for oneself."""
        return threading.get_ident() == self._thread.ident

    def call(self, function: Callable[[], Awaitable[T]]) -> Call[T]:
        """A call that no client's end cancels."""
        return Call(self, lambda: self.nursery, function)

    def end(self) -> None:
        """Have it end, and every call with it; returns when it has. Not for the thread that is everybody's."""
        if self.nursery is not None:
            self.post(self.nursery.cancel_scope.cancel)
        self._thread.join()

    def post(self, function: Callable[[], object]) -> bool:
        """Run a function there, soon. False if the thread takes no calls."""
        if self._token is None or not self.is_alive():
            return False
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True

    def _run(self) -> None:
        try:
            trio.run(self._serve, clock=self._clock)
        except Exception as error:
            unexpected(error)
        finally:
            for call in list(self.unfinished):
                call.end()
            if self._token is None:
                self._starting.release()

    async def _serve(self) -> None:
        async with trio.open_nursery() as self.nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._starting.release()
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
            assert self.thread.nursery is not None  # noqa: S101 - this runs in it
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
        """Where iterators over the same are read, by its name."""
        return self._slots.setdefault(name, Slot(self.thread, lambda: self._calls))

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
    """Where one reader at a time is given items, of any iterator over the same.

    To fetch a message is to be shown it, and to ask for the next is to have handled it. So an item belongs to who asked
    until that one has it or is known to be interrupted; meanwhile nobody else may ask.
    """

    def __init__(self, thread: TrioThread, nursery: Callable[[], trio.Nursery | None]) -> None:
        self.is_taken = True
        self._thread = thread
        self._nursery = nursery
        self._turn = trio.Lock()
        self._reader = trio.CancelScope()

    def fetch(self, items: AsyncIterator[T]) -> Call[T | None]:
        """A call for the next item, or None after the last. Who is given one sets `is_taken`, as the very last that an
        interruption could come before, or cancels the call: then the item is the next. Raises AlreadyReading."""
        following, scope = cast("Following[T]", items), trio.CancelScope()
        function, unwanted = partial(self._fetch, following, scope), partial(_put_back, following)
        return Call(self._thread, self._nursery, function, unwanted, scope)

    async def _fetch(self, items: Following[T], scope: trio.CancelScope) -> T | None:
        self._refuse_second()
        async with self._turn:  # whoever was interrupted may take its time to end
            self._refuse_second()
            self._reader, self.is_taken = scope, False
            item: T | None = None
            try:
                item = await anext(items, None)
            finally:
                self.is_taken = item is None
            return item

    def _refuse_second(self) -> None:
        if not self.is_taken and not self._reader.cancel_called:
            raise already_reading()


def _put_back(items: Following[T], item: T | None) -> None:
    """Nobody has seen this item of `items`. On the trio thread."""
    if item is not None:
        items.put_back(item)


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

    def __set__(self, _face: Face[Inner], _value: Never) -> None:
        raise AttributeError("this can only be read")

    @overload
    def __get__(self, face: None, owner: type) -> "Reading[Inner, T]": ...
    @overload
    def __get__(self, face: Face[Inner], owner: type) -> T: ...
    def __get__(self, face: Face[Inner] | None, owner: type) -> "T | Reading[Inner, T]":
        return self if face is None else self._read(face._inner)


def direct(method: Callable[Concatenate[Inner, P], T], module: str) -> Callable[Concatenate[Face[Inner], P], T]:
    """A method that only reads, in the caller's thread; of a face in `module`."""

    @wraps(method)
    def direct(face: Face[Inner], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(face._inner, *args, **kwargs)

    direct.__module__ = module
    return direct


@dataclass(frozen=True)
class Each(Generic[Inner, T]):
    """Wraps every object of a result."""

    wrap: Callable[[Hosted[Any], Inner], T]

    def __call__(self, hosted: Hosted[Any], inner: Iterable[Inner]) -> list[T]:
        return [self.wrap(hosted, one) for one in inner]


def plain(_hosted: Hosted[Any], result: T) -> T:
    """Wraps nothing: the result is plain data."""
    return result


def wrapped(result: object, wrap: object) -> object:
    """The type of a result after `wrap`, for whoever reads a signature."""
    if isinstance(wrap, Each):
        return types.GenericAlias(list, (wrap.wrap,))
    return wrap if isinstance(wrap, type) else result


def result_of(method: Callable[..., object]) -> Any:
    """The type that a method of the trio client says it returns."""
    return inspect.signature(method).return_annotation


def faces(
    method: Callable[..., object], returns: object, cancellation: str = "Cancellation"
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """As `functools.wraps`, so that help tells of the face: of its own module, what it `returns`, and what it calls
    cancellation."""
    signature = inspect.signature(method).replace(return_annotation=returns)

    def dress(function: Callable[P, T]) -> Callable[P, T]:
        dressed = wraps(method, assigned=("__name__", "__qualname__"))(function)
        dressed.__doc__ = (method.__doc__ or "").replace("Cancellation:", f"{cancellation}:")
        dressed.__annotations__ = {**method.__annotations__, "return": returns}
        vars(dressed)["__signature__"] = signature
        return dressed

    return dress


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
