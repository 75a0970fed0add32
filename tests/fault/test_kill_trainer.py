"""kill -9 of trainings, and of what recovers them, at random instants: every `log` call that had returned is stored once, bit for bit.

RUNFERRY_EFFORT_KILLS says how many trainings (default 100), RUNFERRY_SEED which instants.
"""

from __future__ import annotations

import os
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support.effort import effort, record
from tests.support.kills import Killer, Recovery, Training
from tests.support.ledger import Issued, Verdict, audit_all
from tests.support.trainers import client_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

KILLS = effort("kills", 100)
MOST_CALLS = effort("kill_calls", 500)
SEED = int(os.environ.get("RUNFERRY_SEED", "1"))
# Trainings that share a folder: each `init` meets what the ones before have left, and is killed over that, too.
A_FOLDER = 10
LATEST_KILL_S = 0.002
INIT_S = 0.03
KILLED_IN_INIT = 0.15
OFFLINE = 0.5
RECOVERY_KILLED = 0.5
RECOVERY_S = 0.1


@pytest.mark.fault(1, 2, 3, 4, 5, 6, 7, 8)
@pytest.mark.timeout(120 + 2 * KILLS)
def test_every_log_call_that_returned_survives_kill_9_exactly_once(server: RunningServer, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    whole = Verdict()
    kills = nested = 0
    with Killer(client_environment(tmp_path, base_url=server.url), tmp_path) as killer:
        while kills < KILLS:
            root = tmp_path / f"folder-{kills}"
            issued: list[Issued] = []
            for _ in range(min(A_FOLDER, KILLS - kills)):
                issued.append(killer.run(random_training(f"k{kills}", root, chance)).issued)
                kills += 1
            while chance.random() < RECOVERY_KILLED:
                killed_after_s = chance.random() * RECOVERY_S
                nested += killer.run(Recovery((str(root),), chance.choice(["sync", "server"]), kill_after_s=killed_after_s)).was_killed
            killer.run(Recovery((str(root),)))
            verdict = audit_all(server.url, issued)
            verdict.check()
            whole.add(verdict)
            left = {path.name for path in root.glob("runferry/*/*")}
            rings = [name for name in os.listdir("/dev/shm") if name.removeprefix("runferry-").removesuffix(".ring") in left]  # noqa: PTH208, S108
            assert rings == [], "rings that were taken over are removed"
            shutil.rmtree(root)
    record("trainings killed at random instants", kills=kills, killed_recoveries=nested, **whole.counts())


def random_training(run_id: str, root: Path, chance: random.Random) -> Training:
    """A training to be killed anywhere between its first step and a few thousand calls."""
    is_early = chance.random() < KILLED_IN_INIT
    kill_at_call = 0 if is_early else chance.randrange(1, MOST_CALLS)
    return Training(
        str(root),
        run_id,
        "offline" if chance.random() < OFFLINE else "online",
        calls=2 * kill_at_call + MOST_CALLS,
        threads=chance.choice([1, 1, 3]),
        flushes=chance.random() < 0.2,
        kill_at_call=kill_at_call,
        kill_after_s=chance.random() * (INIT_S if is_early else LATEST_KILL_S),
    )
