"""What time takes: expired envelopes, demoted keys, queues that nobody owns any more, and free pages of the file."""

from collections import Counter
from typing import Final

from sqlalchemy import Connection, Integer, bindparam, delete, select, update

from sottovoce_wire.ids import QueueId

from ..envelopes import Loss
from .leaving import SELECT_EXPIRED, Expired, delete_envelopes
from .owners import DELETE_KEY, delete_queue
from .tables import envelopes, queues, send_keys

_SELECT_EXPIRED: Final = (
    SELECT_EXPIRED.where(envelopes.c.expires_at <= bindparam("before"))
    .order_by(envelopes.c.expires_at)
    .limit(bindparam("count", type_=Integer))
)
_UPDATE_EXPIRED: Final = (
    update(queues)
    .where(queues.c.number == bindparam("which"))
    .values(expired=queues.c.expired + bindparam("news", type_=Integer))
)
_SELECT_NEWS: Final = select(queues.c.id, queues.c.expired, queues.c.expired_told).where(
    queues.c.number.in_(bindparam("numbers", expanding=True)), queues.c.id.is_not(None)
)
_SELECT_DEAD_KEYS: Final = (
    select(send_keys.c.door).where(send_keys.c.dies_at <= bindparam("now")).limit(bindparam("count", type_=Integer))
)
_TEN_YEARS: Final = 3650
_SELECT_IDLE: Final = (
    select(queues.c.number, queues.c.id)
    .where(
        queues.c.seen_day < bindparam("day", type_=Integer),
        queues.c.seen_day > bindparam("day") - _TEN_YEARS,  # such a day was a wrong clock's
        queues.c.id.is_not(None),
    )
    .limit(bindparam("count", type_=Integer))
)
_SELECT_BURIED: Final = select(queues.c.number).where(queues.c.id.is_(None)).limit(1)
_SELECT_REMAINS: Final = (
    select(envelopes.c.seq, envelopes.c.shared)
    .where(envelopes.c.queue == bindparam("number"))
    .limit(bindparam("count", type_=Integer))
)
_DELETE_QUEUE: Final = delete(queues).where(queues.c.number == bindparam("which"))


def sweep(connection: Connection, before: int, count: int) -> tuple[list[Expired], list[Loss]]:
    """Delete at most `count` envelopes that expired at `before` or earlier, and count them as lost to their owners.

    Returns them, and the queues that lost them.
    """
    rows = connection.execute(_SELECT_EXPIRED, {"before": before, "count": count}).all()
    swept = [Expired(*row) for row in rows]
    if not swept:
        return [], []
    delete_envelopes(connection, [(envelope.seq, envelope.shared) for envelope in swept])
    news = Counter(envelope.number for envelope in swept)
    connection.execute(_UPDATE_EXPIRED, [{"which": number, "news": lost} for number, lost in news.items()])
    return swept, [Loss(*row) for row in connection.execute(_SELECT_NEWS, {"numbers": list(news)})]


def sweep_keys(connection: Connection, now: int, count: int) -> list[bytes]:
    """Forget at most `count` demoted keys whose time is up. Returns their doors."""
    doors = list(connection.execute(_SELECT_DEAD_KEYS, {"now": now, "count": count}).scalars())
    if doors:
        connection.execute(DELETE_KEY, [{"door": door} for door in doors])
    return doors


def sweep_idle(connection: Connection, before_day: int, count: int) -> list[tuple[int, QueueId]]:
    """Delete at most `count` queues whose owners were last seen before this day. Returns their numbers and ids."""
    idle = [(number, queue) for number, queue in connection.execute(_SELECT_IDLE, {"day": before_day, "count": count})]
    for number, _ in idle:
        delete_queue(connection, number)
    return idle


def sweep_remains(connection: Connection, count: int) -> bool:
    """Delete at most `count` envelopes of a queue that was deleted, or the queue's last trace. Whether there may be
    more."""
    number = connection.execute(_SELECT_BURIED).scalar()
    if number is None:
        return False
    remains = [(seq, shared) for seq, shared in connection.execute(_SELECT_REMAINS, {"number": number, "count": count})]
    delete_envelopes(connection, remains)
    if len(remains) < count:
        connection.execute(_DELETE_QUEUE, {"which": number})
    return True


def return_space(connection: Connection, at_least: int, pages: int) -> int:
    """Give up to `pages` free pages of the file back to the system if `at_least` are free. Returns how many it gave."""
    if connection.dialect.name != "sqlite":
        return 0
    free = _free_pages(connection)
    if free < at_least:
        return 0
    # Page by page: the sqlite3 module takes one step only of a statement that returns no rows, and a step is one page.
    connection.exec_driver_sql("PRAGMA incremental_vacuum(1)", [()] * pages)
    return free - _free_pages(connection)


def _free_pages(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
