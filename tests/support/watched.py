"""Programs that must end: run to their end, or told apart where they stand when they do not.

A hang is a failure with the stacks of all threads in its message, never a stuck test run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.trainers import client_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

HANG_S = 60.0
DUMP_S = 20.0


def watched(
    code: str, folder: Path, *, python: str = sys.executable, arguments: Sequence[str] = (), hang_s: float = HANG_S, **settings: str
) -> subprocess.CompletedProcess[str]:
    """`python -c code` to its end, as `trainers.train` runs it, by any interpreter.

    Raises:
        AssertionError: It had not ended after `hang_s` seconds; the message holds what every thread of it was doing.
    """
    environment = {**client_environment(folder, **settings), "PYTHONFAULTHANDLER": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [python, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=hang_s)
    except subprocess.TimeoutExpired:
        stacks = _native_stacks(process.pid)
        process.send_signal(signal.SIGABRT)  # faulthandler prints the Python stacks of all threads
        try:
            out, err = process.communicate(timeout=DUMP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        raise AssertionError(f"it hangs after {hang_s:.0f} s\n{stacks}\n{err}\n{out}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _native_stacks(pid: int) -> str:
    """What the kernel and, where there is one, the debugger know about every thread."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
        try:
            name, waits = (task / "comm").read_text().strip(), (task / "wchan").read_text().strip()
        except OSError:
            continue  # it has just ended
        lines.append(f"thread {task.name} {name}: {waits}")
    if shutil.which("gdb"):
        try:
            command = ["gdb", "-p", str(pid), "-batch", "-ex", "thread apply all bt 12"]
            found = subprocess.run(command, capture_output=True, text=True, timeout=DUMP_S, check=False)
        except subprocess.TimeoutExpired:
            lines.append("gdb did not answer")
        else:
            lines.append(found.stdout)
    return "\n".join(lines)
