"""Statements for many rows at once."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection, Dialect
from sqlalchemy.dialects import registry

#: Rows that one statement takes, for as long as there are so many: few texts, which are prepared once.
_PIECES: Final = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)


def run_rows(
    connection: Connection, statement: Callable[[Dialect, int], str], rows: Sequence[tuple[object, ...]]
) -> int:
    """Run a statement for many rows of parameters, in the order of its columns; returns how many rows it changed.

    One step of SQLite's for many rows: the driver takes Python's lock again after every step, and the thread that
    serves connections lets it wait each time. Past SQLAlchemy, which takes longer for a statement than the driver; and
    past Core's own executemany, which takes a dictionary apart for each row.
    """
    driver: Any = connection.connection.driver_connection
    changed = at = 0
    for count in _PIECES:
        text = _text_of(statement, count, connection.dialect.name)
        while len(rows) - at >= count:
            parameters = tuple(chain.from_iterable(rows[at : at + count]))
            changed += driver.execute(text, parameters).rowcount
            at += count
    return changed


@cache
def _text_of(statement: Callable[[Dialect, int], str], count: int, dialect: str) -> str:
    """Not by Core: it takes seconds for a thousand rows."""
    return statement(registry.load(dialect)(), count)
