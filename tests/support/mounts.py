"""File systems of a test's own: small ones, read-only ones, ones that somebody makes room on."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT_S = 30


class Mounted:
    """A tmpfs."""

    def __init__(self, path: Path) -> None:
        """Mounted at this place."""
        self.path = path

    def resize(self, mebibytes: int) -> None:
        """Make it larger, as somebody who cleans up does."""
        self.remount(f"size={mebibytes}m")

    def remount(self, options: str) -> None:
        """Change it while it is used, as `ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True, timeout=TIMEOUT_S)  # noqa: S607


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Mounted]:
    """A tmpfs at `path` with mount options as `size=4m`; skips the test where this user may not mount."""
    path.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, text=True, check=False)  # noqa: S607
    if made.returncode:
        pytest.skip(f"not run: needs the right to mount: {made.stderr.strip()}")
    try:
        yield Mounted(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=TIMEOUT_S)  # noqa: S607
