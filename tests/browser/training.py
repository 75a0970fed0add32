"""A training process that logs when a test says so: the real client in a process of its own.

It takes commands as lines of JSON and answers each with the time at which the call was made, so a test can measure from
the call to what a browser shows, on one clock.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parents[2]
ANSWER_TIMEOUT_S = 20.0
SCRIPT = """
import json, sys, time
import runferry

run = runferry.init(**json.loads(sys.argv[1]))
print(json.dumps({"id": run.id, "entity": run.entity, "project": run.project}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    called_at_s = time.time()
    for name in command.get("histograms", {}):
        command["row"][name] = runferry.Histogram(command["histograms"][name])
    for row in [command["row"]] * command.get("times", 1):
        run.log({name: float(value) if isinstance(value, str) else value for name, value in row.items()})
    print(json.dumps(called_at_s), flush=True)
run.finish()
"""


class Training:
    """One run of the real client; a context manager, the end of which is `run.finish()`."""

    def __init__(self, url: str, folder: Path, **init: Any) -> None:
        """Start it and wait until `init` has returned."""
        machine = os.environ
        kept = {name: value for name, value in machine.items() if not name.startswith(("RUNFERRY_", "WANDB_"))}
        environment = {
            **kept,
            "PYTHONPATH": str(ROOT / "python"),
            "RUNFERRY_BASE_URL": url,
            "RUNFERRY_CONFIG_DIR": str(folder / "config"),
            "RUNFERRY_DISABLE_GIT": "1",
        }
        folder.mkdir(parents=True, exist_ok=True)
        arguments = json.dumps({"entity": "acme", "dir": str(folder), **init})
        self._errors = (folder / "stderr.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            cwd=folder,
            text=True,
        )
        self._answers = self._process.stdout
        started = self._answer()
        self.path = f"{started['entity']}/{started['project']}/{started['id']}"

    def log(self, *, times: int = 1, histograms: dict[str, list[float]] | None = None, **row: Any) -> float:
        """Log a row (so many times); returns when, in seconds since 1970. A text is a number JSON cannot hold, as "nan"."""
        return self.log_named(row, times=times, histograms=histograms)

    def log_named(self, row: dict[str, Any], *, times: int = 1, histograms: dict[str, list[float]] | None = None) -> float:
        """The same, for names that are no Python names."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"row": row, "times": times, "histograms": histograms or {}}) + "\n")
        self._process.stdin.flush()
        called_at_s: float = self._answer()
        return called_at_s

    def __enter__(self) -> Self:
        """Use it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """Finish the run, or kill the process if a test failed: it may wait for a server that is gone."""
        assert self._process.stdin is not None
        assert self._answers is not None
        self._process.stdin.close()
        if kind is not None:
            self._process.kill()
        try:
            code = self._process.wait(ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        finally:
            self._answers.close()
            self._errors.close()
        assert kind is not None or code == 0, f"the training ended with {code}"

    def _answer(self) -> Any:
        assert self._answers is not None
        deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            is_ready = selector.select(max(0.0, deadline_s - time.monotonic()))
        line = self._answers.readline() if is_ready else ""
        if not line:
            self._process.kill()
            self._process.wait()
            self._errors.seek(0)
            raise AssertionError(f"the training process did not answer: {self._errors.read()}")
        return json.loads(line)
