"""The spec pages of this room name only functions that exist, every refusal, and the limits that the code has."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from sottovoce.crypto import errors
from sottovoce_wire import limits

ROOT = Path(__file__).parents[3]
SPEC = ROOT / "protocol-spec"
#: The pages whose functions are those of `sottovoce.crypto`, and the constructions among them.
CONSTRUCTIONS = [
    "notation",
    "identity",
    "prekeys",
    "pqxdh",
    "sealed",
    "message",
    "ratchet",
    "pq-ratchet",
    "sender-keys",
    "attachments",
    "safety-number",
    "padding",
]
PAGES = ["README", *CONSTRUCTIONS, "limits", "threat-model"]
SOURCES = sorted(Path(errors.__file__).parent.glob("*.py"))
MODULES = {path.stem for path in SOURCES}
NAME = re.compile(r"`((?:sottovoce_wire\.)?[a-z_]+(?:\.[A-Za-z_]+)+)`")
UNITS = {"KiB": limits.KIB, "days": limits.DAY, "day": limits.DAY, "": 1}


def text(page: str) -> str:
    return (SPEC / f"{page}.md").read_text("utf-8")


def names(page: str) -> list[str]:
    """The dotted names on a page that are the code's."""
    return [name for name in NAME.findall(text(page)) if name.split(".")[0] in MODULES | {"sottovoce_wire"}]


def resolve(name: str) -> object:
    """What a dotted name stands for. Raises AttributeError or ImportError if it stands for nothing."""
    parts = name.split(".")
    module, path = (".".join(parts[:2]), parts[2:]) if parts[0] == "sottovoce_wire" else (parts[0], parts[1:])
    target: object = import_module(module if parts[0] == "sottovoce_wire" else f"sottovoce.crypto.{module}")
    for part in path:
        target = getattr(target, part)
    return target


def constants(source: Path) -> list[str]:
    """The bounds that a module itself defines."""
    return [
        node.target.id
        for node in ast.parse(source.read_text("utf-8")).body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and re.match(r"(MAX|MINIMUM|LOOK_AHEAD|EPOCH|WORN)_|RUN$", node.target.id)
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_function_that_a_page_names_exists(page: str) -> None:
    for name in names(page):
        resolve(name)


@pytest.mark.parametrize("page", CONSTRUCTIONS)
def test_the_page_of_a_construction_names_its_functions(page: str) -> None:
    assert names(page)


@pytest.mark.parametrize("path", sorted(SPEC.glob("*.md")), ids=lambda path: path.stem)
def test_every_page_that_a_page_links_to_exists(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8"))
    assert [link for link in links if not (SPEC / link).exists()] == []


def test_every_page_stands_in_the_reading_order() -> None:
    listed = set(re.findall(r"\]\(([a-z-]+)\.md\)", text("README")))
    assert listed == {path.stem for path in SPEC.glob("*.md")} - {"README"}


def test_the_spec_lists_exactly_these_refusals() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \|", text("notation"), re.MULTILINE)
    assert listed == [reason.value for reason in errors.Reason]


def test_the_limits_of_this_room_are_exactly_those_in_the_spec() -> None:
    rows = re.findall(r"^\| `(\w+\.[A-Z_]+)` \| ([\d,]+) ?(\w*) \|", text("limits"), re.MULTILINE)
    assert {name: int(value.replace(",", "")) * UNITS[unit] for name, value, unit in rows} == {
        f"{source.stem}.{constant}": resolve(f"{source.stem}.{constant}")
        for source in SOURCES
        for constant in constants(source)
    }
