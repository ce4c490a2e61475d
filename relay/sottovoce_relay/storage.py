"""The relay's tables and every statement on them: plain functions of a SQLAlchemy connection, dialect-neutral Core.

Who calls them in which transaction is the writer's matter; who may ask, the connection's. No trio here, no frames.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    SmallInteger,
    Table,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)

from sottovoce_wire import limits
from sottovoce_wire.errors import Code
from sottovoce_wire.frames import KeyClass, NewSendKey, SendResult
from sottovoce_wire.ids import QueueId, SendKeyHash

from . import envelopes as answers
from .envelopes import Arrival, Fill, Loss, Page, Quotas, Range, Stored, merged, ranges_of

metadata: Final = MetaData()

queues: Final = Table(
    "queues",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),
    Column("owner_key", LargeBinary(32), nullable=False),
    # Envelopes are numbered from here, so that no number is used again.
    Column("next_seq", BigInteger, nullable=False),
    Column("envelopes", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("stranger_envelopes", Integer, nullable=False),
    Column("stranger_size", BigInteger, nullable=False),
    # How many envelopes ever expired unacknowledged, and how many of these the owner was told of. Both only grow, so
    # that writing them again after an unknown outcome changes nothing.
    Column("expired", BigInteger, nullable=False),
    Column("expired_told", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

send_keys: Final = Table(
    "send_keys",
    metadata,
    # Queue id ‖ key hash in one column, here and below: SQLite looks up a list of single values by index, but walks the
    # whole table for a list of pairs.
    Column("door", LargeBinary(48), primary_key=True),
    Column("queue_id", LargeBinary(16), nullable=False, index=True),
    Column("key_class", SmallInteger, nullable=False),
    sqlite_with_rowid=False,
)

envelopes: Final = Table(
    "envelopes",
    metadata,
    Column("queue_id", LargeBinary(16), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("name", LargeBinary(32), nullable=False, unique=True),  # SHA-256(door ‖ envelope id)
    Column("key_class", SmallInteger, nullable=False),
    # Only for what came under an invite key, whose quota is the key's own. Of other keys nothing is kept.
    Column("invite_door", LargeBinary(48)),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
)
_UNDER_INVITE: Final = envelopes.c.invite_door.is_not(None)
Index(
    "ix_envelopes_invite_door",
    envelopes.c.invite_door,
    sqlite_where=_UNDER_INVITE,
    postgresql_where=_UNDER_INVITE,
)


# --- A queue's owner ----------------------------------------------------------------------------------------------

_SELECT_OWNER: Final = select(queues.c.owner_key).where(queues.c.id == bindparam("queue"))
_SELECT_KEYS: Final = select(send_keys.c.door).where(send_keys.c.queue_id == bindparam("queue"))
_DELETE_KEY: Final = delete(send_keys).where(send_keys.c.door == bindparam("door"))
_UPDATE_TOLD: Final = (
    update(queues)
    .where(queues.c.id == bindparam("queue"), queues.c.expired_told < bindparam("told"))
    .values(expired_told=bindparam("told"))
)


def owns_queue(connection: Connection, queue: QueueId, owner_key: bytes) -> bool:
    """Whether the queue exists and belongs to this key."""
    return connection.execute(_SELECT_OWNER, {"queue": queue}).scalar() == owner_key


def create_queue(connection: Connection, queue: QueueId, owner_key: bytes, keys: Sequence[NewSendKey]) -> Code:
    """Create the queue unless it is there, and add the keys that are missing: ACCEPTED or TOO_MANY_SEND_KEYS."""
    if connection.execute(_SELECT_OWNER, {"queue": queue}).first() is None:
        counters = dict.fromkeys(
            ("envelopes", "size", "stranger_envelopes", "stranger_size", "expired", "expired_told"), 0
        )
        connection.execute(insert(queues), [{"id": queue, "owner_key": owner_key, "next_seq": 1, **counters}])
    return add_send_keys(connection, queue, keys)


def add_send_keys(connection: Connection, queue: QueueId, keys: Sequence[NewSendKey]) -> Code:
    """Add the keys that are missing; one that is there keeps its class. ACCEPTED, or TOO_MANY_SEND_KEYS for all."""
    known = set(connection.execute(_SELECT_KEYS, {"queue": queue}).scalars())
    named = {queue + key.key_hash: key.key_class for key in reversed(keys)}
    missing = {door: key_class for door, key_class in named.items() if door not in known}
    if len(known) + len(missing) > limits.MAX_SEND_KEYS:
        return Code.TOO_MANY_SEND_KEYS
    if missing:
        rows = [{"door": door, "queue_id": queue, "key_class": key_class} for door, key_class in missing.items()]
        connection.execute(insert(send_keys), rows)
    return Code.ACCEPTED


def revoke_send_key(connection: Connection, queue: QueueId, key_hash: SendKeyHash) -> Code:
    """Forget a send key. ACCEPTED, also when it was not there."""
    connection.execute(_DELETE_KEY, {"door": queue + key_hash})
    return Code.ACCEPTED


def told_expired(connection: Connection, queue: QueueId, total: int) -> Code:
    """The owner knows of `total` expired envelopes. ACCEPTED."""
    connection.execute(_UPDATE_TOLD, {"queue": queue, "told": total})
    return Code.ACCEPTED


# --- Envelopes in -------------------------------------------------------------------------------------------------

_FILL: Final = (
    queues.c.next_seq,
    queues.c.envelopes,
    queues.c.size,
    queues.c.stranger_envelopes,
    queues.c.stranger_size,
)
_SELECT_DOORS: Final = (
    select(send_keys.c.door, send_keys.c.queue_id, send_keys.c.key_class, *_FILL)
    .join(queues, queues.c.id == send_keys.c.queue_id)
    .where(send_keys.c.door.in_(bindparam("doors", expanding=True)))
)
_SELECT_HELD: Final = select(envelopes.c.name, func.length(envelopes.c.body).label("length")).where(
    envelopes.c.name.in_(bindparam("names", expanding=True))
)
_SELECT_REPEATED: Final = select(envelopes.c.name, envelopes.c.body).where(
    envelopes.c.name.in_(bindparam("names", expanding=True))
)
_COUNT_INVITES: Final = (
    select(envelopes.c.invite_door, func.count().label("held"))
    .where(_UNDER_INVITE, envelopes.c.invite_door.in_(bindparam("doors", expanding=True)))
    .group_by(envelopes.c.invite_door)
)
_INSERT: Final = insert(envelopes)
_UPDATE_FILL: Final = (
    update(queues)
    .where(queues.c.id == bindparam("queue"))
    .values({column: bindparam(f"new_{column.name}") for column in _FILL})
)


class Insertion:
    """One batch of Sends, decided in their order inside one transaction. Made anew for every attempt."""

    def __init__(self, connection: Connection, sends: Sequence[Sequence[Arrival]], quotas: Quotas) -> None:
        self._quotas = quotas
        self._classes: dict[bytes, KeyClass] = {}  # by door: queue id ‖ key hash
        self._fills: dict[QueueId, Fill] = {}
        self._load_doors(connection, {arrival.door for send in sends for arrival in send})
        self._held = self._load_held(connection, sends)  # bodies by name
        self._invites = self._count_invites(connection)
        self._rows: list[dict[str, object]] = []
        self._stored: list[Stored] = []
        self._results = [self._decide_send(send) for send in sends]
        self._write(connection)

    @property
    def results(self) -> list[list[SendResult]]:
        """For each Send, what to tell its sender once this is committed."""
        return self._results

    @property
    def stored(self) -> list[Stored]:
        """What is new in the database once this is committed, in each queue's order."""
        return self._stored

    def _load_doors(self, connection: Connection, doors: Collection[bytes]) -> None:
        for door, queue, key_class, *fill in connection.execute(_SELECT_DOORS, {"doors": list(doors)}):
            self._classes[door] = KeyClass(key_class)
            self._fills.setdefault(queue, Fill(*fill))

    def _load_held(self, connection: Connection, sends: Sequence[Sequence[Arrival]]) -> dict[bytes, bytes]:
        """The bodies of those envelopes that are held already, or nothing for a body of another length: a sender makes
        the relay read no more than it sent, and without a key nothing."""
        arrivals = [arrival for send in sends for arrival in send if arrival.door in self._classes]
        if not arrivals:
            return {}
        names = {arrival.name for arrival in arrivals}
        lengths = {row.name: row.length for row in connection.execute(_SELECT_HELD, {"names": list(names)})}
        held = dict.fromkeys(lengths, b"")
        repeated = {arrival.name for arrival in arrivals if lengths.get(arrival.name) == len(arrival.body)}
        if repeated:
            rows = connection.execute(_SELECT_REPEATED, {"names": list(repeated)})
            held.update({row.name: row.body for row in rows})
        return held

    def _count_invites(self, connection: Connection) -> Counter[bytes]:
        doors = [door for door, key_class in self._classes.items() if key_class is KeyClass.INVITE]
        if not doors:
            return Counter()
        return Counter({row.invite_door: row.held for row in connection.execute(_COUNT_INVITES, {"doors": doors})})

    def _decide_send(self, send: Sequence[Arrival]) -> list[SendResult]:
        """A failure that may pass stops the rest of its queue in this Send, so that the queue's order is kept."""
        results = []
        stopped: dict[QueueId, SendResult] = {}
        for arrival in send:
            result = stopped.get(arrival.queue) or self._decide(arrival)
            if result.retry_after_ms:
                stopped[arrival.queue] = result
            results.append(result)
        return results

    def _decide(self, arrival: Arrival) -> SendResult:
        length = len(arrival.body)
        if length > self._quotas.max_envelope:
            return answers.ENVELOPE_TOO_LARGE
        key_class = self._classes.get(arrival.door)
        if key_class is None:
            return answers.REFUSED
        held = self._held.get(arrival.name)
        if held is not None:
            return answers.ACCEPTED if held == arrival.body else answers.ID_CONFLICT
        fill = self._fills[arrival.queue]
        if not fill.has_room(key_class, length, self._quotas) or not self._invite_has_room(key_class, arrival.door):
            return answers.QUEUE_FULL
        self._accept(arrival, key_class, fill.add(key_class, length))
        return answers.ACCEPTED

    def _invite_has_room(self, key_class: KeyClass, door: bytes) -> bool:
        return key_class is not KeyClass.INVITE or self._invites[door] < self._quotas.invite_envelopes

    def _accept(self, arrival: Arrival, key_class: KeyClass, seq: int) -> None:
        is_invite = key_class is KeyClass.INVITE
        if is_invite:
            self._invites[arrival.door] += 1
        self._held[arrival.name] = arrival.body
        self._stored.append(Stored(arrival.queue, seq, key_class, arrival.expires_at, arrival.body))
        self._rows.append(
            {
                "queue_id": arrival.queue,
                "seq": seq,
                "name": arrival.name,
                "key_class": key_class,
                "invite_door": arrival.door if is_invite else None,
                "expires_at": arrival.expires_at,
                "body": arrival.body,
            }
        )

    def _write(self, connection: Connection) -> None:
        if not self._rows:
            return
        connection.execute(_INSERT, self._rows)
        changed = {envelope.queue for envelope in self._stored}
        connection.execute(_UPDATE_FILL, [_fill_row(queue, self._fills[queue]) for queue in changed])


