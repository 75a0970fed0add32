"""A memory cgroup for a process that a test starts: how much it may take, how much it took, whether the kernel killed in it.

    with memory_group() as group, Trainer(CODE, tmp_path, prefix=group.prefix) as trainer:
        group.limit(group.anonymous_bytes() + (32 << 20))
        ...
    assert group.oom_kills() == 0

A cgroup counts what the process alone made the kernel hold: its heap, its shared memory, and the cache of the files it wrote, which the
kernel takes back as the limit nears. Version 1, as root; elsewhere the test is skipped.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.trainers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup/memory")


class MemoryGroup:
    """One group."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that put it into the group; it keeps its pid."""
        return ("sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh")

    def limit(self, most_bytes: int) -> None:
        """From now on the group may hold so much; what is over it is killed."""
        (self.path / "memory.limit_in_bytes").write_text(str(most_bytes), encoding="ascii")

    def anonymous_bytes(self) -> int:
        """Heap and stacks: what only swapping could take back."""
        return self._field("memory.stat", "rss")

    def peak_bytes(self) -> int:
        """The most it held at once, cache of files included."""
        return int((self.path / "memory.max_usage_in_bytes").read_text(encoding="ascii"))

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed for want of memory."""
        return self._field("memory.oom_control", "oom_kill")

    def _field(self, file: str, name: str) -> int:
        lines = (self.path / file).read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] == name)


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A new group, gone after the block; what runs in it must have ended by then."""
    mine = [line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines() if ":memory:" in line]
    if not mine or not ROOT.is_dir():
        pytest.skip("not run: needs memory cgroups of version 1")
    parent = ROOT / mine[0].lstrip("/")
    path = (parent if parent.is_dir() else ROOT) / f"runferry-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"not run: needs the right to make memory cgroups: {error}")
    try:
        yield MemoryGroup(path)
    finally:
        # A process that has ended leaves its group a moment later.
        wait_until(lambda: _removed(path), f"{path} is empty")


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True
