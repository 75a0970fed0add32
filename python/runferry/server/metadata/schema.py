"""The tables of the metadata database.

Documents (config, summary) are whole JSON values, read for display. `run_field` repeats their leaves one a row, so that
filters and orders are index lookups; it is written with the document and never read for display. History is not here:
it lies in the store.

# Invariants
- `writer.applied_seq` changes in the transaction that holds the effects of the frames up to it, so a frame's documents
  are applied exactly once, whatever crashes when.
- The tables here and the newest migration describe the same schema (`tests/server/test_metadata.py` compares them).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()

Document = JSON()  # kept and given back as it came: JSONB would refuse texts with NUL

project = Table(
    "project",
    metadata,
    Column("project_id", Integer, primary_key=True),
    Column("entity", String, nullable=False),
    Column("name", String, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("entity", "name", name="uq_project_entity_name"),
)

run = Table(
    "run",
    metadata,
    Column("run_id", LargeBinary(16), primary_key=True),
    Column("project_id", Integer, ForeignKey("project.project_id"), nullable=False),
    Column("id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("group_name", String, nullable=False),
    Column("job_type", String, nullable=False),
    Column("notes", String, nullable=False),
    Column("tags", Document, nullable=False),
    Column("state", String, nullable=False),  # running, finished, failed; quiet and lost are a matter of the clock
    Column("exit_code", Integer),
    Column("config", Document, nullable=False),
    Column("set_summary", Document, nullable=False),  # what the user set
    Column("last_summary", Document, nullable=False),  # the last value of each metric
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger, nullable=False),  # of the newest writer
    Column("heartbeat_us", BigInteger, nullable=False),
    Column("silent_since_us", BigInteger, nullable=False, server_default="0"),  # heartbeat_us, later by what nobody listened
    Column("finished_us", BigInteger),
    Column("host", String, nullable=False),
    Column("backlog_frames", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("writers", Integer, nullable=False),
    Column("gaps", Integer, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    UniqueConstraint("project_id", "id", name="uq_run_project_id"),
    Index("ix_run_project_created", "project_id", "created_us"),
    Index("ix_run_project_heartbeat", "project_id", "heartbeat_us"),
)

writer = Table(
    "writer",
    metadata,
    Column("run_id", LargeBinary(16), primary_key=True),
    Column("writer_id", BigInteger, primary_key=True),  # as a signed integer
    Column("label", String, nullable=False),
    Column("host", String, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("last_seen_us", BigInteger, nullable=False),
    Column("silent_since_us", BigInteger, nullable=False, server_default="0"),
    Column("is_child", Integer, nullable=False),  # started by a fork of another writer: does not decide the run's state
    Column("applied_seq", BigInteger, nullable=False),
    Column("lag_s", Float, nullable=False),
    Column("backlog_frames", BigInteger, nullable=False),
    Column("backlog_bytes", BigInteger, nullable=False),
    Column("dropped_rows", BigInteger, nullable=False),
    Column("retries", BigInteger, nullable=False),
    Column("state", String, nullable=False),  # running, finished, failed; died: without FINISH, as its adopter says
    Column("exit_code", Integer),
    Column("ended_us", BigInteger),
    Column("receipt", Document),  # as FINISH brought it
)

gap = Table(
    "gap",
    metadata,
    Column("run_id", LargeBinary(16), primary_key=True),
    Column("writer_id", BigInteger, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("detail", String, nullable=False),
)

run_tag = Table(
    "run_tag",
    metadata,
    Column("run_id", LargeBinary(16), primary_key=True),
    Column("tag", String, primary_key=True),
    Index("ix_run_tag_tag", "tag"),
)

run_field = Table(
    "run_field",
    metadata,
    Column("run_id", LargeBinary(16), primary_key=True),
    Column("path", String, primary_key=True),  # config.lr, summary_metrics.loss
    Column("project_id", Integer, nullable=False),
    Column("num", Float(53)),
    Column("txt", String),
    Index("ix_run_field_num", "project_id", "path", "num"),
    Index("ix_run_field_txt", "project_id", "path", "txt"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("key_id", String, primary_key=True),  # the part of the key that may be shown: rf_0123abcd
    Column("name", String, nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False),  # BLAKE2b of the whole key
    Column("can_read", Integer, nullable=False),
    Column("can_write", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("last_used_us", BigInteger),  # to the minute
)

listening = Table(
    "listening",
    metadata,
    Column("id", Integer, primary_key=True),  # 1: there is one row
    Column("until_us", BigInteger, nullable=False),  # the server listened then; what passed until it listened again was no silence
)
