"""The blocking face against a real server process: what it promises to threads, to Ctrl-C and to timeouts."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from sottovoce import errors, events, sync
from tests.servers import ServerProcess

PATIENCE = 60.0
NOWHERE = "http://127.0.0.1:9"


@contextmanager
def pair(folder: Path, server: ServerProcess, name: str, other: str) -> Iterator[tuple[sync.Client, sync.Client]]:
    """Two registered clients; whoever writes to them is a contact at once."""
    opened = partial(sync.open_client, server=server.url, accept_everyone=True)
    with opened(folder / f"{name}.db") as one, opened(folder / f"{other}.db") as two:
        one.register(name)
        two.register(other)
        yield one, two


def texts(client: sync.Client, count: int) -> list[str]:
    """The next texts, this many."""
    found: list[str] = []
    for message in client.messages(timeout=PATIENCE):
        with message.processing():
            found.append(message.text)
        if len(found) == count:
            break
    return found


def test_two_people_talk(shared_server: ServerProcess, tmp_path: Path) -> None:
    with pair(tmp_path, shared_server, "sara", "saul") as (sara, saul):
        sent = sara.send("saul", "hello")
        sent.wait_sent(timeout=PATIENCE)
        assert sara.sent(sent.id).status() in ("sent", "delivered")
        assert sent.cancel() is False
        with pytest.raises(errors.TimedOut):
            sent.wait_read(timeout=0)
        message = next(iter(saul.messages(timeout=PATIENCE)))
        assert (message.id, message.text, message.attempt) == (sent.id, "hello", 1)
        assert message.sender == message.account_id == sara.account_id
        assert "hello" not in repr(message)
        message.reply("heard you").wait_sent(timeout=PATIENCE)
        answer = next(iter(sara.messages(timeout=PATIENCE)))
        assert (answer.sender, answer.text) == ("saul", "heard you")
        assert sara.safety_number("saul").digits == saul.safety_number(message.account_id).digits
        assert (sara.username, sara.trouble) == ("sara", None)


def test_a_stranger_waits_until_the_request_is_accepted(shared_server: ServerProcess, tmp_path: Path) -> None:
    opened = partial(sync.open_client, server=shared_server.url)
    with opened(tmp_path / "a.db") as me, opened(tmp_path / "b.db") as stranger:
        me.register("stay")
        stranger.register("stranger")
        stranger.send(me.invite_link(), "hello").wait_sent(timeout=PATIENCE)
        heard = next(iter(me.events(timeout=PATIENCE)))
        while not isinstance(heard, events.RequestArrived):
            heard = next(iter(me.events(timeout=PATIENCE)))
        (request,) = me.requests()
        assert request.account_id == heard.account_id == stranger.account_id
        assert [message.text for message in request.messages] == ["hello"]
        request.accept()
        assert texts(me, 1) == ["hello"]
        assert [contact.account_id for contact in me.contacts()] == [stranger.account_id]


def test_several_threads_send_through_one_client(shared_server: ServerProcess, tmp_path: Path) -> None:
    with pair(tmp_path, shared_server, "tess", "theo") as (tess, theo), ThreadPoolExecutor(6) as pool:
        words = [f"word {number}" for number in range(30)]
        list(pool.map(partial(tess.send, "theo"), words))
        assert sorted(texts(theo, len(words))) == sorted(words)


def test_a_thread_that_waits_for_messages_is_told_when_another_closes_the_client(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with pair(tmp_path, shared_server, "una", "ugo") as (una, ugo):
            una.send("ugo", "first")
            first = threading.Event()

            def listen() -> None:
                for _ in ugo.messages():
                    first.set()

            listening = pool.submit(listen)
            assert first.wait(PATIENCE)
        assert isinstance(listening.exception(PATIENCE), errors.ClientClosed)


def test_timeouts_end_a_wait_and_change_nothing_else(server: ServerProcess, tmp_path: Path) -> None:
    with pair(tmp_path, server, "wanda", "willi") as (wanda, willi):
        assert list(willi.messages(timeout=0)) == []
        wanda.send("willi", "before").wait_sent(timeout=PATIENCE)
        assert texts(willi, 1) == ["before"]
        server.kill()
        sent = wanda.send("willi", "meanwhile")
        with pytest.raises(errors.TimedOut) as caught:
            sent.wait_sent(timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(errors.InvalidInput):
            sent.wait_sent(timeout=-1)
        with pytest.raises(errors.InvalidInput):
            willi.messages(timeout=float("nan"))
        assert list(willi.messages(timeout=0.01)) == []
        server.start()
        sent.wait_sent(timeout=PATIENCE)
        assert texts(willi, 1) == ["meanwhile"]


def test_what_is_here_already_is_read_without_waiting_for_more(shared_server: ServerProcess, tmp_path: Path) -> None:
    with pair(tmp_path, shared_server, "xenia", "xaver") as (xenia, xaver):
        words = [f"word {number}" for number in range(5)]
        for word in words:
            xenia.send("xaver", word).wait_sent(timeout=PATIENCE)
    with sync.open_client(tmp_path / "xaver.db", server=shared_server.url) as xaver:
        xaver.wait_caught_up(timeout=PATIENCE)
        assert [message.text for message in xaver.messages(timeout=0)] == words
        assert list(xaver.messages(timeout=0)) == []


def test_an_error_in_the_block_is_raised_as_it_is_and_the_store_is_free(tmp_path: Path) -> None:
    opened = partial(sync.open_client, tmp_path / "a.db", server=NOWHERE)
    error = ValueError("the program's own")
    with pytest.raises(ValueError, match="own") as caught, opened():
        raise error
    assert caught.value is error
    with opened(), pytest.raises(errors.StoreInUse), opened():
        pass
    with opened() as me, pytest.raises(errors.NotRegistered):
        me.messages()
    with pytest.raises(errors.ClientClosed):
        me.contacts()


def test_a_generator_that_is_dropped_in_a_block_closes_the_client_without_waiting(tmp_path: Path) -> None:
    def hold() -> Iterator[sync.Client]:
        with sync.open_client(tmp_path / "a.db", server=NOWHERE) as me:
            yield me

    generator = hold()
    me = next(generator)

    def use_until_closed() -> None:
        while True:
            me.contacts()

    del generator
    with pytest.raises(errors.ClientClosed):
        use_until_closed()


INTERRUPTED = """
import sys
import sottovoce.sync

