"""The checker sees every fault that a relay could hide: without this, its silence would mean nothing."""

import pytest

from tests.faults.history import Envelope, Event, Kind, complaints

QUEUE = bytes(16)
SAID, ACCEPTED, _, DELIVERED, ACKED = Kind


def one(number: int = 1, connection: int = 1, *kinds: Kind) -> list[Event]:
    return [Event(kind, Envelope(QUEUE, 7, number), connection) for kind in kinds]


WHOLE = one(1, 1, SAID, ACCEPTED, DELIVERED, ACKED)

GOOD = {
    "nothing": [],
    "one whole life": WHOLE,
    "never accepted, and lost": one(1, 1, SAID),
    "never answered, and delivered": one(1, 1, SAID, DELIVERED, ACKED),
    "delivered before it is accepted": one(1, 1, SAID, DELIVERED, ACKED, ACCEPTED),
    "delivered again before Acked": one(1, 1, SAID, ACCEPTED, DELIVERED) + one(1, 2, DELIVERED, ACKED),
    "forgotten, sent again, delivered again": one(1, 1, SAID, DELIVERED, ACKED) + one(1, 2, SAID, DELIVERED, ACKED),
    "forgotten, sent again, delivered again and again": one(1, 1, SAID, DELIVERED, ACKED) + one(1, 2, SAID, DELIVERED)
    + one(1, 3, DELIVERED) + one(1, 4, DELIVERED, ACKED),
    "an older one delivered again": WHOLE + one(2, 1, SAID, ACCEPTED, DELIVERED) + one(3, 1, SAID, DELIVERED)
    + one(2, 2, DELIVERED, ACKED),
    "two queues": [
        *one(2, 1, SAID, DELIVERED), *(Event(kind, Envelope(b"other", 7, 1), 1) for kind in (SAID, DELIVERED))
    ],
}  # fmt: skip

BAD = {
    "accepted and never delivered": (one(1, 1, SAID, ACCEPTED), "lost: number 1 of sender 7"),
    "lost among others": (WHOLE + one(2, 1, SAID, ACCEPTED) + one(3, 1, SAID, DELIVERED), "lost: number 2 of sender 7"),
    "delivered after Acked": (WHOLE + one(1, 2, DELIVERED), "came back: number 1 of sender 7"),
    "delivered twice after one more sending": (
        WHOLE + one(1, 2, SAID, DELIVERED, ACKED) + one(1, 3, DELIVERED),
        "came back: number 1 of sender 7",
    ),
    "twice on one connection": (
        one(1, 1, SAID, ACCEPTED, DELIVERED, DELIVERED),
        "twice on one connection: number 1 of sender 7",
    ),
    "out of order": (one(2, 1, SAID, DELIVERED) + one(1, 1, SAID, DELIVERED), "overtaken: number 1 of sender 7"),
}


@pytest.mark.parametrize("events", GOOD.values(), ids=GOOD.keys())
def test_what_a_relay_may_do_is_no_complaint(events: list[Event]) -> None:
    assert complaints(events) == []


@pytest.mark.parametrize(("events", "complaint"), BAD.values(), ids=BAD.keys())
def test_what_a_relay_must_not_do_is_found(events: list[Event], complaint: str) -> None:
    assert complaints(events) == [complaint]
