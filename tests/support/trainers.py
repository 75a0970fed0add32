"""Training processes and commands for tests: real interpreters, started with a clean environment, listened to, killed, ended."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import failpoints

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
LINE_TIMEOUT_S = 30.0
END_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 120.0
POLL_S = 0.01


def client_environment(folder: Path, **settings: str) -> dict[str, str]:
    """The environment of a client: this checkout, no settings of the machine, and the given ones, as `base_url="http://..."`.

    With `failpoints` among them the native module is the one that has fail points.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNFERRY_", "WANDB_"))}
    own = {f"RUNFERRY_{name.upper()}": value for name, value in settings.items()}
    package = failpoints.package() if "failpoints" in settings else ROOT / "python"
    place = {"PYTHONPATH": str(package), "RUNFERRY_CONFIG_DIR": str(folder / "config"), "RUNFERRY_DISABLE_GIT": "1"}
    return {**kept, **place, **own}


def train(code: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; journals go to `folder`."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=client_environment(folder, **settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


def command(folder: Path, *words: str, text_in: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """`runferry WORDS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "runferry.cli", *words],
        cwd=folder,
        env=client_environment(folder, **settings),
        input=text_in,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


class Trainer:
    """A program that prints lines and is usually killed; a context manager."""

    def __init__(self, code: str, folder: Path, *, prefix: Sequence[str] = (), **settings: str) -> None:
        """Start it; journals go to `folder`, its stderr to `trainer.err` there. `prefix`: words before the command."""
        self.errors = folder / "trainer.err"
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-u", "-c", code],
                cwd=folder,
                env=client_environment(folder, **settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        # Read by hand: what a text stream holds back is neither seen by a selector nor returned by `communicate`.
        self._unread = b""

    def line(self) -> str:
        """The next line it prints; empty at its end.

        Raises:
            AssertionError: None came in time.
        """
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(LINE_TIMEOUT_S):
                    raise AssertionError(f"the trainer says nothing: {self.errors.read_text()}")
                more = os.read(self.process.stdout.fileno(), 1 << 16)
                if not more:
                    break
                self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def wait_for(self, wanted: str) -> None:
        """Read lines until `wanted` comes."""
        while (line := self.line()) != wanted:
            assert line or self.process.poll() is None, f"the trainer ended: {self.errors.read_text()}"

    def tell(self, line: str) -> None:
        """A line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self.process.send_signal(number)

    def kill(self) -> str:
        """SIGKILL; returns what it had printed and nobody had read."""
        self.process.kill()
        return self.ended()[1]

    def ended(self) -> tuple[int, str]:
        """Wait for its end; exit code and the rest of what it printed."""
        rest, _ = self.process.communicate(timeout=END_TIMEOUT_S)
        unread, self._unread = self._unread + rest, b""
        return self.process.returncode, unread.decode()

    def __enter__(self) -> Trainer:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """Kill it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(END_TIMEOUT_S)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                stream.close()


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Look again and again until `holds()` is true.

    Raises:
        AssertionError: It was not in time; `what` says what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {timeout_s:.0f} s: {what}")
        time.sleep(POLL_S)
