"""The first tables: projects, runs, writers, gaps, tags, fields."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Document = sa.JSON()


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "gap",
        sa.Column("run_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("writer_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "writer_id", "seq"),
    )
    op.create_table(
        "project",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("entity", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id"),
        sa.UniqueConstraint("entity", "name", name="uq_project_entity_name"),
    )
    op.create_table(
        "run_field",
        sa.Column("run_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("num", sa.Float(53)),
        sa.Column("txt", sa.String()),
        sa.PrimaryKeyConstraint("run_id", "path"),
    )
    op.create_index("ix_run_field_num", "run_field", ["project_id", "path", "num"])
    # PostgreSQL refuses to index long texts.
    txt = sa.text("left(txt, 128)") if op.get_bind().dialect.name == "postgresql" else "txt"
    op.create_index("ix_run_field_txt", "run_field", ["project_id", "path", txt])
    op.create_table(
        "run_tag",
        sa.Column("run_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("tag", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "tag"),
    )
    op.create_index("ix_run_tag_tag", "run_tag", ["tag"])
    op.create_table(
        "writer",
        sa.Column("run_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("writer_id", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_us", sa.BigInteger(), nullable=False),
        sa.Column("is_child", sa.Integer(), nullable=False),
        sa.Column("applied_seq", sa.BigInteger(), nullable=False),
        sa.Column("lag_s", sa.Float(), nullable=False),
        sa.Column("backlog_frames", sa.BigInteger(), nullable=False),
        sa.Column("backlog_bytes", sa.BigInteger(), nullable=False),
        sa.Column("dropped_rows", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("ended_us", sa.BigInteger()),
        sa.Column("receipt", Document),
        sa.PrimaryKeyConstraint("run_id", "writer_id"),
    )
    op.create_table(
        "run",
        sa.Column("run_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("group_name", sa.String(), nullable=False),
        sa.Column("job_type", sa.String(), nullable=False),
        sa.Column("notes", sa.String(), nullable=False),
        sa.Column("tags", Document, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("config", Document, nullable=False),
        sa.Column("set_summary", Document, nullable=False),
        sa.Column("last_summary", Document, nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_us", sa.BigInteger(), nullable=False),
        sa.Column("finished_us", sa.BigInteger()),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("backlog_frames", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("writers", sa.Integer(), nullable=False),
        sa.Column("gaps", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.project_id"]),
        sa.PrimaryKeyConstraint("run_id"),
        sa.UniqueConstraint("project_id", "id", name="uq_run_project_id"),
    )
    op.create_index("ix_run_project_created", "run", ["project_id", "created_us"])
    op.create_index("ix_run_project_heartbeat", "run", ["project_id", "heartbeat_us"])
