"""The names of the package: guards before `init`, the live objects after it, guards again after `finish`."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from typing import Any

import pytest
import runferry
from runferry import config as guard_config
from runferry import errors
from runferry import log as guard_log


def test_log_before_init_says_what_to_call() -> None:
    with pytest.raises(runferry.Error, match=r"^You must call runferry\.init\(\) before runferry\.log\(\)$"):
        runferry.log({"loss": 1})


@pytest.mark.parametrize("name", ["config", "summary"])
def test_objects_before_init_say_what_to_call_on_reading_and_writing(name: str) -> None:
    guard: Any = getattr(runferry, name)

    with pytest.raises(runferry.Error, match=rf"before runferry\.{name}\.lr"):
        _ = guard.lr
    with pytest.raises(runferry.Error, match=rf"before runferry\.{name}\.lr"):
        guard.lr = 1
    with pytest.raises(runferry.Error, match=rf"before runferry\.{name}\['lr'\]"):
        guard["lr"]
    with pytest.raises(runferry.Error, match=rf"before runferry\.{name}\['lr'\]"):
        guard["lr"] = 1
    with pytest.raises(AttributeError):
        _ = guard._private  # noqa: SLF001 - that is the rule
    assert repr(guard)


def test_without_a_run_finish_does_nothing_and_run_is_none() -> None:
    runferry.finish()

    assert runferry.run is None


def test_after_init_the_names_of_the_package_are_the_runs() -> None:
    run = runferry.init(mode="disabled", config={"lr": 0.1})

    assert runferry.run is run
    assert runferry.config is run.config
    assert runferry.summary is run.summary
    assert runferry.log == run.log

    runferry.finish()

    assert runferry.run is None
    with pytest.raises(runferry.Error):
        runferry.log({})


def test_names_imported_before_init_reach_the_run_that_came_later() -> None:
    run = runferry.init(mode="disabled", config={"lr": 0.1})

    guard_log({"loss": 2.0})

    assert guard_config.lr == 0.1
    assert run.summary["loss"] == 2.0


def test_importing_a_submodule_hides_no_public_name() -> None:
    run = runferry.init(mode="disabled")

    for name in ("_config", "_run", "_summary", "api", "cli", "data", "settings"):
        importlib.import_module(f"runferry.{name}")

    assert runferry.run is run


def test_the_module_level_names_are_the_same_in_every_thread() -> None:
    run = runferry.init(mode="disabled")
    seen: list[object] = []

    thread = threading.Thread(target=lambda: seen.append(runferry.run))
    thread.start()
    thread.join()

    assert seen == [run]


def test_every_public_name_can_be_had_and_others_not() -> None:
    for name in runferry.__all__:
        assert hasattr(runferry, name), name
    assert sorted(runferry.__all__) == dir(runferry)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = runferry.nope


def test_importing_needs_the_standard_library_only_and_little_of_it() -> None:
    code = (
        "import sys; before = set(sys.modules); import runferry; new = set(sys.modules) - before\n"
        "print(sorted(n for n in new if n.partition('.')[0] not in sys.stdlib_module_names and n.partition('.')[0] != 'runferry'))\n"
        "print(sorted(new & {'dataclasses', 'http.client', 'inspect', 'json', 'numpy', 'runferry._native', 'subprocess', 'urllib'}))"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert printed.stdout.splitlines() == ["[]", "[]"]


def test_a_client_in_full_use_has_no_module_of_the_server() -> None:
    code = (
        "import sys, runferry\n"
        "run = runferry.init(mode='offline')\n"
        "run.log({'loss': 1.0, 'weights': runferry.Histogram([1.0, 2.0])})\n"
        "run.finish()\n"
        "runferry.Api()\n"
        "print(sorted(name for name in sys.modules if name.startswith('runferry.server')), 'runferry.api' in sys.modules)"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert printed.stdout.splitlines()[-1] == "[] True"


def test_every_exception_is_drawn_in_the_tree_and_hangs_in_it() -> None:
    found = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}

    for name, kind in found.items():
        assert name in (errors.__doc__ or ""), f"{name} is not drawn"
        assert issubclass(kind, errors.Error)
    assert issubclass(errors.AuthenticationError, errors.CommError)
    assert issubclass(errors.UnsupportedError, errors.UsageError)
