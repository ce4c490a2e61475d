"""What the relay remembers of queues, what it may forget, and how it counts."""

from collections.abc import Callable

import pytest

from sottovoce_relay.envelopes import Fill
from sottovoce_relay.mailboxes import Mailbox, Mailboxes
from sottovoce_relay.states import EnvelopeState
from sottovoce_relay.storage import Door
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import QueueId
from tests.sottovoce_relay.parts import OTHER, QUEUE, door_of, envelope

CAPACITY = 20
CONTACT = Door(1, KeyClass.CONTACT, None)


def queue(number: int) -> QueueId:
    return QueueId(b"%016d" % number)


def full() -> Mailboxes:
    """As many as are kept, the lowest numbers seen the longest ago."""
    mailboxes = Mailboxes(mailboxes=CAPACITY, doors=CAPACITY)
    for number in range(CAPACITY):
        mailboxes.at(queue(number), number)
    return mailboxes


# --- One ----------------------------------------------------------------------------------------------------------


def counted(mailbox: Mailbox) -> tuple[Fill | None, dict[bytes, int]]:
    return mailbox.fill, mailbox.invites


def test_what_comes_and_goes_is_counted() -> None:
    mailbox, door = Mailbox(QUEUE, 1), door_of(KeyClass.INVITE)
    mailbox.fill, mailbox.invites = Fill(), {door: 0}
    invited, stranger = envelope(4, b"12", KeyClass.INVITE), envelope(5, b"123", KeyClass.STRANGER)
    mailbox.count_in(invited)
    mailbox.count_in(stranger)
    assert (counted(mailbox), mailbox.last) == ((Fill(2, 5, 1, 3), {door: 1}), 5)
    mailbox.drop(invited)
    mailbox.count_out(is_limited=True, size=3, invite=None)
    assert (counted(mailbox), mailbox.last) == ((Fill(), {door: 0}), 5)


def test_what_is_not_known_is_not_counted() -> None:
    mailbox = Mailbox(QUEUE, 1)
    invited = envelope(4, kind=KeyClass.INVITE)
    mailbox.count_in(invited)
    mailbox.drop(invited)
    assert counted(mailbox) == (None, {})


def test_counting_anew_adds_what_is_not_written_yet_to_what_is() -> None:
    mailbox = Mailbox(QUEUE, 1)
    for seq, state in enumerate(EnvelopeState, start=1):
        subject = envelope(seq, bytes(10**seq), KeyClass.STRANGER, state=state)
        mailbox.known[subject.name] = subject
    mailbox.refill(Fill(5, 7, 2, 3), head=4)
    unwritten = {EnvelopeState.HELD, EnvelopeState.QUEUED, EnvelopeState.WRITING}
    size = sum(10**seq for seq, state in enumerate(EnvelopeState, start=1) if state in unwritten)
    assert mailbox.fill == Fill(8, 7 + size, 5, 3 + size)
    assert mailbox.last == 4
    mailbox.refill(Fill(), head=2)
    assert mailbox.last == 4


def test_what_is_not_written_is_given_in_its_order() -> None:
    mailbox = Mailbox(QUEUE, 1)
    for seq in (3, 1, 2):
        subject = envelope(seq, state=EnvelopeState.QUEUED)
        mailbox.known[subject.name] = subject
    assert [subject.seq for subject in mailbox.unwritten()] == [1, 2, 3]


def test_forgetting_one_leaves_another_of_its_name() -> None:
    mailbox, first, again = Mailbox(QUEUE, 1), envelope(1, name=b"n"), envelope(2, name=b"n")
    mailbox.known[again.name] = again
    mailbox.forget(first)
    assert mailbox.known == {again.name: again}
    mailbox.forget(again)
    assert mailbox.known == {}


def test_one_of_a_name_that_another_has_is_known_beside_it_until_it_is_gone() -> None:
    """A repeat waits for the writer while the first is pushed, from the database, and not acknowledged."""
    mailbox = Mailbox(QUEUE, 1)
    waiting, pushed = envelope(2, name=b"n", state=EnvelopeState.QUEUED), envelope(1, name=b"n")
    pushed.state = EnvelopeState.STORED
    mailbox.known[waiting.name] = waiting
    for _ in range(2):
        mailbox.know(pushed)
    assert mailbox.known == {pushed.name: pushed}
    assert mailbox.unwritten() == [waiting]
    mailbox.forget(pushed)
    assert not mailbox.can_be_forgotten
    mailbox.refill(Fill(), head=1)
    mailbox.drop(waiting)
    assert (mailbox.unwritten(), mailbox.fill, mailbox.can_be_forgotten) == ([], Fill(), True)


def test_what_is_written_is_not_kept_beside_the_one_that_is_pushed() -> None:
    mailbox, stored, again = Mailbox(QUEUE, 1), envelope(1, name=b"n"), envelope(1, name=b"n")
    stored.state = again.state = EnvelopeState.STORED
    mailbox.know(stored)
    mailbox.know(again)
    mailbox.forget(again)
    assert mailbox.can_be_forgotten


def test_what_nobody_knows_is_asked_for_again() -> None:
    mailbox = Mailbox(QUEUE, 1)
    mailbox.fill, mailbox.invites = Fill(), {door_of(KeyClass.INVITE): 3}
    mailbox.recount()
    assert not mailbox.is_loaded(CONTACT, door_of())
    assert counted(mailbox) == (None, {})


