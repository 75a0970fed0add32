"""A config too large for a server costs the value that is too large, counted, and never the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import runferry

from tests.support import stored

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer


@pytest.mark.fault(55)
@pytest.mark.timeout(120)
def test_a_config_value_that_is_too_large_costs_itself_and_not_the_run(tmp_path: Path, server: RunningServer) -> None:
    config = {"lr": 0.5, "large": "x" * (20 << 20), "notable": "y" * (2 << 20), "batch": 32}

    with runferry.init(project="large", config=config, dir=tmp_path, settings={"base_url": server.url, "silent": True}) as run:
        run.log({"loss": 1.0})
        assert run.flush(acked=True, timeout=60), run.status()
        assert run.status().dropped_rows == 1
    stored.wait_for_state(server.url, run.path, "finished")

    assert stored.run(server.url, run.path).config == {key: value for key, value in config.items() if key != "large"}
    assert len(stored.rows(server.url, run.path)) == 1
