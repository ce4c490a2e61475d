"""Own prekeys in the store: unpacked once, and gone from memory when they are wiped."""

import time

from tests.sottovoce.people import Person

NOW = int(time.time())


def test_prekeys_are_unpacked_once_and_leave_memory_when_any_are_wiped(bob: Person) -> None:
    with bob.store.transaction() as tables:
        (first,) = tables.prekeys.records(1)
        assert tables.prekeys.records(1) == [first]
        assert tables.prekeys.records(1)[0] is first
        tables.prekeys.wipe_replaced(NOW)
        assert tables.prekeys._unpacked == {}
