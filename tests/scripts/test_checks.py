"""scripts/test runs every check in its order, stops at the first that fails, and passes options to pytest.

The checks themselves are replaced by programs that write down how they were called.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Stands in for a tool: writes down its name and arguments, and fails if a file of its name is in `failing`.
TOOL = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"{clone}/calls"
[ ! -e "{clone}/failing/$(basename "$0")" ]
"""
#: The same for python, which also has to be one while the environment is checked.
PYTHON = """#!/usr/bin/env bash
if [ "$1" != -m ]; then exec {python} "$@"; fi
echo "$*" >>"{clone}/calls"
[ ! -e "{clone}/failing/$2" ]
"""
CODE = "sdk relay keyserver benchmarks docs/conf.py examples scripts tests"
CHECKS = [
    f"ruff check {CODE}",
    f"ruff format --check {CODE}",
    f"mypy {CODE}",
    "lint-imports ",
    "-m pytest --numprocesses auto --dist loadfile",
    "-m scripts.sabotage --tenth",
]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose environment is up to date and holds the stand-ins."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "locks", tmp_path / "locks")
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "failing").mkdir()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("ruff", "mypy", "lint-imports"):
        (programs / name).write_text(TOOL.format(clone=tmp_path))
    (programs / "python").write_text(PYTHON.format(clone=tmp_path, python=sys.executable))
    for program in programs.iterdir():
        program.chmod(0o755)
    stamp = subprocess.run(
        ["bash", "-c", ". scripts/_setup.sh; _stamp dev"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    (tmp_path / ".venv" / "sottovoce-dev").write_text(stamp)
    return tmp_path


def run(clone: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", *command],
        cwd=clone,
        env=os.environ | {"HOME": str(clone)},
        check=False,
        capture_output=True,
        text=True,
    )


def calls(clone: Path) -> list[str]:
    return (clone / "calls").read_text().splitlines()


@pytest.mark.parametrize("command", ["scripts/test", ".ci/run"])
def test_every_check_runs_in_its_order(clone: Path, command: str) -> None:
    done = run(clone, command)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls(clone) == CHECKS
    assert done.stdout.splitlines()[-1] == "all checks passed"


@pytest.mark.parametrize(
    ("failing", "ran"), [("ruff", 1), ("mypy", 3), ("lint-imports", 4), ("pytest", 5), ("scripts.sabotage", 6)]
)
def test_the_first_failure_ends_it(clone: Path, failing: str, ran: int) -> None:
    (clone / "failing" / failing).touch()
    done = run(clone, "scripts/test")
    assert done.returncode == 1
    assert calls(clone) == CHECKS[:ran]
    assert "test: failed: " in done.stderr
    assert "all checks passed" not in done.stdout


def test_options_go_to_pytest_alone(clone: Path) -> None:
    done = run(clone, "scripts/test", "-k", "two words")
    assert (done.returncode, done.stdout) == (0, "")
    assert calls(clone) == ["-m pytest -k two words"]


def test_options_do_not_hide_a_failure(clone: Path) -> None:
    (clone / "failing" / "pytest").touch()
    assert run(clone, "scripts/test", "-x").returncode == 1
