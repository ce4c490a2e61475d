"""The reference names every public name, and every public name says what it does.

`public_names.txt` lists them: who adds or removes one changes a promise, and the list with it.
"""

import subprocess
import sys
import zlib
from html import escape
from importlib import import_module
from importlib.util import find_spec
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sottovoce import SottovoceError
from tests.docs.pages import FOLDER

#: Those without an `__all__` offer the classes that are made in them.
MODULES = (
    "sottovoce.errors",
    "sottovoce.events",
    "sottovoce",
    "sottovoce.sync",
    "sottovoce.aio",
    "sottovoce.stores",
    "sottovoce.testing",
)
LIST = Path(__file__).with_name("public_names.txt")


def is_public(name: str) -> bool:
    return not name.startswith("_")


def offered(module: ModuleType) -> dict[str, Any]:
    """What a module offers, by name."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    made = {name: of for name, of in vars(module).items() if isinstance(of, type) and of.__module__ == module.__name__}
    return {name: of for name, of in made.items() if is_public(name)}


def attributes(of: type) -> dict[str, Any]:
    """The public attributes of a class, by name; of a record's field, what holds it, or None."""
    found: dict[str, Any] = {}
    for each in [*(base for base in of.__bases__ if base.__name__.startswith("_")), of]:
        found |= dict.fromkeys(vars(each).get("__annotations__", {})) | vars(each)
    return {name: held for name, held in found.items() if is_public(name)}


def public_names() -> dict[str, Any]:
    """Every public name in full, and what it names; the attributes of a class under its first name."""
    found: dict[str, Any] = {}
    for module in map(import_module, MODULES):
        for name, of in offered(module).items():
            full = f"{module.__name__}.{name}"
            if isinstance(of, type) and of not in found.values():
                found |= {f"{full}.{each}": held for each, held in attributes(of).items()}
            found[full] = of
    return found


NAMES = public_names()


def is_told_of(name: str) -> bool:
    """Whether a name needs a docstring of its own: what can be called or looked up. A record tells of its fields."""
    return isfunction(NAMES[name]) or isinstance(NAMES[name], type | property)


def docstring(of: Any) -> str:
    """What was written for this, and neither inherited nor made by a decorator."""
    text = (vars(of).get("__doc__") if isinstance(of, type) else of.__doc__) or ""
    return "" if isinstance(of, type) and text.startswith(f"{of.__name__}(") else text


def test_the_public_names_are_those_of_the_list() -> None:
    """Where this fails on purpose, `python -m tests.docs.test_reference` writes the list anew."""
    listed = set(LIST.read_text("utf-8").split())
    assert (sorted(set(NAMES) - listed), sorted(listed - set(NAMES))) == ([], [])


def test_every_public_name_has_a_docstring() -> None:
    assert [name for name in NAMES if is_told_of(name) and not docstring(NAMES[name]).strip()] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as HTML. A warning is an error."""
    if find_spec("sphinx") is None:
        pytest.skip("sphinx is not installed")
    folder = tmp_path_factory.mktemp("html")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", folder / "trees", FOLDER, folder / "html"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


def test_every_public_name_has_a_place_in_the_reference(built: Path) -> None:
    """In the index of names that the build leaves. An error's code and hint stand in the error's own entry."""
    _, _, _, _, packed = (built / "objects.inv").read_bytes().split(b"\n", 4)
    indexed = {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}
    shown = {name for name in NAMES if not name.endswith((".code", ".hint"))}
    assert sorted(shown - indexed) == []


def test_every_error_stands_with_its_code_and_what_to_do(built: Path) -> None:
    page = (built / "reference" / "errors.html").read_text("utf-8")
    errors = [of for of in NAMES.values() if isinstance(of, type) and issubclass(of, SottovoceError)]
    assert len(errors) > 20
    assert [of for of in errors if f">{of.code}<" not in page or escape(of.hint, quote=False) not in page] == []


if __name__ == "__main__":
    LIST.write_text("".join(f"{name}\n" for name in sorted(NAMES)), "utf-8")
