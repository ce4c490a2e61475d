"""Envelopes in and out: one transaction inserts what arrives, deletes what leaves, and finds repeats."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import Connection, Dialect, Integer, bindparam, case, insert, select

from ..envelopes import Envelope
from .leaving import SELECT_EXPIRED, Expired, delete_envelopes, delete_orphans
from .rows import run_rows
from .tables import BODY, bodies, envelopes

# A row that is there already is one that an attempt with an unknown outcome wrote, or a repeat: see `write`.
_INSERT: Final = insert(envelopes).prefix_with("OR IGNORE", dialect="sqlite")
_INSERT_BODY: Final = insert(bodies).prefix_with("OR IGNORE", dialect="sqlite")
_SELECT_WRITTEN: Final = select(envelopes.c.seq).where(
    envelopes.c.seq >= bindparam("first"), envelopes.c.seq <= bindparam("last")
)
# A sender makes the relay read no more than it sent.
_SELECT_NAMED: Final = (
    SELECT_EXPIRED.add_columns(
        envelopes.c.expires_at, case((envelopes.c.size == bindparam("size", type_=Integer), BODY)).label("body")
    )
    .outerjoin(bodies, bodies.c.id == envelopes.c.shared)
    .where(envelopes.c.queue == bindparam("number"), envelopes.c.name == bindparam("name"))
)


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction found and did."""

    repeats: Mapping[int, bool]  # by seq: whether the repeat of a stored envelope has the same body
    deleted: int  # how many envelopes left
    replaced: Collection[Expired] = ()  # what had expired and was sent again


class _Stored(NamedTuple):
    """What a queue holds under the name of an envelope that came."""

    row: Expired
    has_expired: bool
    is_same: bool  # the bodies are


def write(
    connection: Connection,
    arriving: Sequence[Envelope],
    leaving: Sequence[Envelope],
    refused: Sequence[Envelope],
    now: int,
) -> Written:
    """Delete `leaving`, insert `arriving`; see which of these, and of those `refused` for a quota, are repeats. What
    has expired by `now` (unix seconds) gives way to its repeat.

    The same again after an unknown outcome changes nothing.
    """
    deleted = delete_envelopes(connection, [(envelope.seq, _shared_id(envelope)) for envelope in leaving])
    doubtful = _insert(connection, arriving)
    if not (doubtful or refused):
        return Written({}, deleted)
    found = {envelope.seq: _find(connection, envelope, now) for envelope in (*doubtful, *refused)}
    ours = {envelope.seq for envelope in arriving}
    renewed, replaced = [], set()
    for envelope in doubtful:
        stored = found[envelope.seq]
        if stored is not None and stored.has_expired and stored.is_same and stored.row.seq not in ours:
            renewed.append(envelope)
            replaced.add(stored.row)
            found[envelope.seq] = None
    delete_envelopes(connection, [(row.seq, row.shared) for row in replaced])
    found |= {envelope.seq: _find(connection, envelope, now) for envelope in _insert(connection, renewed)}
    lives = {seq: at for seq, at in found.items() if at is not None and (seq in ours or not at.has_expired)}
    return Written({seq: at.is_same for seq, at in lives.items()}, deleted, replaced)


def _insert(connection: Connection, arriving: Sequence[Envelope]) -> Sequence[Envelope]:
    """Returns those that could not be inserted."""
    if not arriving:
        return ()
    shared = {envelope.shared.id: envelope.shared.body for envelope in arriving if envelope.shared}
    if shared:
        connection.execute(_INSERT_BODY, [{"id": number, "body": body} for number, body in shared.items()])
    inserted = run_rows(connection, _insert_rows, [_row(envelope) for envelope in arriving])
    if inserted == len(arriving):
        return ()
    bounds = {"first": min(e.seq for e in arriving), "last": max(e.seq for e in arriving)}
    written = set(connection.execute(_SELECT_WRITTEN, bounds).scalars())
    if shared:
        delete_orphans(connection, shared)
    return [envelope for envelope in arriving if envelope.seq not in written]


def _insert_rows(dialect: Dialect, count: int) -> str:
    head, _, row = str(_INSERT.compile(dialect=dialect)).partition(" VALUES ")
    return f"{head} VALUES {', '.join([row] * count)}"


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


def _find(connection: Connection, envelope: Envelope, now: int) -> _Stored | None:
    key = {"number": envelope.number, "name": envelope.name, "size": envelope.size}
    row = connection.execute(_SELECT_NAMED, key).first()
    if row is None:
        return None
    *columns, expires_at, body = row
    return _Stored(Expired(*columns), expires_at <= now, body == envelope.body)
