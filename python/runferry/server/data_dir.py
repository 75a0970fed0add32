"""The server's folder: made, locked, and the places in it.

Two servers on one folder would each keep its own idea of what is merged and applied, so the second one is refused. The
lock ends with the process, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


def metadata_file(path: Path) -> Path:
    """The metadata database of a data folder, whoever holds it."""
    return path / "meta.db"


class DataDirError(Exception):
    """The folder cannot be used; the message says why and what to do."""


class DataDir:
    """A folder held by this process."""

    def __init__(self, path: Path) -> None:
        """Make the folder if need be, and lock it.

        Raises:
            DataDirError: Another server holds it, or it cannot be written.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(path / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(f"cannot use the data folder {path}: {error.strerror}; choose another with --data") from error
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 64, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise DataDirError(
                f"another runferry server (pid {holder or 'unknown'}) uses the data folder {path}; stop it, or choose another with --data"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode("ascii"), 0)

    @property
    def metadata_file(self) -> Path:
        """The metadata database."""
        return metadata_file(self.path)

    @property
    def store_dir(self) -> Path:
        """The shards."""
        return self.path / "metrics"

    def __enter__(self) -> DataDir:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Hold it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """Let it go."""
        os.close(self._lock)
