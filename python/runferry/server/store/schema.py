"""The tables of a shard file, and which version of them this program knows.

A shard holds whole runs. `l0` has the frames as they came, `chunk` and `axis` what the merge made of them; `writer` has the one
integer that tells a duplicate from news. What SQL types would bend stays bytes: SQLite stores NaN as NULL and -0.0 as 0.

Marks of a writer, all inclusive: everything up to `merged_seq` is in chunks, up to `applied_seq` in the metadata, up to
`released_seq` nobody reads the frames as a live tail any more. A frame goes when it is below all marks that concern it.

`merged_frames`, `merged_gaps` (numbers) and `merged_rows` are the writer's side of the ledger that `check` balances; NULL for a writer
whose merges began before version 2, which counted none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runferry.server.store.protocol import StoreError

if TYPE_CHECKING:
    import sqlite3

SCHEMA_VERSION = 2
APPLICATION_ID = 0x52464D31  # "RFM1"

PAGE_BYTES = 16384

_STORE_DDL = """
CREATE TABLE store(name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE run_shard(run_id BLOB PRIMARY KEY, shard INTEGER NOT NULL) WITHOUT ROWID;
"""

_SHARD_DDL = """
CREATE TABLE run(
    run_id BLOB PRIMARY KEY,
    merges INTEGER NOT NULL DEFAULT 0,
    next_axis_id INTEGER NOT NULL DEFAULT 1,
    next_key_id INTEGER NOT NULL DEFAULT 1,
    points INTEGER NOT NULL DEFAULT 0,
    rows INTEGER NOT NULL DEFAULT 0,
    chunk_bytes INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE writer(
    run_id BLOB NOT NULL,
    writer_id INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    label TEXT NOT NULL DEFAULT '',
    next_seq INTEGER NOT NULL DEFAULT 1,
    merged_seq INTEGER NOT NULL DEFAULT 0,
    applied_seq INTEGER NOT NULL DEFAULT 0,
    released_seq INTEGER NOT NULL DEFAULT 0,
    open_data BLOB NOT NULL,
    started_us INTEGER NOT NULL,
    last_seen_us INTEGER NOT NULL,
    finished_seq INTEGER,
    exit_code INTEGER,
    step_offset INTEGER NOT NULL DEFAULT 0,
    gaps INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    last_hash BLOB,
    merged_frames INTEGER,
    merged_gaps INTEGER,
    merged_rows INTEGER,
    PRIMARY KEY(run_id, writer_id),
    UNIQUE(run_id, ordinal)
) WITHOUT ROWID;
CREATE TABLE key(
    run_id BLOB NOT NULL,
    key_id INTEGER NOT NULL,
    role INTEGER NOT NULL,
    name TEXT NOT NULL,
    label TEXT NOT NULL,
    points INTEGER NOT NULL DEFAULT 0,
    step0 INTEGER,
    step1 INTEGER,
    mn REAL,
    mx REAL,
    last BLOB,
    last_ordinal INTEGER,
    PRIMARY KEY(run_id, key_id),
    UNIQUE(run_id, role, name, label)
) WITHOUT ROWID;
CREATE TABLE l0(
    run_id BLOB NOT NULL,
    writer_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    next_seq INTEGER NOT NULL,
    is_document INTEGER NOT NULL,
    records INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX l0_seq ON l0(run_id, writer_id, seq);
CREATE INDEX l0_document ON l0(run_id, writer_id, seq) WHERE is_document = 1;
CREATE TABLE axis(
    run_id BLOB NOT NULL,
    axis_id INTEGER NOT NULL,
    step0 INTEGER NOT NULL,
    time1_us INTEGER NOT NULL,
    n INTEGER NOT NULL,
    sub BLOB NOT NULL,
    crc32c INTEGER NOT NULL,
    data BLOB NOT NULL,
    chunks INTEGER NOT NULL
);
CREATE UNIQUE INDEX axis_step ON axis(run_id, axis_id, step0);
CREATE TABLE chunk(
    run_id BLOB NOT NULL,
    key_id INTEGER NOT NULL,
    step0 INTEGER NOT NULL,
    step1 INTEGER NOT NULL,
    axis_id INTEGER NOT NULL,
    n INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    n_finite INTEGER NOT NULL,
    n_nan INTEGER NOT NULL,
    n_inf INTEGER NOT NULL,
    mn REAL NOT NULL,
    mx REAL NOT NULL,
    sm REAL NOT NULL,
    first BLOB NOT NULL,
    last BLOB NOT NULL,
    sub BLOB NOT NULL,
    codec INTEGER NOT NULL,
    head_crc32c INTEGER NOT NULL,
    crc32c INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX chunk_step ON chunk(run_id, key_id, step0);
CREATE TABLE superseded(
    run_id BLOB NOT NULL,
    writer_id INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    points INTEGER NOT NULL,
    sum_hash INTEGER NOT NULL,
    PRIMARY KEY(run_id, writer_id, key_id)
) WITHOUT ROWID;
CREATE TABLE quarantine(
    run_id BLOB NOT NULL,
    writer_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    reason TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX quarantine_seq ON quarantine(run_id, writer_id, seq, reason);
CREATE TABLE damaged(
    run_id BLOB NOT NULL,
    key_id INTEGER NOT NULL,
    step0 INTEGER NOT NULL,
    step1 INTEGER NOT NULL,
    n INTEGER NOT NULL,
    reason TEXT NOT NULL,
    data BLOB NOT NULL
);
"""

_TO_VERSION_2 = (
    "ALTER TABLE writer ADD COLUMN merged_frames INTEGER",
    "ALTER TABLE writer ADD COLUMN merged_gaps INTEGER",
    "ALTER TABLE writer ADD COLUMN merged_rows INTEGER",
    """UPDATE writer SET merged_frames = 0, merged_gaps = 0, merged_rows = 0
    WHERE run_id IN (SELECT run_id FROM writer GROUP BY run_id HAVING max(merged_seq) = 0)""",
)
_SHARD_UPGRADES = {1: _TO_VERSION_2}
"""Version to the statements that lead to the next one."""

CHUNK_COLUMNS = (
    "key_id, step0, step1, axis_id, n, kind, n_finite, n_nan, n_inf, mn, mx, sm, first, last, sub, codec, head_crc32c, crc32c, data"
)
"""As `runferry._native` takes and gives chunk rows."""

CHUNK_HEAD_COLUMNS = CHUNK_COLUMNS.removesuffix("data") + "NULL"

AXIS_COLUMNS = "axis_id, step0, time1_us, n, sub, crc32c, data"


def prepare(connection: sqlite3.Connection, path: str, *, is_shard: bool) -> None:
    """Makes the tables of a new file, or brings those that are there up to date: in one transaction, so an interrupted one is no upgrade.

    Raises:
        StoreError: The file is another program's, or of a newer version; nothing was changed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if is_empty:
            for statement in (_SHARD_DDL if is_shard else _STORE_DDL).split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        elif owner != APPLICATION_ID:
            raise StoreError(  # noqa: TRY301 - the handler below only rolls back
                f"{path}: not a file of this store (application id {owner:#x}, expected {APPLICATION_ID:#x})"
            )
        elif not 1 <= found <= SCHEMA_VERSION:
            raise StoreError(  # noqa: TRY301 - the handler below only rolls back
                f"{path}: schema version {found}, this program knows {SCHEMA_VERSION}; start the version that wrote it"
            )
        elif found < SCHEMA_VERSION:
            for version in range(found, SCHEMA_VERSION):
                for statement in _SHARD_UPGRADES[version] if is_shard else ():
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
