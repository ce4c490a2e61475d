"""The page about testing: its blocks are run as they are printed, in programs of their own."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()


def blocks(kind: str) -> dict[str, str]:
    """The page's blocks of a kind, by what their first line calls them."""
    found = re.findall(rf"^```{kind}\n# ([^\n]+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return dict(found)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


#: Public to the servers in memory, not to tests.
ASKED_BY_THE_NETWORK = {"tamper", "is_offline", "takes", "answer", "is_away"}


def test_the_page_s_tests_pass_as_printed(tmp_path: Path) -> None:
    files = blocks("ini") | {name: text for name, text in blocks("python").items() if name.endswith(".py")}
    assert set(files) == {"pytest.ini", "conftest.py", "test_bot.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = run(tmp_path, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert (done.returncode, "4 passed" in done.stdout) == (0, True), done.stdout


def test_the_page_s_script_prints_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(blocks("python")["a script"])
    done = run(tmp_path, "-W", "error", "script.py")
    (printed,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert (done.stdout, done.stderr) == (printed, "")


def test_every_fault_stands_on_the_page() -> None:
    from sottovoce.testing import Faults, KeyserverFaults

    offered = {name for kind in (Faults, KeyserverFaults) for name in vars(kind) if not name.startswith("_")}
    assert set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)) == offered - ASKED_BY_THE_NETWORK
