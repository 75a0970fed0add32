"""The fault tests in their long form: `make torture`, or `make torture PARTS="kills power"`, or `SCALE=0.1` for a tenth of it.

Every part runs tests that `make test` runs, too, with larger counts (`tests/support/effort.py`) and without their timeouts. What they
saw is appended, one JSON object a line, to `tests/results/<date>.jsonl`: first the machine, then each part's figures and its outcome.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_RUN = 77
"""How a part's command ends where this machine lacks what it needs; it says what."""


@dataclass(frozen=True, slots=True)
class Part:
    """Tests that answer one question."""

    question: str
    command: str
    """Words for a shell; `pytest` and `cargo` as `make test` calls them."""
    efforts: dict[str, int] = field(default_factory=dict)
    """Counts at scale 1."""


PARTS = {
    "kills": Part(
        "is a call that returned lost or doubled by SIGKILL at a random instant?",
        "pytest tests/fault/test_kill_trainer.py",
        {"kills": 20000},
    ),
    "walk": Part(
        "and by SIGKILL at each step of packing, sending and recovery?",
        "pytest tests/fault/test_kill_walk.py tests/fault/test_fault_walk.py",
        {"hits": 20},
    ),
    "ring": Part("is an entry of the ring?", "cargo test --release -p runferry-ring --test kill", {"kills": 20000}),
    "server-kills": Part(
        "is an acked row lost or doubled when the server is killed?",
        "pytest tests/fault/test_kill_server.py tests/fault/test_server_kill_walk.py",
        {"server_kills": 1000, "kill_walk": 100},
    ),
    "power": Part("is a durable row lost by a power cut?", "pytest tests/fault/test_power_cuts.py", {"power_cuts": 1000}),
    "restarts": Part("is a row lost or doubled in minutes of restarts?", "pytest tests/fault/test_server_restarts.py", {"restarts_s": 600}),
    "network": Part(
        "does sending resume after a reset at any byte?",
        "pytest tests/fault/test_network.py tests/fault/test_silence.py",
        {"network_cuts": 4096, "network_flaps_s": 60},
    ),
    "servers": Part(
        "does a server that lies harm anything?",
        "pytest tests/fault/test_hostile_server.py tests/fault/test_keys.py",
        {"hostile_servers": 200, "key_rounds": 100},
    ),
    "clients": Part(
        "do hostile clients, or very many, harm anything?",
        "pytest tests/fault/test_hostile_clients.py tests/fault/test_hostile_frames.py tests/fault/test_swarm.py",
        {"hostile_calls": 1000000, "swarm_herd": 1000, "swarm_crowd": 200},
    ),
    "forks": Part("does a fork hang or lose rows?", "pytest tests/fault/test_forks.py", {"forks": 10000, "spawns": 1000, "workers": 64}),
    "exits": Part(
        "does any end of a program hang, crash or lose rows?",
        "pytest tests/fault/test_exit.py tests/fault/test_exit_matrix.py tests/fault/test_shutdown.py tests/fault/test_signals.py",
        {"exits": 1000, "exit_rounds": 100, "finalizers": 1000, "alarm_rows": 1000000, "interrupt_stride": 1},
    ),
    "starved": Part(
        "does a process without CPU, or one that stands still, lose rows?",
        "pytest tests/fault/test_starved.py tests/fault/test_clocks.py",
        {"busy_threads": 32, "starved_s": 60, "stopped_s": 600},
    ),
    "frames": Part(
        "can frames in any order, or a rotten database, harm the store unseen?",
        "pytest tests/fault/test_frames_again.py tests/fault/test_rotten_database.py",
        {"frame_histories": 5000, "database_flips": 2000},
    ),
    "threads": Part("are rows of many threads counted exactly?", "pytest tests/fault/test_threads.py", {"thread_rows": 100_000}),
    "worlds": Part(
        "does a simulated world break a promise?",
        "cargo test --release -p runferry-sim --test seeds in_every",
        {"seeds": 50_000},
    ),
    "crashes": Part(
        "is there a state of un-synced writes that cannot be recovered?",
        "cargo test --release -p runferry-journal --test crash_states",
        {"crash_states": 20_000_000},
    ),
    "reference": Part(
        "does a cut or a flip cost more than its frame?",
        "cargo test --release -p runferry-journal --test reference",
        {"reference_bytes": 1 << 20},
    ),
    "pressure": Part(
        "what goes at the journal's cap, and is memory bounded?",
        "pytest tests/fault/test_backpressure.py tests/fault/test_memory.py",
        {"backpressure_rows": 2_000_000, "memory_rows": 2_000_000, "metric_names": 300_000},
    ),
    "merges": Part("does a killed merge lose or double rows?", "pytest tests/fault/test_server_merges.py", {"merge_rounds": 500}),
    "fuzz": Part("do any bytes crash a reader?", "sh rust/fuzz/run.sh", {"fuzz_runs": 100_000_000}),
}


def main() -> int:
    """Run the parts asked for; 1 if any failed or was not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the counts of the long form")
    asked = parser.parse_args()
    started = dt.datetime.now(dt.timezone.utc)
    results = ROOT / "tests" / "results" / f"{started:%Y-%m-%d}.jsonl"
    results.parent.mkdir(exist_ok=True)
    write(results, at=f"{started:%Y-%m-%dT%H:%MZ}", scale=asked.scale, **machine())
    outcomes = [run(name, PARTS[name], asked.scale, results) for name in asked.parts or PARTS]
    sys.stdout.write(f"written: {results.relative_to(ROOT)}\n")
    return int(not all(outcomes))


def run(name: str, part: Part, scale: float, results: Path) -> bool:
    """One part; whether it was run and all its tests passed."""
    efforts = {f"RUNFERRY_EFFORT_{effort.upper()}": str(max(1, round(count * scale))) for effort, count in part.efforts.items()}
    words = part.command.split()
    if words[0] == "pytest":
        words = [sys.executable, "-m", "pytest", "-q", "-rs", *words[1:]]
    sys.stdout.write(f"{name}: {part.question} {' '.join(f'{key}={value}' for key, value in efforts.items())} {part.command}\n")
    sys.stdout.flush()
    began_s, began_at = time.monotonic(), commit()
    ended = subprocess.run(words, cwd=ROOT, env={**os.environ, **efforts, "RUNFERRY_RESULTS": str(results)}, check=False)
    outcome = {0: "passed", NOT_RUN: "not run"}.get(ended.returncode, f"failed ({ended.returncode})")
    took_s = round(time.monotonic() - began_s)
    write(results, part=name, outcome=outcome, took_s=took_s, command=part.command, commit=began_at, **efforts)
    return ended.returncode == 0


def machine() -> dict[str, str | int]:
    """Where and of what the figures are."""
    return {
        "commit": commit(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """What the checkout is of; results of earlier runs in it do not make it another one."""
    words = ["git", "describe", "--always"]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    changed = ["git", "diff", "--quiet", "HEAD", "--", ".", ":!tests/results"]
    return told + "-dirty" * subprocess.run(changed, cwd=ROOT, check=False).returncode


def write(results: Path, **line: str | float) -> None:
    """Append one line."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
