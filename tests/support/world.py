"""A clean world for tests that call the client in their own process: no settings of the machine, a folder of its own, no run left over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import runferry
from runferry import _current, _term

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def clean_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Environment, working directory, settings file and printed lines of this test alone."""
    for name in [name for name in os.environ if name.startswith(("RUNFERRY_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RUNFERRY_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("RUNFERRY_DISABLE_GIT", "1")
    monkeypatch.chdir(tmp_path)
    _term._told.clear()  # noqa: SLF001 - what "once in a process" means to a test
    yield
    for run in list(_current.live):
        run.finish(quiet=True, timeout=0)
    runferry.teardown()
    _term.set_loudness(quiet=False, silent=False)
