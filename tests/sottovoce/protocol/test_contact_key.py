"""The key of the contact queue: when another takes its place, who is given it, and what proves that they have it."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from sottovoce.protocol import contact_key, contacts, healing
from sottovoce.protocol.reading import Outcome
from sottovoce.protocol.state import Outgoing
from sottovoce_wire import limits
from sottovoce_wire.ids import SendKey
from tests.sottovoce.people import Person

NOW = 1_800_000_000


@pytest.fixture
def talking(alice: Person, bob: Person) -> tuple[Person, Person]:
    """Contacts of each other, who both know the other's address and are known to."""
    alice.meet(bob, NOW)
    for writer, reader in ((alice, bob), (bob, alice)) * 2:
        assert reader.read(writer.write(reader, "hello", NOW), NOW) is Outcome.NEW
    assert alice.sending(bob).address_confirmed
    assert bob.sending(alice).address_confirmed
    return alice, bob


def key_of(person: Person) -> SendKey:
    """The key that the person's contacts are given now."""
    with person.store.transaction() as tables:
        return tables.account.contact_key()


def following(person: Person, now: int = NOW) -> SendKey | None:
    """The key that the person's relay is to know next."""
    with person.store.transaction() as tables:
        return contact_key.due(tables, now)


def want(person: Person) -> None:
    with person.store.transaction() as tables:
        contact_key.want(tables)


def change(person: Person, now: int = NOW) -> SendKey:
    """Another key takes the place of the present one."""
    with person.store.transaction() as tables:
        contact_key.want(tables)
        contact_key.replaced(tables, now)
    return key_of(person)


def key_used(writer: Person, reader: Person, now: int = NOW) -> SendKey:
    """The key under which the writer would send to the reader."""
    with writer.store.transaction() as tables:
        address = tables.peers.address(reader.own.account_id, reader.own.device.device_id)
    assert address is not None
    return address.send_key


def test_who_blocks_a_contact_gets_another_key_and_who_blocks_a_stranger_does_not(
    alice: Person, bob: Person, person: Callable[[str], Person]
) -> None:
    carol = person("carol")
    for stranger in (alice, carol):
        stranger.meet(bob, NOW)
        bob.read(stranger.write(bob, "may I", NOW), NOW)
    with bob.store.transaction() as tables:
        contacts.block(tables, alice.own.account_id)
    assert following(bob) is None
    bob.write(carol, "you may", NOW)
    with bob.store.transaction() as tables:
        contacts.block(tables, carol.own.account_id)
    assert following(bob) not in (None, key_of(bob))


def test_a_key_that_nobody_was_given_yet_serves_for_everybody_who_is_blocked_meanwhile(alice: Person) -> None:
    want(alice)
    first = following(alice)
    want(alice)
    assert following(alice) == first
    assert key_of(alice) != first, "the relay does not know it"
    with alice.store.transaction() as tables:
        contact_key.replaced(tables, NOW)
    assert key_of(alice) == first
    assert following(alice) is None


