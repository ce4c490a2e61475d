"""The relay's tables and every statement on them: plain functions of a SQLAlchemy connection, dialect-neutral Core.

Who calls them in which transaction is the writer's matter; who may ask, the connection's; whether there is room, the
intake's. No trio here, no frames.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import registry

from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, NewSendKey
from sottovoce_wire.ids import QueueId, SendKeyHash

from .envelopes import Envelope, Fill, Loss, Page, Shared
from .states import EnvelopeState

metadata: Final = MetaData()

#: A number that SQLite makes a table's own row number.
_Number: Final = BigInteger().with_variant(Integer, "sqlite")

queues: Final = Table(
    "queues",
    metadata,
    Column("number", _Number, primary_key=True),
    # NULL: deleted, and its envelopes are still being swept away.
    Column("id", LargeBinary(16), unique=True),
    Column("owner_key", LargeBinary(32), nullable=False),
    # The day (unix time / 86,400) on which its owner last proved it.
    Column("seen_day", Integer, nullable=False, index=True),
    # How many envelopes ever expired unacknowledged, and how many of these the owner was told of. Both only grow, so
    # that writing them again after an unknown outcome changes nothing.
    Column("expired", BigInteger, nullable=False),
    Column("expired_told", BigInteger, nullable=False),
    sqlite_autoincrement=True,  # no number is ever used again
)

send_keys: Final = Table(
    "send_keys",
    metadata,
    # Queue id ‖ key hash in one column: SQLite looks up a list of single values by index, but walks the whole table for
    # a list of pairs.
    Column("door", LargeBinary(48), primary_key=True),
    Column("queue", _Number, nullable=False, index=True),
    Column("key_class", SmallInteger, nullable=False),
    # Set when the key was demoted: unix seconds at which it is forgotten.
    Column("dies_at", BigInteger, index=True),
    sqlite_with_rowid=False,
)

#: Bodies that several envelopes point to.
bodies: Final = Table(
    "bodies",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

envelopes: Final = Table(
    "envelopes",
    metadata,
    # Counts all envelopes: new ones go to the table's end, whatever their queue.
    Column("seq", _Number, primary_key=True, autoincrement=False),
    Column("queue", _Number, nullable=False),
    Column("name", LargeBinary(16), nullable=False),  # SHA-256(door ‖ envelope id)[:16]
    Column("key_class", SmallInteger, nullable=False),
    Column("is_limited", SmallInteger, nullable=False),  # 1: it counts against the stranger quota
    # Only for what came under an invite key, whose quota is the key's own. Of other keys nothing is kept.
    Column("invite", LargeBinary(48)),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("size", Integer, nullable=False),
    Column("shared", _Number),  # the body's id in `bodies`, or NULL where it stands here
    Column("body", LargeBinary),
    Index("ix_envelopes_name", "queue", "name", unique=True),
    # Answers how full a queue is, and what fits a page, without a look at the table.
    Index("ix_envelopes_queue", "queue", "seq", "size", "is_limited", "expires_at"),
)
_UNDER_INVITE: Final = envelopes.c.invite.is_not(None)
_IS_SHARED: Final = envelopes.c.shared.is_not(None)
for _name, _column, _which in (
    ("ix_envelopes_invite", envelopes.c.invite, _UNDER_INVITE),
    ("ix_envelopes_shared", envelopes.c.shared, _IS_SHARED),
):
    Index(_name, _column, sqlite_where=_which, postgresql_where=_which)


#: A look-up costs a tenth of the enumeration's own call, and happens for every row of a page.
_CLASSES: Final = {key_class.value: key_class for key_class in KeyClass}


# --- A queue's owner ----------------------------------------------------------------------------------------------

_SELECT_OWNER: Final = select(queues.c.number, queues.c.owner_key, queues.c.seen_day).where(
    queues.c.id == bindparam("queue")
)
_SELECT_ID: Final = select(queues.c.id).where(queues.c.number == bindparam("number"))
_SELECT_KEYS: Final = select(send_keys.c.door).where(send_keys.c.queue == bindparam("number"))
_DELETE_KEY: Final = delete(send_keys).where(send_keys.c.door == bindparam("door"))
_DELETE_KEYS: Final = delete(send_keys).where(send_keys.c.queue == bindparam("number"))
_DEMOTE_KEY: Final = (
    update(send_keys)
    .where(send_keys.c.door == bindparam("which"), send_keys.c.dies_at.is_(None))
    .values(dies_at=bindparam("dies_at"))
)
_UPDATE_TOLD: Final = (
    update(queues)
    .where(queues.c.id == bindparam("queue"), queues.c.expired_told < bindparam("told"))
    .values(expired_told=bindparam("told"))
)
_UPDATE_SEEN: Final = (
    update(queues)
    .where(queues.c.number == bindparam("which"), queues.c.seen_day < bindparam("day"))
    .values(seen_day=bindparam("day", type_=Integer))
)
_BURY: Final = update(queues).where(queues.c.number == bindparam("which")).values(id=None, seen_day=0)


class Owned(NamedTuple):
    """What became of a proof: ACCEPTED with the queue's number, or another code and 0."""

    code: Code
    number: int = 0
    is_current: bool = False  # it has the send keys that were named, and its owner was seen today


