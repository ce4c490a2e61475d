"""The page about the directory says what the code does: statuses, paths, functions, examples, limits."""

import re
from functools import reduce
from http import HTTPStatus
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from sottovoce_keyserver import poplimit
from sottovoce_keyserver.routes import STATUS
from sottovoce_wire import directory as wire
from sottovoce_wire.errors import Code

PAGE = (Path(__file__).parents[2] / "protocol-spec" / "directory.md").read_text("utf-8")
EXAMPLES = re.findall(r"```json (\w+)\n(.*?)```", PAGE, re.DOTALL)
NAMES = sorted(set(re.findall(r"`(sottovoce_(?:wire|keyserver)\.[a-z_]+(?:\.\w+)?)`", PAGE)))
#: Refusals that every service of a process shares.
COMMON = {Code.BAD_REQUEST: 400, Code.UNKNOWN_PATH: 404, Code.INTERNAL: 500, Code.TRY_AGAIN: 503}


def test_the_table_of_statuses_is_the_codes() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+)", PAGE, re.MULTILINE)
    assert {Code[name]: int(status) for name, status in rows} == STATUS | COMMON
    assert {HTTPStatus(int(status)) for _, status in rows}


def test_the_table_of_paths_is_the_codes() -> None:
    paths = {value for name, value in vars(wire).items() if name.startswith("PATH_")}
    assert set(re.findall(r"^\| `(/v1/[a-z/]+)` \|", PAGE, re.MULTILINE)) == paths


def test_every_header_is_named() -> None:
    assert [name for name in vars(wire) if name.startswith("HEADER_") and f"`{getattr(wire, name)}`" not in PAGE] == []


@pytest.mark.parametrize(("kind", "text"), EXAMPLES, ids=[kind for kind, _ in EXAMPLES])
def test_an_example_is_a_body(kind: str, text: str) -> None:
    body = wire.decode(getattr(wire, kind), text.encode())
    assert set(msgspec.json.decode(text)) == {field.name for field in msgspec.structs.fields(body)}


@pytest.mark.parametrize("name", NAMES)
def test_a_function_that_is_named_exists(name: str) -> None:
    package, module, *parts = name.split(".")
    target: object = reduce(getattr, parts, import_module(f"{package}.{module}"))
    assert target is not None


def test_the_limit_of_fetches_is_the_codes() -> None:
    assert (poplimit.FETCHES, poplimit.PERIOD) == (30, 60)
    assert "more than 30 times within a minute" in " ".join(PAGE.split())
