"""A training process that does what a test tells it, one line at a time, and answers each with JSON.

with ToldTrainer(folder, id="r", mode="offline") as trainer:
    trainer.log(100)                # rows {"n": 0 ..., "noise": ...}
    trainer.ask("flush", durable=True, timeout=5)
    trainer.status()["journal"]
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from tests.support.trainers import Trainer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAM = """
import dataclasses, json, os, random, signal, sys, time, runferry
{before}
run = runferry.init(**{init!r})
def say(answer):
    os.write(1, json.dumps(answer).encode() + b"\\n")
say(os.getpid())
number = 0
for line in sys.stdin:
    word, options = json.loads(line)
    if word == "log":
        slowest_s = 0.0
        for _ in range(options["rows"]):
            row = {{"n": number}}
            if options["noise_bytes"]:
                row["noise"] = random.Random(number).randbytes(options["noise_bytes"] // 2).hex()
            begun = time.perf_counter()
            run.log(row)
            slowest_s = max(slowest_s, time.perf_counter() - begun)
            number += 1
            if number % 1000 == 0:
                time.sleep(0.002)  # a training does something between its calls
        say(slowest_s)
    elif word == "status":
        say(dataclasses.asdict(run.status()))
    elif word == "finish":
        run.finish(**options)
        say(dataclasses.asdict(run.status()))
    else:
        say(getattr(run, word)(**options))
"""


class ToldTrainer(Trainer):
    """See the module."""

    def __init__(
        self, folder: Path, *, prefix: Sequence[str] = (), before: str = "", environment: dict[str, str] | None = None, **init: Any
    ) -> None:
        """Start it in `folder` and wait until `init(project="disks", **init)` has returned.

        Args:
            folder: Where it runs; its journals go there unless `init` says otherwise.
            init: Arguments of `init`.
            prefix: Words before the interpreter, as `["setpriv", ...]`.
            before: Python to run before `init`.
            environment: Settings, as `{"fsync": "never"}`.
        """
        init = {"project": "disks", **init}
        super().__init__(PROGRAM.format(before=before, init=init), folder, prefix=prefix, **(environment or {}))
        self.logged = 0
        self.pid: int = self._answer()

    def __enter__(self) -> ToldTrainer:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use it for the length of a block."""
        return self

    def ask(self, word: str, **options: Any) -> Any:
        """Have it do something; its answer."""
        self.tell(json.dumps([word, options]))
        return self._answer()

    def log(self, rows: int, noise_bytes: int = 0) -> float:
        """Have it log so many rows; the seconds of the slowest call."""
        self.logged += rows
        slowest_s: float = self.ask("log", rows=rows, noise_bytes=noise_bytes)
        return slowest_s

    def status(self) -> dict[str, Any]:
        """Its `run.status()`."""
        found: dict[str, Any] = self.ask("status")
        return found

    @property
    def said(self) -> str:
        """What it has printed for people."""
        return self.errors.read_text()

    def _answer(self) -> Any:
        line = self.line()
        assert line, f"the trainer ended: {self.said}"
        return json.loads(line)


def noise(number: int, noise_bytes: int) -> str:
    """The text that row `number` holds."""
    return random.Random(number).randbytes(noise_bytes // 2).hex()
