"""Readers of both faces that are interrupted at any moment: what they had not seen is shown to whoever asks next."""

import asyncio
import dis
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
import trio
import trio.testing

from sottovoce import _bridge, aio, client, errors, sync
from sottovoce._bridge import Hosted, TrioThread, trio_thread
from sottovoce.incoming import Incoming
from sottovoce.local import Local
from sottovoce.message import Sent
from sottovoce.protocol import state
from sottovoce.receipts import Receipts
from sottovoce.store.database import Store, Tables, open_memory_store
from sottovoce.testing import sync_world
from sottovoce_wire.ids import AccountId, DeviceId, MessageId

PATIENCE = 60.0
#: More than there are moments at which a reader can be interrupted.
MESSAGES = 100
FACES = {sync.__file__, _bridge.__file__}
#: Between these Python looks for signals, besides the beginning of a function.
INTERRUPTIBLE = ("CALL", "JUMP_BACKWARD")


class Reader:
    """As much of a client as its iterators need, over a store with messages."""

    def __init__(self, store: Store) -> None:
        local = Local(store, inline=True)
        self._incoming = Incoming(local, reply, Receipts(local, lambda _: None, is_on=False))

    def _registered(self) -> None:
        """It is."""


async def reply(_to: str, _also: object, _text: str) -> Sent:
    raise AssertionError("nobody replies here")


def fill(tables: Tables) -> None:
    for number in range(MESSAGES):
        ids = MessageId(number.to_bytes(16, "big")), AccountId(bytes(32)), DeviceId(bytes(16))
        tables.inbox.add(state.Incoming(*ids, str(number), 1, 1), is_request=False)


@asynccontextmanager
async def opened() -> AsyncIterator[client.Client]:
    store = open_memory_store()
    with store.transaction() as tables:
        fill(tables)
    yield cast("client.Client", Reader(store))
    store.close()


@pytest.fixture
def hosted() -> Iterator[tuple[Hosted[client.Client], client.Client]]:
    """A reader on a thread of its own."""
    host = Hosted(TrioThread(), opened)
    try:
        yield host, sync._wait(host.open())
        sync._wait(host.close(at_once=False))
    finally:
        host.thread.end()


@contextmanager
def ctrl_c(at: int) -> Iterator[None]:
    """In the code of the faces, in this thread, at the moment of this number."""
    moments = iter(range(at + 1))

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename not in FACES:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        operation = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if (event == "call" or operation.startswith(INTERRUPTIBLE)) and next(moments, at) == at:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def first(iterator: Iterator[Any]) -> Any:
    """As a loop takes it: the call of `next` would be one more moment, which is no longer the face's."""
    for found in iterator:  # noqa: B007
        break
    return found


def test_ctrl_c_at_any_moment_of_a_reader_loses_nothing_and_counts_as_no_attempt(
    hosted: tuple[Hosted[client.Client], client.Client],
) -> None:
    me = sync.Client(*hosted)
    for number in range(MESSAGES):
        interrupted, asked_next = (me.messages(), me.pages(1)) if number % 2 else (me.pages(2), me.messages())
        found = None
        try:
            with ctrl_c(at=number):
                found = first(interrupted)
        except KeyboardInterrupt:
            found = first(asked_next)
        else:
            break
        message = found[0] if isinstance(found, list) else found
        assert (message.text, message.attempt) == (str(number), 1)
        message.mark_handled()
    assert 10 < number < MESSAGES - 1, "moments at which it was interrupted"


def test_a_task_that_is_cancelled_when_its_message_has_come_has_not_seen_it(
    hosted: tuple[Hosted[client.Client], client.Client],
) -> None:
    host, inner = hosted

    async def main() -> None:
        me = aio.Client(host, inner)
        interrupted = asyncio.ensure_future(anext(me.pages(2)))
        await asyncio.sleep(0)
        while host.thread.unfinished:  # the task cannot go on before this loop does
            _ = [sync._wait(host.thread.call(trio.lowlevel.checkpoint))]
        interrupted.cancel()
        await asyncio.gather(interrupted, return_exceptions=True)
        assert interrupted.cancelled()
        message = await anext(me.messages())
        assert (message.text, message.attempt) == ("0", 1)
        assert [(each.text, each.attempt) for each in await anext(me.pages(2))] == [("1", 1), ("2", 1)]

    asyncio.run(main())


