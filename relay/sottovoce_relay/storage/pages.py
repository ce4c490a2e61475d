"""Pages of a queue, by the credit of who receives it. A page never takes more memory than that."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Integer, bindparam, case, func, select

from sottovoce_wire.ids import QueueId

from ..envelopes import Envelope, Page, Shared
from ..states import EnvelopeState
from .tables import BODY, CLASSES, WITH_BODIES, envelopes, queues

_BEHIND: Final = (envelopes.c.queue == bindparam("number"), envelopes.c.seq > bindparam("cursor"))
_ALIVE: Final = envelopes.c.expires_at > bindparam("now")
_SIZES: Final = (
    select(
        envelopes.c.seq,
        func.sum(case((_ALIVE, envelopes.c.size), else_=0)).over(order_by=envelopes.c.seq, rows=(None, 0)).label("sum"),
    )
    .where(envelopes.c.queue == queues.c.number, envelopes.c.seq > bindparam("cursor"))
    .order_by(envelopes.c.seq)
    .limit(bindparam("count", type_=Integer))
    .correlate(queues)
    .subquery()
)
# One row, however many envelopes it looks at: the driver takes Python's lock again after every row.
_SELECT_QUEUE: Final = select(
    queues.c.number,
    queues.c.expired,
    queues.c.expired_told,
    select(func.max(envelopes.c.seq)).where(envelopes.c.queue == queues.c.number).scalar_subquery().label("head"),
    select(func.max(_SIZES.c.seq)).where(_SIZES.c.sum <= bindparam("size")).scalar_subquery().label("upto"),
).where(queues.c.id == bindparam("queue"))
_SELECT_PAGE: Final = (
    select(
        envelopes.c.seq,
        envelopes.c.name,
        envelopes.c.key_class,
        envelopes.c.is_limited,
        envelopes.c.invite,
        envelopes.c.expires_at,
        envelopes.c.size,
        envelopes.c.shared,
        BODY,
    )
    .select_from(WITH_BODIES)
    .where(*_BEHIND, envelopes.c.seq <= bindparam("upto"), _ALIVE)
    .order_by(envelopes.c.seq)
)


def read_page(
    connection: Connection, queue: QueueId, cursor: int, allowance: tuple[int, int], now: float
) -> Page | None:
    """What the queue holds behind `cursor`, at most `allowance` envelopes and bytes; None if there is no such queue.

    Sizes first, then the bodies that fit: a page never takes more memory than its credit.
    """
    count, size = allowance
    behind = {"cursor": cursor, "now": int(now)}
    found = connection.execute(_SELECT_QUEUE, behind | {"queue": queue, "count": count, "size": size}).first()
    if found is None:
        return None
    upto = cursor if found.upto is None else found.upto
    page: Sequence[Any] = ()
    if upto > cursor:
        page = connection.execute(_SELECT_PAGE, behind | {"number": found.number, "upto": upto}).all()
    head = found.head or 0
    return Page(
        found.number,
        tuple(_stored(queue, found.number, row) for row in page),
        cursor=upto,
        head=head,
        more=head > upto,
        expired=found.expired,
        told=found.expired_told,
    )


def _stored(queue: QueueId, number: int, row: Iterable[Any]) -> Envelope:
    seq, name, key_class, is_limited, invite, expires_at, size, shared, body = row
    return Envelope(
        queue,
        number,
        seq,
        name,
        CLASSES[key_class],
        bool(is_limited),
        invite,
        expires_at,
        size,
        body,
        None if shared is None else Shared(shared, b""),
        EnvelopeState.STORED,
    )
