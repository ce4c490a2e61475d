"""The table of routing tags: it follows every message and every refusal, and messages outside of it are searched for,
held, and found again, within bounds."""

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from sottovoce import errors
from sottovoce.crypto import message as layout
from sottovoce.crypto import primitives
from sottovoce.crypto.message import Expected, Window
from sottovoce.crypto.primitives import AeadKey
from sottovoce.crypto.ratchet import Ratchet
from sottovoce.protocol import budgets, opening, reading, sessions
from sottovoce.protocol.budgets import SearchBudget
from sottovoce.protocol.opening import HELD_FOR, SKIPPED_KEPT_FOR
from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.routing import Found, Routing
from sottovoce.store import held
from sottovoce.store.database import Tables
from tests.sottovoce.people import Person

NOW = int(time.time())
TAG = bytes(8)


@pytest.fixture
def talking(alice: Person, bob: Person) -> tuple[Person, Person]:
    """Both have written: messages travel by tag."""
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "hello back", NOW), NOW) is Outcome.NEW
    return alice, bob


def junk(count: int, kind: bytes = b"\x01") -> list[bytes]:
    """Envelopes of random bytes, the first of them `kind`."""
    rnd = random.Random(1)  # noqa: S311 - the same junk every time
    return [kind + rnd.randbytes(400) for _ in range(count)]


def held_count(person: Person) -> int:
    with person.store.transaction() as tables:
        return len(tables.held.all())


# --- The table ---


def test_a_tag_is_removed_by_its_session_alone() -> None:
    routing = Routing()
    routing.announce(b"one", [Window((TAG,), 1, 0)])
    routing.withdraw(b"other", [TAG])
    assert routing.find(TAG) == Found(b"one", Expected(1, 0))
    routing.withdraw(b"one", [TAG])
    assert routing.find(TAG) is None


def test_a_tag_stays_with_the_session_that_announced_it_first() -> None:
    routing = Routing()
    routing.announce(b"one", [Window((TAG,), 1, 0)])
    routing.announce(b"other", [Window((TAG,), 1, 7)])
    assert routing.find(TAG) == Found(b"one", Expected(1, 0))


def test_the_session_that_was_heard_from_last_is_searched_first() -> None:
    routing = Routing()
    for session_id in (b"a", b"b", b"c", b"a"):
        routing.announce(session_id, [])
    assert routing.newest(0, 2) == [b"a", b"c"]
    routing.befriend(b"b")
    routing.announce(b"a", [])
    routing.announce(b"b", [])
    assert routing.newest(9, 1) == [b"b", b"a"]
    routing.forget(b"a", [])
    routing.forget(b"b", [])
    assert routing.newest(9, 9) == [b"c"]


def test_the_table_is_always_what_the_rows_say(alice: Person, bob: Person) -> None:
    """Talk both ways, with losses, disorder, flipped bits and new sessions: after each, nothing is left over."""
    rnd = random.Random(7)  # noqa: S311 - a fixed story
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "first", NOW), NOW) is Outcome.NEW
    for number in range(60):
        writer, reader = (alice, bob) if rnd.random() < 0.5 else (bob, alice)
        if number % 20 == 19:
            writer.meet(reader, NOW)
        if number % 13 == 12:
            writer.skip(reader, 40, NOW)
        envelopes = [writer.write(reader, str(number), NOW) for _ in range(rnd.randrange(1, 5))]
        rnd.shuffle(envelopes)
        for envelope in envelopes:
            if rnd.random() < 0.8:
                assert reader.read(envelope, NOW) is Outcome.NEW
            elif rnd.random() < 0.5:
                reader.read(envelope.body[:-1] + bytes([envelope.body[-1] ^ 1]), NOW)
        for person in (alice, bob):
            assert person.tags() == person.derived_tags()