def test_a_thread_that_asks_while_another_waits_is_refused_and_the_other_is_given_what_comes() -> None:
    with sync_world() as world:
        me, friend = world.person("me", accept_everyone=True), world.person("friend", accept_everyone=True)
        first = me.messages()
        slot = me._hosted.slot("messages")
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(next, first)
            while slot.is_taken:
                sync._wait(world._hosted.thread.call(trio.lowlevel.checkpoint))
            for second in (first, me.messages(), me.pages()):
                with pytest.raises(errors.AlreadyReading) as refused:
                    next(second)
            assert "queue" in refused.value.diagnostics()
            friend.send("me", "hello")
            assert reading.result(PATIENCE).text == "hello"
        assert list(me.messages(timeout=0)) == []


def test_a_task_that_asks_while_another_has_not_taken_its_message_costs_nobody_the_message(
    hosted: tuple[Hosted[client.Client], client.Client],
) -> None:
    """Its loop is busy when the message comes, and then it is cancelled."""
    host, inner = hosted

    async def begun(me: aio.Client) -> asyncio.Future[aio.Message]:
        """A task whose call has ended, and which does not know it yet."""
        reading = asyncio.ensure_future(anext(me.messages()))
        await asyncio.sleep(0)
        while host.thread.unfinished:
            _ = [sync._wait(host.thread.call(trio.lowlevel.checkpoint))]
        return reading

    async def main() -> None:
        me = aio.Client(host, inner)
        first, second = await begun(me), await begun(me)
        first.cancel()
        _, refused = await asyncio.gather(first, second, return_exceptions=True)
        assert first.cancelled()
        assert isinstance(refused, errors.AlreadyReading)
        message = await anext(me.messages())
        assert (message.text, message.attempt) == ("0", 1)

    asyncio.run(main())


# --- Ctrl-C while a call waits ---


@contextmanager
def pressed(thread: TrioThread, is_time: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Ctrl-C for the call that the block makes, when `is_time` and all that it can do is wait. The block must raise
    it."""

    async def press() -> None:
        while not (thread.unfinished and is_time()):
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert here is not None
        signal.pthread_kill(here, signal.SIGINT)

    here = threading.current_thread().ident
    assert thread.nursery is not None
    thread.post(partial(thread.nursery.start_soon, press))
    with pytest.raises(KeyboardInterrupt):
        yield


def test_ctrl_c_ends_every_call_that_waits_and_the_client_goes_on() -> None:
    with sync_world() as world:
        me, friend = world.person("me", accept_everyone=True), world.person("friend", accept_everyone=True)
        first = me.send("friend", "are you there?")
        first.wait_sent(timeout=PATIENCE)  # on a connection, which is an event
        for _ in me.events(timeout=0):
            pass
        with world.faults.offline("friend"), world.faults.keyserver.slow(3600, to="me"):
            late = me.send("friend", "you are away")
            for call in (
                partial(next, me.messages()),
                partial(next, me.pages()),
                partial(next, me.events()),
                late.wait_delivered,
                late.wait_read,
                partial(me.send, "nobody", "hello"),
                partial(me.look_up, "nobody"),
                partial(me.accept, "nobody"),
                partial(me.safety_number, "nobody"),
            ):
                with pressed(world._hosted.thread):
                    call()
        with world.faults.offline("me"):
            last = me.send("friend", "I am away")
            with pressed(world._hosted.thread):
                last.wait_sent()
        world.sleep(60)
        read = [next(friend.messages(timeout=PATIENCE)).text for _ in range(3)]
        assert read == ["are you there?", "you are away", "I am away"]


def test_ctrl_c_while_a_server_does_not_answer_leaves_a_store_that_opens_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        opened = partial(sync.open_client, tmp_path / "a.db", server=f"http://127.0.0.1:{mute.getsockname()[1]}")
        with opened() as me, pressed(trio_thread()):
            me.register("anybody")
        with pressed(trio_thread()), opened() as me:
            me.register("anybody")
        with opened() as me:
            assert me.account_id is None
            assert me.contacts() == []


class Door:
    """Something that opens or closes only when it is made to."""

    def __init__(self, *, opens: bool) -> None:
        self.opens = opens
        self.is_stuck = False
        self.is_left = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[client.Client]:
        try:
            if self.opens:
                yield cast("client.Client", self)
            self.is_stuck = True
            await trio.sleep_forever()
        finally:
            self.is_left = True


@pytest.mark.parametrize("opens", [False, True], ids=["opening", "closing"])
def test_ctrl_c_while_a_client_opens_or_closes_has_it_closed_at_once(opens: bool) -> None:
    door = Door(opens=opens)
    with pressed(trio_thread(), lambda: door.is_stuck), sync._Opening(door.open):
        pass
    assert door.is_left
