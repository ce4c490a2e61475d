"""These pages of the spec name only what exists, and every marked rule has what holds it."""

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SPEC = ROOT / "protocol-spec"
#: Where a name's first part may lie. Two modules are called `sessions`: a name is one of either.
ROOMS = ("sottovoce.protocol", "sottovoce.store", "sottovoce.crypto", "sottovoce", "sottovoce_wire")
NAME = re.compile(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`")
MARK = re.compile(r"\[([SKE]\d+)\]")
#: The pages whose rules have marks.
MARKED = ("sessions", "contacts", "receipts")


def exists(name: str) -> bool:
    first, *path = name.split(".")
    for room in ROOMS:
        try:
            target: object = import_module(f"{room}.{first}")
        except ModuleNotFoundError:
            continue
        try:
            for part in path:
                target = getattr(target, part)
        except AttributeError:
            continue
        return True
    return False


@pytest.mark.parametrize("page", ["sessions", "content", "contacts", "receipts", "store"])
def test_every_function_that_a_page_names_exists(page: str) -> None:
    named = NAME.findall((SPEC / f"{page}.md").read_text("utf-8"))
    named = [name for name in named if not name.startswith("sottovoce_wire.") and not name.endswith((".md", ".py"))]
    assert [name for name in named if not exists(name)] == []
    assert named


def test_every_marked_rule_has_a_test_or_a_planted_fault() -> None:
    rules: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("musts.toml").read_text("utf-8"))
    assert set(rules) == {mark for page in MARKED for mark in MARK.findall((SPEC / f"{page}.md").read_text("utf-8"))}
    assert {mark: missing for mark, named in rules.items() if (missing := set(named) - known()) or not named} == {}


@pytest.mark.parametrize("page", MARKED)
def test_every_must_of_a_page_with_marks_has_one(page: str) -> None:
    paragraphs = (SPEC / f"{page}.md").read_text("utf-8").split("\n\n")
    assert [paragraph for paragraph in paragraphs if "MUST" in paragraph and not MARK.search(paragraph)] == []


def known() -> set[str]:
    """Names of the planted faults and of this room's tests."""
    faults = {
        fault["name"]
        for file in (ROOT / "tests" / "sabotage").glob("*.toml")
        for fault in tomllib.loads(file.read_text("utf-8"))["fault"]
    }
    tests = {
        node.name
        for file in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    return faults | tests
