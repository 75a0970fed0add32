"""A ring's file that somebody removes or cuts, under a living training and after its death.

Cutting the file of a ring that is in use takes the pages away from under the process: its next touch of them is a SIGBUS, and Runferry
installs no handler for it, because the process is not its own. What was in the journal is kept, and a GAP stands for the rest.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.failpoints import ROOT
from tests.support.ledger import Issued, audit_all
from tests.support.trainers import Trainer, command

if TYPE_CHECKING:
    from tests.support.servers import RunningServer

TRAINING = """
import os, sys, time
sys.path.append({place!r})
import runferry
from tests.support.ledger import call
run = runferry.init(project="kills", id={run_id!r}, mode="offline", settings={{"silent": True}})
def log(first, last):
    for number in range(first, last):
        row, is_whole = call(0, number)
        run.log(row) if is_whole else run.log(row, commit=False)
log(0, 100)
run.flush()
print(f"/dev/shm/runferry-{{os.path.basename(run.dir)}}.ring")
sys.stdin.readline()
"""


def training(run_id: str, more: str) -> str:
    """A program that has 100 calls in its journal, names its ring, and does more when told to."""
    return TRAINING.format(place=str(ROOT), run_id=run_id) + more


@pytest.mark.fault(77)
@pytest.mark.timeout(120)
def test_a_ring_cut_under_a_living_training_ends_it_by_sigbus_and_costs_a_named_gap(server: RunningServer, tmp_path: Path) -> None:
    with Trainer(training("cut-alive", "log(100, 200)\ntime.sleep(600)"), tmp_path) as trainer:
        os.truncate(trainer.line(), 0)
        trainer.tell("go")
        returncode, _ = trainer.ended()

    assert returncode == -signal.SIGBUS
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    verdict = audit_all(server.url, [Issued("local/kills/cut-alive", (100,))])
    verdict.check(may_have_gaps=True)
    (gap,) = stored.gaps(server.url, "local/kills/cut-alive")
    assert (gap["reason"], verdict.stored) == ("corrupt", 100), gap


@pytest.mark.fault(77)
@pytest.mark.timeout(120)
def test_a_ring_cut_after_the_death_gives_what_can_be_reached_and_a_gap_for_the_rest(server: RunningServer, tmp_path: Path) -> None:
    with Trainer(training("cut-dead", "log(100, 20_000)\nprint('logged')\ntime.sleep(600)"), tmp_path) as trainer:
        ring = Path(trainer.line())
        trainer.send(signal.SIGSTOP)  # so that nothing of what follows reaches the journal
        trainer.send(signal.SIGCONT)
        trainer.tell("go")
        trainer.wait_for("logged")
        trainer.kill()
    if not ring.exists():
        pytest.fail("the ring of a killed training is its heir's")
    os.truncate(ring, (1 << 20) + 4096 + (64 << 10))  # names, header, and 64 KiB of entries

    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert not ring.exists()
    rows = stored.rows(server.url, "local/kills/cut-dead")
    gaps = stored.gaps(server.url, "local/kills/cut-dead")
    assert len(rows) >= 80
    assert [gap["reason"] for gap in gaps] in (["corrupt"], []), gaps
    assert gaps or len(rows) > 17_000, "a row is missing and nothing says so"


@pytest.mark.fault(77)
@pytest.mark.timeout(120)
def test_a_ring_removed_under_a_living_training_is_noticed_and_costs_nothing_but_its_safety(server: RunningServer, tmp_path: Path) -> None:
    more = "while run.status().kill_safe: time.sleep(0.01)\nprint(run.status().last_error)\nlog(100, 200)\nrun.finish()\n"
    with Trainer(training("removed", more), tmp_path) as trainer:
        Path(trainer.line()).unlink()
        trainer.tell("go")
        said = trainer.line()
        returncode, _ = trainer.ended()

    assert returncode == 0, trainer.errors.read_text()
    assert "the ring's file was removed or cut" in said
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    audit_all(server.url, [Issued("local/kills/removed", (200,))]).check()
