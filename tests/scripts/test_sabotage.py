"""The runner of planted faults notices a fault that nothing catches, and every way of catching nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.sabotage import ROOT, Fault, Verdict, load_faults, tenth_of, try_all, try_fault

ADD = Fault(
    name="add-subtracts",
    sentence="the sum is the difference",
    file="sdk/arithmetic.py",
    find="a + b",
    replace="a - b",
    tests=["test_arithmetic.py"],
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project of one function and one test."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "sdk").mkdir()
    (tmp_path / "sdk" / "arithmetic.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_arithmetic.py").write_text(
        "import arithmetic\n\ndef test_sums():\n    assert arithmetic.add(2, 1) == 3\n"
        "\ndef test_nothing():\n    assert arithmetic.add\n"
    )
    return tmp_path


def changed(**fields: object) -> Fault:
    return Fault(**{**{name: getattr(ADD, name) for name in Fault.__struct_fields__}, **fields})


async def test_a_fault_that_a_test_notices_is_caught(tree: Path) -> None:
    assert (await try_fault(tree, ADD)).verdict is Verdict.CAUGHT


async def test_the_tree_itself_is_not_changed(tree: Path) -> None:
    await try_fault(tree, ADD)
    assert (tree / "sdk" / "arithmetic.py").read_text() == "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (changed(tests=["test_arithmetic.py::test_nothing"]), Verdict.NOT_CAUGHT),
        (changed(tests=["test_arithmetic.py", "-k", "nothing"]), Verdict.NOT_CAUGHT),
        (changed(find="a * b"), Verdict.STALE),
        (changed(find="a"), Verdict.STALE),
        (changed(file="sdk/geometry.py"), Verdict.STALE),
        (changed(replace="a +"), Verdict.NOT_TESTED),
        (changed(tests=["test_geometry.py"]), Verdict.NOT_TESTED),
        (changed(tests=["test_arithmetic.py", "-k", "geometry"]), Verdict.NOT_TESTED),
    ],
    ids=[
        "the test does not look",
        "the chosen test does not look",
        "the text is gone",
        "the text occurs twice",
        "the file is gone",
        "the module cannot be imported",
        "the test file is gone",
        "no test is chosen",
    ],
)
async def test_a_fault_that_no_test_notices_is_not_caught(tree: Path, fault: Fault, verdict: Verdict) -> None:
    assert (await try_fault(tree, fault)).verdict is verdict


async def test_a_test_that_cannot_be_set_up_catches_nothing(tree: Path) -> None:
    (tree / "test_arithmetic.py").write_text(
        "import arithmetic, pytest\n\n@pytest.fixture\ndef three():\n    assert arithmetic.add(2, 1) == 3\n"
        "\ndef test_sums(three):\n    pass\n"
    )
    assert (await try_fault(tree, ADD)).verdict is Verdict.NOT_TESTED


async def test_tests_that_hang_catch_nothing(tree: Path) -> None:
    (tree / "test_arithmetic.py").write_text("import time\n\ndef test_waits():\n    time.sleep(600)\n")
    assert (await try_fault(tree, ADD, patience=0.5)).verdict is Verdict.HUNG


async def test_a_child_process_of_a_test_runs_the_changed_code(tree: Path) -> None:
    (tree / "test_arithmetic.py").write_text(
        "import subprocess, sys\n\ndef test_sums():\n"
        "    subprocess.run([sys.executable, '-c', 'from arithmetic import add; assert add(2, 1) == 3'], check=True)\n"
    )
    assert (await try_fault(tree, ADD)).verdict is Verdict.CAUGHT


async def test_one_uncaught_fault_fails_the_run(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uncaught = changed(name="looks-away", tests=["test_arithmetic.py::test_nothing"])
    assert await try_all(tree, [ADD]) == 0
    assert await try_all(tree, [ADD, uncaught]) == 1
    assert "NOT CAUGHT: the tests stay green: looks-away" in capsys.readouterr().out


def test_two_faults_of_one_name_are_refused(tmp_path: Path) -> None:
    fault = '[[fault]]\nname = "a"\nsentence = ""\nfile = ""\nfind = ""\nreplace = ""\ntests = []\n'
    (tmp_path / "twice.toml").write_text(fault * 2)
    with pytest.raises(ValueError, match="one name"):
        load_faults(tmp_path)


@pytest.mark.parametrize("fault", load_faults(ROOT / "tests" / "sabotage"), ids=lambda fault: fault.name)
def test_every_planted_fault_still_fits_the_code(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text("utf-8").count(fault.find) == 1
    assert fault.find != fault.replace
    assert (ROOT / fault.tests[0].partition("::")[0]).exists()


def test_the_command_lists_the_names_one_a_line() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "scripts.sabotage", "--list"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert listed.splitlines() == [fault.name for fault in load_faults(ROOT / "tests" / "sabotage")]


def test_the_command_refuses_a_name_that_is_no_fault() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.sabotage", "nonsense"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "no such fault: nonsense" in done.stderr


def test_a_tenth_is_another_one_for_each_commit_and_leaves_nothing_out() -> None:
    faults = load_faults(ROOT / "tests" / "sabotage")
    tenths = [{fault.name for fault in tenth_of(faults, str(commit))} for commit in range(100)]
    assert all(len(faults) / 16 < len(tenth) < len(faults) / 6 for tenth in tenths)
    assert set.union(*tenths) == {fault.name for fault in faults}
    assert tenths[0] != tenths[1]
