"""What benchmarks work with: a server in its own process, runs whose files go away with them, and child processes that answer in JSON."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runferry

from tests.support.servers import RunningServer, server_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = "benchmarks"
CHILD_TIMEOUT_S = 120


class BenchServer(RunningServer):
    """A server whose files can be looked at."""

    def __init__(self, data: Path, prefix: Sequence[str] = (), words: Sequence[str] = ()) -> None:
        self.data = data
        super().__init__(data, *words, prefix=prefix)


@contextlib.contextmanager
def running_server(prefix: Sequence[str] = (), words: Sequence[str] = ()) -> Iterator[BenchServer]:
    """An embedded server with an empty store, in a process of its own; `prefix`: words before its command, `words`: behind it."""
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder:
        server = BenchServer(Path(folder) / "data", prefix, words)
        with server:
            yield server


@contextlib.contextmanager
def open_run(server: RunningServer | None = None, run_id: str | None = None) -> Iterator[runferry.Run]:
    """A run of this process on that server, or offline; its journal is removed at the end."""
    settings = {"silent": True, "disable_git": True, "base_url": server.url if server is not None else None}
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder:
        mode = "offline" if server is None else "online"
        with runferry.init(project=PROJECT, id=run_id, dir=folder, mode=mode, reinit="create_new", settings=settings) as run:
            yield run


def ask_child(code: str, *arguments: str, bytecode: str = "") -> Any:
    """Run `code` in a fresh Python and return what its last line of output says, read as JSON.

    Args:
        code: A program.
        arguments: Its `sys.argv`.
        bytecode: Folder in which compiled modules are kept for later children, as an installed package has them.
    """
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder:
        environment = {**server_environment(), "RUNFERRY_SILENT": "1", "RUNFERRY_DISABLE_GIT": "1", "RUNFERRY_CONFIG_DIR": folder}
        if bytecode:
            environment |= {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
        answer = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    if answer.returncode != 0:
        raise RuntimeError(f"a child process ended with {answer.returncode}: {answer.stderr[-2000:]}")
    return json.loads(answer.stdout.splitlines()[-1])
