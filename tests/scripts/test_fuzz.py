"""What scripts/fuzz runs: the tests with random input, on input of its own, as many times as asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.fuzz import ROOT, plan


def test_every_run_has_a_seed_of_its_own() -> None:
    (variables, first), (_, second) = plan([]), plan([])
    assert variables == {"SOTTOVOCE_FUZZ_TIMES": "10"}
    assert first[-1] == second[-1] == "tests"
    assert first != second


def test_times_and_seed_can_be_chosen_and_the_rest_is_pytests() -> None:
    variables, arguments = plan(["--times", "7", "-k", "bytes", "--seed", "42"])
    assert variables["SOTTOVOCE_FUZZ_TIMES"] == "7"
    assert arguments[-4:] == ["--hypothesis-seed=42", "tests", "-k", "bytes"]


def test_a_file_takes_the_place_of_all() -> None:
    *_, seed, where = plan([f"{ROOT}/tests/test_rules.py::test_x"])[1]
    assert seed.startswith("--hypothesis-seed=")
    assert where.endswith("test_rules.py::test_x")


@pytest.mark.parametrize("times", ["0", "-1", "many"])
def test_a_number_of_times_that_is_none_is_refused(times: str) -> None:
    with pytest.raises(SystemExit):
        plan(["--times", times])


SHOWN = """
from hypothesis import given, strategies as st
from tests.random_input import examples

@given(st.integers(0, 2**64))
@examples(5)
def test_shown(number):
    print("drawn", number)
"""


def test_the_suite_has_the_same_input_each_time_and_fuzz_more_and_another(tmp_path: Path) -> None:
    (tmp_path / "test_shown.py").write_text(SHOWN)
    again = ["--times", "2", "--seed", "42"]
    suite, same, fuzz, other, repeated = (
        _drawn(tmp_path, arguments) for arguments in ([], [], again, ["--times", "2"], again)
    )
    assert suite == same
    assert fuzz == repeated
    assert len({tuple(suite), tuple(fuzz), tuple(other)}) == 3
    assert (len(suite), len(fuzz)) == (5, 10)


def _drawn(folder: Path, asked: list[str]) -> list[str]:
    """The numbers that the test draws in the suite, or with these arguments of scripts/fuzz."""
    variables, arguments = plan([*asked, str(folder)]) if asked else ({}, [str(folder), "-p", "no:cacheprovider"])
    here = ["-s", "-n", "0", "-p", "tests.conftest", "--rootdir", str(folder)]
    command, environment = [sys.executable, "-m", "pytest", *arguments, *here], {**os.environ, **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "drawn" in line]