def _fill_row(queue: QueueId, fill: Fill) -> dict[str, object]:
    return {
        "queue": queue,
        "new_next_seq": fill.next_seq,
        "new_envelopes": fill.envelopes,
        "new_size": fill.size,
        "new_stranger_envelopes": fill.stranger_envelopes,
        "new_stranger_size": fill.stranger_size,
    }


# --- Envelopes out ------------------------------------------------------------------------------------------------

_LENGTH: Final = func.length(envelopes.c.body)
_SELECT_SIZES: Final = (
    select(
        queues.c.next_seq,
        queues.c.expired,
        queues.c.expired_told,
        envelopes.c.seq,
        _LENGTH,
        envelopes.c.expires_at,
    )
    .select_from(
        queues.outerjoin(
            envelopes, (envelopes.c.queue_id == queues.c.id) & (envelopes.c.seq > bindparam("cursor", type_=BigInteger))
        )
    )
    .where(queues.c.id == bindparam("queue"))
    .order_by(envelopes.c.seq)
    .limit(bindparam("count", type_=Integer))
)
_SELECT_BODIES: Final = (
    select(envelopes.c.seq, envelopes.c.key_class, envelopes.c.expires_at, envelopes.c.body)
    .where(
        envelopes.c.queue_id == bindparam("queue"),
        envelopes.c.seq > bindparam("cursor"),
        envelopes.c.seq <= bindparam("upto"),
        envelopes.c.expires_at > bindparam("now"),
    )
    .order_by(envelopes.c.seq)
)


