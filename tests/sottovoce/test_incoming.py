"""Handing messages over: what is written before the next is shown."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from sottovoce import errors, events
from sottovoce.incoming import CHANGES_KEPT, Following, Incoming
from sottovoce.local import Local
from sottovoce.message import Message, Sent
from sottovoce.protocol import state
from sottovoce.receipts import Receipts
from sottovoce.store.database import Tables, open_store
from sottovoce_wire.ids import AccountId, DeviceId, MessageId

T = TypeVar("T")


class Inbox:
    """A store with some messages."""

    def __init__(self, path: Path) -> None:
        self.store = open_store(path)
        self.local = Local(self.store)

    def fill(self, count: int) -> None:
        with self.store.transaction() as tables:
            for number in range(count):
                ids = MessageId(number.to_bytes(16, "big")), AccountId(bytes(32)), DeviceId(bytes(16))
                tables.inbox.add(state.Incoming(*ids, str(number), 1, 1), is_request=False)

    @property
    def handled(self) -> list[str]:
        rows = self.store._connection.execute("SELECT text FROM messages WHERE handled ORDER BY position")
        return [text for (text,) in rows]

    def tell(self, event: events.Event) -> None:
        with self.store.transaction() as tables:
            tables.events.add(event)

    def incoming(self) -> Incoming:
        return Incoming(self.local, reply, Receipts(self.local, lambda _: None, is_on=False))


async def reply(_to: str, _also: Callable[[Tables], None], _text: str) -> Sent:
    raise AssertionError("nobody replies here")


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    made = Inbox(tmp_path / "store.db")
    made.fill(3)
    yield made
    made.store.close()


async def test_a_message_counts_as_handled_in_the_store_before_the_next_is_shown(inbox: Inbox) -> None:
    """And so a program that is killed never sees it again."""
    messages = inbox.incoming().messages(None)
    for number in range(3):
        assert (await anext(messages)).text == str(number)
        assert inbox.handled == [str(each) for each in range(number)]


async def test_a_page_counts_as_handled_in_the_store_before_the_next_is_shown(inbox: Inbox) -> None:
    pages = inbox.incoming().pages(2, 0)
    assert [message.text for message in await anext(pages)] == ["0", "1"]
    assert inbox.handled == []
    assert [message.text for message in await anext(pages)] == ["2"]
    assert inbox.handled == ["0", "1"]
    with pytest.raises(StopAsyncIteration):
        await anext(pages)
    assert inbox.handled == ["0", "1", "2"]


async def test_what_was_marked_within_a_page_is_handled_and_the_rest_is_shown_again(inbox: Inbox) -> None:
    first = await anext(inbox.incoming().pages(2, None))
    await first[0].mark_handled()
    again = await anext(inbox.incoming().pages(64, None))
    assert [(message.text, message.attempt) for message in again] == [("1", 2), ("2", 1)]


def put_back(items: AsyncIterator[T], item: T) -> None:
    assert isinstance(items, Following)
    items.put_back(item)


def seen(page: list[Message]) -> list[tuple[str, int]]:
    return [(message.text, message.attempt) for message in page]


async def test_what_nobody_has_seen_is_shown_by_whichever_iterator_is_asked_next(inbox: Inbox) -> None:
    incoming = inbox.incoming()
    messages, pages = incoming.messages(0), incoming.pages(2, 0)
    put_back(messages, await anext(messages))
    page = await anext(pages)
    assert seen(page) == [("0", 1), ("1", 1)]
    put_back(pages, page)
    assert [(await anext(messages)).text, inbox.handled] == ["0", []]
    assert seen(await anext(pages)) == [("1", 1), ("2", 1)]
    assert inbox.handled == ["0"]


@pytest.mark.parametrize("stream", ["messages", "events"])
async def test_a_second_reader_is_refused_while_one_waits_and_not_after(inbox: Inbox, stream: str) -> None:
    """They would be given one and the same."""
    incoming = inbox.incoming()
    assert [message.text async for message in incoming.messages(0)] == ["0", "1", "2"]
    read = getattr(incoming, stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anext, read(None))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(errors.AlreadyReading):
            await anext(incoming.pages(2, 0) if stream == "messages" else read(0))
        nursery.cancel_scope.cancel()
    assert [item async for item in read(0)] == []


async def test_what_is_counted_while_an_event_is_in_hand_is_an_event_of_its_own(inbox: Inbox) -> None:
    """And so nothing is counted in two; a program that dies with one in hand is told the same again."""
    at, later = datetime.fromtimestamp(1, UTC), datetime.fromtimestamp(2, UTC)
    inbox.tell(events.MessagesExpired(at, 3))
    following = inbox.incoming().events(0)
    assert await anext(following) == events.MessagesExpired(at, 3)
    for number in (1, 4):
        inbox.tell(events.MessagesExpired(later, number))
    again = inbox.incoming().events(0)  # as after a restart
    assert await anext(again) == events.MessagesExpired(at, 3)
    assert [event async for event in again] == [events.MessagesExpired(later, 5)]


async def test_an_event_that_nobody_has_seen_is_told_again(inbox: Inbox) -> None:
    at = datetime.fromtimestamp(0, UTC)
    noticed = events.MessagesExpired(at, 3)
    changes = [events.ConnectionChanged(at, str(number), "send", True, "") for number in range(CHANGES_KEPT)]
    inbox.tell(noticed)
    incoming = inbox.incoming()
    following = incoming.events(0)
    put_back(following, await anext(following))
    assert await anext(following) == noticed
    for change in changes:
        incoming.changed(change)
    put_back(following, await anext(following))
    assert [await anext(following) for _ in changes] == changes
    assert [event async for event in following] == []
