"""A real server in its own process, for tests: started on free ports, watched, stopped or killed."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
READY = re.compile(r"runferry server: (https?://\S+) \(write door (\d+), data (.+)\)")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


def server_environment() -> dict[str, str]:
    """The environment of a server: this checkout, nothing of the machine's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNFERRY_", "WANDB_"))}
    return {**kept, "PYTHONPATH": str(ROOT / "python")}


class RunningServer:
    """`python -m runferry.server` on free ports; use as a context manager."""

    def __init__(self, data: Path, *arguments: str, cwd: Path | None = None, port: int = 0, prefix: Sequence[str] = ()) -> None:
        """Start it and wait for its one line. `prefix`: words before the command, as those of a network namespace.

        Raises:
            AssertionError: It ended before it was ready; the message holds what it said.
        """
        command = [*prefix, sys.executable, "-m", "runferry.server", "--port", str(port), "--data", str(data), *arguments]
        self.log = data.parent / f"{data.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=server_environment(), cwd=cwd or data.parent)
        line = self._first_line()
        found = READY.match(line)
        if found is None:
            self.kill()
            raise AssertionError(f"the server did not start: {line!r} {self.log.read_text()}")
        self.url = found[1]
        self.write_port = int(found[2])

    @property
    def write_address(self) -> str:
        """Where frames go."""
        return f"127.0.0.1:{self.write_port}"

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self._ended()

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        return self._ended()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self._ended()

    def __enter__(self) -> RunningServer:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """Stop it, if it still runs."""
        if self.process.poll() is None:
            self.stop()

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                self.kill()
                raise AssertionError(f"the server did not say that it is ready: {self.log.read_text()}")
        return self.process.stdout.readline().decode()

    def _ended(self) -> int:
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end: {self.log.read_text()}") from None
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
