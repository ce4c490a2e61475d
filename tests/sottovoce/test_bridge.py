"""The trio thread behind the faces: calls that end whatever happens, and a thread that nothing can take from others."""

import asyncio
import inspect
import logging
import pydoc
import re
import signal
import subprocess
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar, get_type_hints

import pytest
import trio
from mypy import api as mypy

import sottovoce
from sottovoce import aio, errors, sync
from sottovoce._bridge import Call, Face, Hosted, Reading, Slot, TrioThread, trio_thread
from sottovoce.sync import _wait

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
NOWHERE = "http://127.0.0.1:9"


class Room:
    """Something to open: what has become of it, and a nursery in which it may break."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.left = threading.Event()
        self.is_finished = False
        self.nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Room"]:
        self.entered.set()
        try:
            async with trio.open_nursery() as self.nursery:
                yield self
                self.is_finished = True
        finally:
            self.left.set()

    @asynccontextmanager
    async def open_slowly(self) -> AsyncIterator["Room"]:
        async with self.open():
            await trio.sleep_forever()
            yield self

    async def echo(self, word: str) -> str:
        await trio.lowlevel.checkpoint()
        return word


@contextmanager
def hosted(opening: Callable[[], AbstractAsyncContextManager[Room]]) -> Iterator[Hosted[Room]]:
    host = Hosted(trio_thread(), opening)
    _wait(host.open())
    yield host
    _wait(host.close(at_once=False))


def begun(call: Call[T], *, times: int = 1) -> tuple[Call[T], threading.Event]:
    """The call, and what tells that it has ended."""
    ended = threading.Event()
    for _ in range(times):
        call.begin(ended.set)
    return call, ended


def say(host: Hosted[Room], room: Room, word: str) -> str:
    return _wait(host.call(partial(room.echo, word)))


def test_a_block_that_ends_well_and_one_that_ends_at_once_are_told_apart() -> None:
    well, at_once = Room(), Room()
    with hosted(well.open):
        pass
    host = Hosted(trio_thread(), at_once.open)
    _wait(host.open())
    _wait(host.close(at_once=True))
    assert (well.is_finished, at_once.is_finished) == (True, False)
    assert well.left.is_set()
    assert at_once.left.is_set()


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(3), KeyboardInterrupt(), BaseExceptionGroup("x", [SystemExit(3)])],
    ids=lambda error: type(error).__name__,
)
def test_what_a_call_raises_reaches_its_caller_and_nobody_else(error: BaseException) -> None:
    async def fail() -> None:
        raise error

    room = Room()
    with hosted(room.open) as host:
        with pytest.raises(type(error)) as caught:
            _wait(host.call(fail))
        assert repr(caught.value) == repr(error)
        assert say(host, room, "on") == "on"


def test_a_client_that_breaks_by_itself_takes_only_its_own_calls_with_it() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    whole, broken = Room(), Room()
    with hosted(whole.open) as other:
        host = Hosted(trio_thread(), broken.open)
        _wait(host.open())
        waiting, ended = begun(host.call(trio.sleep_forever))
        assert broken.nursery is not None
        host.thread.post(partial(broken.nursery.start_soon, fail))
        assert ended.wait(PATIENCE)
        with pytest.raises(errors.ClientClosed):
            waiting.result()
        with pytest.raises(errors.ClientClosed):
            say(host, broken, "anybody")
        with pytest.raises(ExceptionGroup):
            _wait(host.close(at_once=False))
        assert say(other, whole, "on") == "on"


def test_calls_under_way_end_when_the_client_is_closed() -> None:
    async def sleep_in_company() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    room = Room()
    with hosted(room.open) as host:
        calls = [begun(host.call(function))[0] for function in (trio.sleep_forever, sleep_in_company)]
        say(host, room, "begun")
    for call in calls:
        assert call.has_ended
        with pytest.raises(errors.ClientClosed):
            call.result()


def test_an_abandoned_client_is_in_nobodys_way() -> None:
    abandoned, room = Room(), Room()
    host = Hosted(trio_thread(), abandoned.open)
    _wait(host.open())
    with hosted(room.open) as other:
        assert say(other, room, "on") == "on"
    _wait(host.close(at_once=True))


def test_an_opening_that_is_cancelled_leaves_nothing_open() -> None:
    room = Room()
    host = Hosted(trio_thread(), room.open_slowly)
    opening, ended = begun(host.open())
    assert room.entered.wait(PATIENCE)
    opening.cancel()
    assert ended.wait(PATIENCE)
    assert room.left.is_set()
    _wait(host.close(at_once=True))


def test_a_task_of_asyncio_that_is_cancelled_goes_on_when_its_call_has_ended() -> None:
    told = []

    async def main() -> None:
        waiting = asyncio.Event()
        begin = partial(asyncio.get_running_loop().call_soon_threadsafe, waiting.set)

        async def wait() -> None:
            begin()
            try:
                await trio.sleep_forever()
            finally:
                told.append("ended")

        task = asyncio.ensure_future(aio._wait(host.call(wait)))
        await waiting.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert told == ["ended"]

    room = Room()
    with hosted(room.open) as host:
        asyncio.run(main())


def test_a_call_that_is_cancelled_before_it_began_does_nothing() -> None:
    room, done = Room(), []

    async def act() -> None:
        await trio.lowlevel.checkpoint()
        done.append("it")

    with hosted(room.open) as host:
        call = host.call(act)
        call.cancel()
        _, ended = begun(call)
        assert ended.wait(PATIENCE)
    assert done == []


def test_a_call_is_begun_once_however_often_it_is_asked_for() -> None:
    room, done = Room(), []

    async def act() -> None:
        done.append("it")
        await trio.lowlevel.checkpoint()

    with hosted(room.open) as host:
        call, ended = begun(host.call(act), times=2)
        assert ended.wait(PATIENCE)
        call.begin(ended.set)
        say(host, room, "after")
    assert done == ["it"]


class Numbers:
    """0, 1, 2, as an iterator of the client gives them: what is put back is the next."""

    def __init__(self) -> None:
        self._next = 0

    def __aiter__(self) -> "Numbers":
        return self

    async def __anext__(self) -> int:
        with trio.CancelScope(shield=self._next == 1):  # what cannot be cancelled any more, like a commit
            await trio.sleep(0.01)
        if self._next == 3:
            raise StopAsyncIteration
        self._next += 1
        return self._next - 1

    def put_back(self, number: int) -> None:
        self._next = number


def taken(slot: Slot[int], numbers: Numbers) -> int | None:
    """What a reader is given who is not interrupted."""
    number = _wait(slot.fetch(numbers))
    slot.is_taken = True
    return number


def test_an_item_that_came_too_late_for_its_reader_is_the_next_readers() -> None:
    room, numbers = Room(), Numbers()
    with hosted(room.open) as host:
        slot = host.slot("numbers")
        ended = slot.fetch(numbers)
        assert _wait(ended) == 0
        ended.cancel()  # its reader was interrupted when it had it in hand
        assert taken(slot, numbers) == 0
        under_way, _ = begun(slot.fetch(numbers))
        say(host, room, "it is waiting")
        under_way.cancel()
        assert [taken(slot, numbers) for _ in range(3)] == [1, 2, None]


def test_whoever_asks_while_an_item_is_not_taken_is_refused_until_its_reader_has_it_or_gives_it_up() -> None:
    """Otherwise the item would count as handled, and perhaps nobody has seen it."""
    room, numbers = Room(), Numbers()
    with hosted(room.open) as host:
        slot = host.slot("numbers")
        first = slot.fetch(numbers)
        assert _wait(first) == 0
        with pytest.raises(errors.AlreadyReading):
            _wait(slot.fetch(numbers))
        first.cancel()
        assert [taken(slot, numbers) for _ in range(4)] == [0, 1, 2, None]
        assert taken(slot, numbers) is None


def test_all_clients_live_on_one_thread_that_does_not_keep_the_process() -> None:
    first, second = Room(), Room()
    with hosted(first.open), hosted(second.open):
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "sottovoce"]
        assert thread.daemon


def test_a_blocking_call_on_the_clients_own_thread_is_refused() -> None:
    room = Room()
    with hosted(room.open) as host:

        async def call_blocking() -> str:
            await trio.lowlevel.checkpoint()
            return say(host, room, "never")

        with pytest.raises(errors.InvalidInput):
            _wait(host.call(call_blocking))


def test_a_generator_that_is_dropped_on_the_clients_thread_closes_its_client_there(tmp_path: Path) -> None:
    """The garbage collector runs on any thread; on this one it must not wait."""

    def hold() -> Iterator[sync.Client]:
        with sync.open_client(tmp_path / "a.db", server=NOWHERE) as me:
            yield me

    held = [hold()]
    client = next(held[0])

    async def drop() -> None:
        await trio.lowlevel.checkpoint()
        held.clear()

    for step in (drop, trio.lowlevel.checkpoint, trio.lowlevel.checkpoint):
        _wait(trio_thread().call(step))
    assert client._hosted._scope.cancel_called
    _wait(client._hosted.close(at_once=True))


def test_when_the_thread_dies_whoever_waits_is_told_and_the_next_gets_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise ValueError

    thread, room = TrioThread(), Room()
    host = Hosted(thread, room.open)
    _wait(host.open())
    waiting, ended = begun(host.call(trio.sleep_forever))
    with caplog.at_level(logging.CRITICAL, "sottovoce"):
        thread.post(fail)
        assert ended.wait(PATIENCE)
        with pytest.raises(errors.ClientClosed):
            waiting.result()
        thread._thread.join(PATIENCE)
    assert not thread.is_alive()
    with pytest.raises(errors.ClientClosed):
        say(host, room, "anybody")


def run(program: str, folder: Path) -> str:
    """What a program prints that ends well and has nothing to complain of."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_program_that_leaves_a_client_open_ends_all_the_same(tmp_path: Path) -> None:
    program = f"""
import sottovoce.sync
me = sottovoce.sync.open_client("me.db", server="{NOWHERE}").__enter__()
print(me.account_id)
"""
    assert run(program, tmp_path) == "None\n"
    assert run(program, tmp_path) == "None\n"


