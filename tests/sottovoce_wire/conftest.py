"""Reads the tables of the specification, for the tests that compare them with the code's."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

SPEC = Path(__file__).parents[2] / "protocol-spec"


def _cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


def _is_row(line: str) -> bool:
    return line.startswith("|") and set(line) - set("|-: ") != set()


def _rows(page: str) -> list[list[str]]:
    lines = (SPEC / page).read_text("utf-8").splitlines()
    return [
        _cells(line)
        for before, line in pairwise(lines)
        if _is_row(line) and before.startswith("|")  # the first row of each table is its head
    ]


@pytest.fixture
def spec_rows() -> Callable[[str], list[list[str]]]:
    """The rows of all tables of a page of the specification, without their heads; code marks taken off."""
    return _rows
