"""Envelopes that go, and the bodies that several of them shared."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, Dialect, bindparam, delete, exists, select

from sottovoce_wire.ids import QueueId

from .rows import run_rows
from .tables import bodies, envelopes, queues

#: The columns of `Expired`.
SELECT_EXPIRED: Final = select(
    envelopes.c.seq,
    envelopes.c.queue,
    envelopes.c.name,
    envelopes.c.is_limited,
    envelopes.c.invite,
    envelopes.c.size,
    envelopes.c.shared,
    queues.c.id,
).outerjoin(queues, queues.c.number == envelopes.c.queue)
_DELETE_BODY: Final = delete(bodies).where(
    bodies.c.id == bindparam("which"), ~exists().where(envelopes.c.shared == bindparam("which"))
)


class Expired(NamedTuple):
    """An envelope that went because its time was up."""

    seq: int
    number: int  # the queue's
    name: bytes
    is_limited: int
    invite: bytes | None
    size: int
    shared: int | None
    queue: QueueId | None


def delete_envelopes(connection: Connection, leaving: Sequence[tuple[int, int | None]]) -> int:
    """Delete envelopes, given as (seq, id of the shared body), and the bodies that nothing points to any more. What is
    gone already changes nothing. Returns how many were there."""
    deleted = 0
    if leaving:
        deleted = run_rows(connection, _delete_rows, [(seq,) for seq, _ in leaving])
        delete_orphans(connection, {shared for _, shared in leaving if shared is not None})
    return deleted


def delete_orphans(connection: Connection, shared: Iterable[int]) -> None:
    """Delete those of these bodies that nothing points to."""
    if numbers := [{"which": number} for number in shared]:
        connection.execute(_DELETE_BODY, numbers)


def _delete_rows(_dialect: Dialect, count: int) -> str:
    return f"DELETE FROM envelopes WHERE seq IN ({', '.join('?' * count)})"  # noqa: S608 - nobody's text