server = sys.argv[1]
with sottovoce.sync.open_client("me.db", server=server, accept_everyone=True) as me:
    me.register("interrupted")
    with sottovoce.sync.open_client("other.db", server=server) as other:
        other.register("other")
        for _ in range(3):
            try:
                print("waiting", flush=True)
                for message in me.messages():
                    print(message.text, flush=True)
            except KeyboardInterrupt:
                other.send("interrupted", "hello").wait_sent(timeout=60)
                print(next(me.messages(timeout=60)).text)
try:
    with sottovoce.sync.open_client("me.db", server=server) as me:
        print("waiting", flush=True)
        for message in me.messages():
            print(message.text, message.attempt, flush=True)
except KeyboardInterrupt:
    pass
with sottovoce.sync.open_client("me.db", server=server) as me:
    print("open again")
"""


def test_ctrl_c_ends_a_wait_and_breaks_nothing(shared_server: ServerProcess, tmp_path: Path) -> None:
    """Three times in a wait, after each of which the client goes on, and once out of the whole block."""
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, shared_server.url],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        heard = []
        try:
            for line in program.stdout:
                heard.append(line.strip())
                if line == "waiting\n":
                    program.send_signal(signal.SIGINT)
            _, complaint = program.communicate(timeout=PATIENCE)
        finally:
            program.kill()
    assert (program.returncode, complaint) == (0, "")
    assert heard[:6] == ["waiting", "hello"] * 3
    assert heard[6:] in (["waiting", "open again"], ["waiting", "hello 2", "open again"])
