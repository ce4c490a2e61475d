"""Events wait for the application; of one kind so many, and never without the one that it has in hand."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from sottovoce.events import MessageFailed
from sottovoce.store import events
from sottovoce.store.database import Store, open_memory_store

NOW = datetime(2027, 1, 15, tzinfo=UTC)


@pytest.fixture
def store() -> Iterator[Store]:
    store = open_memory_store()
    yield store
    store.close()


def failed(number: int) -> MessageFailed:
    return MessageFailed(NOW, "somebody", f"{number:032x}", "refused")


def test_what_the_application_has_in_hand_is_not_pushed_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that dies with it is told it again."""
    monkeypatch.setattr(events, "KEPT", 3)
    with store.transaction() as tables:
        tables.events.add(failed(0))
        found = tables.events.first()
        assert found is not None
        position, told = found
        tables.events.mark_told(position)
        for number in range(1, 10):
            tables.events.add(failed(number))
        assert tables.events.first() == (position, told)
        tables.events.remove(position)
        kept = []
        while (found := tables.events.first()) is not None:
            kept.append(found[1])
            tables.events.remove(found[0])
    assert kept == [failed(7), failed(8), failed(9)]
