"""The report says which goals are met, what stops the others, and how the peers compare."""

import pytest

from benchmarks import crypto_report
from benchmarks.crypto_floors import FLOORS, PARTS, bounds
from tests.benchmarks.test_crypto_work import COUNTS

BY_KEY = {row.key: row for row in crypto_report.ROWS}


def line(key: str, lines: list[str]) -> str:
    """The one line of this figure."""
    (found,) = (each for each in lines if each.startswith(f"{key} "))
    return found


def test_the_goals_are_those_of_the_design() -> None:
    assert {row.key: row.goal for row in crypto_report.ROWS} == {
        "encrypt_us": 8,
        "decrypt_us": 9,
        "handshake_us": 700,
        "setup_us": 1_100,
        "pingpong_us": 300,
        "group_encrypt_us": 30,
        "group_decrypt_us": 60,
        "reverse_us": 10,
        "seal_us": None,
        "open_us": None,
        "attachment_mib_s": 1_000,
        "serialise_us": 5,
    }


@pytest.mark.parametrize(("key", "good", "bad"), [("encrypt_us", 8, 8.1), ("attachment_mib_s", 1_000, 999)])
def test_a_goal_is_met_from_its_own_value_on(key: str, good: float, bad: float) -> None:
    assert BY_KEY[key].is_met(good)
    assert not BY_KEY[key].is_met(bad)
    assert " met " in line(key, crypto_report.table({key: good}, {}, {}))
    assert " MISSED " in line(key, crypto_report.table({key: bad}, {}, {}))


def test_what_was_not_measured_is_said_to_be_so() -> None:
    assert " not measured" in line("seal_us", crypto_report.table({}, {}, {}))


@pytest.mark.parametrize(("bound", "words"), [(7.0, "allow the goal: the rest is ours"), (9.0, "are what stops it")])
def test_a_missed_goal_is_compared_with_its_floor(bound: float, words: str) -> None:
    lines = crypto_report.table({"encrypt_us": 12.0}, {}, {"encrypt_us": bound})
    assert lines[2].split()[:2] == [f"{bound:.2f}", "floor"]
    assert lines[2].endswith(words)


def test_a_met_goal_needs_no_floor() -> None:
    assert len(crypto_report.table({"encrypt_us": 7.0}, {}, {"encrypt_us": 6.0})) == 1 + len(crypto_report.ROWS)


def test_a_peer_stands_beside_with_how_many_times_its_time_is_ours() -> None:
    lines = crypto_report.table({"encrypt_us": 8.0}, {"peer": {"encrypt_us": 16.0, "seal_us": 5.0}}, {})
    assert lines[0].split()[-1] == "peer"
    assert "16.0 (2.00 ×)" in line("encrypt_us", lines)
    assert " 5.00 " in line("seal_us", lines)


def test_the_handshake_stands_beside_what_the_peers_call_set_up() -> None:
    lines = crypto_report.table({"handshake_us": 500.0, "setup_us": 1000.0}, {"peer": {"setup_us": 250.0}}, {})
    assert "250 (0.50 ×)" in line("handshake_us", lines)
    assert "250 (0.25 ×)" in line("setup_us", lines)


def test_a_peer_that_loses_messages_is_no_quicker_for_it() -> None:
    assert "loses 959" in line("reverse_us", crypto_report.table({"reverse_us": 9.0}, {"p": {"reverse_lost": 959}}, {}))


def test_the_design_s_races_are_run_with_the_peers_that_are_there() -> None:
    ours = {"encrypt_us": 10.0, "decrypt_us": 10.0}
    peers = {"vodozemac": {"encrypt_us": 15.0}, "doubleratchet": {"encrypt_us": 49.0, "decrypt_us": 50.0}}
    won, lost, drawn = crypto_report.race_lines(ours, peers)
    assert won.split()[1:5] == ["1.50", "≥", "1", "met"]
    assert lost.split()[1:5] == ["4.90", "≥", "5", "MISSED"]
    assert drawn.split()[1:5] == ["5.00", "≥", "5", "met"]
    assert crypto_report.race_lines(ours, {}) == []


def test_rounds_count_by_their_median() -> None:
    assert crypto_report.medians([{"a": 1.0}, {"a": 100.0, "b": 2.0}, {"a": 3.0}]) == {"a": 3.0, "b": 2.0}


def test_every_primitive_that_a_floor_is_made_of_is_measured() -> None:
    primitives = FLOORS.works["primitives"](COUNTS)
    assert all(value > 0 for value in primitives.values())
    assert {name for parts in PARTS.values() for name in parts} <= primitives.keys()
    assert bounds(primitives).keys() == BY_KEY.keys() - {"serialise_us"}


def test_a_floor_adds_up_what_its_primitives_take() -> None:
    primitives = dict.fromkeys({name for parts in PARTS.values() for name in parts}, 1.0)
    found = bounds(primitives | {"cobblestone_mib": 100.0, "sha256_mib": 400.0})
    assert found["encrypt_us"] == 5
    assert found["seal_us"] == 1
    assert found["attachment_mib_s"] == 2_000
