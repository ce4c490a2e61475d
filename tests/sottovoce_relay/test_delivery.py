"""A queue's delivery to one connection, without any connection: numbers, credit, cursor, acknowledgements."""

from collections.abc import Sequence

import pytest

from sottovoce_relay.delivery import MAX_PUSH, Delivery
from sottovoce_relay.envelopes import Envelope, Page
from sottovoce_relay.mailboxes import Mailbox
from sottovoce_relay.states import DeliveryState, EnvelopeEvent, EnvelopeState
from sottovoce_wire.errors import Code, WireError
from tests.sottovoce_relay.parts import NOW, NUMBERS, QUEUE, envelope

STORED, HELD = EnvelopeState.STORED, EnvelopeState.HELD


def stored(seq: int, length: int = 10, expires_at: int = NOW + 1) -> Envelope:
    return envelope(seq, bytes(length), expires_at=expires_at, state=STORED)


def page(seqs: Sequence[int], head: int, *, cursor: int | None = None, more: bool = False) -> Page:
    at = cursor if cursor is not None else (seqs[-1] if seqs else 0)
    envelopes = tuple(stored(seq) for seq in seqs)
    return Page(NUMBERS[QUEUE], envelopes, cursor=at, head=head, more=more, expired=0, told=0)


def started(count: int = 256, size: int = 2**20) -> Delivery:
    return Delivery(Mailbox(QUEUE, NUMBERS[QUEUE]), count, size, lambda _: None)


def live(head: int = 0, count: int = 256, size: int = 2**20) -> Delivery:
    delivery = started(count, size)
    delivery.begin_page()
    delivery.take_page(page([], head))
    assert delivery.state is DeliveryState.LIVE
    return delivery


def read(delivery: Delivery, seqs: Sequence[int], head: int, *, more: bool = False) -> list[int]:
    delivery.begin_page()
    return [item.number for item in delivery.take_page(page(seqs, head, more=more))]


def commit(delivery: Delivery, *seqs: int, now: float = NOW) -> list[int]:
    return [item.number for item in delivery.take_commit([stored(seq) for seq in seqs], now)]


def acknowledged(delivery: Delivery, upto: int, *singles: int) -> list[int]:
    """The queue numbers behind the delivery numbers that are acknowledged."""
    return [gone.seq for gone in delivery.acknowledge(upto, singles)]


def test_delivery_numbers_count_from_one_whatever_the_queue_numbers_are() -> None:
    delivery = started()
    assert read(delivery, [7, 9, 30], head=30) == [1, 2, 3]
    assert read(delivery, [31], head=31) == [4]


def test_it_goes_live_when_a_page_is_empty_and_the_cursor_is_at_the_head() -> None:
    delivery = started()
    read(delivery, [1, 2], head=2)
    assert delivery.wants_page
    delivery.begin_page()
    delivery.take_page(page([], 2, cursor=2))
    assert delivery.state is DeliveryState.LIVE


def test_numbers_that_no_envelope_has_any_more_do_not_keep_it_from_going_live() -> None:
    assert live(head=500).cursor == 500


def test_a_commit_after_the_page_was_read_keeps_it_paging_and_is_not_missed() -> None:
    delivery = started()
    delivery.begin_page()
    assert commit(delivery, 1) == []
    delivery.take_page(page([], 0))  # what the snapshot showed before the commit
    assert delivery.state is DeliveryState.PAGING
    assert read(delivery, [1], head=1) == [1]


def test_what_was_committed_and_is_gone_before_a_page_shows_it_does_not_keep_it_paging() -> None:
    """It expired, or the queue was deleted and made anew: page after page would be empty."""
    delivery = live(count=1)
    commit(delivery, 1, 2)
    delivery.acknowledge(1, [])
    assert read(delivery, [], head=0) == []
    assert delivery.state is DeliveryState.LIVE


def test_a_failed_write_while_a_page_is_read_asks_for_another_page() -> None:
    delivery = started()
    delivery.begin_page()
    delivery.unsure()
    delivery.take_page(page([], 0))
    assert delivery.wants_page
    delivery.begin_page()
    delivery.take_page(page([], 0))
    assert delivery.state is DeliveryState.LIVE


