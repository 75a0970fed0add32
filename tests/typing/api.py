"""What a user's type checker sees: checked by `mypy --strict`, never run.

Every line here is a promise: a signature that changes breaks the check of somebody's training script.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import runferry
from typing_extensions import assert_type

if TYPE_CHECKING:
    from pathlib import Path


def training(folder: Path) -> None:
    """A script as users write it."""
    with runferry.init(project="demo", name="first", config={"lr": 3e-4}, tags=["a"], dir=folder, mode="offline", resume="allow") as run:
        assert_type(run, runferry.Run)
        run.log({"loss": 0.25, "n": 1, "ok": True, "text": "x", "none": None, "nested": {"a": 1}})
        run.log({"loss": 0.25}, step=3, commit=False)
        run.config.update({"batch": 32}, allow_val_change=True)
        run.config.depth = 3
        run.summary["best"] = 0.9
        run.tags = ["a", "b"]
        assert_type(run.flush(durable=True, timeout=1.0), bool)
        status = run.status()
        assert_type(status, runferry.RunStatus)
        assert_type(status.accepted_rows, int)
        assert_type(status.kill_safe, bool)
        assert_type(run.step, int)
        assert_type(run.url, "str | None")
        assert_type(run.tags, tuple[str, ...])


def module_level() -> None:
    """The names of the package."""
    runferry.init(settings=runferry.Settings(mode="offline", ring_bytes=1 << 20, finish_timeout=2.0))
    runferry.log({"loss": 1.0}, step=1, commit=True)
    assert_type(runferry.run, "runferry.Run | None")
    runferry.config["lr"] = 0.1
    runferry.summary["best"] = 0.5
    runferry.log({"weights": runferry.Histogram([1.0, 2.0], num_bins=16)})
    runferry.finish(exit_code=0)
    assert_type(runferry.login(host="http://host:7070"), bool)
    assert_type(runferry.__version__, str)


def reading() -> None:
    """Everything back."""
    api = runferry.Api({"base_url": "http://host:7070"}, timeout=5)
    for run in api.runs("local/demo", {"config.lr": {"$gt": 0.1}}, order="-created_at"):
        assert_type(run.id, str)
        assert_type(run.config, dict[str, Any])
        assert_type(run.scan_history(["loss"], min_step=5), Iterator[dict[str, Any]])
    assert_type(len(api.runs("demo")), int)


def errors() -> None:
    """All under one base."""
    try:
        runferry.init(resume="never", id="x")
    except runferry.CommError as error:
        assert_type(error.message, str)
    except (runferry.UsageError, runferry.Error):
        pass


# Wrong calls are refused by the checker too; an unused ignore is an error, so these stay refused.

runferry.init(projekt="demo")  # type: ignore[call-arg]
runferry.Settings(mod="offline")  # type: ignore[call-arg]
runferry.init().log([("loss", 1)])  # type: ignore[arg-type]
runferry.init().log({1: 2})  # type: ignore[dict-item]
runferry.init().url = "x"  # type: ignore[misc]