def test_contacts_are_given_the_new_key_until_they_answer_what_brought_it(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    under_way = alice.write(bob, "under the old key", NOW)
    new = change(bob)
    assert bob.read(under_way, NOW) is Outcome.NEW
    assert bob.read(alice.write(bob, "also", NOW), NOW) is Outcome.NEW
    assert not bob.sending(alice).address_confirmed
    alice.read(bob.write(alice, "take this", NOW), NOW)
    assert key_used(alice, bob) == new
    assert not bob.sending(alice).address_confirmed
    bob.read(alice.write(bob, "thanks", NOW), NOW)
    assert bob.sending(alice).address_confirmed


def test_a_message_that_answers_what_was_said_before_the_change_proves_nothing(talking: tuple[Person, Person]) -> None:
    """Alice has heard the beginning of Bob's chain, and nothing of what he has said in it since the change."""
    alice, bob = talking
    alice.read(bob.write(alice, "before", NOW), NOW)
    new = change(bob)
    lost = bob.write(alice, "take this", NOW)
    assert bob.read(alice.write(bob, "in answer to before", NOW), NOW) is Outcome.NEW
    assert not bob.sending(alice).address_confirmed
    assert alice.read(bob.write(alice, "take this, I said", NOW), NOW) is Outcome.NEW
    assert key_used(alice, bob) == new
    assert alice.read(lost, NOW) is Outcome.NEW


def test_a_session_made_by_who_knows_the_old_key_brings_the_new_one(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    new = change(bob)
    alice.meet(bob, NOW)
    first = alice.write(bob, "anew", NOW)
    assert first.address.send_key != new
    assert bob.read(first, NOW) is Outcome.NEW
    alice.read(bob.write(alice, "take this", NOW), NOW)
    assert key_used(alice, bob) == new


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_lost_or_late_nobody_counts_as_having_the_key_who_does_not(
    talking: tuple[Person, Person], seed: int
) -> None:
    rnd, (alice, bob) = random.Random(seed), talking  # noqa: S311 - a test's own disorder
    new, confirmed = key_of(bob), 0
    under_way: list[tuple[Person, Outgoing]] = []
    for _ in range(150):
        match rnd.randrange(20):
            case 0:
                new = change(bob)
            case 1:
                writer, reader = rnd.sample((alice, bob), 2)
                writer.meet(reader, NOW)
            case 2 if under_way:
                del under_way[rnd.randrange(len(under_way))]
            case number if number < 10:
                writer, reader = rnd.sample((alice, bob), 2)
                under_way.append((reader, writer.write(reader, "hello", NOW)))
            case _ if under_way:
                reader, envelope = under_way.pop(rnd.randrange(min(len(under_way), 3)))
                reader.read(envelope, NOW)
        if bob.sending(alice).address_confirmed:
            confirmed += 1
            assert key_used(alice, bob) == new
    assert confirmed, "it must be able to fail"


def test_contacts_who_have_answered_are_told_within_a_day_and_nobody_else(
    talking: tuple[Person, Person], person: Callable[[str], Person]
) -> None:
    alice, bob = talking
    blocked, silent, stranger = (person(name) for name in ("blocked", "silent", "stranger"))
    for other in (blocked, stranger):
        other.meet(bob, NOW)
        bob.read(other.write(bob, "may I", NOW), NOW)
    blocked.read(bob.write(blocked, "you may", NOW), NOW)
    bob.meet(silent, NOW)
    bob.write(silent, "hello", NOW)
    with bob.store.transaction() as tables:
        for session in [*tables.sessions._some(""), bob.sending(alice)]:
            tables.sessions.put(replace(session, owed=0, answer_by=None))
        contacts.block(tables, blocked.own.account_id)
        contact_key.replaced(tables, NOW)
        (due,) = tables.sessions.owing(50, NOW + contact_key.TOLD_WITHIN)
    assert due.account_id == alice.own.account_id
    (told,) = bob.mend(alice, NOW + contact_key.TOLD_WITHIN)
    alice.read(told, NOW)
    assert key_used(alice, bob) == key_of(bob)


def test_an_answer_that_is_due_before_is_not_put_off(talking: tuple[Person, Person]) -> None:
    alice, bob = talking
    bob.read(alice.write(bob, "hello", NOW), NOW)
    before = bob.sending(alice).answer_by
    assert before is not None
    change(bob)
    assert bob.sending(alice).answer_by == before


def test_however_many_are_blocked_the_relay_keeps_half_of_the_keys_it_can_keep(alice: Person) -> None:
    replaced: list[int] = []
    for now in range(NOW, NOW + 70 * limits.DAY, limits.HOUR):
        for _ in range(4):
            want(alice)
            if following(alice, now) is not None:
                change(alice, now)
                replaced.append(now)
        alive = [at for at in replaced if at > now - limits.DEMOTED_LIFETIME]
        assert len(alive) + 2 <= limits.MAX_SEND_KEYS / 2
    assert max(later - before for before, later in pairwise(replaced)) == contact_key.EVERY
    assert replaced[contact_key.AT_ONCE - 1] < NOW + limits.DAY
    with alice.store.transaction() as tables:
        rows: int = tables.account._execute("SELECT count(*) FROM contact_keys_replaced").get
    assert rows <= limits.MAX_SEND_KEYS / 2


def test_a_store_that_was_put_back_takes_another_key(alice: Person) -> None:
    """Which of its keys were demoted since the copy was made, it cannot know."""
    with alice.store.transaction() as tables:
        healing.restored(tables, NOW)
    assert following(alice) not in (None, key_of(alice))


def test_a_clock_that_goes_back_neither_stops_nor_hurries_the_changes(alice: Person) -> None:
    for _ in range(contact_key.AT_ONCE):
        change(alice, NOW)
    want(alice)
    assert following(alice, NOW + contact_key.EVERY - 1) is None
    past = NOW - 400 * limits.DAY
    assert following(alice, past) is not None
    change(alice, past)
    want(alice)
    assert following(alice, past + contact_key.EVERY - 1) is None
    assert following(alice, past + contact_key.EVERY) is not None