def test_a_failed_write_sends_a_live_delivery_back_to_the_database() -> None:
    delivery = live()
    delivery.unsure()
    assert delivery.wants_page


def test_live_envelopes_are_pushed_once_even_if_a_page_had_them() -> None:
    delivery = live(head=3)
    assert commit(delivery, 2, 3, 4) == [1]
    assert delivery.cursor == 4


def test_a_live_envelope_past_its_time_is_passed_over() -> None:
    delivery = live()
    assert delivery.take_commit([stored(1, expires_at=NOW)], now=NOW) == []
    assert delivery.cursor == 1
    assert delivery.state is DeliveryState.LIVE


def test_beyond_the_count_of_its_credit_it_goes_back_to_paging_and_waits_for_an_acknowledgement() -> None:
    delivery = live(count=2)
    assert commit(delivery, 1, 2, 3) == [1, 2]
    assert delivery.state is DeliveryState.PAGING
    assert not delivery.wants_page
    delivery.acknowledge(1, [])
    assert delivery.wants_page
    assert delivery.begin_page() == (2, (1, min(2**20 - 10, MAX_PUSH)))


def test_beyond_the_bytes_of_its_credit_it_waits_as_well() -> None:
    delivery = live(size=25)
    assert commit(delivery, 1, 2, 3) == [1, 2]
    delivery.begin_page()
    delivery.take_page(page([], 3, cursor=2, more=True))  # the next one did not fit
    assert not delivery.wants_page
    delivery.acknowledge(0, [2])
    assert delivery.wants_page


def test_credit_that_comes_back_while_a_page_is_read_is_not_forgotten() -> None:
    delivery = live(size=25)
    commit(delivery, 1, 2, 3)
    delivery.begin_page()
    delivery.acknowledge(1, [])
    delivery.take_page(page([], 3, cursor=2, more=True))  # read before the acknowledgement: nothing fitted
    assert delivery.wants_page


def test_a_page_of_nothing_but_expired_envelopes_is_followed_by_another() -> None:
    delivery = started()
    delivery.begin_page()
    assert list(delivery.take_page(page([], 9, cursor=5, more=True))) == []
    assert delivery.wants_page
    assert delivery.cursor == 5


