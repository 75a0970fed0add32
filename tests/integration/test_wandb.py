"""Scenes of `tests/compat`, played with Runferry in W&B's place: rows, summary, config and what the script saw are those of W&B itself.

What W&B did was recorded (`record_wandb`), not written by hand. Numbers are compared by value: W&B's file writes 1.0 as 1. Where Runferry
does otherwise, on purpose or as yet, the scene says so, and the test sees to it that it still does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import runferry

from tests.compat.record_wandb import OWN, RECORDED, leaves, plain
from tests.compat.wandb_scenes import SCENES, Scene, Seen
from tests.support import stored

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """What W&B did."""
    found: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8").replace("wandb.log", "runferry.log"))
    return found


def played(scene: Scene, server: RunningServer, folder: Path) -> dict[str, Any]:
    """What Runferry does."""
    run = runferry.init(project="scenes", id=scene.name, dir=folder, config=scene.config, settings={"base_url": server.url, "silent": True})
    seen = Seen()
    scene.play(runferry, run, seen)
    run.finish()
    stored.wait_for_state(server.url, run.path, "finished")
    found = stored.run(server.url, run.path)
    rows = [{"step": row["_step"], "values": plain(_flat(row))} for row in stored.rows(server.url, run.path)]
    return {"seen": plain(seen.notes), "summary": plain(_flat(found.summary)), "config": plain(dict(found.config)), "rows": rows}


def _flat(items: dict[str, Any]) -> dict[str, Any]:
    return {path: value for name, inner in items.items() if name not in OWN for path, value in leaves(name, inner).items()}


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_plays_as_with_wandb(name: str, server: RunningServer, recorded: dict[str, Any], tmp_path: Path) -> None:
    scene = SCENES[name]

    found = played(scene, server, tmp_path)

    if scene.differs is None and scene.missing is None:
        assert found == recorded[name], scene.sentence
    else:
        assert found != recorded[name], f"no longer so: {scene.differs or scene.missing}"


def test_every_scene_was_recorded_and_nothing_else(recorded: dict[str, Any]) -> None:
    assert sorted(recorded) == sorted(SCENES)
