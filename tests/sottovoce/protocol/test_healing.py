"""Healing: what asks for a new handshake, how often, and towards whom; who is owed a sign of life, and when."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sottovoce.events import SessionReplaced
from sottovoce.protocol import healing, opening, sessions
from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.sessions import REPLACED_LIFETIME
from sottovoce.protocol.state import Outgoing, Want
from sottovoce_wire.ids import account_id_text
from tests.sottovoce.people import Person

NOW = int(time.time())
HOUR = 3600
DAY = 24 * HOUR


@pytest.fixture
def talking(alice: Person, bob: Person) -> tuple[Person, Person]:
    """Contacts of each other, on one session that is confirmed."""
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "hello back", NOW), NOW) is Outcome.NEW
    return alice, bob


def damage(envelope: Outgoing, at: int = -1) -> bytes:
    body = bytearray(envelope.body)
    body[at] ^= 1
    return bytes(body)


def wanted(one: Person, other: Person) -> set[Want]:
    """Why `one` wants a handshake with `other`'s device."""
    device = other.own.account_id, other.own.device.device_id
    with one.store.transaction() as tables:
        return {want for want in Want if tables.wants.is_wanted(*device, want)}


def is_to_be_made(one: Person, other: Person) -> bool:
    with one.store.transaction() as tables:
        return (other.own.account_id, other.own.device.device_id) in tables.wants.of_contacts()


def told(person: Person) -> list[SessionReplaced]:
    """What the person's application is told of sessions, which it has then seen."""
    found = []
    with person.store.transaction() as tables:
        while (first := tables.events.first()) is not None:
            tables.events.remove(first[0])
            if isinstance(first[1], SessionReplaced):
                found.append(first[1])
    return found


# --- What is told of it ---