def read_page(connection: Connection, queue: QueueId, cursor: int, allowance: tuple[int, int], now: float) -> Page:
    """What the queue holds behind `cursor`, at most `allowance` envelopes and bytes. The queue must exist.

    Sizes first, then the bodies that fit: a page never takes more memory than its credit.
    """
    count, size = allowance
    rows = connection.execute(_SELECT_SIZES, {"queue": queue, "cursor": cursor, "count": count + 1}).all()
    upto = _last_that_fits(rows[:count], cursor, size, now)
    waiting = [row.seq for row in rows if row.seq is not None]
    bodies: Sequence[Row[int, int, int, bytes]] = ()
    if upto > cursor:
        bounds = {"queue": queue, "cursor": cursor, "upto": upto, "now": int(now)}
        bodies = connection.execute(_SELECT_BODIES, bounds).all()
    return Page(
        tuple(Stored(queue, seq, KeyClass(kind), expires_at, body) for seq, kind, expires_at, body in bodies),
        cursor=upto,
        head=rows[0].next_seq - 1,
        more=bool(waiting) and waiting[-1] > upto,
        expired=rows[0].expired,
        told=rows[0].expired_told,
    )


def _last_that_fits(rows: Sequence[Row[int, int, int, int, int, int]], cursor: int, size: int, now: float) -> int:
    """The last number up to which bodies that have not expired add up to at most `size`."""
    for _, _, _, seq, length, expires_at in rows:
        if seq is None:
            break
        if expires_at > int(now):
            size -= length
        if size < 0:
            break
        cursor = seq
    return cursor


