"""The first tables: accounts, their usernames, their devices, and the devices' one-time prekeys.

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
        "accounts",
        sa.Column("id", sa.LargeBinary(32), primary_key=True),
        sa.Column("root_key", sa.LargeBinary(32), nullable=False),
        sa.Column("device_list", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usernames",
        sa.Column("username", sa.String(32), primary_key=True),
        sa.Column("account_id", sa.LargeBinary(32), sa.ForeignKey("accounts.id"), nullable=False, unique=True),
        sa.Column("claim", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "devices",
        sa.Column("account_id", sa.LargeBinary(32), sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("device_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("signing_key", sa.LargeBinary(32), nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("prekey_record", sa.LargeBinary),
        sa.Column("record_id", sa.BigInteger),
        sa.Column("contact_record", sa.LargeBinary),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("expires", sa.BigInteger),
        sa.Column("one_time_from", sa.BigInteger, nullable=False),
        sa.Column("greatest_prekey_id", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "one_time_prekeys",
        sa.Column("account_id", sa.LargeBinary(32), primary_key=True),
        sa.Column("device_id", sa.LargeBinary(16), primary_key=True),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key", sa.LargeBinary(32), nullable=False),
        sa.ForeignKeyConstraint(["account_id", "device_id"], ["devices.account_id", "devices.device_id"]),
        sqlite_with_rowid=False,
    )
