"""The report says which goals are met, what stops the others, and whether the generator was what was measured."""

import pytest

from benchmarks import relay, report
from benchmarks.outcome import Outcome
from benchmarks.servers import Spent

BY_KEY = {goal.key: goal for goal in report.GOALS}
FLOORS = {"echo_s": 20_000.0, "commit_rows_s": 90_000.0, "echo_p50_ms": 0.1, "echo_p99_ms": 0.3, "echo_idle_kib": 18.0}


def test_the_goals_are_those_of_the_design() -> None:
    assert {goal.key: goal.goal for goal in report.GOALS} == {
        "ingest_single_s": 15_000,
        "ingest_batched_s": 30_000,
        "drain_s": 60_000,
        "online_single_s": 8_000,
        "online_batched_s": 50_000,
        "latency_p50_ms": 0.6,
        "latency_p99_ms": 2,
        "fanout256_ms": 50,
        "idle_kib": 40,
        "flatness": 0.7,
        "never_on_disk_50": 0.85,
        "never_on_disk_1000": 0.85,
    }


def test_every_figure_has_a_scenario_and_every_scenario_but_the_floors_a_figure() -> None:
    assert relay.FIGURES.keys() == set(report.KEYS)
    assert set(relay.FIGURES.values()) == relay.SCENARIOS.keys() - {"floors"}


@pytest.mark.parametrize(
    ("key", "good", "bad"), [("drain_s", 60_000, 59_999), ("latency_p99_ms", 2, 2.1), ("flatness", 0.7, 0.6)]
)
def test_a_goal_is_met_from_its_own_value_on(key: str, good: float, bad: float) -> None:
    assert BY_KEY[key].is_met(good)
    assert not BY_KEY[key].is_met(bad)


@pytest.mark.parametrize(
    ("echo", "words"),
    [(14_000.0, "is what stops it (a bare echo"), (20_000.0, "allows the goal: the rest is the relay's own")],
)
def test_a_missed_goal_is_compared_with_its_floor(echo: float, words: str) -> None:
    lines = report.goal_lines({**FLOORS, "ingest_single_s": 9_000.0, "echo_s": echo}, ["ingest_single_s"])
    assert "MISSED" in lines[1]
    assert words in lines[2]


def test_a_met_goal_needs_no_floor() -> None:
    lines = report.goal_lines({**FLOORS, "ingest_single_s": 16_000.0}, ["ingest_single_s"])
    assert len(lines) == 2
    assert " met " in lines[1]


def test_what_was_not_measured_is_said_to_be_so() -> None:
    assert "not measured" in report.goal_lines({}, ["drain_s"])[1]


def test_repeats_count_by_their_median() -> None:
    repeats = [Outcome({"a": value}, {"work": Spent(value, value, 0)}) for value in (1.0, 100.0, 3.0)]
    assert report.medians(repeats) == {"a": 3.0}
    assert report.medians_spent(repeats) == {"work": Spent(3.0, 3.0, 0)}


def test_flatness_compares_the_medians_of_the_rates() -> None:
    repeats = [
        Outcome({"ingest_10_queues_s": few, "ingest_100_queues_s": many}, {})
        for few, many in ((10.0, 8.0), (2.0, 8.0), (10.0, 1.0))
    ]
    assert report.medians(repeats)["flatness"] == 0.8


def test_a_generator_that_used_more_than_the_server_is_warned_of() -> None:
    honest, doubtful = report.spent_lines({"a": Spent(1, 0.9, 0.2), "b": Spent(1, 0.2, 0.9)})[1:]
    assert "WARNING" not in honest
    assert "WARNING" in doubtful


def test_ratios_say_how_many_times_better_the_relay_is() -> None:
    ours = {"drain_s": 60_000.0, "latency_no_commit_p50_ms": 0.2}
    name, drain, latency = report.peer_lines("peer", {"drain_s": 6_000.0, "latency_no_commit_p50_ms": 0.1}, ours)
    assert name == "peer"
    assert drain.split()[-2:] == ["10.0", "times"]
    assert latency.split()[-2:] == ["0.50", "times"]
