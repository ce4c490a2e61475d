"""What tells the fault tests that something went wrong does tell."""

import pytest

from tests.faults.sdk.journal import lost_or_twice, shown_wrongly
from tests.faults.sdk.keys import used_twice

FINE = [["life"], ["shown", "a", "1"], ["handled", "a"], ["shown", "b", "1"], ["life"], ["shown", "b", "2"]]


def test_what_came_once_and_in_order_is_fine() -> None:
    assert lost_or_twice(["a", "c"], ["a", "b", "c"], ["a", "c"]) == []
    assert lost_or_twice(["a", "c"], ["a", "b", "c"], ["a", "b", "c"]) == []


@pytest.mark.parametrize(
    ("arrived", "complaint"),
    [
        (["a"], "never came"),
        (["a", "b", "b"], "2 times"),
        (["a", "b", "x"], "nobody wrote"),
        (["b", "a"], "order"),
    ],
)
def test_what_is_lost_doubled_invented_or_out_of_order_is_told(arrived: list[str], complaint: str) -> None:
    assert any(complaint in found for found in lost_or_twice(["a", "b"], ["a", "b"], arrived))


def test_a_message_in_hand_comes_again_after_a_death() -> None:
    assert shown_wrongly(FINE) == []
    assert shown_wrongly([["life"], ["life"], ["shown", "a", "2"]]) == [], "it died just before it was handed over"


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([*FINE, ["handled", "b"], ["shown", "a", "2"]], "was handled"),
        ([*FINE, ["shown", "b", "3"]], "shown twice"),
        ([*FINE, ["life"], ["shown", "c", "1"], ["shown", "b", "3"]], "shown twice"),
        ([*FINE, ["life"], ["shown", "b", "1"]], "as attempt 1"),
        ([*FINE, ["shown", "c", "2"]], "as attempt 2"),
    ],
)
def test_what_is_shown_wrongly_is_told(events: list[list[str]], complaint: str) -> None:
    assert any(complaint in found for found in shown_wrongly(events))


def test_a_key_may_be_used_for_what_never_left_and_an_envelope_may_leave_twice() -> None:
    again = [["pair", "k", "1"], ["made", "first", "k"], ["pair", "k", "2"], ["made", "second", "k"]]
    assert used_twice([*again, ["wire", "second"], ["wire", "second"]]) == []


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([["pair", "k", "1"], ["pair", "k", "1"]], "a key and a nonce"),
        ([["made", "a", "k"], ["made", "b", "k"], ["wire", "a"], ["wire", "b"]], "two envelopes"),
        ([["made", "a", "k"], ["wire", "b"]], "nobody made"),
    ],
)
def test_a_key_that_is_used_twice_is_told(events: list[list[str]], complaint: str) -> None:
    assert any(complaint in found for found in used_twice(events))
