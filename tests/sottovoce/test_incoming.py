"""Handing messages over: what is written before the next one is shown, and what has reached the disk by when."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import trio.testing

from sottovoce.incoming import Incoming
from sottovoce.local import Local
from sottovoce.message import Message, Sent
from sottovoce.protocol import state
from sottovoce.receipts import Receipts
from sottovoce.store.database import Tables, open_store
from sottovoce_wire.ids import AccountId, DeviceId, MessageId


class Inbox:
    """A store with so many messages, and for each commit whether it waited for the disk with something written."""

    def __init__(self, path: Path) -> None:
        self.store = open_store(path)
        self.local = Local(self.store)
        self.commits: list[str] = []
        self._log = path.with_name(path.name + "-wal")
        self._genuine = self.store.transaction

    def fill(self, count: int) -> None:
        with self.store.transaction() as tables:
            for number in range(count):
                ids = MessageId(number.to_bytes(16, "big")), AccountId(bytes(32)), DeviceId(bytes(16))
                tables.inbox.add(state.Incoming(*ids, str(number), 1, 1), is_request=False)

    def transaction(self, *, is_synced: bool = True) -> AbstractContextManager[Tables]:
        return self._noted(is_synced)

    @contextmanager
    def _noted(self, is_synced: bool) -> Iterator[Tables]:
        before = self._log.stat().st_size
        with self._genuine(is_synced=is_synced) as tables:
            yield tables
        if self._log.stat().st_size > before:
            self.commits.append("synced" if is_synced else "written")

    @property
    def handled(self) -> list[str]:
        rows = self.store._connection.execute("SELECT text FROM messages WHERE handled ORDER BY position")
        return [text for (text,) in rows]

    def messages(self) -> AsyncIterator[Message]:
        return Incoming(self.local, reply, Receipts(self.local, lambda _: None, is_on=False)).messages(None)


async def reply(_to: str, _text: str) -> Sent:
    raise AssertionError("nobody replies here")


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    made = Inbox(tmp_path / "store.db")
    made.fill(3)
    monkeypatch.setattr(made.store, "transaction", made.transaction)
    yield made
    made.store.close()


async def test_a_message_counts_as_handled_in_the_store_before_the_next_is_shown(inbox: Inbox) -> None:
    """And so a program that is killed never sees it again."""
    messages = inbox.messages()
    for number in range(3):
        assert (await anext(messages)).text == str(number)
        assert inbox.handled == [str(each) for each in range(number)]


async def test_a_backlog_does_not_wait_for_the_disk_and_all_marks_are_on_it_when_the_application_waits(
    inbox: Inbox,
) -> None:
    messages = inbox.messages()
    for _ in range(3):
        await anext(messages)
    assert inbox.commits == ["written"] * 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anext, messages)
        await trio.testing.wait_all_tasks_blocked()
        await inbox.local.transact(lambda _: None)  # behind whatever it does before it waits
        nursery.cancel_scope.cancel()
    assert inbox.commits == ["written"] * 4 + ["synced"]
    assert inbox.handled == ["0", "1", "2"]


async def test_a_mark_that_the_application_makes_itself_waits_for_the_disk(inbox: Inbox) -> None:
    """Also one that is there already, since the next message was asked for."""
    messages = inbox.messages()
    first = await anext(messages)
    second = await anext(messages)
    for message in (second, first):
        inbox.commits.clear()
        await message.mark_handled()
        assert inbox.commits == ["synced"]
