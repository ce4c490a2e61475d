"""Envelopes in and out: one transaction inserts what arrives, deletes what leaves, and finds repeats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Dialect, Integer, bindparam, case, insert, select

from ..envelopes import Envelope
from .leaving import SELECT_EXPIRED, Expired, delete_envelopes, delete_orphans
from .rows import run_rows
from .tables import BODY, WITH_BODIES, bodies, envelopes

# A row that is there already is one that an attempt with an unknown outcome wrote, or a repeat: see `_repeats`.
_INSERT: Final = insert(envelopes).prefix_with("OR IGNORE", dialect="sqlite")
_INSERT_BODY: Final = insert(bodies).prefix_with("OR IGNORE", dialect="sqlite")
_SELECT_WRITTEN: Final = select(envelopes.c.seq).where(
    envelopes.c.seq >= bindparam("first"), envelopes.c.seq <= bindparam("last")
)
_NAMED: Final = (envelopes.c.queue == bindparam("number"), envelopes.c.name == bindparam("name"))
_SELECT_OUTLIVED: Final = SELECT_EXPIRED.where(
    *_NAMED, envelopes.c.expires_at <= bindparam("now"), envelopes.c.seq < bindparam("first")
)
# A sender makes the relay read no more than it sent.
_SELECT_REPEATED: Final = (
    select(case((envelopes.c.size == bindparam("size", type_=Integer), BODY)).label("body"))
    .select_from(WITH_BODIES)
    .where(*_NAMED, envelopes.c.expires_at > bindparam("beyond"))
)


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction found and did."""

    repeats: Mapping[int, bool]  # by seq: whether the repeat of a stored envelope has the same body
    deleted: int  # how many envelopes left
    replaced: Sequence[Expired] = ()  # what had expired and was sent again


def write(
    connection: Connection,
    arriving: Sequence[Envelope],
    leaving: Sequence[Envelope],
    refused: Sequence[Envelope],
    now: int,
) -> Written:
    """Delete `leaving`, insert `arriving`; see which of these, and of those `refused` for a quota, are repeats. What
    has expired by `now` (unix seconds) is replaced.

    The same again after an unknown outcome changes nothing.
    """
    deleted = delete_envelopes(connection, [(envelope.seq, _shared_id(envelope)) for envelope in leaving])
    doubtful = _insert(connection, arriving)
    replaced = _outlived(connection, arriving, doubtful, now)
    if replaced:
        delete_envelopes(connection, [(envelope.seq, envelope.shared) for envelope in replaced])
        doubtful = _insert(connection, doubtful)
    repeats = {e.seq: _repeats(connection, e, beyond=0) for e in doubtful}
    repeats |= {e.seq: _repeats(connection, e, beyond=now) for e in refused}
    found = {seq: same for seq, same in repeats.items() if same is not None}
    return Written(found, deleted, replaced)


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


def _outlived(
    connection: Connection, arriving: Sequence[Envelope], doubtful: Sequence[Envelope], now: int
) -> list[Expired]:
    """What has expired, was there before any of these arrived, and has the name and body of one of the doubtful."""
    at = {"now": now, "first": min((envelope.seq for envelope in arriving), default=0)}
    names = {(e.number, e.name) for e in doubtful if _repeats(connection, e, beyond=0)}
    rows = [connection.execute(_SELECT_OUTLIVED, at | {"number": n, "name": name}).first() for n, name in names]
    return [Expired(*row) for row in rows if row is not None]


def _repeats(connection: Connection, envelope: Envelope, beyond: int) -> bool | None:
    """Whether the queue holds an envelope of this name with the same body; None if it holds none that lives beyond
    this time."""
    key = {"number": envelope.number, "name": envelope.name, "size": envelope.size, "beyond": beyond}
    row = connection.execute(_SELECT_REPEATED, key).first()
    return None if row is None else row.body == envelope.body
