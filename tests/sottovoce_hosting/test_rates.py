"""Token buckets: a burst is exactly a burst, a refill exactly a rate, and the table never grows beyond its bound."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce_hosting.rates import Rates


class Clock:
    """Seconds that pass when a test says so. It starts late, as a machine that runs for a year."""

    def __init__(self) -> None:
        self.now = 31_536_000.1

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(take: Callable[[], float]) -> int:
    """How often it may be taken at once."""
    count = 0
    while take() == 0.0:
        count += 1
    return count


@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (20, 2000), (0.1, 3), (3, 7), (50, 200), (7e5, 1000)])
def test_a_full_bucket_holds_exactly_a_burst(rate: float, burst: int, clock: Clock) -> None:
    rates = Rates(rate, burst, 10, clock)
    assert taken(lambda: rates.take("a")) == burst


def test_it_fills_up_at_its_rate_and_no_further(clock: Clock) -> None:
    rates = Rates(10, 5, 10, clock)
    taken(lambda: rates.take("a"))
    clock.now += 0.3
    assert taken(lambda: rates.take("a")) == 3
    clock.now += 1000
    assert taken(lambda: rates.take("a")) == 5


def test_a_refusal_says_how_long_to_wait_and_takes_nothing(clock: Clock) -> None:
    rates = Rates(10, 5, 10, clock)
    taken(lambda: rates.take("a"))
    assert [rates.take("a", cost) for cost in (1, 1, 3)] == pytest.approx([0.1, 0.1, 0.3])
    clock.now += 0.1 + 1e-6
    assert rates.take("a") == 0.0


def test_keys_do_not_touch_each_other(clock: Clock) -> None:
    rates = Rates(1, 2, 10, clock)
    taken(lambda: rates.take("a"))
    assert taken(lambda: rates.take("b")) == 2


def test_what_costs_more_than_a_burst_waits_for_a_full_bucket_and_leaves_a_debt(clock: Clock) -> None:
    rates = Rates(10, 5, 10, clock)
    rates.take("a")
    assert rates.take("a", 20) == pytest.approx(0.1)
    clock.now += 0.1 + 1e-6
    assert rates.take("a", 20) == 0.0
    assert rates.take("a") == pytest.approx(1.6)


def test_what_is_known_of_keys_is_bounded_and_the_quietest_is_forgotten(clock: Clock) -> None:
    rates = Rates(1, 1, 3, clock)
    for key in "abcad":
        rates.take(key)
    assert len(rates) == 3
    assert [rates.take(key) > 0 for key in "acd"] == [True, True, True]
    assert rates.take("b") == 0.0


@given(steps=st.lists(st.tuples(st.floats(0, 3), st.floats(0.01, 12)), max_size=60), rate=st.floats(0.5, 50))
def test_it_answers_as_a_bucket_that_is_poured_by_hand(steps: list[tuple[float, float]], rate: float) -> None:
    clock, burst = Clock(), 5
    rates, level = Rates(rate, burst, 10, clock), float(burst)
    for pause, cost in steps:
        clock.now += pause
        level = min(burst, level + pause * rate)
        wait = rates.take("a", cost)
        assert wait == pytest.approx(max(0.0, (min(cost, burst) - level) / rate), abs=1e-5)
        if wait == 0.0:
            level -= cost
