"""A queue's delivery to one connection, without any connection: numbers, credit, cursor, acknowledgements."""

from collections.abc import Sequence

import pytest

from sottovoce_relay.delivery import MAX_PUSH, Delivery
from sottovoce_relay.envelopes import Page, Range, Stored
from sottovoce_relay.states import DeliveryState
from sottovoce_wire.errors import Code, WireError
from sottovoce_wire.frames import KeyClass
from sottovoce_wire.ids import QueueId

QUEUE = QueueId(b"q" * 16)
NEVER = 2**40


def stored(seq: int, length: int = 10, expires_at: int = NEVER) -> Stored:
    return Stored(QUEUE, seq, KeyClass.CONTACT, expires_at, bytes(length))


def page(seqs: Sequence[int], head: int, *, cursor: int | None = None, more: bool = False) -> Page:
    at = cursor if cursor is not None else (seqs[-1] if seqs else 0)
    return Page(tuple(stored(seq) for seq in seqs), cursor=at, head=head, more=more, expired=0, told=0)


def started(count: int = 256, size: int = 2**20) -> Delivery:
    delivery = Delivery(QUEUE)
    assert delivery.start(count, size)
    return delivery


def live(head: int = 0, count: int = 256, size: int = 2**20) -> Delivery:
    delivery = started(count, size)
    delivery.begin_page()
    delivery.take_page(page([], head))
    assert delivery.state is DeliveryState.LIVE
    return delivery


def read(delivery: Delivery, seqs: Sequence[int], head: int, *, more: bool = False) -> list[int]:
    delivery.begin_page()
    return [item.number for item in delivery.take_page(page(seqs, head, more=more))]


def commit(delivery: Delivery, *seqs: int, now: float = 0) -> list[int]:
    return [item.number for item in delivery.take_commit([stored(seq) for seq in seqs], now)]


def test_delivery_starts_once() -> None:
    delivery = Delivery(QUEUE)
    assert delivery.start(1, 1)
    assert not delivery.start(1, 1)


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


def test_a_failed_write_before_delivery_started_means_nothing() -> None:
    delivery = Delivery(QUEUE)
    delivery.unsure()
    assert delivery.state is DeliveryState.IDLE


def test_live_envelopes_are_pushed_once_even_if_a_page_had_them() -> None:
    delivery = live(head=3)
    assert commit(delivery, 2, 3, 4) == [1]
    assert delivery.cursor == 4


def test_a_live_envelope_past_its_time_is_passed_over() -> None:
    delivery = live()
    assert delivery.take_commit([stored(1, expires_at=100)], now=100) == ()
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
    assert delivery.take_page(page([], 9, cursor=5, more=True)) == ()
    assert delivery.wants_page
    assert delivery.cursor == 5


def test_one_push_is_bounded_in_bytes() -> None:
    delivery = live(size=4 * MAX_PUSH)
    items = delivery.take_commit([stored(seq, length=MAX_PUSH // 4) for seq in range(1, 7)], 0)
    assert len(items) == 4
    assert delivery.wants_page


def test_acknowledgements_name_the_queue_numbers_behind_the_delivery_numbers() -> None:
    delivery = started()
    read(delivery, [10, 11, 15, 16], head=16)
    assert delivery.acknowledge(2, [4]) == (Range(QUEUE, 9, 11), Range(QUEUE, 15, 16))
    assert delivery.acknowledge(4, []) == (Range(QUEUE, 14, 15),)


def test_an_acknowledgement_said_twice_deletes_nothing_the_second_time() -> None:
    delivery = started()
    read(delivery, [1, 2, 3], head=3)
    assert delivery.acknowledge(3, [2, 2, 0])
    assert delivery.acknowledge(3, [1, 3]) == ()


@pytest.mark.parametrize(("upto", "singles"), [(3, []), (0, [3]), (2, [2**53 - 1])])
def test_an_acknowledgement_beyond_what_was_pushed_deletes_nothing(upto: int, singles: list[int]) -> None:
    delivery = started()
    read(delivery, [1, 2], head=2)
    with pytest.raises(WireError) as caught:
        delivery.acknowledge(upto, singles)
    assert caught.value.code is Code.BAD_ACK
    assert delivery.acknowledge(2, []) == (Range(QUEUE, 0, 2),)


def test_an_expired_envelope_between_two_others_is_not_deleted_by_their_acknowledgement() -> None:
    delivery = started()
    read(delivery, [1, 3], head=3)  # 2 has expired, is still there, and the sweep must find it
    assert delivery.acknowledge(2, []) == (Range(QUEUE, 0, 1), Range(QUEUE, 2, 3))


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
    delivery.deleted(first)
    assert not delivery.take_caught_up()
    delivery.deleted(second)
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
