"""Setting up installs what the lock says, once, whatever pip is configured to do; and says what is wrong.

pip itself is replaced by a program that writes down how it was called: these tests need no network.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = '. scripts/_setup.sh; setup "$1"'
#: Stands in for pip: writes its arguments and settings to `calls`, and fails if `broken` is there.
PIP = """
import json, os, pathlib, sys
root = pathlib.Path(sys.prefix).parent
settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
with (root / "calls").open("a") as calls:
    calls.write(json.dumps([sys.argv[1:], settings]) + "\\n")
sys.exit((root / "broken").exists())
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a virtual environment that nothing was installed in."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "locks", tmp_path / "locks")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    (packages,) = (tmp_path / ".venv" / "lib").glob("python3.*/site-packages")
    (packages / "pip.py").write_text(PIP)
    return tmp_path


def setup(clone: Path, kind: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", SCRIPT, "setup", kind],
        cwd=clone,
        env=os.environ | environment,
        check=False,
        capture_output=True,
        text=True,
    )


def calls(clone: Path) -> list[tuple[list[str], dict[str, str]]]:
    if not (clone / "calls").exists():
        return []
    return [
        (arguments, settings) for arguments, settings in map(json.loads, (clone / "calls").read_text().splitlines())
    ]


@pytest.mark.parametrize("kind", ["runtime", "dev", "bench"])
def test_the_lock_is_installed_by_hash_and_then_the_project(clone: Path, kind: str) -> None:
    done = setup(clone, kind)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"== installing locks/{kind}.txt (about a minute the first time)\n"
    (packages, _), (project, _) = calls(clone)
    assert packages[2:] == ["install", "--require-hashes", "--requirement", str(clone / "locks" / f"{kind}.txt")]
    assert project[2:] == ["install", "--no-deps", "--no-build-isolation", "--editable", str(clone)]


def test_a_second_time_nothing_is_done_or_said(clone: Path) -> None:
    setup(clone, "runtime")
    done = setup(clone, "runtime")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(calls(clone)) == 2


def test_the_development_environment_serves_the_demonstration_too(clone: Path) -> None:
    setup(clone, "dev")
    setup(clone, "runtime")
    assert len(calls(clone)) == 2


def test_the_demonstrations_environment_becomes_the_development_one(clone: Path) -> None:
    setup(clone, "runtime")
    assert "locks/dev.txt" in setup(clone, "dev").stdout
    assert setup(clone, "runtime").stdout == ""


@pytest.mark.parametrize("file", ["locks/runtime.txt", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed_again(clone: Path, file: str) -> None:
    setup(clone, "runtime")
    with (clone / file).open("a") as changed:
        changed.write("# changed\n")
    assert "installing" in setup(clone, "runtime").stdout


def test_settings_that_change_what_pip_installs_or_where_are_left_out(clone: Path) -> None:
    harmful = {"PIP_USER": "1", "PIP_TARGET": "elsewhere", "PIP_REQUIRE_HASHES": "1", "PIP_NO_BINARY": ":all:"}
    useful = {"PIP_FIND_LINKS": "wheels", "PIP_INDEX_URL": "mirror", "PIP_CERT": "authority"}
    setup(clone, "runtime", **harmful, **useful)
    for _, settings in calls(clone):
        assert useful.items() <= settings.items()
        assert (settings["PIP_USER"], settings["PIP_REQUIRE_HASHES"]) == ("0", "0")
        assert not {"PIP_TARGET", "PIP_NO_BINARY"} & settings.keys()


def test_a_failing_installation_says_what_to_do_and_is_tried_again(clone: Path) -> None:
    (clone / "broken").touch()
    done = setup(clone, "runtime")
    assert done.returncode == 1
    assert "Without a network connection" in done.stderr
    (clone / "broken").unlink()
    assert setup(clone, "runtime").returncode == 0


def test_without_a_fitting_python_it_says_which_ones_fit(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    tools = clone / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "basename", "cat"):
        (tools / name).symlink_to(shutil.which(name) or name)
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = setup(clone, "runtime", PATH=str(tools))
    assert done.returncode == 1
    assert "no Python 3.11, 3.12 or 3.13 was found" in done.stderr


def test_without_the_venv_module_it_says_how_to_get_it(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    tools = clone / "tools"
    tools.mkdir()
    python = tools / "python3"
    python.write_text(f'#!/bin/sh\n[ "$2" = venv ] && exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = setup(clone, "runtime", PATH=f"{tools}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "install python3-venv" in done.stderr
    assert not (clone / ".venv").exists()