def find_queue(connection: Connection, queue: QueueId, owner_key: bytes, keys: Sequence[NewSendKey], day: int) -> Owned:
    """The queue, if it exists and belongs to this key: ACCEPTED or UNKNOWN_QUEUE."""
    row = connection.execute(_SELECT_OWNER, {"queue": queue}).first()
    if row is None or row.owner_key != owner_key:
        return Owned(Code.UNKNOWN_QUEUE)
    missing, _ = _missing_keys(connection, queue, row.number, keys)
    return Owned(Code.ACCEPTED, row.number, row.seen_day >= day and not missing)


def create_queue(
    connection: Connection, queue: QueueId, owner_key: bytes, keys: Sequence[NewSendKey], day: int
) -> Owned:
    """Create the queue unless it is there, and add the keys that are missing: ACCEPTED or TOO_MANY_SEND_KEYS."""
    row = connection.execute(_SELECT_OWNER, {"queue": queue}).first()
    if row is not None:
        number = row.number
    else:
        new = {"id": queue, "owner_key": owner_key, "seen_day": day, "expired": 0, "expired_told": 0}
        made = connection.execute(insert(queues), new).inserted_primary_key
        number = made[0] if made else 0
    return Owned(refresh_queue(connection, queue, number, keys, day), number, is_current=True)


def refresh_queue(connection: Connection, queue: QueueId, number: int, keys: Sequence[NewSendKey], day: int) -> Code:
    """Its owner was here today, and it has these keys: ACCEPTED, or why not, as `add_send_keys` says."""
    seen_all(connection, [number], day)
    return add_send_keys(connection, queue, number, keys)


def seen_all(connection: Connection, numbers: Sequence[int], day: int) -> None:
    """Their owners were here on this day."""
    if numbers:
        connection.execute(_UPDATE_SEEN, [{"which": number, "day": day} for number in numbers])


def add_send_keys(connection: Connection, queue: QueueId, number: int, keys: Sequence[NewSendKey]) -> Code:
    """Add the keys that are missing; one that is there keeps its class. ACCEPTED, or TOO_MANY_SEND_KEYS for all.

    UNKNOWN_QUEUE if it was deleted meanwhile.
    """
    if connection.execute(_SELECT_ID, {"number": number}).scalar() != queue:
        return Code.UNKNOWN_QUEUE
    missing, known = _missing_keys(connection, queue, number, keys)
    if known + len(missing) > limits.MAX_SEND_KEYS:
        return Code.TOO_MANY_SEND_KEYS
    if missing:
        rows = [{"door": door, "queue": number, "key_class": key_class} for door, key_class in missing.items()]
        connection.execute(insert(send_keys), rows)
    return Code.ACCEPTED


def _missing_keys(
    connection: Connection, queue: QueueId, number: int, keys: Sequence[NewSendKey]
) -> tuple[dict[bytes, KeyClass], int]:
    """Those of these keys that the queue does not have, by door, and how many it has."""
    known = set(connection.execute(_SELECT_KEYS, {"number": number}).scalars())
    named = {queue + key.key_hash: key.key_class for key in reversed(keys)}
    return {door: key_class for door, key_class in named.items() if door not in known}, len(known)


def revoke_send_key(connection: Connection, queue: QueueId, key_hash: SendKeyHash) -> Code:
    """Forget a send key. ACCEPTED, also when it was not there."""
    connection.execute(_DELETE_KEY, {"door": queue + key_hash})
    return Code.ACCEPTED


def demote_send_key(connection: Connection, queue: QueueId, key_hash: SendKeyHash, dies_at: int) -> Code:
    """Give a send key a stranger's quota and a time to die. ACCEPTED, also if it was demoted before or is not there."""
    connection.execute(_DEMOTE_KEY, {"which": queue + key_hash, "dies_at": dies_at})
    return Code.ACCEPTED


