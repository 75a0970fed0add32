"""How much of the data's disk is still free, and whether frames may be taken at all.

A database that meets a full disk rolls back and loses nothing, but then nothing else works either: merges, documents, the log.
So the last of the disk is not for frames: below the reserve writers wait, while reads and what tidies up go on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MOST_OF_DISK = 20
"""The reserve is at most a twentieth of the disk: a small disk is not all reserve."""


class DiskRoom:
    """The disk that holds a directory. Safe from any thread."""

    def __init__(self, directory: Path, keep_free_bytes: int) -> None:
        """Keep so many bytes of that disk free, or 5 % of it where that is less; 0: take frames until it is full."""
        self._directory = directory
        self._keep_free_bytes = keep_free_bytes

    def shortage(self, more_bytes: int) -> str | None:
        """Why so many bytes of frames may not be taken, None where they may.

        They need their size twice, in the write-ahead log and in the file. A disk that does not tell is taken at its word when it refuses.
        """
        try:
            space = os.statvfs(self._directory)
        except OSError:
            return None
        free_bytes = space.f_bavail * space.f_frsize
        keep_bytes = min(self._keep_free_bytes, space.f_blocks * space.f_frsize // MOST_OF_DISK)
        if keep_bytes == 0 or free_bytes - 2 * more_bytes >= keep_bytes:
            return None
        wanted = f"{more_bytes >> 10} KiB of frames wait, {keep_bytes >> 20} MiB have to stay free"
        return f"{self._directory}: {free_bytes >> 20} MiB free, {wanted}"
