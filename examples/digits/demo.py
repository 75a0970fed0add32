"""Two workers learn to read digits while one of them is killed and their server goes away; then every row is accounted for.

What happens, in this order: the server starts on a free port; two ranks train and log every batch; rank 1 dies by SIGKILL and is
started again; the server is stopped and started again; both ranks finish; everything is read back and compared with what the
workers know to have logged. In a terminal the server goes on serving until Ctrl-C.

Exit code: 0 if every row is there once and unchanged, 1 if not, 2 if a process failed, 130 after Ctrl-C in mid-training.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dataset
import ledger
import runferry
from audit import compare
from children import Child, ChildError, Server, own_environment, remove_rings
from report import RankResult, table_of
from stored import wait_for_merge
from train import BATCH_IMAGES, PROJECT, run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

WORLD_SIZE = 2
KILLED_RANK = 1
KILL_AT_RATIO, OUTAGE_AT_RATIO = 0.3, 0.55
DEAD_S, OUTAGE_S = 0.7, 2.0
WORKER_STOP_S = 5.0
TRAINING_TIMEOUT_S = 300.0
POLL_S = 0.05
TELL_EVERY_S = 2.0
TRAIN = Path(__file__).with_name("train.py")
EXIT_INCOMPLETE, EXIT_FAILED, EXIT_INTERRUPTED = 1, 2, 130


class Training:
    """The ranks, seen from outside."""

    def __init__(self, work: Path, base_url: str, epochs: int, step_ms: float) -> None:
        self.work = work
        train, _ = dataset.load(work)
        self.planned_rows = epochs * (len(train.shard(KILLED_RANK, WORLD_SIZE).labels) // BATCH_IMAGES)
        self.kills = [0] * WORLD_SIZE
        self._arguments = ["--world-size", str(WORLD_SIZE), "--epochs", str(epochs), "--step-ms", str(step_ms), "--work", str(work)]
        self._environment = own_environment(
            RUNFERRY_BASE_URL=base_url, RUNFERRY_DIR=str(work), RUNFERRY_CONFIG_DIR=str(work), RUNFERRY_ENTITY="local"
        )
        self._workers: dict[int, Child] = {}
        self._deadline_s = time.monotonic() + TRAINING_TIMEOUT_S
        self._told_s = time.monotonic()

    def start(self, rank: int) -> None:
        """Start a rank, or start it again."""
        log = self.work / f"rank-{rank}.log"
        self._workers[rank] = Child(f"rank {rank}", [str(TRAIN), "--rank", str(rank), *self._arguments], log, self._environment)

    def kill(self, rank: int) -> None:
        """SIGKILL a rank."""
        self._workers[rank].kill()
        self.kills[rank] += 1

    def end(self) -> None:
        """End what still runs, as Ctrl-C would."""
        for worker in self._workers.values():
            worker.end(signal.SIGINT, WORKER_STOP_S)

    def rows(self, rank: int) -> int:
        """Calls of `log` that have returned in a rank so far."""
        return ledger.count(self.ledger_of(rank))

    def ledger_of(self, rank: int) -> Path:
        """Where a rank keeps its account."""
        return self.work / f"rank-{rank}.ledger"

    def watch_until(self, is_reached: Callable[[], bool], *, without: int | None = None) -> None:
        """Wait, and tell every two seconds how the ranks are doing.

        Args:
            is_reached: What is waited for.
            without: A rank that is dead and shall be.

        Raises:
            ChildError: A rank failed, or it takes far too long.
        """
        while not is_reached():
            for rank, worker in self._workers.items():
                if rank != without:
                    worker.require_well()
            if time.monotonic() > self._deadline_s:
                raise ChildError(f"the training was not over after {TRAINING_TIMEOUT_S:.0f} s")
            if time.monotonic() - self._told_s > TELL_EVERY_S:
                self._told_s = time.monotonic()
                say("   ".join(self._told(rank) for rank in self._workers))
            time.sleep(POLL_S)

    def watch_for(self, duration_s: float, *, without: int | None = None) -> None:
        """Watch for so long."""
        until_s = time.monotonic() + duration_s
        self.watch_until(lambda: time.monotonic() >= until_s, without=without)

    def is_over(self) -> bool:
        """Whether every rank has ended well."""
        return not any(worker.is_running or worker.process.returncode for worker in self._workers.values())

    def _told(self, rank: int) -> str:
        lines = self._workers[rank].last_words().splitlines()
        latest = next((line for line in reversed(lines) if line.startswith("epoch ")), "loading")
        return f"rank {rank}: {latest}"


def say(text: str) -> None:
    """One line of the story, with the second it happened in."""
    print(f"  {time.monotonic() - _BEGAN_S:5.1f} s  {text}", flush=True)


_BEGAN_S = time.monotonic()


def tell_story(server: Server, training: Training) -> None:
    """The training and its two accidents."""
    for rank in range(WORLD_SIZE):
        training.start(rank)
    say(f"{WORLD_SIZE} ranks train, every batch is logged")
    training.watch_until(lambda: training.rows(KILLED_RANK) >= KILL_AT_RATIO * training.planned_rows)

    training.kill(KILLED_RANK)
    say(f"rank {KILLED_RANK} killed (SIGKILL) after {training.rows(KILLED_RANK):,} calls; rank 0 goes on")
    training.watch_for(DEAD_S, without=KILLED_RANK)
    training.start(KILLED_RANK)
    say(f"rank {KILLED_RANK} started again from its last checkpoint")
    training.watch_until(lambda: training.rows(0) >= OUTAGE_AT_RATIO * training.planned_rows)

    code = server.stop()
    say(f"server stopped (SIGTERM, exit code {code}); the ranks train on and log to their journals")
    rows_before = sum(training.rows(rank) for rank in range(WORLD_SIZE))
    training.watch_for(OUTAGE_S)
    server.start()
    rows_meanwhile = sum(training.rows(rank) for rank in range(WORLD_SIZE)) - rows_before
    say(f"server started again; {rows_meanwhile:,} calls were logged while it was away")
    training.watch_until(training.is_over)
    say("both ranks have finished")


def result_of(api: runferry.Api, training: Training, rank: int) -> RankResult:
    """Read a run back and compare it with its ledger."""
    run = api.run(f"local/{PROJECT}/{run_id(rank)}")
    entries = ledger.read(training.ledger_of(rank))
    journaled_bytes, journaled_points = RankResult.journal_counts(training.work / f"rank-{rank}.status.json")
    return RankResult(
        audit=compare(entries, run.scan_history(), kills=training.kills[rank]),
        entries=entries,
        starts=len(run.writers()),
        gaps=int(run.metadata["gaps"] or 0),
        test_accuracy_ratio=float(run.summary.get("test/accuracy", 0.0)),
        journaled_bytes=journaled_bytes,
        journaled_points=journaled_points,
    )


def demonstrate(told: argparse.Namespace, folder: Path) -> int:
    """The whole demo in `folder`; returns the exit code."""
    with contextlib.ExitStack() as stack:
        server = Server(folder)
        stack.callback(server.stop)
        server.start()
        page = f"{server.url}/p/local/{PROJECT}"
        say(f"server started; watch it at  {page}")
        training = Training(folder, server.url, told.epochs, told.step_ms)
        stack.callback(training.end)
        tell_story(server, training)

        api = runferry.Api(overrides={"base_url": server.url, "entity": "local"})
        results = [result_of(api, training, rank) for rank in range(WORLD_SIZE)]
        stored = wait_for_merge(server.data, sum(result.audit.points for result in results))
        print(f"\n{table_of(results, stored)}\n", flush=True)
        is_exact = all(result.audit.is_exact for result in results)
        print("  every row is there, once, bit for bit" if is_exact else "  ROWS ARE MISSING, DOUBLED OR CHANGED", flush=True)
        if sys.stdout.isatty():
            print(f"\n  look at it: {page}\n  serving until Ctrl-C", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                server.wait_while_serving()
        return 0 if is_exact else EXIT_INCOMPLETE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = argparse.ArgumentParser(description="Train on two ranks, kill one, stop the server, and account for every row.")
    options.add_argument("--epochs", type=int, default=25, help="default: %(default)s")
    options.add_argument("--step-ms", type=float, default=9.0, help="a batch takes at least this long (default: %(default)s)")
    options.add_argument("--keep", type=Path, metavar="DIR", help="put everything into DIR, which must be new or empty, and keep it")
    told = options.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if told.keep is not None:
        told.keep.mkdir(parents=True, exist_ok=True)
        if any(told.keep.iterdir()):
            options.error(f"--keep {told.keep} is not empty")
    folder = told.keep.absolute() if told.keep is not None else Path(tempfile.mkdtemp(prefix="runferry-demo-"))
    try:
        return demonstrate(told, folder)
    except (ChildError, runferry.Error) as error:
        print(f"demo: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        if told.keep is None:
            remove_rings(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Take SIGTERM and SIGHUP as Ctrl-C, so that no child is left behind."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
