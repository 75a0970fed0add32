"""The last moments of an interpreter: finalizers and exit hooks that log before, during and behind the hook that finishes the runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from runferry import _native

from tests.support import stored
from tests.support.effort import effort, record
from tests.support.interpreters import interpreters
from tests.support.watched import watched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

BEGIN = """
import atexit, builtins, sys, threading, types, weakref
def late():  # registered before ours: runs behind it
    runferry.log({"n": -1})
    run.log({"n": -1, "list": [1, 2]})
    run.summary["late"] = 1
    run.finish(exit_code=9)
    assert run.status().ignored_rows >= 2, run.status()
    print("late", run.status().accepted_rows)
atexit.register(late)
import runferry
run = runferry.init(project="shutdown", id=sys.argv[1], settings={"silent": True})
kept = run.log
for number in range(100):
    run.log({"n": number})
"""


@pytest.mark.fault(66)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("version", interpreters())
def test_hooks_before_ours_still_log_and_hooks_behind_it_are_turned_away_counted(
    server: RunningServer, tmp_path: Path, version: str
) -> None:
    code = """
def early():  # registered behind ours: runs before it
    run.log({"n": 100})
    runferry.log({"n": 101, "list": [1, 2]})
atexit.register(early)
weakref.finalize(run.config, kept, {"n": -2})  # registers a hook of its own, which runs before ours, too
sys.exit(7)
"""

    ended = watched(BEGIN + code, tmp_path, python=interpreters()[version], arguments=[version], base_url=server.url)

    assert (ended.returncode, ended.stderr) == (7, "")
    assert ended.stdout == "late 103\n"
    rows = [row["n"] for row in stored.rows(server.url, f"local/shutdown/{version}")]
    assert sorted(rows) == [-2, *range(102)]
    assert stored.run(server.url, f"local/shutdown/{version}").stored["exit_code"] == 7


KEEPERS = {
    "a cycle": "kept_alive = Logs(); kept_alive.itself = kept_alive; del kept_alive",
    "builtins": "builtins.kept_alive = Logs()",
    "a module that is gone": "sys.modules['elsewhere'] = module = types.ModuleType('elsewhere'); module.it = Logs(); del module",
    "a thread's local": "local = threading.local(); local.it = Logs()",
    "a frame of a daemon thread": "threading.Thread(target=lambda it: threading.Event().wait(), args=(Logs(),), daemon=True).start()",
    "the run itself": "run.config.__dict__['it'] = Logs()",
}
LOGS = """
class Logs:
    def __del__(self, log=kept, module=runferry, run=run):
        log({"n": -1})
        log({"n": -1, "list": [1, 2]})
        run.log({"n": -1}, step=7)
        try:
            module.log({"n": -1})
            run.summary["x"] = 1
            run.status(), run.step, run.dir, run.flush()
        except Exception:
            pass  # an attribute of a module that is gone is nobody's fault
        run.finish()
"""


@pytest.mark.fault(66)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("version", interpreters())
def test_a_finalizer_that_logs_while_modules_are_torn_down_neither_crashes_nor_complains(tmp_path: Path, version: str, keeper: str) -> None:
    code = (BEGIN + LOGS + KEEPERS[keeper]).replace("atexit.register(late)", "")
    for _ in range(effort("finalizers", 1)):
        ended = watched(code, tmp_path, python=interpreters()[version], arguments=["torn-down"], mode="offline")

        assert (ended.returncode, ended.stderr) == (0, ""), keeper


@pytest.mark.fault(66)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("version", interpreters())
def test_runs_begun_or_finished_by_exit_hooks_end_with_the_process(tmp_path: Path, version: str) -> None:
    code = """
import atexit, sys
def behind():
    third = runferry.init(id="third", reinit="create_new")
    third.log({"n": 0})
    third.finish()
    print("behind")
atexit.register(behind)
import runferry
run = runferry.init(id="first")
def before():
    second = runferry.init(id="second", reinit="create_new")
    second.log({"n": 0})
    run.finish()
    print("before")
atexit.register(before)
"""

    ended = watched(code, tmp_path, python=interpreters()[version], mode="offline", silent="true")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "before\nbehind\n"


# Each child is interrupted at another line of Runferry's that runs behind `begin`; the last one finds no such line any more.
INTERRUPTED = """
import atexit, os, signal, sys, warnings
import runferry
from runferry import _current
warnings.simplefilter("ignore")
place = os.path.dirname(runferry.__file__)
number = 1 - {stride}
while True:
    number += {stride}
    into, out = os.pipe()
    if os.fork() == 0:
        break
    os.close(out)
    is_hit = os.read(into, 1)
    os.close(into)
    code = os.waitstatus_to_exitcode(os.wait()[1])
    assert code == 7, (number, code)
    if not is_hit:
        print(number)
        os._exit(0)

lines = 0
def trace(frame, event, arg):
    global lines
    if not frame.f_code.co_filename.startswith(place):
        return None
    lines += event == "line" and (_current.is_ending() or {in_finish})
    if lines == number:
        lines += 1
        os.write(out, b"!")
        signal.raise_signal(signal.SIGINT)
    return trace
run = runferry.init(project="shutdown", id=f"line-{{number}}", settings={{"silent": True}})
run.log({{"n": 1}})
{begin}
sys.exit(7)
"""
STRIDE = effort("interrupt_stride", 4)
"""Every so-manieth line."""
IN_FINISH = """
sys.settrace(trace)
try:
    run.finish()
except KeyboardInterrupt:
    pass
sys.settrace(None)
"""


@pytest.mark.fault(65, 66)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("where", ["finish", "the exit hook"])
def test_a_ctrl_c_at_any_line_leaves_no_run_unfinished(tmp_path: Path, where: str) -> None:
    begin = IN_FINISH if where == "finish" else "atexit.register(sys.settrace, trace)"
    code = INTERRUPTED.format(in_finish=where == "finish", begin=begin, stride=STRIDE)
    ended = watched(code, tmp_path, mode="offline", hang_s=600)

    assert (ended.returncode, ended.stderr) == (0, "")
    lines = int(ended.stdout)
    record("Ctrl-C at a line of " + where, lines=lines, stride=STRIDE)
    assert lines > 15
    left = {state["run"]: state["finished"] for state in _native.journal_list(str(tmp_path / "runferry"))}
    assert left == {f"local/shutdown/line-{number}": True for number in range(1, lines + 1, STRIDE)}
