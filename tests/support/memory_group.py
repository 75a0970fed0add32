"""A memory cgroup for a server of a test: what is more than its limit costs the server its life, and the test sees that.

Its `prefix` stands before the server's command (`RunningServer(data, prefix=group.prefix)`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup/memory")
ENTER = "import os,sys; open(sys.argv[1]+'/cgroup.procs','w').write('0'); os.execvp(sys.argv[2],sys.argv[2:])"


@dataclass(frozen=True)
class MemoryGroup:
    """The group; page cache that can be given back counts only while there is room."""

    path: Path

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that put it into the group; it keeps its pid."""
        return (sys.executable, "-S", "-c", ENTER, str(self.path))

    def kills(self) -> int:
        """Processes that the kernel killed because the group was full."""
        told = dict(line.split() for line in (self.path / "memory.oom_control").read_text(encoding="ascii").splitlines())
        return int(told["oom_kill"])

    def take_peak_bytes(self) -> int:
        """The most it has used since this was last asked, files included."""
        peak = self.path / "memory.max_usage_in_bytes"
        found = int(peak.read_text(encoding="ascii"))
        peak.write_text("0", encoding="ascii")
        return found

    def resident_bytes(self) -> int:
        """Memory of the processes now, without files."""
        told = dict(line.split() for line in (self.path / "memory.stat").read_text(encoding="ascii").splitlines())
        return int(told["rss"])


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Make a group, remove it afterwards; skips the test where this cannot be done."""
    path = ROOT / f"runferry-test-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        path.mkdir()
        (path / "memory.limit_in_bytes").write_text(str(limit_bytes), encoding="ascii")
    except OSError as error:
        pytest.skip(f"not run: needs the right to make memory cgroups (version 1): {error}")
    try:
        yield MemoryGroup(path)
    finally:
        path.rmdir()
