"""The store as tasks share it: in order, together in one commit, each alone in what goes wrong.

Two accounts' names stand for whatever a work writes.
"""

import signal
import threading
import typing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio
import trio.testing

from sottovoce import errors, local
from sottovoce.crypto.errors import CryptoRefusal, Reason
from sottovoce.local import BATCH, Local
from sottovoce.store.database import Store, Tables, open_store
from sottovoce_wire.ids import AccountId
from tests.sottovoce.people import Person

ACCOUNT = AccountId(bytes(32))


class Watched:
    """A store that counts its commits, and is held up before the first until `go` is set."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.local = Local(store)
        self.begun = trio.Event()
        self.go = threading.Event()
        self._commits_before = store._commits

    async def hold_up(self) -> None:
        """A work that takes until `go` is set. Others gather behind it."""
        token = trio.lowlevel.current_trio_token()

        def work(_tables: Tables) -> None:
            token.run_sync_soon(self.begun.set)
            assert self.go.wait(60)

        await self.local.transact(work)

    @property
    def commits(self) -> int:
        return self.store._commits - self._commits_before

    def names(self) -> set[str]:
        """What was committed."""
        rows = self.store._connection.execute("SELECT username FROM peer_names")
        return {name for (name,) in rows}


def pin(name: str) -> Callable[[Tables], AccountId]:
    """A work that writes a name."""
    return lambda tables: tables.peers.pin_name(name, ACCOUNT)


def pin_and_fail(name: str) -> Callable[[Tables], None]:
    """A work that writes a name and raises."""

    def work(tables: Tables) -> None:
        tables.peers.pin_name(name, ACCOUNT)
        raise CryptoRefusal(Reason.CHAIN_ENDED, name)

    return work


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    store = open_store(tmp_path / "store.db")
    yield Watched(store)
    store.close()


async def test_works_that_wait_at_the_same_time_share_one_commit_in_the_order_of_their_calls(watched: Watched) -> None:
    order: list[int] = []

    def work(number: int) -> Callable[[Tables], None]:
        def note(tables: Tables) -> None:
            order.append(number)
            tables.peers.pin_name(f"n{number}", ACCOUNT)

        return note

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.hold_up)
        await watched.begun.wait()
        for number in range(BATCH):
            nursery.start_soon(watched.local.transact, work(number))
            await trio.testing.wait_all_tasks_blocked()
        watched.go.set()
    assert order == list(range(BATCH))
    assert watched.commits == 2
    assert len(watched.names()) == BATCH


async def test_a_commit_takes_no_more_works_than_it_may(watched: Watched) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.hold_up)
        await watched.begun.wait()
        for number in range(BATCH + 1):
            nursery.start_soon(watched.local.transact, pin(f"n{number}"))
        await trio.testing.wait_all_tasks_blocked()
        watched.go.set()
    assert watched.commits == 3


async def test_a_work_that_raises_is_taken_back_alone_and_its_caller_alone_hears_it(watched: Watched) -> None:
    refusals: list[CryptoRefusal] = []

    async def fail(name: str) -> None:
        with pytest.raises(CryptoRefusal) as raised:
            await watched.local.transact(pin_and_fail(name))
        refusals.append(raised.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.hold_up)
        await watched.begun.wait()
        nursery.start_soon(watched.local.transact, pin("before"))
        nursery.start_soon(fail, "lost")
        nursery.start_soon(watched.local.transact, pin("after"))
        await trio.testing.wait_all_tasks_blocked()
        watched.go.set()
    assert [refusal.detail for refusal in refusals] == ["lost"]
    assert watched.names() == {"before", "after"}
    assert watched.commits == 2


async def listen(watched: Watched, work: Callable[[Tables], object], heard: list[BaseException]) -> None:
    """Note what a work's caller hears."""
    try:
        await watched.local.transact(work)
    except Exception as error:
        heard.append(error)


async def gather(watched: Watched, *works: Callable[[Tables], object]) -> list[BaseException]:
    """Let all of these wait for one commit; what their callers hear."""
    heard: list[BaseException] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.hold_up)
        await watched.begun.wait()
        for work in works:
            nursery.start_soon(listen, watched, work, heard)
            await trio.testing.wait_all_tasks_blocked()
        watched.go.set()
    return heard


