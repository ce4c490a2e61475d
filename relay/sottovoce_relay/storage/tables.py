"""The tables, and what every statement on them needs. A step of theirs is a migration (migrations/)."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, func

from sottovoce_wire.frames import KeyClass

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
UNDER_INVITE: Final = envelopes.c.invite.is_not(None)
_IS_SHARED: Final = envelopes.c.shared.is_not(None)
for _name, _column, _which in (
    ("ix_envelopes_invite", envelopes.c.invite, UNDER_INVITE),
    ("ix_envelopes_shared", envelopes.c.shared, _IS_SHARED),
):
    Index(_name, _column, sqlite_where=_which, postgresql_where=_which)


#: A look-up costs a tenth of the enumeration's own call, and happens for every row of a page.
CLASSES: Final = {key_class.value: key_class for key_class in KeyClass}

#: What an envelope holds, wherever that stands.
BODY: Final = func.coalesce(envelopes.c.body, bodies.c.body)
WITH_BODIES: Final = envelopes.outerjoin(bodies, bodies.c.id == envelopes.c.shared)
