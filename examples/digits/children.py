"""The processes of the demo: a server that can be stopped and started on one address, and workers that can be killed.

Each child is a session of its own, so Ctrl-C in the terminal reaches the demo alone, which then ends the others in order:
workers first, while the server is there to take their last rows.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
_PORT_TRIES = 20
_TOLD_BYTES = 2000
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where rings lie


class ChildError(Exception):
    """A process of the demo did not do its part; the message holds its last words."""


class Child:
    """A Python process with its output in a file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], *, stdout: int | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=output,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL: it gets no chance to do anything."""
        self.process.kill()
        self.process.wait()

    def end(self, number: signal.Signals, timeout_s: float) -> int:
        """Ask it to end, and kill it if it does not; returns its exit code."""
        if self.is_running:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def require_well(self) -> None:
        """Check that it runs or has ended well.

        Raises:
            ChildError: It failed.
        """
        if not self.is_running and self.process.returncode != 0:
            raise ChildError(f"{self.name} ended with {self.process.returncode}:\n{self.last_words()}")

    def last_words(self) -> str:
        """The end of its output."""
        return self.log.read_bytes()[-_TOLD_BYTES:].decode(errors="replace").strip() if self.log.exists() else ""


class Server:
    """`python -m runferry.server` on one port and one data folder, as often as it is started."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "server"
        self._log = folder / "server.log"
        self._port = _free_port()
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Its address, the same after each start."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it says that it is ready.

        Raises:
            ChildError: It is not ready in time.
        """
        command = ["-m", "runferry.server", "--port", str(self._port), "--data", str(self.data)]
        self._child = Child("the server", command, self._log, own_environment(), stdout=subprocess.PIPE)
        ready = self._child.process.stdout
        if ready is None or not _has_line(ready):
            self._child.kill()
            raise ChildError(f"the server did not start:\n{self._child.last_words()}")

    def stop(self) -> int:
        """SIGTERM, which drains it; returns the exit code."""
        if self._child is None:
            return 0
        child, self._child = self._child, None
        code = child.end(signal.SIGTERM, STOP_TIMEOUT_S)
        if child.process.stdout is not None:
            child.process.stdout.close()
        return code

    def wait_while_serving(self) -> None:
        """Return when it ends, which it does only if somebody else ends it."""
        if self._child is not None:
            self._child.process.wait()


def own_environment(**more: str) -> dict[str, str]:
    """This process's environment without the user's Runferry settings, which must not lead the demo's rows elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNFERRY_", "WANDB_"))}
    # One thread each: two ranks that both use every core would slow each other down.
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **more}


def remove_rings(journals: Path) -> None:
    """Remove the rings of killed workers that nobody restarted, before their journals are removed: no later start would find them."""
    for writer in journals.glob("runferry/*/*"):
        (_SHARED_MEMORY / f"runferry-{writer.name}.ring").unlink(missing_ok=True)


def _has_line(stream: IO[bytes]) -> bool:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        is_ready = selector.select(max(0.0, deadline_s - time.monotonic()))
    return bool(is_ready and stream.readline())


def _free_port() -> int:
    """A port that is free together with the next one, which the write door takes."""
    for _ in range(_PORT_TRIES):
        with socket.socket() as read_door, socket.socket() as write_door:
            read_door.bind(("127.0.0.1", 0))
            port: int = read_door.getsockname()[1]
            try:
                write_door.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
    raise ChildError("no two free ports beside each other were found")