def fail_to_commit() -> bool:
    raise apsw.FullError("database or disk is full")


async def test_if_the_commit_fails_nothing_happened_and_every_caller_hears_it(watched: Watched) -> None:
    def break_the_disk(tables: Tables) -> None:
        watched.store._connection.set_commit_hook(fail_to_commit)

    heard = await gather(watched, break_the_disk, pin("one"), pin_and_fail("two"), pin("three"))
    watched.store._connection.set_commit_hook(None)
    assert [str(error) for error in heard] == ["the disk is full"] * 4
    assert {type(error) for error in heard} == {errors.StoreFailed}
    assert len({id(error) for error in heard}) == 4  # one raised in two tasks would grow both their tracebacks
    assert watched.names() == set()
    await watched.local.transact(pin("later"))
    assert watched.names() == {"later"}


async def test_when_a_full_disk_ends_the_transaction_no_work_is_done_outside_of_one(watched: Watched) -> None:
    """SQLite takes everything back by itself then: what the next work wrote would be committed at once, and alone."""

    def fill_the_disk(tables: Tables) -> None:
        watched.store._connection.pragma("max_page_count", 1)  # as far as it has grown
        tables.peers._execute("INSERT INTO peer_names VALUES ('big', zeroblob(10000000))")

    heard = await gather(watched, pin("before"), fill_the_disk, pin("after"))
    assert {type(error) for error in heard} == {errors.StoreFailed}
    assert len(heard) == 3
    assert watched.names() == set()


async def test_what_is_kept_in_memory_goes_back_with_the_commit(watched: Watched, alice: Person, bob: Person) -> None:
    """A session that one work has used, and the table of tags that another made anew, were never committed."""
    now = local.now_ms() // 1000
    alice.meet(bob, now)
    tags = alice.tags()
    ratchet = alice.sending(bob).ratchet.pack()
    watched.store, watched.local = alice.store, Local(alice.store)

    def meet_and_fail(tables: Tables) -> None:
        tables.routing.announce(b"session", [])
        raise ZeroDivisionError

    def use(tables: Tables) -> None:
        alice.store._connection.set_commit_hook(fail_to_commit)
        alice.skip_within(bob, now)
        tables.routing.announce(b"session", [])

    heard = await gather(watched, meet_and_fail, use)
    alice.store._connection.set_commit_hook(None)
    assert len(heard) == 2
    assert alice.sending(bob).ratchet.pack() == ratchet
    assert b"session" not in alice.store._derive().newest(10, 10)
    assert alice.tags() == tags


async def test_a_table_of_tags_made_anew_goes_back_even_if_it_counts_as_far_as_the_one_before(watched: Watched) -> None:
    """A work that fails throws the table away; the next makes it again from rows that are then taken back."""
    with watched.store.transaction() as tables:
        before = tables.routing
        before.changes = 3  # of which nothing is left

    def look(tables: Tables) -> None:
        watched.store._connection.set_commit_hook(fail_to_commit)
        tables.routing.changes = 3

    def fail(tables: Tables) -> None:
        tables.routing.announce(b"session", [])
        raise ZeroDivisionError

    await gather(watched, fail, look)
    watched.store._connection.set_commit_hook(None)
    assert watched.store._routing is None


async def test_a_work_that_is_cancelled_while_it_waits_never_happens(watched: Watched) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.hold_up)
        await watched.begun.wait()
        async with trio.open_nursery() as impatient:
            impatient.start_soon(watched.local.transact, pin("never"))
            await trio.testing.wait_all_tasks_blocked()
            impatient.cancel_scope.cancel()
        nursery.start_soon(watched.local.transact, pin("kept"))
        watched.go.set()
    assert watched.names() == {"kept"}


async def test_a_work_that_is_cancelled_once_begun_runs_to_its_end_and_its_result_stands(watched: Watched) -> None:
    results: list[str] = []

    async def work() -> None:
        def write(tables: Tables) -> str:
            tables.peers.pin_name("kept", ACCOUNT)
            trio.from_thread.run_sync(scope.cancel, trio_token=token)
            return "done"

        results.append(await watched.local.transact(write))

    token = trio.lowlevel.current_trio_token()
    with trio.CancelScope() as scope:
        await work()
    assert results == ["done"]
    assert scope.cancel_called
    assert watched.names() == {"kept"}


