"""The first tables: queues, their send keys, their envelopes.

Never edited again: later changes are revisions of their own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables (see storage.py for what the columns mean)."""
    op.create_table(
        "queues",
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        sa.Column("owner_key", sa.LargeBinary(32), nullable=False),
        sa.Column("next_seq", sa.BigInteger, nullable=False),
        sa.Column("envelopes", sa.Integer, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("stranger_envelopes", sa.Integer, nullable=False),
        sa.Column("stranger_size", sa.BigInteger, nullable=False),
        sa.Column("expired", sa.BigInteger, nullable=False),
        sa.Column("expired_told", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "send_keys",
        sa.Column("door", sa.LargeBinary(48), primary_key=True),
        sa.Column("queue_id", sa.LargeBinary(16), nullable=False, index=True),
        sa.Column("key_class", sa.SmallInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "envelopes",
        sa.Column("queue_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("key_class", sa.SmallInteger, nullable=False),
        sa.Column("invite_door", sa.LargeBinary(48)),
        sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index(
        "ix_envelopes_invite_door",
        "envelopes",
        ["invite_door"],
        sqlite_where=sa.text("invite_door IS NOT NULL"),
        postgresql_where=sa.text("invite_door IS NOT NULL"),
    )
