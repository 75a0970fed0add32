"""The tables of a PostgreSQL database, all in the schema `runferry`: those of a shard file (`schema`), laid out for that engine.

`l0` is cut into slots, of which ingest fills one at a time: PostgreSQL gives the room of deleted rows back late and that of large values
hardly ever, so a slot is emptied as a whole once nobody needs any of its frames (`slots`). `chunk` is cut by run, to keep indexes and
vacuums small. Frames and chunks are compressed already: EXTERNAL keeps PostgreSQL from trying again. `writer` leaves room in its
pages, since its rows change with every commit. Names of series may be longer than an index takes; that there is one row for each is
seen to by the merge, which alone writes them.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from runferry.server.store.protocol import StoreError

if TYPE_CHECKING:
    from runferry.server.store.sql import Writing

SCHEMA_VERSION = 1
SLOTS = 4
CHUNK_PARTS = 8
_PREPARE_LOCK = 0x52464D31
"""Of the advisory lock under which tables are made: servers may start together."""

_DDL = """
CREATE TABLE store(name TEXT PRIMARY KEY, value BYTEA NOT NULL);
CREATE TABLE slots(
    current BIGINT NOT NULL,
    since TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE run(
    run_id BYTEA PRIMARY KEY,
    merges BIGINT NOT NULL DEFAULT 0,
    next_axis_id BIGINT NOT NULL DEFAULT 1,
    next_key_id BIGINT NOT NULL DEFAULT 1,
    points BIGINT NOT NULL DEFAULT 0,
    rows BIGINT NOT NULL DEFAULT 0,
    chunk_bytes BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE TABLE writer(
    run_id BYTEA NOT NULL,
    writer_id BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    label TEXT NOT NULL DEFAULT '',
    next_seq BIGINT NOT NULL DEFAULT 1,
    merged_seq BIGINT NOT NULL DEFAULT 0,
    applied_seq BIGINT NOT NULL DEFAULT 0,
    released_seq BIGINT NOT NULL DEFAULT 0,
    open_data BYTEA NOT NULL,
    started_us BIGINT NOT NULL,
    last_seen_us BIGINT NOT NULL,
    finished_seq BIGINT,
    exit_code BIGINT,
    step_offset BIGINT NOT NULL DEFAULT 0,
    gaps BIGINT NOT NULL DEFAULT 0,
    duplicates BIGINT NOT NULL DEFAULT 0,
    last_hash BYTEA,
    merged_frames BIGINT,
    merged_gaps BIGINT,
    merged_rows BIGINT,
    PRIMARY KEY(run_id, writer_id),
    UNIQUE(run_id, ordinal)
) WITH (fillfactor = 70);
CREATE TABLE key(
    run_id BYTEA NOT NULL,
    key_id BIGINT NOT NULL,
    role BIGINT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    label TEXT COLLATE "C" NOT NULL,
    points BIGINT NOT NULL DEFAULT 0,
    step0 BIGINT,
    step1 BIGINT,
    mn DOUBLE PRECISION,
    mx DOUBLE PRECISION,
    last BYTEA,
    last_ordinal BIGINT,
    PRIMARY KEY(run_id, key_id)
) WITH (fillfactor = 70);
CREATE TABLE l0(
    run_id BYTEA NOT NULL,
    writer_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    next_seq BIGINT NOT NULL,
    is_document BIGINT NOT NULL,
    records BIGINT NOT NULL,
    data BYTEA NOT NULL,
    slot BIGINT NOT NULL,
    PRIMARY KEY(run_id, writer_id, seq, slot)
) PARTITION BY LIST (slot);
CREATE INDEX l0_document ON l0(run_id, writer_id, seq) WHERE is_document = 1;
CREATE TABLE axis(
    run_id BYTEA NOT NULL,
    axis_id BIGINT NOT NULL,
    step0 BIGINT NOT NULL,
    time1_us BIGINT NOT NULL,
    n BIGINT NOT NULL,
    sub BYTEA NOT NULL,
    crc32c BIGINT NOT NULL,
    data BYTEA NOT NULL,
    chunks BIGINT NOT NULL,
    PRIMARY KEY(run_id, axis_id, step0)
);
CREATE TABLE chunk(
    run_id BYTEA NOT NULL,
    key_id BIGINT NOT NULL,
    step0 BIGINT NOT NULL,
    step1 BIGINT NOT NULL,
    axis_id BIGINT NOT NULL,
    n BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    n_finite BIGINT NOT NULL,
    n_nan BIGINT NOT NULL,
    n_inf BIGINT NOT NULL,
    mn DOUBLE PRECISION NOT NULL,
    mx DOUBLE PRECISION NOT NULL,
    sm DOUBLE PRECISION NOT NULL,
    first BYTEA NOT NULL,
    last BYTEA NOT NULL,
    sub BYTEA NOT NULL,
    codec BIGINT NOT NULL,
    head_crc32c BIGINT NOT NULL,
    crc32c BIGINT NOT NULL,
    data BYTEA NOT NULL,
    PRIMARY KEY(run_id, key_id, step0)
) PARTITION BY HASH (run_id);
CREATE TABLE superseded(
    run_id BYTEA NOT NULL,
    writer_id BIGINT NOT NULL,
    key_id BIGINT NOT NULL,
    points BIGINT NOT NULL,
    sum_hash BIGINT NOT NULL,
    PRIMARY KEY(run_id, writer_id, key_id)
);
CREATE TABLE quarantine(
    run_id BYTEA NOT NULL,
    writer_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    reason TEXT NOT NULL,
    data BYTEA NOT NULL
);
CREATE UNIQUE INDEX quarantine_seq ON quarantine(run_id, writer_id, seq, md5(reason));
CREATE TABLE damaged(
    run_id BYTEA NOT NULL,
    key_id BIGINT NOT NULL,
    step0 BIGINT NOT NULL,
    step1 BIGINT NOT NULL,
    n BIGINT NOT NULL,
    reason TEXT NOT NULL,
    data BYTEA NOT NULL
);
"""
_EXTERNAL = ("l0", "axis", "chunk", "quarantine", "damaged")
_WIRE_TYPES = {"BYTEA": "bytea", "BIGINT": "int8", "TEXT": "text", "DOUBLE": "float8"}


def _column_types() -> dict[str, dict[str, str]]:
    tables = re.findall(r"CREATE TABLE (\w+)\(\n(.*?)\n\)", _DDL, flags=re.DOTALL)
    types = "|".join(_WIRE_TYPES)
    return {
        table: {name: _WIRE_TYPES[kind] for name, kind in re.findall(rf"^ +(\w+) ({types})\b", columns, flags=re.MULTILINE)}
        for table, columns in tables
    }


COLUMN_TYPES = _column_types()
"""Table to column to the type that a binary COPY speaks."""


def _statements() -> list[str]:
    parts = [statement for statement in _DDL.split(";") if statement.strip()]
    parts += [f"ALTER TABLE {table} ALTER COLUMN data SET STORAGE EXTERNAL" for table in _EXTERNAL]
    # A slot has few rows and large ones; a vacuum would find nothing to do, since it is emptied as a whole.
    parts += [f"CREATE TABLE l0_{slot} PARTITION OF l0 FOR VALUES IN ({slot}) WITH (autovacuum_enabled = off)" for slot in range(SLOTS)]
    parts += [
        f"CREATE TABLE chunk_{part} PARTITION OF chunk FOR VALUES WITH (MODULUS {CHUNK_PARTS}, REMAINDER {part})"
        for part in range(CHUNK_PARTS)
    ]
    return [*parts, "INSERT INTO slots(current) VALUES (0)"]


def prepare(connection: Writing, place: str) -> bytes:
    """Makes the tables of a new database, in the caller's transaction; returns the store's epoch.

    Raises:
        StoreError: The tables there are of a newer version; nothing was changed.
    """
    connection.execute("SELECT pg_advisory_xact_lock(?)", (_PREPARE_LOCK,))
    if connection.execute("SELECT to_regclass('runferry.store')").fetchone()[0] is None:
        connection.execute("CREATE SCHEMA IF NOT EXISTS runferry")
        for statement in _statements():
            connection.execute(statement)
        fresh = [("schema_version", str(SCHEMA_VERSION).encode()), ("epoch", secrets.token_bytes(16))]
        connection.executemany("INSERT INTO store(name, value) VALUES (?, ?)", fresh)
    values = dict(connection.execute("SELECT name, value FROM store").fetchall())
    version = int(values["schema_version"])
    if version != SCHEMA_VERSION:
        raise StoreError(f"{place}: schema version {version}, this program knows {SCHEMA_VERSION}; start the version that wrote it")
    epoch: bytes = values["epoch"]
    return epoch
