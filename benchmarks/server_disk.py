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
_POLL_S = 0.1


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


def page_bytes(data: Path) -> int:
    """Bytes of all used pages of the store's files: what they are once their write-ahead logs are folded in."""
    pages = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    return sum(int(shard.execute(pages).fetchone()[0]) for shard in _shards(data))


def _shards(data: Path) -> Iterator[sqlite3.Connection]:
    for file in sorted(data.glob("metrics/metrics-*.db")):
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as shard:
            yield shard
