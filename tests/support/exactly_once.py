"""A run that logs numbers while the world around it breaks, and the question asked in the end: is each number there, once, in order?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import runferry

from tests.support import stored
from tests.support.exact import exact

if TYPE_CHECKING:
    from pathlib import Path

    from runferry._run import Run

LOG_MAX_S = 0.3
"""A call of `log` that takes longer was made to wait by us, whatever is broken."""
END_S = 120.0


class Training:
    """Rows `n` = 0, 1, 2 … with `x` = 1 / (n + 1)."""

    def __init__(self, url: str, folder: Path, run_id: str, project: str = "network") -> None:
        """Begin a run that sends to `url`; its journal goes to `folder`."""
        settings = {"base_url": url, "silent": True}
        self.run: Run = runferry.init(project=project, id=run_id, dir=folder, reinit="create_new", settings=settings)
        self.logged = 0
        self.slowest_log_s = 0.0

    def log(self, rows: int) -> None:
        """Log some rows at once."""
        for _ in range(rows):
            row = {"n": self.logged, "x": 1 / (self.logged + 1)}
            begun = time.monotonic()
            self.run.log(row)
            self.slowest_log_s = max(self.slowest_log_s, time.monotonic() - begun)
            self.logged += 1

    def go_on(self, for_s: float, burst_rows: int = 40) -> None:
        """Log bursts for so long."""
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            self.log(burst_rows)
            time.sleep(0.002)  # a training does something between its calls

    def all_acked(self, timeout_s: float = END_S) -> None:
        """Wait until the server has everything logged so far."""
        assert self.run.flush(acked=True, timeout=timeout_s), self.run.status()

    def check(self, url: str) -> int:
        """Finish, and compare what the server at `url` holds with what was logged; the frames it was sent in vain."""
        self.run.finish(timeout=END_S)
        status = self.run.status()
        assert (status.dropped_rows, status.rejected_frames, status.backlog_frames, status.connection) == (0, 0, 0, "done"), status
        assert self.slowest_log_s < LOG_MAX_S
        expected = [(step, {"n": step, "x": exact(1 / (step + 1))}) for step in range(self.logged)]
        assert stored.cells(url, self.run.path) == expected
        stored.wait_for_state(url, self.run.path, "finished")
        found = stored.run(url, self.run.path).stored
        assert (found["gaps"], found["rows"], found["points"]) == (0, self.logged, 2 * self.logged)
        return int(found["duplicates"])
