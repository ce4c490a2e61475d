"""Envelopes in and out: one transaction inserts what arrives, deletes what leaves, and finds repeats."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Integer, bindparam, case, delete, exists, insert, select
from sqlalchemy.dialects import registry

from ..envelopes import Envelope
from .tables import BODY, WITH_BODIES, bodies, envelopes

# A row that is there already is one that an attempt with an unknown outcome wrote, or a repeat: see `_repeats`.
_INSERT: Final = insert(envelopes).prefix_with("OR IGNORE", dialect="sqlite")
_INSERT_BODY: Final = insert(bodies).prefix_with("OR IGNORE", dialect="sqlite")
_DELETE_BODY: Final = delete(bodies).where(
    bodies.c.id == bindparam("which"), ~exists().where(envelopes.c.shared == bindparam("which"))
)
_SELECT_WRITTEN: Final = select(envelopes.c.seq).where(
    envelopes.c.seq >= bindparam("first"), envelopes.c.seq <= bindparam("last")
)
# A sender makes the relay read no more than it sent.
_SELECT_REPEATED: Final = (
    select(case((envelopes.c.size == bindparam("size", type_=Integer), BODY)).label("body"))
    .select_from(WITH_BODIES)
    .where(envelopes.c.queue == bindparam("number"), envelopes.c.name == bindparam("name"))
)


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction found. By seq: whether the repeat of a stored envelope has the same body. And how many
    envelopes it deleted."""

    repeats: dict[int, bool]
    deleted: int


def write(
    connection: Connection, arriving: Sequence[Envelope], leaving: Sequence[Envelope], refused: Sequence[Envelope]
) -> Written:
    """Delete `leaving`, insert `arriving`; see which of these, and of those `refused` for a quota, are repeats.

    The same again after an unknown outcome changes nothing.
    """
    deleted = delete_envelopes(connection, [(envelope.seq, _shared_id(envelope)) for envelope in leaving])
    doubtful = list(refused)
    if arriving:
        doubtful += _insert(connection, arriving)
    return Written({e.seq: same for e in doubtful if (same := _repeats(connection, e)) is not None}, deleted)


def _insert(connection: Connection, arriving: Sequence[Envelope]) -> Sequence[Envelope]:
    """Returns those that could not be inserted."""
    shared = {envelope.shared.id: envelope.shared.body for envelope in arriving if envelope.shared}
    if shared:
        connection.execute(_INSERT_BODY, [{"id": number, "body": body} for number, body in shared.items()])
    inserted = _run_rows(connection, _insert_rows, [_row(envelope) for envelope in arriving])
    if inserted == len(arriving):
        return ()
    bounds = {"first": min(e.seq for e in arriving), "last": max(e.seq for e in arriving)}
    written = set(connection.execute(_SELECT_WRITTEN, bounds).scalars())
    if shared:
        _delete_orphans(connection, shared)
    return [envelope for envelope in arriving if envelope.seq not in written]


#: Rows that one statement takes, for as long as there are so many: few texts, which are prepared once.
_PIECES: Final = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)


def _insert_rows(dialect: Dialect, count: int) -> str:
    head, _, row = str(_INSERT.compile(dialect=dialect)).partition(" VALUES ")
    return f"{head} VALUES {', '.join([row] * count)}"


def _delete_rows(_dialect: Dialect, count: int) -> str:
    return f"DELETE FROM envelopes WHERE seq IN ({', '.join('?' * count)})"  # noqa: S608 - nobody's text


@cache
def _text_of(rows: Callable[[Dialect, int], str], count: int, dialect: str) -> str:
    """Not by Core: it takes seconds for a thousand rows."""
    return rows(registry.load(dialect)(), count)


def _run_rows(
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


def _row(envelope: Envelope) -> tuple[object, ...]:
    """In the order of the table's columns."""
    return (
        envelope.seq,
        envelope.number,
        envelope.name,
        envelope.key_class,
        envelope.is_limited,
        envelope.invite,
        envelope.expires_at,
        envelope.size,
        _shared_id(envelope),
        None if envelope.shared else envelope.body,
    )


def _shared_id(envelope: Envelope) -> int | None:
    return None if envelope.shared is None else envelope.shared.id


def _repeats(connection: Connection, envelope: Envelope) -> bool | None:
    """Whether the queue holds an envelope of this name with the same body; None if it holds none."""
    key = {"number": envelope.number, "name": envelope.name, "size": envelope.size}
    row = connection.execute(_SELECT_REPEATED, key).first()
    return None if row is None else row.body == envelope.body


def delete_envelopes(connection: Connection, leaving: Sequence[tuple[int, int | None]]) -> int:
    """Delete envelopes, given as (seq, id of the shared body), and the bodies that nothing points to any more. What is
    gone already changes nothing. Returns how many were there."""
    deleted = 0
    if leaving:
        deleted = _run_rows(connection, _delete_rows, [(seq,) for seq, _ in leaving])
        _delete_orphans(connection, {shared for _, shared in leaving if shared is not None})
    return deleted


def _delete_orphans(connection: Connection, shared: Iterable[int]) -> None:
    if numbers := [{"which": number} for number in shared]:
        connection.execute(_DELETE_BODY, numbers)
