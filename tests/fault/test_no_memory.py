"""No memory: what the threads behind a run cannot get they wait for, while the training goes on, and nothing of it is missing afterwards.

The address space is what runs out: its limit is set from outside, so the trainer itself asks for nothing more than its calls do.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.support import stored
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import Trainer, command, wait_until

ROWS = 5_000
PATH = "local/memory/r"
# One heap for all threads: else each has tens of MiB of address space of its own, in which the limit is not felt.
LOGS = f"""
import os, sys, runferry
run = runferry.init(project="memory", id="r", settings={{"silent": True}})
values = {{f"metric_{{number}}": 0.5 for number in range(20)}}
for row in range(10):
    values["row"] = row
    run.log(values)
run.flush()
os.write(1, b"begun\\n")
os.read(0, 1)
for row in range(10, {ROWS}):
    values["row"] = row
    run.log(values)
os.write(1, b"logged\\n")
os.read(0, 1)
run.finish(timeout=0)
print(run.status().dropped_rows, flush=True)
"""


def threads(pid: int) -> dict[str, Path]:
    """Their folders in /proc, by their names."""
    return {(task / "comm").read_text().strip(): task for task in Path(f"/proc/{pid}/task").iterdir()}


def waits_for_memory(thread: Path) -> bool:
    """Whether it sleeps for a time: its other waits are for a word of another thread, which is another call of the kernel."""
    return "nanosleep" in (thread / "wchan").read_text()


@pytest.mark.timeout(120)
@pytest.mark.fault(67)
def test_threads_that_get_no_memory_wait_until_there_is_some_and_no_row_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    with Trainer(LOGS, tmp_path, base_url=f"http://127.0.0.1:{free_port()}") as trainer:
        trainer.wait_for("begun")
        packer = threads(trainer.process.pid)["rf-pack"]
        if {(thread / "wchan").read_text() for thread in threads(trainer.process.pid).values()} == {"0"}:
            pytest.skip("not run: this kernel does not tell what a thread waits for")
        before = resource.prlimit(trainer.process.pid, resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))
        trainer.tell("")
        trainer.wait_for("logged")
        wait_until(lambda: waits_for_memory(packer), "the packer wants more memory than there is")

        resource.prlimit(trainer.process.pid, resource.RLIMIT_AS, before)
        trainer.tell("")
        code, printed = trainer.ended()
    assert code == 0, trainer.errors.read_text()
    assert printed == "0\n"

    with RunningServer(tmp_path / "data") as server:
        synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert [row["row"] for row in stored.rows(server.url, PATH, ["row"])] == list(range(ROWS))
