"""What the intake must know before it takes an envelope: which send keys there are, and how full the queues.

Whether there is room then, the intake decides.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from sqlalchemy import Connection, and_, bindparam, func, select

from sottovoce_wire.frames import KeyClass

from ..envelopes import Fill
from .tables import CLASSES, UNDER_INVITE, bodies, envelopes, send_keys

_SELECT_DOORS: Final = select(send_keys.c.door, send_keys.c.queue, send_keys.c.key_class, send_keys.c.dies_at).where(
    send_keys.c.door.in_(bindparam("doors", expanding=True))
)
_SELECT_FILLS: Final = (
    select(
        envelopes.c.queue,
        func.count(),
        func.sum(envelopes.c.size),
        func.sum(envelopes.c.is_limited),
        func.sum(envelopes.c.is_limited * envelopes.c.size),
        func.max(envelopes.c.seq),
    )
    .where(envelopes.c.queue.in_(bindparam("numbers", expanding=True)))
    .group_by(envelopes.c.queue)
)
# What a deleted queue left may have come under a key that its owner gave to the next one.
_THE_QUEUES_OWN: Final = and_(send_keys.c.door == envelopes.c.invite, send_keys.c.queue == envelopes.c.queue)
_COUNT_INVITES: Final = (
    select(envelopes.c.invite, func.count().label("held"))
    .join(send_keys, _THE_QUEUES_OWN)
    .where(UNDER_INVITE, envelopes.c.invite.in_(bindparam("doors", expanding=True)))
    .group_by(envelopes.c.invite)
)
_SELECT_LAST: Final = select(
    func.max(
        select(func.coalesce(func.max(envelopes.c.seq), 0)).scalar_subquery(),
        select(func.coalesce(func.max(bodies.c.id), 0)).scalar_subquery(),
    )
)


class Door(NamedTuple):
    """What a send key opens."""

    number: int  # the queue's
    key_class: KeyClass
    dies_at: int | None  # unix seconds, for a demoted key

    @property
    def is_limited(self) -> bool:
        """Whether what comes under it counts against the stranger quota."""
        return self.dies_at is not None or self.key_class is KeyClass.STRANGER


def load_doors(connection: Connection, doors: Iterable[bytes]) -> dict[bytes, Door]:
    """Those of these doors (queue id ‖ send key hash) that exist."""
    rows = connection.execute(_SELECT_DOORS, {"doors": list(doors)})
    return {door: Door(number, CLASSES[key_class], dies_at) for door, number, key_class, dies_at in rows}


def load_fills(connection: Connection, numbers: Iterable[int]) -> dict[int, tuple[Fill, int]]:
    """How full these queues are, and the highest number of an envelope in each. Empty ones are left out."""
    rows = connection.execute(_SELECT_FILLS, {"numbers": list(numbers)})
    return {number: (Fill(*counts), head) for number, *counts, head in rows}


def count_invites(connection: Connection, doors: Iterable[bytes]) -> dict[bytes, int]:
    """How many envelopes each of these invite keys has waiting. Those with none are left out."""
    rows = connection.execute(_COUNT_INVITES, {"doors": list(doors)})
    return {row.invite: row.held for row in rows}


def last_seq(connection: Connection) -> int:
    """The highest number that any envelope or body has: the next one is free."""
    return int(connection.execute(_SELECT_LAST).scalar_one())
