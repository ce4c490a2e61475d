"""The vectors' form: as the generator writes it and the schema says it, half of it invalid, reasons from the list."""

import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sottovoce.crypto.errors import Reason

from . import ours, second
from .form import FOLDER, SCHEMA, files, vectors
from .generate.table import CONSTRUCTIONS, outdated

FILES = files()
SCHEMA_TEXT = json.loads((FOLDER / SCHEMA).read_text("utf-8"))
SECOND = Path(__file__).parents[1] / "second"


def loaded(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def fits(value: Any, schema: Any) -> bool:
    """Whether a value fits a schema: the part of JSON Schema that ours uses, and nothing else."""
    rules = dict(schema)
    checks: dict[str, Callable[[Any], bool]] = {
        "$ref": lambda name: fits(value, SCHEMA_TEXT["$defs"][name.removeprefix("#/$defs/")]),
        "$schema": lambda _: True,
        "$defs": lambda _: True,
        "title": lambda _: True,
        "additionalProperties": lambda allowed: allowed or set(value) <= set(rules["properties"]),
        "const": lambda wanted: value == wanted,
        "enum": lambda wanted: value in wanted,
        "items": lambda each: all(fits(item, each) for item in value),
        "minItems": lambda least: len(value) >= least,
        "minimum": lambda least: value >= least,
        "oneOf": lambda shapes: sum(fits(value, shape) for shape in shapes) == 1,
        "pattern": lambda pattern: re.search(pattern, value) is not None,
        "properties": lambda shapes: all(fits(value[name], shape) for name, shape in shapes.items() if name in value),
        "required": lambda names: set(names) <= set(value),
        "type": lambda name: (
            type(value) is {"array": list, "integer": int, "null": type(None), "object": dict, "string": str}[name]
        ),
    }
    # The type first: the other rules take it for granted.
    return all(checks[rule](rules[rule]) for rule in sorted(rules, key=lambda rule: rule != "type"))


def test_the_files_are_what_the_generator_writes() -> None:
    """Otherwise: scripts/vectors writes them anew, and the difference is what has changed in the protocol."""
    assert outdated(FOLDER) == []


def test_a_changed_missing_or_left_over_file_is_found(tmp_path: Path) -> None:
    for path in (*FILES[2:], FOLDER / SCHEMA):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / FILES[1].name).write_text(FILES[1].read_text("utf-8") + "\n", "utf-8")
    (tmp_path / "left-over.json").write_text("{}", "utf-8")
    assert outdated(tmp_path) == sorted([FILES[0].name, FILES[1].name, "left-over.json"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_as_its_schema_says(path: Path) -> None:
    assert fits(loaded(path), SCHEMA_TEXT)


@pytest.mark.parametrize(
    "change",
    [
        {"result": "acceptable"},
        {"result": "invalid"},
        {"reason": "bad_key"},
        {"tcId": 0},
        {"tcId": "1"},
        {"flags": []},
        {"label": "0"},
        {"label": "AB"},
        {"more": "00"},
    ],
    ids=str,
)
def test_the_schema_refuses_what_is_no_vector(change: dict[str, Any]) -> None:
    content = loaded(FOLDER / "labels.json")
    assert fits(content, SCHEMA_TEXT)
    content["testGroups"][0]["tests"][0] |= change
    assert not fits(content, SCHEMA_TEXT)


def test_the_schema_lists_exactly_the_reasons_of_refusals() -> None:
    assert SCHEMA_TEXT["$defs"]["reason"]["enum"] == [reason.value for reason in Reason]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_at_least_half_of_a_file_is_invalid(path: Path) -> None:
    results = [test["result"] for group in loaded(path)["testGroups"] for test in group["tests"]]
    assert results.count("invalid") * 2 >= len(results)
    assert results.count("valid") > 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tests_are_numbered_through_a_file(path: Path) -> None:
    content = loaded(path)
    numbers = [test["tcId"] for group in content["testGroups"] for test in group["tests"]]
    assert numbers == list(range(1, content["numberOfTests"] + 1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_two_tests_of_a_group_say_the_same(path: Path) -> None:
    for group in loaded(path)["testGroups"]:
        comments = Counter(test["comment"] for test in group["tests"])
        assert [comment for comment, times in comments.items() if times > 1] == []


def test_numbers_are_whole_for_every_reader_of_json() -> None:
    numbers = [value for vector in vectors() for value in vector.fields.values() if isinstance(value, int)]
    assert max(numbers) < 2**53


def test_both_implementations_know_every_type_of_test() -> None:
    types = {kind.name for construction in CONSTRUCTIONS for kind in construction.types}
    assert set(ours.OPERATIONS) == set(second.OPERATIONS) == types == {vector.type for vector in vectors()}


def imported(path: Path) -> set[str]:
    """The top-level names that a file of the second implementation imports; its own modules are imported relatively."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    absolute = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    reaching_out = {"…" for node in nodes if isinstance(node, ast.ImportFrom) and node.level > 1}
    return {name.partition(".")[0] for name in plain | absolute} | reaching_out


@pytest.mark.parametrize("path", sorted(SECOND.glob("*.py")), ids=lambda path: path.stem)
def test_the_second_implementation_shares_nothing_with_the_first(path: Path) -> None:
    assert imported(path) - set(sys.stdlib_module_names) <= {"mnemonic", "nacl"}
