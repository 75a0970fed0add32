"""Forks trainings and recoveries, and kills them: `python -m tests.support.kills`, orders on stdin, answers on stdout, a JSON line each.

One warm process forks them all, so that a kill costs tens of milliseconds; the native module starts its threads in the forks only. How many
calls had returned stands in memory that parent and child share, written after each call, so it survives the kill as exactly as a
pipe would. `Killer` is the other end, for tests.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.ledger import Issued, call

if TYPE_CHECKING:
    from types import TracebackType

MOST_THREADS = 8
LONGEST_S = 60.0
FLUSH_EVERY = 16
ENDED_BADLY = 70


@dataclass(frozen=True)
class Training:
    """A process that logs `calls` calls in each thread, flushes in between, and finishes; unless it is killed before."""

    root: str
    run_id: str
    mode: str = "offline"
    calls: int = 1 << 40
    threads: int = 1
    plan: str = ""
    trace: str = ""
    flushes: bool = True
    kill_at_call: int | None = None
    """Killed from outside when thread 0 has returned from so many calls; `kill_after_s` says how much later."""
    kill_after_s: float | None = None


@dataclass(frozen=True)
class Recovery:
    """A process that takes over what dead trainings left below `roots`: by `sync`, the next `init`, or a local `server`."""

    roots: tuple[str, ...]
    by: str = "sync"
    plan: str = ""
    trace: str = ""
    kill_after_s: float | None = None
    """Killed from outside, so long after its start."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: by SIGKILL or by itself; and what it says it logged."""

    was_killed: bool
    issued: Issued


class Killer:
    """The warm process; a context manager."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        """Start it in `folder`, with the environment of a client."""
        root = Path(__file__).resolve().parents[2]
        self._errors = folder / "killer.err"
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.kills"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                env={**environment, "PYTHONPATH": f"{environment['PYTHONPATH']}{os.pathsep}{root}"},
                text=True,
            )

    def run(self, order: Training | Recovery) -> Ended:
        """Have a process forked, and wait for its end.

        Raises:
            AssertionError: It hung, or ended otherwise than by a kill or well.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"kind": type(order).__name__, **asdict(order)}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the killer is gone: {self._errors.read_text()}"
        answer = json.loads(line)
        assert answer["status"] in {0, -signal.SIGKILL}, f"{order} ended with {answer}: {self._errors.read_text()[-4000:]}"
        path = f"local/kills/{order.run_id}" if isinstance(order, Training) else ""
        issued = Issued(path, tuple(answer["returned"]), answer["acked_frames"])
        return Ended(answer["status"] != 0, issued)

    def __enter__(self) -> Killer:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


class _Shared:
    """Memory of parent and child: calls returned by each thread, and the highest durable ack."""

    def __init__(self) -> None:
        self.words = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    def answer(self, threads: int) -> dict[str, Any]:
        return {"returned": list(self.words[:threads]), "acked_frames": self.words[MOST_THREADS]}


def _train(order: Training, shared: _Shared) -> None:
    import runferry  # noqa: PLC0415 - imported once in `main`, cheap here

    run = runferry.init(project="kills", id=order.run_id, dir=order.root, mode=order.mode, settings={"silent": True})

    def work(thread: int) -> None:
        for number in range(order.calls):
            row, is_whole = call(thread, number)
            run.log(row) if is_whole else run.log(row, commit=False)
            shared.words[thread] = number + 1
            if order.flushes and thread == 0 and number % FLUSH_EVERY == FLUSH_EVERY - 1:
                run.flush(durable=True, acked=order.mode == "online", timeout=LONGEST_S)
                shared.words[MOST_THREADS] = max(shared.words[MOST_THREADS], run.status().acked_frames)

    others = [threading.Thread(target=work, args=(thread,)) for thread in range(1, order.threads)]
    for other in others:
        other.start()
    work(0)
    for other in others:
        other.join()
    run.finish(timeout=LONGEST_S)


def _recover(order: Recovery) -> None:
    from runferry import _native  # noqa: PLC0415 - its threads begin in forks only

    base_url, roots = os.environ["RUNFERRY_BASE_URL"], [str(Path(root) / "runferry") for root in order.roots]
    if order.by == "sync":
        if wrong := [result for result in _native.sync(roots, base_url, None, lambda _: None) if result["error"]]:
            raise RuntimeError(str(wrong))
    elif order.by == "server":
        follower = _native.Follower(roots, base_url)
        _wait(lambda: set(follower.status().values()) <= {"done", "not ours"} and _is_quiet(roots), "the server has followed everything")
        follower.stop()
    else:
        _adopt_by_init(order, roots)


def _adopt_by_init(order: Recovery, roots: list[str]) -> None:
    import runferry  # noqa: PLC0415 - as above

    for number, root in enumerate(order.roots):
        run = runferry.init(project="recoveries", id=f"r{os.getpid()}-{number}", dir=root, mode="online", settings={"silent": True})
        own = run.status().journal_dir
        _wait(lambda: _is_quiet([roots[number]], but=own), "the next init has adopted everything")  # noqa: B023 - called at once
        run.finish(timeout=LONGEST_S)


def _is_quiet(roots: list[str], but: str | None = None) -> bool:
    """Whether no ring is left, and no journal of an online run that has frames for the server."""
    from runferry import _native  # noqa: PLC0415 - as above

    for state in (state for root in roots for state in _native.journal_list(root) if state["path"] != but):
        if Path(f"/dev/shm/runferry-{Path(state['path']).name}.ring").exists():  # noqa: S108 - where rings lie
            return False
        if but is not None and state["mode"] == "online" and state["frames"]:
            return False
    return True


def _wait(holds: Any, what: str) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.002)


def _fork(order: Training | Recovery) -> dict[str, Any]:
    shared = _Shared()
    pid = os.fork()
    if pid == 0:
        try:
            os.environ["RUNFERRY_FAILPOINTS"] = order.plan
            if order.trace:
                os.environ["RUNFERRY_FAILPOINTS_TRACE"] = order.trace
            _train(order, shared) if isinstance(order, Training) else _recover(order)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child's last word
            import traceback  # noqa: PLC0415 - as rarely as this

            traceback.print_exc()
        finally:
            os._exit(ENDED_BADLY)
    if isinstance(order, Training) and order.kill_at_call is not None:
        deadline = time.monotonic() + LONGEST_S
        while shared.words[0] < order.kill_at_call and time.monotonic() < deadline:
            time.sleep(0.0002)
    if order.kill_after_s is not None:
        time.sleep(order.kill_after_s)
        os.kill(pid, signal.SIGKILL)
    status = _ended(pid)
    return {"status": status, **shared.answer(order.threads if isinstance(order, Training) else 0)}


def _ended(pid: int) -> int | str:
    ending = os.pidfd_open(pid)
    try:
        is_over, _, _ = select.select([ending], [], [], 2 * LONGEST_S)
    finally:
        os.close(ending)
    if not is_over:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if is_over else "hung"


def main() -> None:
    """Carry out orders until there are no more."""
    import runferry._convert  # noqa: PLC0415 - the warm start
    import runferry._http  # noqa: PLC0415
    import runferry.data.histogram  # noqa: F401, PLC0415
    from runferry import _native  # noqa: F401, PLC0415

    for line in sys.stdin:
        told = json.loads(line)
        kind = told.pop("kind")
        order = Training(**told) if kind == "Training" else Recovery(**{**told, "roots": tuple(told["roots"])})
        sys.stdout.write(json.dumps(_fork(order)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
