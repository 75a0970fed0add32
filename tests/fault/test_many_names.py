"""A run that makes up a name for every value: what that costs the other runs of its server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import runferry

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer

NAMES = effort("flooded_names", 100_000)
ACK_TIMEOUT_S = 30.0
FLOOD = f"""
import runferry
run = runferry.init(project="flood", id="names", settings={{"silent": True}})
for first in range(0, {NAMES}, 1_000):
    run.log({{f"group_{{number % 7}}/name_{{number}}": number / 7 for number in range(first, first + 1_000)}})
run.finish(timeout=60)
print(run.status().backlog_frames, flush=True)
"""


def resident_mib(pid: int) -> int:
    """The most memory a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


@pytest.mark.timeout(180)
@pytest.mark.fault(60)
def test_a_run_of_very_many_names_holds_up_no_other_run(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        run = runferry.init(project="flood", id="other", dir=tmp_path / "other", settings={"base_url": server.url, "silent": True})
        rows, longest_s = 0, 0.0
        with Trainer(FLOOD, tmp_path, base_url=server.url) as trainer:
            while trainer.process.poll() is None:
                began_s = time.monotonic()
                run.log({"row": rows})
                rows += 1
                assert run.flush(acked=True, timeout=ACK_TIMEOUT_S), run.status()
                longest_s = max(longest_s, time.monotonic() - began_s)
            code, printed = trainer.ended()
        assert (code, printed.strip()) == (0, "0"), trainer.errors.read_text()
        run.finish()
        assert [row["row"] for row in stored.rows(server.url, run.path)] == list(range(rows))
        stored.wait_for_state(server.url, "local/flood/names", "finished")
        flooded = stored.run(server.url, "local/flood/names")
        assert flooded.metadata["points"] == NAMES
        server_mib = resident_mib(server.process.pid)
    record("a run of very many names beside another", names=NAMES, longest_ack_s=round(longest_s, 3), server_mib=server_mib)
