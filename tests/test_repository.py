"""The repository as a whole: what lies where, what is said where, and what an installation brings."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
COMMANDS = sorted(PYPROJECT["project"]["scripts"])


def tracked() -> list[Path]:
    """What git knows or does not ignore, and is there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    return [path for path in map(Path, filter(None, listed.split("\0"))) if (ROOT / path).is_file()]


FILES = tracked()
SOURCES = [path for path in FILES if path.suffix == ".py"]


def text_of(path: Path) -> str:
    return (ROOT / path).read_text("utf-8")


def test_the_top_level_is_laid_out_as_the_documents_say() -> None:
    assert {path.parts[0] for path in FILES} <= {
        ".ci",
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "benchmarks",
        "docs",
        "examples",
        "keyserver",
        "locks",
        "protocol-spec",
        "pyproject.toml",
        "relay",
        "scripts",
        "sdk",
        "tests",
    }


def test_every_source_folder_is_in_the_wheel() -> None:
    packaged = set(PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])
    assert {str(path.parent) for path in FILES if path.name == "py.typed"} <= packaged


# --- Sources ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name != "__init__.py"], ids=str)
def test_every_source_file_says_what_lives_in_it(path: Path) -> None:
    assert ast.get_docstring(ast.parse(text_of(path)))


WITHOUT_ASYNC = ("sdk/sottovoce_wire/", "sdk/sottovoce/crypto/", "sdk/sottovoce/protocol/")


@pytest.mark.parametrize("path", [path for path in SOURCES if str(path).startswith(WITHOUT_ASYNC)], ids=str)
def test_what_does_no_io_is_not_async(path: Path) -> None:
    kinds = {type(node) for node in ast.walk(ast.parse(text_of(path)))}
    assert not kinds & {ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await}


VAGUE = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common)(_|\.)", re.IGNORECASE)


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [path for path in FILES if VAGUE.search(path.name)] == []


#: Left-over notes, and paths of one machine; spelled so that this file does not hold them.
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b|/(?:home|Users|root)/\w|/(?:tmp|work)/\w")


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] != "locks"], ids=str)
def test_no_file_holds_a_left_over_note_or_a_path_of_one_machine(path: Path) -> None:
    assert UNFINISHED.findall(text_of(path)) == []


def test_shell_scripts_stop_at_the_first_error() -> None:
    scripts = [path for path in FILES if text_of(path).startswith("#!/usr/bin/env bash")]
    assert {Path("scripts/test"), Path("scripts/demo"), Path(".ci/run")} <= set(scripts)
    assert [path for path in scripts if "set -euo pipefail" not in text_of(path)] == []
    assert [path for path in scripts if not (ROOT / path).stat().st_mode & 0o100] == []


# --- Documents ----------------------------------------------------------------------------------------------

LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".md"], ids=str)
def test_a_documents_links_lead_somewhere(path: Path) -> None:
    assert [link for link in LINK.findall(text_of(path)) if not (ROOT / path.parent / link).exists()] == []


def direct_dependencies() -> set[str]:
    project = PYPROJECT["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PYPROJECT["dependency-groups"].values(),
    ]
    names = {re.split(r"[^A-Za-z0-9-]", item)[0] for group in groups for item in group if isinstance(item, str)}
    return names - {"sottovoce"}


def test_every_direct_dependency_has_a_reason() -> None:
    _, _, chapter = text_of(Path("CONTRIBUTING.md")).partition("## Dependencies")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|[^|]+\| (.+) \|$", chapter, re.MULTILINE)
    assert {name for name, _ in rows} == direct_dependencies()


@pytest.mark.parametrize("lock", ["runtime", "dev", "bench"])
def test_a_lock_pins_by_hash_and_names_no_registry(lock: str) -> None:
    text = text_of(Path("locks") / f"{lock}.txt")
    pins = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert all(re.match(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==", pin) for pin in pins)
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text


def test_the_development_lock_holds_all_of_the_runtime_lock() -> None:
    pins = {
        lock: set(re.findall(r"^\S+==\S+", text_of(Path("locks") / f"{lock}.txt"), re.MULTILINE))
        for lock in ("runtime", "dev")
    }
    assert pins["runtime"] <= pins["dev"]


# --- What an installation brings ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / command, "--help"], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert command in done.stdout
    assert len(done.stdout.splitlines()) >= 5


def test_the_wheel_holds_every_package_and_what_it_needs(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    shipped = [
        path for path in FILES if path.parts[0] in ("sdk", "relay", "keyserver") and path.suffix in (".py", ".typed")
    ]
    assert {"/".join(path.parts[1:]) for path in shipped} <= held
    assert not [name for name in held if name.startswith(("tests", "scripts"))]
