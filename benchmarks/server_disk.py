"""What rows take in the server's files, read from its tables beside it. The layout is the server's own and may change with it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MERGE_TIMEOUT_S = 60.0
_POLL_S = 0.05


def merged_bytes(data: Path, run_key: bytes, points: int) -> int:
    """Bytes of a run's chunks with their axes and statistics, once `points` of it are merged.

    Raises:
        TimeoutError: The merge does not come to an end.
    """
    deadline_s = time.monotonic() + MERGE_TIMEOUT_S
    found = (0, 0)
    while time.monotonic() < deadline_s:
        for shard in _shards(data):
            found = shard.execute("SELECT points, chunk_bytes FROM run WHERE run_id = ?", (run_key,)).fetchone() or found
        if found[0] >= points:
            return int(found[1])
        time.sleep(_POLL_S)
    raise TimeoutError(f"{found[0]} of {points} points are merged after {MERGE_TIMEOUT_S:.0f} s")


def wait_until_merged(data: Path, points: int) -> None:
    """Wait until the runs of a store have so many merged points between them.

    Raises:
        TimeoutError: For a minute nothing was merged.
    """
    found, moved_s = -1, time.monotonic()
    while found < points:
        now = sum(int(shard.execute("SELECT coalesce(sum(points), 0) FROM run").fetchone()[0]) for shard in _shards(data))
        if now > found:
            found, moved_s = now, time.monotonic()
        elif time.monotonic() - moved_s > MERGE_TIMEOUT_S:
            raise TimeoutError(f"{found} of {points} points are merged, and for {MERGE_TIMEOUT_S:.0f} s no more of them")
        else:
            time.sleep(_POLL_S)


def unmerged_frames(data: Path) -> int:
    """Frames of all writers that are durable and not merged yet."""
    query = "SELECT coalesce(sum(next_seq - 1 - merged_seq), 0) FROM writer"
    return sum(int(shard.execute(query).fetchone()[0]) for shard in _shards(data))


def page_bytes(data: Path) -> int:
    """Bytes of all used pages of the store's files: what they are once their write-ahead logs are folded in."""
    pages = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    return sum(int(shard.execute(pages).fetchone()[0]) for shard in _shards(data))


def _shards(data: Path) -> Iterator[sqlite3.Connection]:
    for file in sorted(data.glob("metrics/metrics-*.db")):
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as shard:
            yield shard
