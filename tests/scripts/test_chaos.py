"""What scripts/chaos runs: the fault tests, with as many rounds as asked for."""

import subprocess
import sys

import pytest

from scripts.chaos import ROOT, plan


def test_everything_is_done_at_full_length_with_a_seed_of_its_own_each_time() -> None:
    (first, arguments), (second, _) = plan([]), plan([])
    assert first["SOTTOVOCE_CHAOS_ROUNDS"] == "50"
    assert first["SOTTOVOCE_CHAOS_FULL"] == "1"
    assert first["SOTTOVOCE_CHAOS_SEED"] != second["SOTTOVOCE_CHAOS_SEED"]
    assert arguments[-1] == "tests/faults"
    assert "faulthandler_timeout=0" in arguments, "a test of many rounds takes minutes and is not stuck"


def test_rounds_and_seed_can_be_chosen_and_the_rest_is_pytests() -> None:
    variables, arguments = plan(["--rounds", "7", "-k", "kill", "--seed", "42"])
    assert (variables["SOTTOVOCE_CHAOS_ROUNDS"], variables["SOTTOVOCE_CHAOS_SEED"]) == ("7", "42")
    assert arguments[-3:] == ["tests/faults", "-k", "kill"]


def test_a_file_takes_the_place_of_all() -> None:
    assert plan([f"{ROOT}/tests/faults/test_kill.py::test_x"])[1][-1].endswith("test_kill.py::test_x")


@pytest.mark.parametrize("rounds", ["0", "-1", "many"])
def test_a_number_of_rounds_that_is_none_is_refused(rounds: str) -> None:
    with pytest.raises(SystemExit):
        plan(["--rounds", rounds])


def test_the_tests_see_what_was_chosen() -> None:
    code = "from tests.faults import scale; print(scale.ROUNDS, scale.SEED, scale.FULL)"
    variables, _ = plan(["--rounds", "7", "--seed", "42"])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(variables),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["7", "42", "True"]
