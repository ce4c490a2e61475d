"""What a message's state is called, where several things are true of it."""

import pytest

from sottovoce.message import CANCELLED, Progress, Status


@pytest.mark.parametrize(
    ("progress", "status"),
    [
        (Progress(waiting=True, is_delivered=False, is_read=False, failure=None), Status.WAITING),
        (Progress(waiting=False, is_delivered=False, is_read=False, failure=None), Status.SENT),
        (Progress(waiting=True, is_delivered=True, is_read=False, failure=None), Status.DELIVERED),
        (Progress(waiting=False, is_delivered=True, is_read=True, failure="refused"), Status.READ),
        (Progress(waiting=True, is_delivered=False, is_read=False, failure="expired"), Status.FAILED),
        (Progress(waiting=False, is_delivered=False, is_read=False, failure=CANCELLED), Status.CANCELLED),
    ],
)
def test_a_receipt_says_more_than_a_failure_and_that_more_than_a_relay(progress: Progress, status: Status) -> None:
    assert progress.status is status


def test_a_status_is_the_word_for_it() -> None:
    assert [*Status] == ["waiting", "sent", "delivered", "read", "failed", "cancelled"]
