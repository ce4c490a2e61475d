"""These pages of the spec name only what exists."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SPEC = ROOT / "protocol-spec"
#: Where a name's first part may lie. Two modules are called `sessions`: a name is one of either.
ROOMS = ("sottovoce.protocol", "sottovoce.store", "sottovoce.crypto", "sottovoce", "sottovoce_wire")
NAME = re.compile(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`")


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
