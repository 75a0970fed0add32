"""System calls made to fail or to take long in a process that runs: strace's injection."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

END_TIMEOUT_S = 30.0


@contextmanager
def injected(pid: int, *injections: str, only: Path | None = None) -> Iterator[None]:
    """While the block runs, calls of all threads of a process fail as strace's `inject=` says, as `fdatasync:error=EIO:when=1`.

    Args:
        pid: The process; counts begin when the block does.
        injections: What strace takes behind `inject=`.
        only: Only calls on this file (or folder).
    """
    if shutil.which("strace") is None:
        pytest.skip("not run: strace is not installed")
    words = [word for injection in injections for word in ("-e", f"inject={injection}")]
    traced = ",".join(dict.fromkeys(injection.split(":")[0] for injection in injections))
    place = ["-P", str(only)] if only is not None else []
    tracer = subprocess.Popen(
        ["strace", "-f", "-q", "-p", str(pid), "-e", f"trace={traced}", *place, *words],  # noqa: S607 - where the system has it
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_until_attached(tracer, pid)
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=END_TIMEOUT_S)


def _wait_until_attached(tracer: subprocess.Popen[str], pid: int) -> None:
    """Every thread names its tracer in /proc once it is attached."""
    while True:
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            pytest.skip(f"not run: strace may not attach here: {tracer.stderr.read().strip()}")
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            states = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
            if all(f"TracerPid:\t{tracer.pid}\n" in state for state in states):
                return
