"""Handing messages over: what is written before the next is shown."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sottovoce.incoming import Incoming
from sottovoce.local import Local
from sottovoce.message import Sent
from sottovoce.protocol import state
from sottovoce.receipts import Receipts
from sottovoce.store.database import Tables, open_store
from sottovoce_wire.ids import AccountId, DeviceId, MessageId


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
