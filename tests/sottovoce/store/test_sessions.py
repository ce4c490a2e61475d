"""Sessions in the store: unpacked in memory within a bound, and never other than their rows."""

import time

import pytest

from sottovoce.store import sessions as table
from tests.sottovoce.people import Person

NOW = int(time.time())


def test_a_session_is_the_same_unpacked_and_read_again(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    alice.write(bob, "hello", NOW)
    kept = alice.sending(bob)
    alice.store._tables.sessions._unpacked.clear()
    read = alice.sending(bob)
    assert read is not kept
    assert read == kept
    assert read.ratchet.pack() == kept.ratchet.pack()


def test_sessions_in_memory_are_bounded_and_those_used_last_stay(
    alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "UNPACKED", 2)
    for _ in range(4):
        alice.meet(bob, NOW)
    with alice.store.transaction() as tables:
        oldest = tables.sessions.of_device(bob.own.account_id, bob.own.device.device_id)[-1]
        tables.sessions.get(oldest.session_id)
        newest = tables.sessions.sending(bob.own.account_id, bob.own.device.device_id)
        assert newest is not None
        assert list(tables.sessions._unpacked) == [oldest.session_id, newest.session_id]


def test_a_look_alone_is_not_dropped_with_what_was_taken_back(alice: Person, bob: Person) -> None:
    """A search looks at thousands of sessions; a refused envelope must not make the next search unpack them again."""
    alice.meet(bob, NOW)
    session_id = alice.sending(bob).session_id
    sessions = alice.store._tables.sessions
    sessions.ended()
    looked = sessions.peek(session_id)
    sessions.taken_back()
    assert sessions.peek(session_id) is looked
    sessions.get(session_id)
    sessions.taken_back()
    assert sessions.peek(session_id) is not looked