def test_a_queue_is_loaded_when_its_fill_and_the_invite_key_asked_for_are_known() -> None:
    mailbox, door = Mailbox(QUEUE, 1), door_of(KeyClass.INVITE)
    invite = Door(1, KeyClass.INVITE, None)
    assert not mailbox.is_loaded(CONTACT, door_of())
    mailbox.fill = Fill()
    assert mailbox.is_loaded(CONTACT, door_of())
    assert not mailbox.is_loaded(invite, door)
    mailbox.invites[door] = 0
    assert mailbox.is_loaded(invite, door)


# --- All ----------------------------------------------------------------------------------------------------------


def test_the_one_that_was_used_the_longest_ago_is_forgotten() -> None:
    mailboxes = full()
    kept = mailboxes.at(queue(0), 0)
    mailboxes.at(queue(99), 99)
    assert (len(mailboxes), mailboxes.find(1)) == (CAPACITY, None)
    assert mailboxes.find(0) is kept


def hold(mailbox: Mailbox) -> None:
    mailbox.held.append(envelope(1))


def know(mailbox: Mailbox) -> None:
    mailbox.known[b"name"] = envelope(1)


def receive(mailbox: Mailbox) -> None:
    mailbox.is_received = True


@pytest.mark.parametrize("use", [hold, know, receive])
def test_one_for_which_something_is_under_way_is_never_forgotten(use: Callable[[Mailbox], None]) -> None:
    mailboxes = full()
    kept = mailboxes.at(queue(0), 0)
    use(kept)
    for number in range(100, 100 + 3 * CAPACITY):
        mailboxes.at(queue(number), number)
    assert mailboxes.find(0) is kept
    assert len(mailboxes) == CAPACITY


def test_a_count_of_refusals_keeps_nothing_in_memory() -> None:
    """Otherwise who fills queues that nobody opens would fill the memory."""
    mailboxes = full()
    mailboxes.at(queue(0), 0).refused = 1
    for number in range(100, 100 + CAPACITY):
        mailboxes.at(queue(number), number)
    assert mailboxes.find(0) is None


def test_where_all_are_in_use_there_is_one_more() -> None:
    mailboxes = full()
    for number in range(CAPACITY):
        receive(mailboxes.at(queue(number), number))
    new = mailboxes.at(queue(99), 99)
    assert mailboxes.find(99) is new
    assert len(mailboxes) == CAPACITY + 1


def test_the_queues_that_are_received_are_named() -> None:
    mailboxes = full()
    for number in (3, 7):
        receive(mailboxes.at(queue(number), number))
    assert sorted(mailboxes.received()) == [3, 7]


# --- Send keys ----------------------------------------------------------------------------------------------------


def test_the_send_key_that_was_used_the_longest_ago_is_forgotten() -> None:
    mailboxes = full()
    mailboxes.learn({b"%048d" % number: CONTACT for number in range(CAPACITY)})
    assert mailboxes.door(b"%048d" % 0) == CONTACT
    mailboxes.learn({b"new": CONTACT})
    assert mailboxes.door(b"%048d" % 0) == CONTACT
    assert mailboxes.door(b"%048d" % 1) is None


def test_what_a_send_key_opens_can_change() -> None:
    mailboxes = Mailboxes()
    mailboxes.learn({door_of(): CONTACT})
    mailboxes.forget_doors([door_of(), b"unknown"])
    assert mailboxes.door(door_of()) is None
    demoted = Door(1, KeyClass.CONTACT, 5)
    mailboxes.learn({door_of(): demoted})
    assert mailboxes.door(door_of()) == demoted


def test_the_keys_of_deleted_queues_open_nothing_and_others_go_on() -> None:
    mailboxes = Mailboxes()
    third = queue(3)
    mailboxes.learn({door_of(kind, at): CONTACT for kind in KeyClass for at in (QUEUE, OTHER, third)})
    mailboxes.forget_queues({QUEUE, third})
    assert [mailboxes.door(door_of(kind, at)) for kind in KeyClass for at in (QUEUE, third)] == [None] * 8
    assert [mailboxes.door(door_of(kind, OTHER)) for kind in KeyClass] == [CONTACT] * 4


def test_the_quota_of_a_key_that_opens_something_else_now_is_asked_for_again() -> None:
    mailboxes, first, second = Mailboxes(), door_of(KeyClass.INVITE), door_of(KeyClass.INVITE, OTHER)
    mailboxes.learn({first: Door(1, KeyClass.INVITE, None), second: Door(2, KeyClass.INVITE, None)})
    one, two = mailboxes.at(QUEUE, 1), mailboxes.at(OTHER, 2)
    one.invites, two.invites = {first: 3}, {second: 4}
    mailboxes.forget_doors([first])
    assert (one.invites, two.invites) == ({}, {second: 4})
    mailboxes.forget_queues({OTHER})
    assert two.invites == {}


def test_what_is_undecided_is_counted_queue_by_queue() -> None:
    mailboxes = Mailboxes()
    mailboxes.undecided.update([QUEUE, QUEUE, OTHER])
    for left in (1, 0):
        mailboxes.decided(QUEUE)
        assert mailboxes.undecided[QUEUE] == left
    assert mailboxes.undecided == {OTHER: 1}