def test_one_push_is_bounded_in_bytes() -> None:
    delivery = live(size=4 * MAX_PUSH)
    items = delivery.take_commit([stored(seq, length=MAX_PUSH // 4) for seq in range(1, 7)], NOW)
    assert len(items) == 4
    assert delivery.wants_page


def test_acknowledgements_name_the_queue_numbers_behind_the_delivery_numbers() -> None:
    delivery = started()
    read(delivery, [10, 11, 15, 16], head=16)
    assert acknowledged(delivery, 2, 4) == [10, 11, 16]
    assert acknowledged(delivery, 4) == [15]


def test_an_acknowledgement_said_twice_deletes_nothing_the_second_time() -> None:
    delivery = started()
    read(delivery, [1, 2, 3], head=3)
    assert delivery.acknowledge(3, [2, 2, 0])
    assert delivery.acknowledge(3, [1, 3]) == []


@pytest.mark.parametrize(("upto", "singles"), [(3, []), (0, [3]), (2, [2**53 - 1])])
def test_an_acknowledgement_beyond_what_was_pushed_deletes_nothing(upto: int, singles: list[int]) -> None:
    delivery = started()
    read(delivery, [1, 2], head=2)
    with pytest.raises(WireError) as caught:
        delivery.acknowledge(upto, singles)
    assert caught.value.code is Code.BAD_ACK
    assert acknowledged(delivery, 2) == [1, 2]


def test_an_expired_envelope_between_two_others_is_not_deleted_by_their_acknowledgement() -> None:
    delivery = started()
    read(delivery, [1, 3], head=3)  # 2 has expired, is still there, and the sweep must find it
    assert acknowledged(delivery, 2) == [1, 3]


def test_an_empty_queue_is_caught_up_at_once_and_only_once() -> None:
    delivery = started()
    assert not delivery.take_caught_up()
    read(delivery, [], head=0)
    assert delivery.take_caught_up()
    assert not delivery.take_caught_up()


def test_caught_up_waits_until_the_backlog_is_deleted() -> None:
    delivery = started()
    read(delivery, [1, 2], head=2)
    read(delivery, [], head=2)
    commit(delivery, 3)  # newer than the backlog: not waited for
    first = delivery.acknowledge(1, [])
    second = delivery.acknowledge(2, [])
    delivery.gone(first)
    assert not delivery.take_caught_up()
    delivery.gone(second)
    assert delivery.take_caught_up()


def test_caught_up_does_not_wait_for_what_expired() -> None:
    delivery = started()
    read(delivery, [1], head=3, more=True)
    read(delivery, [], head=1)  # the rest was swept meanwhile
    first = delivery.acknowledge(1, [])
    assert not delivery.take_caught_up()
    delivery.gone(first)
    assert delivery.take_caught_up()


def test_each_expired_envelope_is_told_once_on_a_connection() -> None:
    delivery = started()
    assert delivery.expired(total=5, told=2) == 3
    assert delivery.expired(total=5, told=2) == 0
    assert delivery.expired(total=6, told=2) == 1
    assert delivery.expired(total=6, told=6) == 0


def test_numbers_go_on_after_acknowledgements() -> None:
    """A number that is used twice on a connection would let one acknowledgement destroy two envelopes."""
    delivery = live()
    assert commit(delivery, 1, 2) == [1, 2]
    delivery.acknowledge(1, [])
    assert commit(delivery, 3) == [3]


# --- What is pushed before it is written --------------------------------------------------------------------------


def arrive(delivery: Delivery, *seqs: int, body: bytes = b"held") -> list[Envelope]:
    """Envelopes that are accepted and held."""
    held = [envelope(seq, body, state=HELD) for seq in seqs]
    for subject in held:
        delivery.mailbox.unpushed.append(subject)
        delivery.mailbox.last = subject.seq
    return held


def pushed(delivery: Delivery) -> list[int]:
    return [item.number for item in delivery.push_unwritten()]


def test_what_is_pushed_at_once_is_not_pushed_again_by_its_commit() -> None:
    delivery = live()
    (held,) = arrive(delivery, 1)
    assert [(item.number, item.body) for item in delivery.push_unwritten()] == [(1, b"held")]
    held.state = EnvelopeState.WRITING
    held.committed()
    assert list(delivery.take_commit([held], NOW)) == []
    assert pushed(delivery) == []
    assert acknowledged(delivery, 1) == [1]


def test_what_its_commit_pushed_is_not_pushed_again_from_memory() -> None:
    delivery = live(count=1)
    _, second = arrive(delivery, 1, 2)
    assert pushed(delivery) == [1]
    acknowledged(delivery, 1)
    second.state = EnvelopeState.STORED  # held long enough, without any credit
    assert [item.number for item in delivery.take_commit([second], NOW)] == [2]
    assert pushed(delivery) == []
    assert acknowledged(delivery, 2) == [2]


def test_beyond_the_credit_it_waits_in_memory_and_goes_on_in_order() -> None:
    delivery = live(count=3, size=12)
    arrive(delivery, 1, 2, body=b"12345")
    arrive(delivery, 3, 4, body=b"123")
    assert pushed(delivery) == [1, 2]  # the third does not fit
    assert pushed(delivery) == []
    delivery.acknowledge(1, [])
    assert pushed(delivery) == [3, 4]
    assert acknowledged(delivery, 4) == [2, 3, 4]


def test_one_push_from_memory_is_bounded_in_bytes_and_the_next_goes_on() -> None:
    delivery = live(size=4 * MAX_PUSH)
    arrive(delivery, *range(1, 7), body=bytes(MAX_PUSH // 4))
    assert pushed(delivery) == [1, 2, 3, 4]
    assert pushed(delivery) == [5, 6]


def test_what_failed_meanwhile_is_not_pushed() -> None:
    delivery = live()
    first, second = arrive(delivery, 1, 2)
    first.state = EnvelopeState.GONE
    assert pushed(delivery) == [1]
    assert acknowledged(delivery, 1) == [second.seq]


def test_an_arrival_follows_when_all_before_it_was_pushed_or_waits_in_memory() -> None:
    delivery = live(count=1)
    assert delivery.follows()
    arrive(delivery, 1, 2)
    assert delivery.follows()
    pushed(delivery)
    assert delivery.follows()


def test_nothing_follows_what_is_being_written() -> None:
    delivery = live()
    arrive(delivery, 1)
    delivery.mailbox.last = 5  # one that the writer has
    assert not delivery.follows()
    pushed(delivery)
    assert not delivery.follows()
    commit(delivery, 5)
    assert delivery.follows()


def test_nothing_follows_while_paging() -> None:
    delivery = started()
    assert not delivery.follows()
    read(delivery, [], head=0)
    assert delivery.follows()
    delivery.unsure()
    assert not delivery.follows()


def test_what_waits_in_memory_is_left_to_the_pages_once_a_commit_is_beyond_the_credit_or_failed() -> None:
    for left_to_pages in (lambda d: commit(d, 2), lambda d: d.unsure()):
        delivery = live(count=1)
        arrive(delivery, 1, 2, 3)
        assert pushed(delivery) == [1]
        left_to_pages(delivery)
        assert delivery.state is DeliveryState.PAGING
        assert not delivery.mailbox.unpushed
        delivery.acknowledge(1, [])
        assert pushed(delivery) == []
        assert read(delivery, [2, 3], head=3) == [2, 3]


def test_what_is_pushed_is_noted() -> None:
    noted: list[int] = []
    delivery = Delivery(Mailbox(QUEUE, 1), 256, 2**20, lambda envelopes: noted.extend(e.seq for e in envelopes))
    read(delivery, [1, 2], head=2)
    read(delivery, [], head=2)
    commit(delivery, 3)
    arrive(delivery, 4)
    pushed(delivery)
    assert noted == [1, 2, 3, 4]


def test_what_is_pushed_is_known_until_somebody_forgets_it() -> None:
    delivery, subject = live(), stored(1)
    delivery.take_commit([subject], NOW)
    assert delivery.mailbox.known == {subject.name: subject}
    assert subject.is_pushed
    assert subject.body == b""


def test_the_end_gives_back_what_was_not_acknowledged() -> None:
    delivery = live()
    commit(delivery, 1, 2, 3)
    delivery.acknowledge(0, [2])
    assert [left.seq for left in delivery.end()] == [1, 3]
    assert delivery.end() == []


# --- What was acknowledged on the connection before ----------------------------------------------------------------


def leaving(seq: int) -> Envelope:
    """Acknowledged while it was being written."""
    subject = envelope(seq, state=EnvelopeState.WRITING)
    subject.step(EnvelopeEvent.ACK)
    return subject


def test_a_page_leaves_out_what_was_acknowledged_and_is_not_deleted_yet() -> None:
    delivery = started()
    gone = leaving(1)
    delivery.mailbox.known[gone.name] = gone
    assert read(delivery, [1, 2], head=2) == [1]
    assert acknowledged(delivery, 1) == [2]
    assert delivery.cursor == 2


def test_a_page_has_one_that_was_sent_again_while_the_one_before_is_being_deleted() -> None:
    delivery = started()
    gone = leaving(1)
    delivery.mailbox.known[gone.name] = gone
    again = envelope(2, state=STORED)
    again.name = gone.name
    delivery.begin_page()
    delivery.take_page(Page(NUMBERS[QUEUE], (again,), cursor=2, head=2, more=False, expired=0, told=0))
    assert acknowledged(delivery, 1) == [2]


def test_a_commit_of_what_was_acknowledged_meanwhile_is_not_pushed() -> None:
    delivery, gone = live(), leaving(1)
    gone.committed()
    assert list(delivery.take_commit([gone], NOW)) == []
    assert delivery.cursor == 1
    assert delivery.state is DeliveryState.LIVE