def test_who_makes_a_new_session_and_who_gets_it_are_told_of_it_once(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for number in range(3):
        bob.read(damage(alice.write(bob, str(number), NOW)), NOW)
    assert told(alice) + told(bob) == []
    (envelope,) = bob.mend(alice, NOW + HOUR)
    assert alice.read(envelope, NOW + 2 * HOUR) is Outcome.CONTROL
    heard, at, later = (datetime.fromtimestamp(NOW + hours * HOUR, UTC) for hours in range(3))
    assert told(bob) == [SessionReplaced(at, account_id_text(alice.own.account_id), "failures", heard, 1)]
    assert told(alice) == [SessionReplaced(later, account_id_text(bob.own.account_id), "peer", heard, 1)]


def test_two_who_begin_at_once_are_told_nothing(alice: Person, bob: Person) -> None:
    """One of two sessions gives way, and nobody had anything to lose with it."""
    alice.meet(bob, NOW)
    bob.meet(alice, NOW)
    one, other = alice.write(bob, "from here", NOW), bob.write(alice, "from there", NOW)
    assert bob.read(one, NOW) is alice.read(other, NOW) is Outcome.NEW
    assert alice.read(bob.write(alice, "on one of them", NOW), NOW) is Outcome.NEW
    assert alice.sending(bob).session_id == bob.sending(alice).session_id
    assert told(alice) + told(bob) == []


def test_of_sessions_of_strangers_nothing_is_told(alice: Person, bob: Person) -> None:
    for _ in range(3):
        alice.meet(bob, NOW)
        assert bob.read(alice.write(bob, "who am I?", NOW), NOW) is Outcome.NEW
    assert len(bob.store._tables.sessions.of_account(alice.own.account_id)) == 3
    assert told(bob) == []


def test_sessions_that_were_not_told_of_yet_add_up(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for days in (1, 2, 3):
        alice.meet(bob, NOW + days * DAY)
        assert bob.read(alice.write(bob, f"day {days}", NOW + days * DAY), NOW + days * DAY) is Outcome.NEW
    assert [(event.count, event.last_heard.timestamp()) for event in told(bob)] == [(3, NOW)]


# --- Failures ---


def test_three_failures_under_known_tags_want_a_handshake(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for number in range(3):
        assert wanted(bob, alice) == set()
        assert bob.read(damage(alice.write(bob, str(number), NOW)), NOW) is Outcome.UNDECRYPTABLE
    assert wanted(bob, alice) == {Want.FAILURES}
    assert is_to_be_made(bob, alice)


def test_a_success_between_forgives_the_failures(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for number in range(6):
        envelope = alice.write(bob, str(number), NOW)
        bob.read(damage(envelope), NOW)
        if number % 2:
            assert bob.read(envelope, NOW) is Outcome.NEW
    assert wanted(bob, alice) == set()


@pytest.mark.parametrize(("later", "again"), [(6 * HOUR - 1, False), (6 * HOUR, True)])
def test_failures_make_one_handshake_in_six_hours(talking: tuple[Person, Person], later: int, again: bool) -> None:
    """A relay can flip bits in every envelope: it gets no handshake for each three."""
    alice, bob = talking
    for number in range(9):
        bob.read(damage(alice.write(bob, str(number), NOW)), NOW)
    (answer,) = bob.mend(alice, NOW)
    assert alice.read(answer, NOW) is Outcome.CONTROL
    assert bob.sending(alice).session_id == alice.sending(bob).session_id
    assert bob.sending(alice).generation == 2
    for number in range(3):
        bob.read(damage(alice.write(bob, str(number), NOW)), NOW + later)
    assert is_to_be_made(bob, alice) is again


def test_failures_on_a_replaced_session_want_nothing(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    late = [alice.write(bob, str(number), NOW) for number in range(4)]
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "on the new one", NOW), NOW) is Outcome.NEW
    for envelope in late:
        assert bob.read(damage(envelope), NOW) is Outcome.UNDECRYPTABLE
    assert wanted(bob, alice) == set()


def test_nothing_is_made_towards_somebody_the_person_never_wrote_to(alice: Person, bob: Person) -> None:
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW
    with alice.store.transaction() as tables:
        tables.sessions.put(replace(alice.sending(bob), unanswered=None))
    for number in range(60):
        envelope = alice.write(bob, str(number), NOW)
        bob.read(damage(envelope) if number < 3 else envelope, NOW)
    assert wanted(bob, alice) == {Want.FAILURES}
    assert not is_to_be_made(bob, alice)
    assert bob.mend(alice, NOW + 40 * HOUR) == []
    bob.write(alice, "now we are in contact", NOW)
    assert is_to_be_made(bob, alice)


def test_of_devices_that_nothing_is_known_of_nothing_is_written_down(alice: Person, bob: Person) -> None:
    """Anybody can make accounts without end, and name one in a handshake that cannot be completed."""
    alice.meet(bob, NOW)
    envelope = alice.write(bob, "hello", NOW)
    with bob.store.transaction() as tables:
        tables.prekeys.use_one_time(1)
    assert bob.read(envelope, NOW) is Outcome.UNDECRYPTABLE
    assert bob.undecryptable() == ["unknown_prekey"]
    assert wanted(bob, alice) == set()


# --- Lost handshakes ---


@pytest.fixture
def forgetful(talking: tuple[Person, Person]) -> tuple[Person, Person]:
    """Alice and Bob talk on their third session; then Bob forgets them all, and starts with the first."""
    alice, bob = talking
    for _ in range(2):
        alice.meet(bob, NOW)
        assert bob.read(alice.write(bob, "again", NOW), NOW) is Outcome.NEW
        assert alice.read(bob.write(alice, "yes", NOW), NOW) is Outcome.NEW
    bob.lose_sessions()
    bob.meet(alice, NOW)
    return alice, bob


def test_a_handshake_that_loses_against_a_confirmed_session_is_read_and_answered_by_a_greater_one(
    forgetful: tuple[Person, Person],
) -> None:
    alice, bob = forgetful
    assert alice.read(bob.write(alice, "I forgot", NOW), NOW) is Outcome.NEW
    assert wanted(alice, bob) == {Want.LOST}
    (answer,) = alice.mend(bob, NOW)
    assert bob.read(answer, NOW) is Outcome.CONTROL
    assert bob.sending(alice).session_id == alice.sending(bob).session_id
    assert bob.sending(alice).generation == 4
    assert bob.read(alice.write(bob, "I have not", NOW), NOW) is Outcome.NEW


def test_a_device_that_lost_a_session_gets_nothing_more_on_it(forgetful: tuple[Person, Person]) -> None:
    alice, bob = forgetful
    assert alice.read(bob.write(alice, "I forgot", NOW), NOW) is Outcome.NEW
    with alice.store.transaction() as tables:
        assert sessions.missing(tables, bob.own.account_id, NOW) == [bob.own.device.device_id]
    alice.meet(bob, NOW)
    with alice.store.transaction() as tables:
        assert sessions.missing(tables, bob.own.account_id, NOW) == []
    assert wanted(alice, bob) == set()


@pytest.mark.parametrize(("later", "again"), [(6 * HOUR - 1, False), (6 * HOUR, True)])
def test_losing_handshakes_are_answered_once_in_six_hours(
    forgetful: tuple[Person, Person], later: int, again: bool
) -> None:
    alice, bob = forgetful
    assert alice.read(bob.write(alice, "I forgot", NOW), NOW) is Outcome.NEW
    (answer,) = alice.mend(bob, NOW)
    assert bob.read(answer, NOW) is Outcome.CONTROL
    assert alice.read(bob.write(alice, "thanks", NOW), NOW) is Outcome.NEW
    bob.lose_sessions()
    bob.meet(alice, NOW + later)
    assert alice.read(bob.write(alice, "I forgot again", NOW + later), NOW + later) is Outcome.NEW
    assert is_to_be_made(alice, bob) is again


def test_a_handshake_that_loses_against_an_unconfirmed_one_wants_nothing(alice: Person, bob: Person) -> None:
    """Both have started at once: the greater session stays, and both know which."""
    alice.meet(bob, NOW)
    bob.meet(alice, NOW)
    for reader, envelope in [(bob, alice.write(bob, "a", NOW)), (alice, bob.write(alice, "b", NOW))]:
        assert reader.read(envelope, NOW) is Outcome.NEW
    assert wanted(alice, bob) | wanted(bob, alice) == set()


# --- Handshakes that cannot be completed ---


def test_a_handshake_that_cannot_be_completed_is_answered_by_one_at_most_once_a_week(
    talking: tuple[Person, Person],
) -> None:
    """Bob has lost the one-time prekey that it names. Anybody could claim to be Alice's device, hence the week."""
    alice, bob = talking
    for days, again in ((0, True), (6, False), (7, True)):
        now = NOW + days * DAY
        alice.meet(bob, now)
        with bob.store.transaction() as tables:
            tables.prekeys._execute("DELETE FROM one_time_prekeys WHERE published")
        assert bob.read(alice.write(bob, "hello?", now), now) is Outcome.UNDECRYPTABLE
        assert is_to_be_made(bob, alice) is again
        for answer in bob.mend(alice, now):
            assert alice.read(answer, now) is Outcome.CONTROL


def test_a_handshake_in_the_name_of_no_contact_wants_nothing_to_be_made(
    alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "GENERATIONS_AHEAD", 0)
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "hello?", NOW), NOW) is Outcome.UNDECRYPTABLE
    assert not is_to_be_made(bob, alice)


# --- Silence ---


@pytest.mark.parametrize(
    ("messages", "later", "silent"),
    [(199, 0, False), (200, 0, True), (1, 72 * HOUR - 1, False), (1, 72 * HOUR, True)],
)
def test_silence_wants_a_handshake(talking: tuple[Person, Person], messages: int, later: int, silent: bool) -> None:
    alice, bob = talking
    for number in range(messages):
        alice.write(bob, str(number), NOW)
    with alice.store.transaction() as tables:
        healing.notice_silence(tables, NOW + later)
    assert is_to_be_made(alice, bob) is silent


def test_an_answer_ends_the_silence(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for number in range(200):
        alice.write(bob, str(number), NOW)
    assert alice.read(bob.write(alice, "yes?", NOW), NOW) is Outcome.NEW
    alice.mend(bob, NOW + 72 * HOUR)
    assert wanted(alice, bob) == set()
    assert alice.sending(bob).generation == 1


def test_silence_makes_one_handshake_a_week(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    made = 0
    for hours in range(0, 15 * 24, 6):
        alice.write(bob, "anybody there?", NOW + hours * HOUR)
        made += len(alice.mend(bob, NOW + hours * HOUR))
    assert made == 2
    assert alice.sending(bob).generation == 3


def test_a_reader_that_lost_everything_hears_again_after_the_silence(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    bob.lose_sessions()
    assert bob.read(alice.write(bob, "into the void", NOW), NOW) is Outcome.HELD
    (handshake,) = alice.mend(bob, NOW + 72 * HOUR)
    assert bob.read(handshake, NOW + 72 * HOUR) is Outcome.CONTROL
    assert bob.read(alice.write(bob, "are you there?", NOW + 72 * HOUR), NOW + 72 * HOUR) is Outcome.NEW


# --- Signs of life ---


def test_a_contact_gets_an_answer_within_fifty_messages(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    for number in range(50):
        assert bob.mend(alice, NOW) == []
        assert bob.read(alice.write(bob, str(number), NOW), NOW) is Outcome.NEW
    (answer,) = bob.mend(alice, NOW)
    assert alice.read(answer, NOW) is Outcome.CONTROL
    assert alice.sending(bob).silent == 0
    assert bob.mend(alice, NOW) == []


def test_a_contact_gets_an_answer_at_a_random_time_within_a_day(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    due = set()
    for number in range(20):
        assert bob.read(alice.write(bob, str(number), NOW), NOW) is Outcome.NEW
        answer_by = bob.sending(alice).answer_by
        assert answer_by is not None
        assert NOW <= answer_by < NOW + DAY
        due.add(answer_by)
        assert bob.read(alice.write(bob, "one more", NOW), NOW + 5) is Outcome.NEW
        assert bob.sending(alice).answer_by == answer_by, "the day counts from the first"
        assert len(bob.mend(alice, answer_by)) == 1
    assert len(due) > 10


def test_a_message_of_the_person_is_answer_enough(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    assert bob.read(alice.write(bob, "how are you?", NOW), NOW) is Outcome.NEW
    bob.write(alice, "fine", NOW)
    assert bob.mend(alice, NOW + DAY) == []


def test_a_sign_of_life_asks_for_none(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW
    (answer,) = bob.mend(alice, NOW + DAY)
    assert alice.read(answer, NOW + DAY) is Outcome.CONTROL
    assert alice.mend(bob, NOW + 9 * DAY) == []
    assert bob.sending(alice).silent == 0


def test_a_sign_of_life_is_not_shown_and_has_the_smallest_size(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    before = alice.texts()
    assert bob.read(alice.write(bob, "hello", NOW), NOW) is Outcome.NEW
    (answer,) = bob.mend(alice, NOW + DAY)
    assert len(answer.body) == len(bob.write(alice, "ok", NOW).body)
    assert alice.read(answer, NOW + DAY) is Outcome.CONTROL
    assert alice.texts() == before


def test_what_came_on_a_replaced_session_is_answered_on_the_one_that_sends(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    bob.meet(alice, NOW)
    bob.write(alice, "this is lost", NOW)
    late = alice.write(bob, "on the old session", NOW)
    assert bob.read(late, NOW) is Outcome.NEW
    (answer,) = bob.mend(alice, NOW + DAY)
    assert alice.read(answer, NOW + DAY) is Outcome.CONTROL
    assert alice.sending(bob).session_id == bob.sending(alice).session_id


# --- Replaced sessions ---


def test_replaced_sessions_receive_for_31_days_and_are_wiped(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "on the new one", NOW), NOW) is Outcome.NEW
    for later, left in ((REPLACED_LIFETIME, 2), (REPLACED_LIFETIME + 1, 1)):
        with bob.store.transaction() as tables:
            bob.opener.tend(tables, (NOW + later) * 1000)
            assert len(tables.sessions.of_device(alice.own.account_id, alice.own.device.device_id)) == left
    assert bob.tags() == bob.derived_tags()


def test_a_replaced_session_is_never_promoted(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    late = [alice.write(bob, str(number), NOW) for number in range(3)]
    alice.meet(bob, NOW)
    assert bob.read(alice.write(bob, "on the new one", NOW), NOW) is Outcome.NEW
    newest = bob.sending(alice).session_id
    for envelope in late:
        assert bob.read(envelope, NOW + 1) is Outcome.NEW
        assert bob.sending(alice).session_id == newest


def test_a_session_that_lost_at_once_is_kept_before_older_ones(talking: tuple[Person, Person]) -> None:
    """Its maker uses it until it has heard of the greater one."""
    alice, bob = talking
    for _ in range(6):
        alice.meet(bob, NOW)
        assert bob.read(alice.write(bob, "again", NOW), NOW) is Outcome.NEW
    alice.lose_sessions()
    alice.meet(bob, NOW + 1)
    for text in ("from the lowest session", "and once more"):
        assert bob.read(alice.write(bob, text, NOW + 1), NOW + 1) is Outcome.NEW
