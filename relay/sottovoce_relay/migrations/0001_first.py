"""The first tables: queues, their send keys, their envelopes.

Never edited again once released: later changes are revisions of their own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Create the tables (see storage/tables.py for what the columns mean)."""
    op.create_table(
        "queues",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("id", sa.LargeBinary(16), unique=True),
        sa.Column("owner_key", sa.LargeBinary(32), nullable=False),
        sa.Column("seen_day", sa.Integer, nullable=False, index=True),
        sa.Column("expired", sa.BigInteger, nullable=False),
        sa.Column("expired_told", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "send_keys",
        sa.Column("door", sa.LargeBinary(48), primary_key=True),
        sa.Column("queue", _NUMBER, nullable=False, index=True),
        sa.Column("key_class", sa.SmallInteger, nullable=False),
        sa.Column("dies_at", sa.BigInteger, index=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "bodies",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "envelopes",
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("queue", _NUMBER, nullable=False),
        sa.Column("name", sa.LargeBinary(16), nullable=False),
        sa.Column("key_class", sa.SmallInteger, nullable=False),
        sa.Column("is_limited", sa.SmallInteger, nullable=False),
        sa.Column("invite", sa.LargeBinary(48)),
        sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("shared", _NUMBER),
        sa.Column("body", sa.LargeBinary),
    )
    op.create_index("ix_envelopes_name", "envelopes", ["queue", "name"], unique=True)
    op.create_index("ix_envelopes_queue", "envelopes", ["queue", "seq", "size", "is_limited", "expires_at"])
    for name, column in (("ix_envelopes_invite", "invite"), ("ix_envelopes_shared", "shared")):
        where = sa.text(f"{column} IS NOT NULL")
        op.create_index(name, "envelopes", [column], sqlite_where=where, postgresql_where=where)