async def test_a_caller_that_is_cancelled_already_does_nothing(watched: Watched) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await watched.local.transact(pin("never"))
    assert watched.names() == set()


async def test_closing_waits_for_the_works_before_it_and_those_behind_are_refused(watched: Watched) -> None:
    path = Path(watched.store._connection.filename)
    heard: list[BaseException] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.hold_up)
        await watched.begun.wait()
        nursery.start_soon(watched.local.transact, pin("kept"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(watched.local.close)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(listen, watched, pin("late"), heard)
        await trio.testing.wait_all_tasks_blocked()
        watched.go.set()
    assert [str(error) for error in heard] == ["the client has been closed"]
    store = open_store(path)
    assert Watched(store).names() == {"kept"}
    store.close()


async def test_wiped_keys_leave_the_log_a_moment_after_the_last_work(
    watched: Watched, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidied, token, genuine = trio.Event(), trio.lowlevel.current_trio_token(), watched.store.tidy

    def tidy() -> None:
        genuine()
        token.run_sync_soon(tidied.set)

    monkeypatch.setattr(watched.store, "tidy", tidy)
    await watched.local.transact(pin("kept"))
    log = Path(watched.store._connection.filename + "-wal")
    assert log.stat().st_size > 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.local.tidy_when_idle)
        await tidied.wait()
        assert log.stat().st_size == 0
        nursery.cancel_scope.cancel()


async def test_a_fault_of_the_library_is_named_by_its_type_and_ends_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Local, "_commit", lambda _self, _turns: 1 / 0)
        with pytest.raises(errors.Unexpected, match="ZeroDivisionError"):
            await watched.local.transact(pin("never"))
    await watched.local.transact(pin("kept"))
    assert watched.names() == {"kept"}


async def test_a_system_without_a_thread_to_give_is_an_error_of_the_store(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(trio.lowlevel, "start_thread_soon", refuse)
        with pytest.raises(errors.StoreFailed, match="thread"):
            await watched.local.transact(pin("never"))
    await watched.local.transact(pin("kept"))
    assert watched.names() == {"kept"}


class Noted:
    """Works that note in which thread they ran, and whether their commit waits for the disk."""

    def __init__(self, watched: Watched) -> None:
        self._store = watched.store
        self.runs: list[tuple[bool, int]] = []

    def __call__(self, tables: Tables) -> None:
        is_here = threading.current_thread() is threading.main_thread()
        self.runs.append((is_here, typing.cast("int", self._store.pragma("synchronous"))))
        tables.peers.pin_name(f"n{len(self.runs)}", ACCOUNT)


async def test_inline_everything_happens_in_the_caller_s_thread_in_the_order_of_the_calls(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    inline, order = Local(store, inline=True), list[tuple[int, threading.Thread]]()
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(inline.transact, lambda _, n=number: order.append((n, threading.current_thread())))
            await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(CryptoRefusal):
        await inline.transact(pin_and_fail("lost"))
    await inline.transact(pin("kept"))
    await inline.close()
    assert order == [(number, threading.main_thread()) for number in range(3)]
    store = open_store(tmp_path / "store.db")
    assert Watched(store).names() == {"kept"}
    store.close()


def test_an_interrupt_waits_for_the_end_of_the_work_that_it_falls_into(watched: Watched) -> None:
    """Between BEGIN and COMMIT it would leave a transaction open for ever."""

    def work(tables: Tables) -> None:
        signal.raise_signal(signal.SIGINT)
        tables.peers.pin_name("kept", ACCOUNT)

    with pytest.raises(KeyboardInterrupt):
        trio.run(partial(Local(watched.store, inline=True).transact, work))
    assert watched.names() == {"kept"}


def test_a_client_goes_by_the_clock_that_it_is_given(watched: Watched) -> None:
    assert Local(watched.store, clock=lambda: 7).now_ms() == 7
    assert abs(Local(watched.store).now_ms() - local.now_ms()) < 60_000
