"""What a message's state is called, where several things are true of it."""

import pytest

from sottovoce import errors
from sottovoce.message import CANCELLED, Progress, Sent, Status
from sottovoce_wire.ids import MessageId


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


@pytest.mark.parametrize(("failure", "hint"), [("refused", "send the message again"), ("envelope_too_large", "")])
async def test_who_waits_for_what_will_not_come_is_told_why_and_what_to_do(failure: str, hint: str) -> None:
    async def progress(_: MessageId) -> Progress:
        return Progress(waiting=False, is_delivered=False, is_read=False, failure=failure)

    async def cancel(_: MessageId) -> bool:
        return False

    with pytest.raises(errors.DeliveryFailed, match=failure) as failed:
        await Sent(MessageId(bytes(16)), progress, cancel).wait_sent()
    assert failed.value.hint.endswith(hint)
    assert bool(failed.value.hint) == bool(hint)
