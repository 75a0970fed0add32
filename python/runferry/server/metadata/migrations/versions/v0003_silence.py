"""Since when runs and writers are silent, and until when the server has listened."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns and the table; what is known so far was heard while somebody listened."""
    for table, heard in (("run", "heartbeat_us"), ("writer", "last_seen_us")):
        op.add_column(table, sa.Column("silent_since_us", sa.BigInteger(), nullable=False, server_default="0"))
        op.execute(sa.text(f"UPDATE {table} SET silent_since_us = {heard}"))  # noqa: S608 - two fixed names
    op.create_table(
        "listening",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
