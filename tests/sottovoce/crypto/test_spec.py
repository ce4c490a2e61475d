"""The spec pages of this room name only functions that exist, every refusal, and the limits that the code has."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from sottovoce.crypto import chain_key, errors, ratchet

SPEC = Path(__file__).parents[3] / "protocol-spec"
PAGES = ["README", "notation", "identity", "prekeys", "pqxdh", "sealed", "ratchet", "padding", "threat-model"]
MODULES = {path.stem for path in Path(errors.__file__).parent.glob("*.py")}
NAME = re.compile(r"`((?:sottovoce_wire\.)?[a-z_]+(?:\.[A-Za-z_]+)+)`")


def names(page: str) -> list[str]:
    """The dotted names on a page that are the code's."""
    found = NAME.findall((SPEC / f"{page}.md").read_text("utf-8"))
    return [name for name in found if name.split(".")[0] in MODULES | {"sottovoce_wire"}]


@pytest.mark.parametrize("page", PAGES)
def test_every_function_that_a_page_names_exists(page: str) -> None:
    for name in names(page):
        parts = name.split(".")
        module, path = (".".join(parts[:2]), parts[2:]) if parts[0] == "sottovoce_wire" else (parts[0], parts[1:])
        target: object = import_module(module if parts[0] == "sottovoce_wire" else f"sottovoce.crypto.{module}")
        for part in path:
            target = getattr(target, part)


def test_the_pages_of_constructions_name_their_functions() -> None:
    for page in ("notation", "identity", "prekeys", "pqxdh", "sealed", "ratchet", "padding"):
        assert names(page)


def test_the_spec_lists_exactly_these_refusals() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \|", (SPEC / "notation.md").read_text("utf-8"), re.MULTILINE)
    assert listed == [reason.value for reason in errors.Reason]


def test_the_limits_of_the_ratchet_are_those_in_the_spec() -> None:
    rows = re.findall(r"^\| `(\w+\.MAX_\w+)` \| ([\d,]+) \|", (SPEC / "ratchet.md").read_text("utf-8"), re.MULTILINE)
    assert {name: int(value.replace(",", "")) for name, value in rows} == {
        "ratchet.MAX_STEPS": ratchet.MAX_STEPS,
        "chain_key.MAX_SKIPPED": chain_key.MAX_SKIPPED,
        "chain_key.MAX_CHAIN": chain_key.MAX_CHAIN,
    }