def test_a_failed_transaction_leaves_neither_a_moved_ratchet_nor_tags(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    envelopes = [alice.write(bob, str(number), NOW) for number in range(3)]
    before = bob.tags()

    def receive_in_vain() -> None:
        with bob.store.transaction() as tables:
            for envelope in envelopes[1:]:
                assert bob.opener.receive(tables, envelope.body, NOW * 1000, sealed_only=False) is Outcome.NEW
            raise errors.StoreFailed("the disk is full")

    with pytest.raises(errors.StoreFailed):
        receive_in_vain()
    assert bob.tags() == before == bob.derived_tags()
    assert [bob.read(envelope, NOW) for envelope in envelopes] == [Outcome.NEW] * 3


def test_a_send_that_was_not_stored_leaves_no_moved_ratchet(talking: tuple[Person, Person]) -> None:
    """Otherwise the next message would leave a gap, and a ratchet that was put back would use a key twice."""
    alice, bob = talking
    before = alice.sending(bob).ratchet.pack()

    def send_in_vain() -> None:
        with alice.store.transaction():
            alice.skip_within(bob, NOW)
            raise errors.StoreFailed("the disk is full")

    with pytest.raises(errors.StoreFailed):
        send_in_vain()
    assert alice.sending(bob).ratchet.pack() == before


def test_a_part_that_is_taken_back_takes_new_tags_and_moved_ratchets_along(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    before, bundle = alice.tags(), bob.bundle(NOW)

    def start_in_vain(tables: Tables) -> None:
        with tables.savepoint():
            alice.skip_within(bob, NOW)
            sessions.start(tables, alice.own, bundle, NOW)
            raise ZeroDivisionError

    with alice.store.transaction() as tables:
        alice.skip_within(bob, NOW)
        moved = alice.sending(bob).ratchet.pack()
        with pytest.raises(ZeroDivisionError):
            start_in_vain(tables)
        assert alice.sending(bob).ratchet.pack() == moved
    assert alice.tags() == before
    assert alice.sending(bob).ratchet.pack() == moved


def test_a_search_within_a_failed_transaction_keeps_no_moved_ratchet(talking: tuple[Person, Person]) -> None:
    """A part is taken back, and a search reads the row as it stands then; in the end none of it is committed."""
    alice, bob = talking
    genuine = alice.write(bob, "genuine", NOW)
    rubbish, (unknown,) = junk(1, b"\x02")[0], junk(1)

    def receive_in_vain() -> None:
        with bob.store.transaction() as tables:
            for envelope in (genuine.body, rubbish, unknown):  # read, taken back, searched for
                bob.opener.receive(tables, envelope, NOW * 1000, sealed_only=False)
            raise errors.StoreFailed("the disk is full")

    with pytest.raises(errors.StoreFailed):
        receive_in_vain()
    assert bob.read(genuine, NOW) is Outcome.NEW
    assert bob.undecryptable() == []


# --- No hit ---


def test_five_hundred_typing_events_and_three_thousand_expired_messages_are_passed_over(
    talking: tuple[Person, Person],
) -> None:
    alice, bob = talking
    first = alice.write(bob, "first", NOW)
    assert bob.read(first, NOW) is Outcome.NEW
    alice.skip(bob, 1_500, NOW, typing=250)
    late = alice.write(bob, "late", NOW)
    alice.skip(bob, 1_500, NOW, typing=250)
    assert bob.read(alice.write(bob, "next", NOW), NOW) is Outcome.NEW
    assert bob.read(late, NOW) is Outcome.NEW, "its key was not among the newest that are kept"
    assert bob.undecryptable() == []
    assert bob.sending(alice).session_id == alice.sending(bob).session_id
    assert bob.tags() == bob.derived_tags()


def test_one_search_finds_a_thousand_messages_in_reverse(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = talking
    envelopes = [alice.write(bob, str(number), NOW) for number in range(1_000)]
    searches: list[bytes] = []
    genuine = Ratchet.recognise

    def count(self: Ratchet, message: bytes) -> Expected | None:
        searches.append(message)
        return genuine(self, message)

    monkeypatch.setattr(Ratchet, "recognise", count)
    with bob.store.transaction() as tables:
        for envelope in reversed(envelopes):
            assert bob.opener.receive(tables, envelope.body, NOW * 1000, sealed_only=False) is Outcome.NEW
    assert searches == [envelopes[-1].body]


def test_a_strangers_random_envelopes_cost_no_search_and_no_key(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bob = talking

    def never(*_: object) -> bytes:
        raise AssertionError("a stranger made us try a key")

    for owner, name in ((Ratchet, "recognise"), (AeadKey, "decrypt"), (primitives, "decrypt"), (layout, "open_body")):
        monkeypatch.setattr(owner, name, never)
    rnd = random.Random(2)  # noqa: S311 - the same junk every time
    with bob.store.transaction() as tables:
        for kind in range(250):
            for envelope in junk(4, bytes([(kind + 3) % 256])):
                outcome = bob.opener.receive(tables, envelope + rnd.randbytes(9), NOW * 1000, sealed_only=True)
                assert outcome is Outcome.DROPPED
    assert bob.undecryptable() == []
    assert held_count(bob) == 0


def test_searches_are_bounded_and_what_is_not_searched_for_is_held(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = talking
    alice.skip(bob, 100, NOW)
    genuine = alice.write(bob, "from far ahead", NOW)
    searched: list[bytes] = []
    recognise = Ratchet.recognise

    def count(self: Ratchet, message: bytes) -> Expected | None:
        searched.append(message)
        return recognise(self, message)

    monkeypatch.setattr(Ratchet, "recognise", count)
    for envelope in junk(150):
        assert bob.read(envelope, NOW) is Outcome.HELD
    assert len(searched) == budgets.SEARCH_BURST, "one session is searched, so one trial is one search"
    assert bob.read(genuine, NOW) is Outcome.HELD
    with bob.store.transaction() as tables:
        bob.opener.search_again(tables, NOW * 1000 + 2_500)
    assert len(searched) == budgets.SEARCH_BURST + 50
    with bob.store.transaction() as tables:
        bob.opener.search_again(tables, NOW * 1000 + 2_550)
    assert bob.texts()[-1] == "from far ahead"
    assert held_count(bob) == 150


def test_the_search_budget_refills_and_neither_overflows_nor_runs_backwards() -> None:
    budget = SearchBudget()
    assert [budget.take(1_000_000) for _ in range(101)] == [True] * 100 + [False]
    assert [budget.take(1_000_500) for _ in range(11)] == [True] * 10 + [False]
    assert not budget.take(0), "a clock that was set back filled the budget"
    assert [budget.take(10_000_000) for _ in range(101)] == [True] * 100 + [False]


def test_what_is_held_is_read_when_its_session_comes(alice: Person, bob: Person) -> None:
    """The handshake of a contact is overtaken by a message of its session."""
    alice.meet(bob, NOW)
    with bob.store.transaction() as tables:
        tables.peers.put(alice.peer())
        tables.peers.add_contact(alice.own.account_id)
    sealed = alice.write(bob, "one", NOW)
    with alice.store.transaction() as tables:
        tables.sessions.put(replace(alice.sending(bob), unanswered=None))
    near = alice.write(bob, "two", NOW)
    alice.skip(bob, 20, NOW)
    far = alice.write(bob, "three", NOW)
    assert [bob.read(envelope.body, NOW) for envelope in (near, far)] == [Outcome.HELD] * 2
    assert bob.read(sealed, NOW) is Outcome.NEW
    assert bob.texts() == ["one", "two", "three"]
    assert held_count(bob) == 0
    assert bob.read(near.body, NOW) is Outcome.REPEAT


def test_an_envelope_that_is_held_is_not_held_twice(bob: Person) -> None:
    (envelope,) = junk(1)
    assert [bob.read(envelope, NOW) for _ in range(2)] == [Outcome.HELD, Outcome.REPEAT]
    assert held_count(bob) == 1


def test_held_messages_are_bounded_in_number_and_the_oldest_are_recorded(bob: Person) -> None:
    with bob.store.transaction() as tables:
        for envelope in junk(held.HELD + 3):
            assert bob.opener.receive(tables, envelope, NOW * 1000, sealed_only=False) is Outcome.HELD
        kept = [tables.held.message(each.position) for each in tables.held.all()]
    assert kept == junk(held.HELD + 3)[3:]
    assert bob.undecryptable() == ["unknown_session"] * 3


def test_held_messages_are_bounded_in_bytes(bob: Person) -> None:
    large = [bytes([1, number]) + bytes(1_000_000) for number in range(9)]
    with bob.store.transaction() as tables:
        dropped = [tables.held.add(each, hashlib.sha256(each).digest(), TAG, NOW, is_searched=True) for each in large]
        assert [len(each) for each in dropped] == [0] * 8 + [1]
        assert [tables.held.message(each.position) for each in tables.held.all()] == large[1:]
        assert tables.sessions._execute("SELECT count(*) FROM held_bodies").get == 8


def test_held_messages_are_given_up_after_a_week(bob: Person) -> None:
    assert bob.read(junk(1)[0], NOW) is Outcome.HELD
    for days, left in ((HELD_FOR, 1), (HELD_FOR + 1, 0)):
        with bob.store.transaction() as tables:
            bob.opener.tend(tables, (NOW + days) * 1000)
        assert held_count(bob) == left
    assert bob.undecryptable() == ["unknown_session"]


def test_messages_that_wait_for_a_session_are_bounded_and_a_page_reads_none_of_them(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay spends the hour's steps, then flips the bits of one message again and again."""
    alice, bob = talking
    alice.skip(bob, 1_000, NOW)
    far = alice.write(bob, "far", NOW).body
    monkeypatch.setattr(budgets, "STEPS_PER_HOUR", 999)
    for number in range(held.HELD_OF_SESSION + 3):
        assert bob.read(far[:-1] + bytes([far[-1] ^ 1 + number]), NOW) is Outcome.HELD
    assert held_count(bob) == held.HELD_OF_SESSION
    assert bob.undecryptable() == ["too_far_ahead"] * 3
    read: list[int] = []
    message = held.HeldTable.message

    def count(self: held.HeldTable, position: int) -> bytes | None:
        read.append(position)
        return message(self, position)

    monkeypatch.setattr(held.HeldTable, "message", count)
    for seconds, reads in ((60, 0), (3_600, held.HELD_OF_SESSION), (3_660, held.HELD_OF_SESSION)):
        with bob.store.transaction() as tables:
            bob.opener.search_again(tables, (NOW - NOW % 3_600 + seconds) * 1000)
        read = list(dict.fromkeys(read))
        assert len(read) == reads
    assert held_count(bob) == held.HELD_OF_SESSION


def test_what_is_held_unsearched_is_not_read_while_there_is_no_budget(
    bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    for envelope in junk(budgets.SEARCH_BURST + 1):
        assert bob.read(envelope, NOW) is Outcome.HELD

    def never(*_: object) -> bytes:
        raise AssertionError("a held message was read in vain")

    monkeypatch.setattr(held.HeldTable, "message", never)
    with bob.store.transaction() as tables:
        bob.opener.search_again(tables, NOW * 1000)


@pytest.mark.parametrize("story", ["a first text", "a new start", "their new session", "our new session"])
def test_sessions_of_strangers_do_not_push_contacts_out_of_a_search(
    talking: tuple[Person, Person], person: Callable[[str], Person], monkeypatch: pytest.MonkeyPatch, story: str
) -> None:
    alice, bob = talking
    monkeypatch.setattr(opening, "SEARCHED_SESSIONS", 1)
    monkeypatch.setattr(opening, "SEARCHED_STRANGERS", 1)
    if story == "their new session":
        alice.meet(bob, NOW)
    if story == "our new session":
        bob.meet(alice, NOW)
        assert alice.read(bob.write(alice, "again", NOW), NOW) is Outcome.NEW
    assert bob.read(alice.write(bob, "and again", NOW), NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "from now on unsealed", NOW), NOW) is Outcome.NEW
    for name in ("mallory", "mallet"):
        stranger = person(name)
        stranger.meet(bob, NOW)
        assert bob.read(stranger.write(bob, "hello", NOW), NOW + 1) is Outcome.NEW
    if story == "a new start":
        bob.store._routing = None
    alice.skip(bob, 100, NOW)
    assert bob.read(alice.write(bob, "after a jump", NOW), NOW) is Outcome.NEW


def test_a_held_message_whose_tag_is_announced_later_is_read(
    talking: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = talking
    alice.skip(bob, 100, NOW)
    jumped = alice.write(bob, "after a jump", NOW)
    with monkeypatch.context() as patched:
        patched.setattr(opening, "SEARCHED_SESSIONS", 0)
        assert bob.read(jumped, NOW) is Outcome.HELD
    assert alice.read(bob.write(alice, "turn", NOW), NOW) is Outcome.NEW
    assert bob.read(alice.write(bob, "on the next chain", NOW), NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        bob.opener.search_again(tables, NOW * 1000)
    assert bob.texts()[-1] == "after a jump"
    assert held_count(bob) == 0


# --- Skipped keys ---


def test_only_the_newest_skipped_keys_are_kept_and_the_tags_of_the_others_go(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    early = alice.write(bob, "early", NOW)
    for _ in range(3):
        alice.skip(bob, 999, NOW)
        assert bob.read(alice.write(bob, "and then", NOW), NOW) is Outcome.NEW
    assert bob.tags() == bob.derived_tags()
    with bob.store.transaction() as tables:
        assert len(tables.sessions.skipped_tags(bob.sending(alice).session_id)) == reading.SKIPPED_KEYS
    assert bob.read(early, NOW) is not Outcome.NEW


def test_skipped_keys_are_wiped_after_a_week_with_their_tags(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    late = alice.write(bob, "late", NOW)
    assert bob.read(alice.write(bob, "on time", NOW), NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        bob.opener.tend(tables, (NOW + SKIPPED_KEPT_FOR) * 1000)
        assert len(tables.sessions.skipped_tags(bob.sending(alice).session_id)) == 1
        bob.opener.tend(tables, (NOW + SKIPPED_KEPT_FOR + 1) * 1000)
        assert tables.sessions.skipped_tags(bob.sending(alice).session_id) == []
    assert bob.tags() == bob.derived_tags()
    assert bob.read(late, NOW) is Outcome.UNDECRYPTABLE


def test_a_copied_device_is_suspected_and_a_damaged_repeat_is_not(talking: tuple[Person, Person]) -> None:
    """A state that was copied aside, used, and put back, uses a number again; the relay only flips bits."""
    alice, bob = talking
    copied = alice.sending(bob).ratchet.pack()
    genuine = alice.write(bob, "genuine", NOW)
    assert bob.read(genuine, NOW) is Outcome.NEW
    assert bob.read(genuine.body[:-1] + bytes([genuine.body[-1] ^ 1]), NOW) is Outcome.REPEAT
    assert bob.undecryptable() == []
    with alice.store.transaction() as tables:
        tables.sessions.put(replace(alice.sending(bob), ratchet=Ratchet.unpack(copied)))
    assert bob.read(alice.write(bob, "by the copy", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["clone_suspected"]
    assert bob.sending(alice).failures == 0


def test_a_damaged_copy_that_comes_first_does_not_stand_in_for_the_genuine_one(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    genuine = alice.write(bob, "genuine", NOW).body
    assert bob.read(genuine[:-1] + bytes([genuine[-1] ^ 1]), NOW) is Outcome.UNDECRYPTABLE
    assert bob.read(genuine, NOW) is Outcome.NEW


def test_a_message_that_comes_after_its_key_was_given_up_raises_no_alarm(talking: tuple[Person, Person]) -> None:
    """A week late; overtaken by more than are kept, in several jumps; and by more than one jump leaves keys for."""
    alice, bob = talking
    late = alice.write(bob, "a week late", NOW)
    assert bob.read(alice.write(bob, "on time", NOW), NOW) is Outcome.NEW
    with bob.store.transaction() as tables:
        bob.opener.tend(tables, (NOW + SKIPPED_KEPT_FOR + 1) * 1000)
    assert bob.read(late, NOW) is Outcome.UNDECRYPTABLE
    overtaken = alice.write(bob, "overtaken", NOW)
    for _ in range(3):
        alice.skip(bob, 999, NOW)
        assert bob.read(alice.write(bob, "and then", NOW), NOW) is Outcome.NEW
    assert bob.read(overtaken, NOW) is Outcome.UNDECRYPTABLE
    passed = alice.write(bob, "passed", NOW)
    alice.skip(bob, 2_100, NOW)
    copied = alice.sending(bob).ratchet.pack()
    assert bob.read(alice.write(bob, "far on", NOW), NOW) is Outcome.NEW
    assert bob.read(passed, NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["already_used"] * 3
    with alice.store.transaction() as tables:
        tables.sessions.put(replace(alice.sending(bob), ratchet=Ratchet.unpack(copied)))
    assert bob.read(alice.write(bob, "by a copy", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable()[-1] == "clone_suspected"
