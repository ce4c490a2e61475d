"""Every MUST of the specification has a mark, the attack that it stops, and a planted fault that breaks it.

A mark is a letter and a number, such as [R4]: one letter for each page. What holds a rule is listed in the musts.toml
of the tests' folder where it is held.
"""

import re
import tomllib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SPEC = TESTS.parent / "protocol-spec"
#: The letter of the marks of each page.
LETTERS = {
    "notation": "N",
    "identity": "I",
    "safety-number": "V",
    "prekeys": "P",
    "pqxdh": "H",
    "sealed": "F",
    "message": "M",
    "ratchet": "R",
    "pq-ratchet": "Q",
    "sender-keys": "G",
    "attachments": "A",
    "content": "B",
    "sessions": "S",
    "contacts": "K",
    "receipts": "E",
    "padding": "Z",
    "relay": "L",
    "directory": "D",
    "store": "T",
}
#: Pages that make no rules: they say what the word means, what follows from the rules, or give numbers their names.
WITHOUT_RULES = {"README", "labels", "limits", "codes", "threat-model"}
MARK = re.compile(r"\[([A-Z]\d+)\](?!\()")
#: One rule's place on a page: a row of a table, an item of a list, or a paragraph.
ITEM = re.compile(r"^(?=\| |- )", re.MULTILINE)


def text(page: str) -> str:
    return (SPEC / f"{page}.md").read_text("utf-8")


def marks(page: str) -> list[str]:
    """The page's own marks, each as often as it stands there."""
    return [mark for mark in MARK.findall(text(page)) if mark[0] == LETTERS[page]]


def blocks(page: str) -> list[str]:
    return re.split(r"\n\n+", text(page))


def rows(block: str) -> list[str]:
    """The rules that a table or a list holds; none for a paragraph."""
    items = [item for item in ITEM.split(block) if item.startswith(("| ", "- "))]
    return [item for item in items if "\n|---" not in item]  # a table's head


def held() -> dict[str, list[str]]:
    """Every rule, and the planted faults and tests that are listed for it."""
    found = dict[str, list[str]]()
    for file in sorted(TESTS.rglob("musts.toml")):
        listed = tomllib.loads(file.read_text("utf-8"))
        assert set(found) & set(listed) == set()
        found |= listed
    return found


def planted_faults() -> set[str]:
    return {
        fault["name"]
        for file in (TESTS / "sabotage").glob("*.toml")
        for fault in tomllib.loads(file.read_text("utf-8"))["fault"]
    }


def defined_tests() -> set[str]:
    return {
        name
        for file in TESTS.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
    }


def test_every_page_has_a_letter_of_its_own_or_makes_no_rules() -> None:
    assert set(LETTERS) | WITHOUT_RULES == {path.stem for path in SPEC.glob("*.md")}
    assert len(set(LETTERS.values())) == len(LETTERS)
    assert [page for page in WITHOUT_RULES - {"README"} if "MUST" in text(page)] == []


@pytest.mark.parametrize("page", LETTERS)
def test_every_must_has_a_mark(page: str) -> None:
    """In its own paragraph, or on every row or item of what it introduces."""
    unmarked = []
    parts = [*blocks(page), ""]
    for block, after in pairwise(parts):
        rules = [rule for rule in rows(block) if "MUST" in rule] or ([block] if "MUST" in block else [])
        if any(not MARK.search(rule) for rule in rules):
            unmarked += [row for row in rows(block) or rows(after) or [block] if not MARK.search(row)]
    assert unmarked == []


@pytest.mark.parametrize("page", LETTERS)
def test_every_mark_names_the_attack_that_it_stops(page: str) -> None:
    """Beside it, under it before the next mark, or in a column of its table."""
    silent = []
    parts = blocks(page)
    for at, block in enumerate(parts):
        if "MUST" in block and not has_reason(parts[at:]):
            silent.append(block)
    assert silent == []


def has_reason(parts: list[str]) -> bool:
    """Whether what follows a rule says "stops" before another MUST."""
    first, *others = parts
    if "stops" in first.lower():
        return True
    for block in others:
        if "stops" in block.lower():
            return True
        if "MUST" in block:
            return False
    return False


@pytest.mark.parametrize("page", LETTERS)
def test_no_check_in_a_table_leaves_open_what_it_stops(page: str) -> None:
    empty = []
    for block in blocks(page):
        table = [[cell.strip() for cell in row.split("|")] for row in block.splitlines() if row.startswith("| ")]
        stops = [at for at, name in enumerate(table[0]) if name.endswith("stops")] if table else []
        empty += [row for row in table for at in stops if not row[at]]
    assert empty == []


@pytest.mark.parametrize("page", LETTERS)
def test_the_marks_of_a_page_count_up(page: str) -> None:
    numbers = sorted({int(mark[1:]) for mark in marks(page)})
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_rules_that_are_held_are_those_of_the_pages() -> None:
    assert set(held()) == {mark for page in LETTERS for mark in marks(page)}


def test_every_mark_that_a_page_refers_to_is_there() -> None:
    referred = {mark for page in [*LETTERS, *WITHOUT_RULES] for mark in MARK.findall(text(page))}
    assert referred - set(held()) == set()


def test_every_rule_has_a_planted_fault() -> None:
    faults = planted_faults()
    assert {mark: names for mark, names in held().items() if not set(names) & faults} == {}


def test_everything_that_holds_a_rule_is_there_and_is_named_once_for_it() -> None:
    known = planted_faults() | defined_tests()
    assert {mark: gone for mark, names in held().items() if (gone := set(names) - known)} == {}
    assert {mark for mark, names in held().items() if max(Counter(names).values()) > 1} == set()