def test_a_fork_has_no_part_in_its_parents_clients_and_opens_its_own(tmp_path: Path) -> None:
    program = f"""
import os, warnings
import sottovoce.sync
warnings.simplefilter("ignore", DeprecationWarning)  # that threads are not forked, which is the point
with sottovoce.sync.open_client("parent.db", server="{NOWHERE}") as me:
    child = os.fork()
    if child == 0:
        try:
            me.contacts()
        except sottovoce.errors.ClientClosed:
            with sottovoce.sync.open_client("child.db", server="{NOWHERE}") as own:
                print("child", own.contacts(), flush=True)
        raise SystemExit(7)
    print("parent", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), me.contacts())
with sottovoce.sync.open_client("parent.db", server="{NOWHERE}") as me:
    print("again", me.contacts())
"""
    assert run(program, tmp_path).splitlines() == ["child []", "parent 7 []", "again []"]


SECOND_CTRL_C = """
import sys, threading, trio
from sottovoce._bridge import trio_thread
from sottovoce.sync import _wait

async def linger():
    print("waiting", flush=True)
    with trio.CancelScope(shield=True):
        while not leave:
            await trio.sleep(0.001)
            if not told.is_set() and call._scope.cancel_called:
                print("cancelled", flush=True)
                told.set()

leave, told = [], threading.Event()
call = trio_thread().call(linger)
try:
    _wait(call)
except KeyboardInterrupt as error:
    print(type(error.__context__).__name__)
told.wait()  # or the program ends with this thread's hands on its output
leave.append(True)
"""


