"""kill -9 at every fail point of the client, at its first, last and some other hits; then a recovery that is killed as well.

First a training, or a recovery, runs undisturbed and leaves a trace: which fail points it has come by, and how often. Then there is
one more for each pair of fail point and hit, which dies there. `RUNFERRY_EFFORT_HITS` says how many hits of each point (default 2),
RUNFERRY_SEED which.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.support import failpoints
from tests.support.effort import record
from tests.support.kills import Killer, Recovery, Training
from tests.support.ledger import Issued, audit_all
from tests.support.trainers import client_environment
from tests.support.walks import CALLS, LIMIT_S, SEED, SMALL, chosen, hits_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.servers import RunningServer

TIMES_RUNNING = 5


@pytest.fixture
def killer(server: RunningServer, tmp_path: Path) -> Iterator[Killer]:
    """The warm process of this test."""
    with Killer(client_environment(tmp_path, base_url=server.url, failpoints=""), tmp_path) as warm:
        yield warm


def killed_at(site: str, hit: int) -> str:
    """The plan that kills there; where bytes may be cut half of them are written first."""
    return f"{SMALL};journal.torn=short@{hit};journal.write=kill@{hit + 1}" if site == "journal.torn" else f"{SMALL};{site}=kill@{hit}"


def rings_of(roots: list[Path]) -> list[str]:
    """Rings of journals below these folders that nobody has taken over."""
    writers = {path.name for root in roots for path in root.glob("runferry/*/*")}
    return [name for name in os.listdir("/dev/shm") if name.removeprefix("runferry-").removesuffix(".ring") in writers]  # noqa: PTH208, S108


@pytest.mark.fault(1, 2, 3, 4, 5, 6, 7)
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_training_killed_at_any_fail_point_loses_and_repeats_nothing(
    server: RunningServer, killer: Killer, tmp_path: Path, mode: str
) -> None:
    trace = tmp_path / "trace"
    undisturbed = killer.run(Training(str(tmp_path / "whole"), f"walk-{mode}", mode, CALLS, 2, SMALL, str(trace)))
    hits = hits_in(trace.read_text().splitlines())
    expected = {site for site in failpoints.sites() if not site.startswith(("recover.", "adopt.", "journal.remove"))}
    unreachable = {site for site in expected if mode == "offline" and site.startswith(("send.", "transport.", "journal.unlink"))}
    unreachable |= {"pack.trim", "journal.ack"} if mode == "offline" else set()
    assert expected - unreachable <= set(hits), f"never reached: {expected - unreachable - set(hits)}"

    issued, roots, killed = [undisturbed.issued], [tmp_path / "whole"], 0
    for index, (site, hit) in enumerate(chosen(hits, random.Random(SEED))):
        roots.append(tmp_path / f"{index}-{site}-{hit}")
        ended = killer.run(Training(str(roots[-1]), f"walk-{mode}-{index}", mode, CALLS, 2, killed_at(site, hit)))
        issued.append(ended.issued)
        killed += ended.was_killed
    for root in roots[::8]:
        killer.run(Recovery((str(root),), "init" if mode == "online" else "server"))
    killer.run(Recovery(tuple(map(str, roots))))

    verdict = audit_all(server.url, issued)
    verdict.check()
    assert rings_of(roots) == []
    # A hit may not come again at another speed; most do.
    assert killed > len(roots) * 0.8
    record(f"a training killed at each fail point, {mode}", points=len(hits), kills=killed, **verdict.counts())


@pytest.mark.fault(8)
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize(("mode", "by"), [("online", "sync"), ("online", "init"), ("offline", "sync"), ("offline", "server")])
def test_a_recovery_killed_five_times_running_at_any_fail_point_loses_and_repeats_nothing(
    server: RunningServer, killer: Killer, tmp_path: Path, mode: str, by: str
) -> None:
    issued: list[Issued] = []
    roots: list[Path] = []

    def orphan() -> str:
        """What a training leaves that died with records in its ring, some of them announced for a frame."""
        roots.append(tmp_path / str(len(roots)))
        run_id = f"nested-{mode}-{by}-{len(roots)}"
        ended = killer.run(Training(str(roots[-1]), run_id, mode, CALLS, 2, f"{SMALL};pack.before_write=kill@2"))
        assert ended.was_killed
        issued.append(ended.issued)
        return str(roots[-1])

    trace = tmp_path / "trace"
    killer.run(Recovery((orphan(),), by, trace=str(trace)))
    pairs = chosen(hits_in(trace.read_text().splitlines()), random.Random(SEED))
    killed = 0
    # Five different points in a row; and, where a recovery costs least, the same one five times.
    rows = [[pair] * TIMES_RUNNING for pair in pairs if pair[0].startswith("recover.") and by == "sync"]
    rows += [pairs[at : at + TIMES_RUNNING] for at in range(0, len(pairs), TIMES_RUNNING)]
    for row in rows:
        root = orphan()
        killed += sum(killer.run(Recovery((root,), by, killed_at(*pair))).was_killed for pair in row)
        killer.run(Recovery((root,), by))
    killer.run(Recovery(tuple(map(str, roots))))

    verdict = audit_all(server.url, issued)
    verdict.check()
    assert rings_of(roots) == []
    # What a kill leaves to do may be less than the next plan waits for.
    assert killed >= len(rows)
    record(f"a recovery by {by} killed at each fail point, {mode}", kills=killed, **verdict.counts())
