"""A fault of our own: a panic in a thread, or in `log` itself. It is caught, training goes on, `status()` says it, and nothing is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.failpoints import ROOT
from tests.support.ledger import Issued, audit_all
from tests.support.trainers import command, train

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

CALLS = 400
TRAINING = """
import json, sys, time
sys.path.append({place!r})
import runferry
from tests.support.ledger import call
run = runferry.init(project="kills", id={run_id!r}, settings={{"silent": True}})
def log(first, last):
    for number in range(first, last):
        row, is_whole = call(0, number)
        run.log(row) if is_whole else run.log(row, commit=False)
log(0, {calls} // 2)
flushed = [run.flush(), run.flush(durable=True), run.flush(acked=True)]
log({calls} // 2, {calls})
run.finish()
status = run.status()
print(json.dumps({{"flushed": flushed, "journal": status.journal, "connection": status.connection, "error": status.last_error,
    "dropped": status.dropped_rows}}))
"""


def train_with(plan: str, folder: Path, run_id: str, server: RunningServer) -> dict[str, object]:
    """A training that goes by this plan and ends as if nothing were; what it said of itself."""
    code = TRAINING.format(place=str(ROOT), run_id=run_id, calls=CALLS)
    ended = train(code, folder, base_url=server.url, failpoints=plan)
    assert ended.returncode == 0, ended.stderr
    said: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return said


# The states of journal and connection in the end, and whether flush() reaches the journal, the device, the server.
DEATHS = {
    "rf-pack": ("pack.before_write=panic@1", "dead", "connected", [False, False, False]),
    "rf-send": ("send.frames=panic@1", "ok", "dead", [True, True, False]),
    "rf-sync": ("sync.job=panic@1", "ok", "done", [True, True, True]),
}


@pytest.mark.fault(75)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("thread", DEATHS)
def test_a_thread_that_dies_takes_neither_the_training_nor_a_row_with_it(server: RunningServer, tmp_path: Path, thread: str) -> None:
    plan, journal, connection, flushed = DEATHS[thread]

    said = train_with(plan, tmp_path, f"death-of-{thread}", server)

    assert (said["journal"], said["flushed"], said["dropped"]) == (journal, flushed, 0), said
    assert said["connection"] in {connection, "connecting"}, said
    assert f"thread {thread} died: fail point" in str(said["error"])
    following = 'import runferry\nrunferry.init(project="after", settings={"silent": True}).finish()'
    assert train(following, tmp_path, base_url=server.url).returncode == 0
    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    audit_all(server.url, [Issued(f"local/kills/death-of-{thread}", (CALLS,))]).check()


@pytest.mark.fault(75)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("site", ["ring.reserve", "ring.copy"])
def test_a_panic_inside_log_costs_that_row_alone_and_is_counted(server: RunningServer, tmp_path: Path, site: str) -> None:
    run_id = f"panic-at-{site.replace('.', '-')}"

    said = train_with(f"{site}=panic@12", tmp_path, run_id, server)

    assert (said["dropped"], said["connection"]) == (1, "done"), said
    verdict = audit_all(server.url, [Issued(f"local/kills/{run_id}", (CALLS,))])
    verdict.check(may_have_gaps=True)
    assert (verdict.stored, verdict.gapped) == (CALLS - 1, 1), verdict
