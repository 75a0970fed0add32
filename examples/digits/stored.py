"""What the rows take on the server's disk, read from its files beside it.

Two numbers, as one would mislead: the merged chunks with their steps, times and statistics grow with every point; the files begin
at a few MiB of empty pages and write-ahead logs, which a demo of some thousand points hardly adds to.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MERGE_TIMEOUT_S = 4.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Stored:
    """Sizes on the server's disk."""

    merged_points: int
    merged_bytes: int
    files_bytes: int


def wait_for_merge(data: Path, points: int) -> Stored:
    """The sizes once all `points` are merged, which the server does in the background, or after a few seconds in any case."""
    deadline_s = time.monotonic() + _MERGE_TIMEOUT_S
    while (merged := _merged(data))[0] < points and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    return Stored(*merged, files_bytes=sum(path.stat().st_size for path in data.rglob("*") if path.is_file()))


def _merged(data: Path) -> tuple[int, int]:
    points = size_bytes = 0
    for file in sorted(data.glob("metrics/metrics-*.db")):
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as shard:
            row = shard.execute("SELECT total(points), total(chunk_bytes) FROM run").fetchone()
        points += int(row[0])
        size_bytes += int(row[1])
    return points, size_bytes
