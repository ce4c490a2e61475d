"""The page of guarantees promises nothing without a test that would notice, or a page of the specification."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from trio.testing import MockClock

from sottovoce.testing import World
from tests.docs.pages import text_of

ROOT = Path(__file__).parents[2]

#: Each paragraph below the first heading, and the lines with which its comment names what stands behind it.
PARAGRAPHS = [
    (
        " ".join(line for line in paragraph.splitlines() if not line.startswith("%")),
        [line.removeprefix("% ") for line in paragraph.splitlines() if line.startswith("%")],
    )
    for paragraph in text_of("guarantees").partition("\n## ")[2].split("\n\n")[1:]
    if not paragraph.startswith("#")
]


@cache
def functions_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def exists(behind: str) -> bool:
    """Whether there is such a page, or such a test."""
    file, _, test = behind.partition("::")
    if not (ROOT / file).is_file():
        return False
    return test in functions_in(file) if test else bool(re.fullmatch(r"protocol-spec/[a-z-]+\.md", file))


@pytest.mark.parametrize(("promise", "behind"), PARAGRAPHS, ids=[text[:40] for text, _ in PARAGRAPHS])
def test_something_stands_behind_each_promise(promise: str, behind: list[str]) -> None:
    assert promise.startswith("**")
    assert behind
    assert [each for each in behind if not exists(each)] == []


def test_a_promise_without_a_test_would_be_seen() -> None:
    assert len(PARAGRAPHS) > 30
    assert not exists("tests/docs/test_guarantees.py::test_that_is_not_there")
    assert not exists("protocol-spec/nowhere.md")
    assert not exists("README.md")


async def test_a_name_is_asked_for_once(sottovoce_world: World, autojump_clock: MockClock) -> None:
    alice, bob = [await sottovoce_world.person(name) for name in ("alice", "bob")]
    assert await alice.look_up("bob") == bob.account_id
    await sottovoce_world.crash("alice")
    alice = await sottovoce_world.person("alice")
    with sottovoce_world.faults.offline():
        assert await alice.look_up("bob") == bob.account_id