# --- Envelopes gone -----------------------------------------------------------------------------------------------

_IN_RANGE: Final = (
    envelopes.c.queue_id == bindparam("queue"),
    envelopes.c.seq > bindparam("after"),
    envelopes.c.seq <= bindparam("upto"),
)
_IS_STRANGER: Final = envelopes.c.key_class == KeyClass.STRANGER.value
_GONE: Final = (
    select(
        envelopes.c.queue_id,
        func.count().label("envelopes"),
        func.sum(_LENGTH).label("size"),
        func.sum(case((_IS_STRANGER, 1), else_=0)).label("stranger_envelopes"),
        func.sum(case((_IS_STRANGER, _LENGTH), else_=0)).label("stranger_size"),
    )
    .where(*_IN_RANGE)
    .group_by(envelopes.c.queue_id)
    .subquery("gone")
)
_COUNT_OUT: Final = (
    update(queues)
    .where(queues.c.id == _GONE.c.queue_id)
    .values({column: column - _GONE.c[column.name] for column in _FILL if column.name != "next_seq"})
)
_DELETE_RANGE: Final = delete(envelopes).where(*_IN_RANGE)
_SELECT_EXPIRED: Final = (
    select(envelopes.c.queue_id, envelopes.c.seq)
    .where(envelopes.c.expires_at <= bindparam("before"))
    .order_by(envelopes.c.expires_at)
    .limit(bindparam("count", type_=Integer))
)
_UPDATE_EXPIRED: Final = (
    update(queues)
    .where(queues.c.id == bindparam("queue"))
    .values(expired=queues.c.expired + bindparam("news", type_=Integer))
)
_SELECT_NEWS: Final = select(queues.c.id, queues.c.expired, queues.c.expired_told).where(
    queues.c.id.in_(bindparam("ids", expanding=True))
)


def delete_ranges(connection: Connection, ranges: Sequence[Range]) -> None:
    """Delete envelopes and count them out of their queues. What is gone already changes nothing."""
    if ranges:
        # Without overlaps: everything is counted out before anything is deleted.
        bounds = [gone._asdict() for gone in merged(ranges)]
        connection.execute(_COUNT_OUT, bounds)
        connection.execute(_DELETE_RANGE, bounds)


def sweep(connection: Connection, before: int, count: int) -> tuple[int, list[Loss]]:
    """Delete at most `count` envelopes that expired at `before` or earlier, and count them as lost to their owners.

    Returns how many, and the queues that lost them.
    """
    rows = connection.execute(_SELECT_EXPIRED, {"before": before, "count": count}).all()
    expired: dict[QueueId, list[int]] = {}
    for queue, seq in rows:
        expired.setdefault(queue, []).append(seq)
    if not expired:
        return 0, []
    delete_ranges(connection, [gone for queue, seqs in expired.items() for gone in ranges_of(queue, seqs)])
    connection.execute(_UPDATE_EXPIRED, [{"queue": queue, "news": len(seqs)} for queue, seqs in expired.items()])
    return len(rows), [Loss(*row) for row in connection.execute(_SELECT_NEWS, {"ids": list(expired)})]


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