def test_a_second_ctrl_c_does_not_wait_for_what_takes_its_time_to_end() -> None:
    with subprocess.Popen([sys.executable, "-c", SECOND_CTRL_C], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            for word in ("waiting", "cancelled"):
                assert program.stdout.readline() == f"{word}\n"
                program.send_signal(signal.SIGINT)
            assert program.communicate(timeout=PATIENCE)[0] == "KeyboardInterrupt\n"
        finally:
            program.kill()
    assert program.returncode == 0


def test_faces_of_equal_objects_are_equal() -> None:
    host = Hosted(trio_thread(), Room().open)
    one, same, other = (Face(host, sottovoce.SafetyNumber(digits, b"secret")) for digits in ("1", "1", "2"))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert repr(one) == "SafetyNumber(digits='1')"


# --- The faces have the trio client's nouns ---

NOUNS = ["Client", "Message", "Request", "Sent"]
#: What the parts of the trio client say to each other.
INNER = {"Sent": {"wake"}}


def public(kind: type) -> set[str]:
    names = {*vars(kind), *inspect.get_annotations(kind)}
    return {name for name in names if not name.startswith("_")} - INNER.get(kind.__name__, set())


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("face", [sync, aio], ids=["sync", "aio"])
def test_a_face_has_every_name_of_the_trio_client_and_no_other(face: types.ModuleType, noun: str) -> None:
    shown, inner = public(getattr(face, noun)), public(getattr(sottovoce, noun))
    assert shown - {"id"} == inner - {"id"}


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("face", [sync, aio], ids=["sync", "aio"])
def test_a_method_of_a_face_takes_what_the_trio_clients_takes(face: types.ModuleType, noun: str) -> None:
    kind = getattr(face, noun)
    for name in public(kind):
        if isinstance(inspect.getattr_static(kind, name), Reading):
            continue
        inner = inspect.signature(getattr(getattr(sottovoce, noun), name)).parameters
        shown = inspect.signature(getattr(kind, name)).parameters
        waits = face is sync and name.startswith("wait_")
        assert list(shown) == [*inner, *(["timeout"] if waits else [])], name
        assert waits or list(shown.values()) == list(inner.values()), name


def help_on(thing: object) -> str:
    return pydoc.plain(pydoc.render_doc(thing))


@pytest.mark.parametrize(
    ("face", "opened"),
    [(sync, AbstractContextManager[sync.Client]), (aio, AbstractAsyncContextManager[aio.Client])],
    ids=["sync", "aio"],
)
def test_help_speaks_of_the_face_alone(face: types.ModuleType, opened: object) -> None:
    assert inspect.signature(face.open_client).return_annotation == opened
    others = r"sottovoce\.(message\.(Sent|Message)|people\.Request|client\.Client)\b"
    for noun in [*NOUNS, "open_client"]:
        text = help_on(getattr(face, noun))
        assert re.findall(others, re.sub(r"__orig_bases__ = [^)]*", "", text)) == []
        assert getattr(face, noun).__module__ == face.__name__
        assert re.findall(r"\bReading\b", text) == []
        if face is sync:
            assert re.findall("[Aa]sync|[Aa]wait|Cancellation", text) == []
    assert get_type_hints(face.Client.requests)["return"] == types.GenericAlias(list, (face.Request,))
    assert "Ctrl-C: loses nothing" in help_on(sync.Client.messages)
    assert "\nasync send(" in help_on(aio.Client.send)


def test_every_plain_result_of_the_trio_client_is_free_of_coroutines() -> None:
    """What the faces hand on as it is has nothing to await; what has is wrapped."""
    wrapped = {"Client", "Message", "Request", "Sent"}
    for name in set(sottovoce.__all__) - wrapped:
        kind = getattr(sottovoce, name)
        if isinstance(kind, type):
            assert not [member for member in vars(kind).values() if inspect.iscoroutinefunction(member)], name


# --- Type checkers see exact signatures ---

SAMPLE = """
from collections.abc import AsyncIterator, Iterator

from sottovoce import Contact, SafetyNumber, Ttl, aio, sync


def blocking() -> None:
    with sync.open_client("me.db", server="https://chat.example") as me:
        me.register("me")
        sent: sync.Sent = me.send("you", "hello", ttl=Ttl.HOUR)
        sent.wait_sent(timeout=1.5)
        messages: Iterator[sync.Message] = me.messages(timeout=5)
        for message in messages:
            with message.processing():
                answer: sync.Sent = message.reply(message.text.upper())
                print(answer.id)
        requests: list[sync.Request] = me.requests()
        requests[0].accept()
        contacts: list[Contact] = me.contacts()
        number: SafetyNumber = me.safety_number(contacts[0].account_id)
        print(number.digits)
        me.send("you")  # wrong: call-arg
        me.send("you", 1)  # wrong: arg-type
        me.send("you", "hello", ttl=3600)  # wrong: arg-type
        me.send("you", "hello", soon=True)  # wrong: call-arg
        sent.wait_sent(5)  # wrong: call-arg
        answer.text  # wrong: attr-defined
        message.text = "other"  # wrong: assignment
        name: str = me.username  # wrong: assignment
        me.messages(timeout="long")  # wrong: arg-type
    sync.open_client(server="https://chat.example")  # wrong: call-arg


async def awaiting() -> None:
    async with aio.open_client("me.db", server="https://chat.example") as me:
        await me.register("me")
        sent: aio.Sent = await me.send("you", "hello", ttl=Ttl.HOUR)
        await sent.wait_sent()
        messages: AsyncIterator[aio.Message] = me.messages()
        async for message in messages:
            async with message.processing():
                answer: aio.Sent = await message.reply(message.text.upper())
                print(answer.id)
        requests: list[aio.Request] = await me.requests()
        await requests[0].accept()
        me.send("you", "hello")  # wrong: unused-coroutine
        await me.send("you")  # wrong: call-arg
        await sent.wait_sent(timeout=1)  # wrong: call-arg
        for other in me.messages():  # wrong: attr-defined
            print(other)
        with message.processing():  # wrong: attr-defined
            pass
    aio.open_client(server="https://chat.example")  # wrong: call-arg
"""


def test_a_type_checker_takes_right_calls_and_names_every_wrong_one(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path), "--no-error-summary"]
    said, complaint, _ = mypy.run([*options, "--hide-error-context", "--show-error-codes", str(sample)])
    assert complaint == ""
    found = {
        (int(line), code) for line, code in re.findall(r"sample\.py:(\d+): error: .*\[([a-z-]+)\]$", said, re.MULTILINE)
    }
    expected = {
        (number, line.partition("# wrong: ")[2])
        for number, line in enumerate(SAMPLE.splitlines(), 1)
        if "# wrong: " in line
    }
    assert found == expected, said
