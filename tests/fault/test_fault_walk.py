"""A fault at every fail point of a training that lives on: an error of the disk, half a write, a delay. It ends well and has lost nothing.

As in the walk of kills a training runs undisturbed first, for its trace; then there is one more for each pair of fail point and hit.
What goes wrong while `init` runs may be raised there, so hits before the first `log` are left out. `RUNFERRY_EFFORT_HITS` and
RUNFERRY_SEED are those of the walk of kills.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from tests.support import failpoints
from tests.support.effort import record
from tests.support.kills import Killer, Recovery, Training
from tests.support.ledger import audit_all
from tests.support.trainers import client_environment
from tests.support.walks import CALLS, LIMIT_S, SEED, SMALL, chosen, hits_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.servers import RunningServer

# Sites that are delayed in one training: each alone would be a training each, and a delay hides nothing of another.
DELAYED_TOGETHER = 5
DELAY_MS = 30


@pytest.fixture
def killer(server: RunningServer, tmp_path: Path) -> Iterator[Killer]:
    """The warm process of this test."""
    with Killer(client_environment(tmp_path, base_url=server.url, failpoints=""), tmp_path) as warm:
        yield warm


def errors(pairs: list[tuple[str, int]], mode: str) -> Iterator[str]:
    """One error; the same without end; half a write. Where nothing can be sent a training has no use for an end to come."""
    for site, hit in pairs:
        if site == "journal.torn":
            yield f"{site}=short@{hit}"
        elif site.startswith("journal."):
            yield from (
                f"{site}=error({name})@{hit}{more}" for name in ("EIO", "ENOSPC") for more in ("", "+") if mode == "online" or not more
            )
        else:
            yield f"{site}=error(ECONNRESET)@{hit}"


def delays(pairs: list[tuple[str, int]], mode: str) -> Iterator[str]:
    """A few delays, in whatever threads they are."""
    del mode
    for at in range(0, len(pairs), DELAYED_TOGETHER):
        yield ";".join(f"{site}=delay({DELAY_MS})@{hit}" for site, hit in pairs[at : at + DELAYED_TOGETHER])


@pytest.mark.fault(19, 21, 22)
@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("what", [errors, delays])
def test_a_training_goes_through_a_fault_at_any_fail_point_and_loses_nothing(
    server: RunningServer, killer: Killer, tmp_path: Path, mode: str, what: object
) -> None:
    name = f"{'errors' if what is errors else 'delays'}-{mode}"
    trace = tmp_path / "trace"
    undisturbed = killer.run(Training(str(tmp_path / "whole"), name, mode, CALLS, 2, SMALL, str(trace)))
    in_init = hits_in(itertools.takewhile(lambda line: not line.endswith(" ring.reserve"), trace.read_text().splitlines()))
    hits = hits_in(trace.read_text().splitlines())
    sites = failpoints.sites("check", "cut") if what is errors else failpoints.sites()
    pairs = [(site, hit) for site, hit in chosen(hits, random.Random(SEED), after=in_init) if site in sites]
    assert len({site for site, _ in pairs}) >= 5, pairs

    issued, roots = [undisturbed.issued], [tmp_path / "whole"]
    for index, plan in enumerate((errors if what is errors else delays)(pairs, mode)):
        roots.append(tmp_path / f"{index}")
        ended = killer.run(Training(str(roots[-1]), f"{name}-{index}", mode, CALLS, 2, f"{SMALL};{plan}"))
        assert ended.issued.returned == (CALLS, CALLS), plan
        issued.append(ended.issued)
    killer.run(Recovery(tuple(map(str, roots))))

    verdict = audit_all(server.url, issued)
    verdict.check()
    record(f"a training that goes through {name} at each fail point", trainings=len(issued), points=len(pairs), **verdict.counts())