def delete_queue(connection: Connection, number: int) -> Code:
    """Make the queue unknown; its envelopes are swept afterwards. ACCEPTED."""
    connection.execute(_DELETE_KEYS, {"number": number})
    connection.execute(_BURY, {"which": number})
    return Code.ACCEPTED


def told_expired(connection: Connection, queue: QueueId, total: int) -> Code:
    """The owner knows of `total` expired envelopes. ACCEPTED."""
    connection.execute(_UPDATE_TOLD, {"queue": queue, "told": total})
    return Code.ACCEPTED


# --- What the intake must know ------------------------------------------------------------------------------------

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
    .where(_UNDER_INVITE, envelopes.c.invite.in_(bindparam("doors", expanding=True)))
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
    return {door: Door(number, _CLASSES[key_class], dies_at) for door, number, key_class, dies_at in rows}


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


# --- Envelopes in and out -----------------------------------------------------------------------------------------

# A row that is there already is one that an attempt with an unknown outcome wrote, or a repeat: see `_refused`.
_INSERT: Final = insert(envelopes).prefix_with("OR IGNORE", dialect="sqlite")
_INSERT_BODY: Final = insert(bodies).prefix_with("OR IGNORE", dialect="sqlite")
_DELETE_BODY: Final = delete(bodies).where(
    bodies.c.id == bindparam("which"), ~exists().where(envelopes.c.shared == bindparam("which"))
)
_SELECT_WRITTEN: Final = select(envelopes.c.seq).where(
    envelopes.c.seq >= bindparam("first"), envelopes.c.seq <= bindparam("last")
)
_BODY: Final = func.coalesce(envelopes.c.body, bodies.c.body)
_WITH_BODIES: Final = envelopes.outerjoin(bodies, bodies.c.id == envelopes.c.shared)
# A sender makes the relay read no more than it sent.
_SELECT_REPEATED: Final = (
    select(case((envelopes.c.size == bindparam("size", type_=Integer), _BODY)).label("body"))
    .select_from(_WITH_BODIES)
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
        _BODY,
    )
    .select_from(_WITH_BODIES)
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
        _CLASSES[key_class],
        bool(is_limited),
        invite,
        expires_at,
        size,
        body,
        None if shared is None else Shared(shared, b""),
        EnvelopeState.STORED,
    )


# --- What time takes ----------------------------------------------------------------------------------------------

_SELECT_EXPIRED: Final = (
    select(
        envelopes.c.seq,
        envelopes.c.queue,
        envelopes.c.name,
        envelopes.c.is_limited,
        envelopes.c.invite,
        envelopes.c.size,
        envelopes.c.shared,
        queues.c.id,
    )
    .outerjoin(queues, queues.c.number == envelopes.c.queue)
    .where(envelopes.c.expires_at <= bindparam("before"))
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


class Expired(NamedTuple):
    """An envelope that was swept."""

    seq: int
    number: int  # the queue's
    name: bytes
    is_limited: int
    invite: bytes | None
    size: int
    shared: int | None
    queue: QueueId | None


def sweep(connection: Connection, before: int, count: int) -> tuple[list[Expired], list[Loss]]:
    """Delete at most `count` envelopes that expired at `before` or earlier, and count them as lost to their owners.

    Returns them, and the queues that lost them.
    """
    rows = connection.execute(_SELECT_EXPIRED, {"before": before, "count": count}).all()
    swept = [Expired(*row) for row in rows]
    if not swept:
        return [], []
    delete_envelopes(connection, [(envelope.seq, envelope.shared) for envelope in swept])
    news: dict[int, int] = {}
    for envelope in swept:
        news[envelope.number] = news.get(envelope.number, 0) + 1
    connection.execute(_UPDATE_EXPIRED, [{"which": number, "news": lost} for number, lost in news.items()])
    return swept, [Loss(*row) for row in connection.execute(_SELECT_NEWS, {"numbers": list(news)})]


def sweep_keys(connection: Connection, now: int, count: int) -> list[bytes]:
    """Forget at most `count` demoted keys whose time is up. Returns their doors."""
    doors = list(connection.execute(_SELECT_DEAD_KEYS, {"now": now, "count": count}).scalars())
    if doors:
        connection.execute(_DELETE_KEY, [{"door": door} for door in doors])
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


# --- The file -----------------------------------------------------------------------------------------------------


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
