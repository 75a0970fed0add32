"""How much slower is a training loop that logs 50 scalars at each of 2,000 steps a second?

A small network learns in numpy, with as many examples a step as make it take about 0.5 ms, the 50 statistics that are logged included.
Stretches without and with Runferry take turns; in both a step ends with the statistics in a dict, in the one it also logs it to a run
with ring, journal and server on. Units: us per step, medians of all steps of a kind, and the difference in percent: the ratio of the
two medians, and the median of the ratios of neighbouring stretches, each as a whole.

Not measured: what the statistics and their dict cost; a loop that keeps every core busy. The background threads and the server have
the other core. Between stretches, untimed, the run comes to rest, so that no stretch pays for its neighbour.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
import runferry

from benchmarks.figures import ROOT, Figure
from benchmarks.scene import PROJECT, running_server
from tests.support.servers import server_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

STEP_US = 500
STRETCH_STEPS, PAIRS = 200, 60
FLUSH_TIMEOUT_S, TIMEOUT_S = 60.0, 300
_FEATURES, _HIDDEN, _CLASSES = 64, 96, 10
_CALIBRATION_STEPS = 200
NAMES = [f"{kind}/{tensor}/{what}" for kind in ("weights", "gradients") for tensor in ("w1", "b1", "w2", "b2")
         for what in ("mean", "std", "norm", "least", "greatest", "size")] + ["loss", "accuracy"]  # fmt: skip


class Training:
    """A network of one hidden layer that learns to tell clusters apart, by plain gradient descent."""

    def __init__(self, examples: int) -> None:
        draw = np.random.default_rng(7)
        self._labels = draw.integers(0, _CLASSES, examples)
        centres = draw.standard_normal((_CLASSES, _FEATURES))
        self._inputs = (centres[self._labels] + 0.5 * draw.standard_normal((examples, _FEATURES))).astype(np.float32)
        shapes = ((_FEATURES, _HIDDEN), (_HIDDEN,), (_HIDDEN, _CLASSES), (_CLASSES,))
        self._weights = [(0.1 * draw.standard_normal(shape)).astype(np.float32) for shape in shapes]

    def step(self) -> list[Any]:
        """One step of descent; returns the 50 statistics of `NAMES`."""
        w1, b1, w2, b2 = self._weights
        every = np.arange(len(self._labels))
        hidden = np.maximum(self._inputs @ w1 + b1, 0)
        scores = hidden @ w2 + b2
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        loss = -np.log(chances[every, self._labels]).mean()
        accuracy = (scores.argmax(axis=1) == self._labels).mean()
        chances[every, self._labels] -= 1
        chances /= len(every)
        back = (chances @ w2.T) * (hidden > 0)
        gradients = [self._inputs.T @ back, back.sum(axis=0), hidden.T @ chances, chances.sum(axis=0)]
        for weights, gradient in zip(self._weights, gradients, strict=True):
            np.subtract(weights, 0.05 * gradient, out=weights)
        return [value for tensor in (*self._weights, *gradients) for value in _statistics(tensor)] + [float(loss), float(accuracy)]


def measure() -> Iterator[Figure]:
    """In a process of its own: numpy's threads wait for each other by spinning, and where cores are busy that is all one would measure."""
    with running_server() as server:
        environment = {**server_environment(), "OPENBLAS_NUM_THREADS": "1", "RUNFERRY_BASE_URL": server.url}
        environment["PYTHONPATH"] += f":{ROOT}"
        command = [sys.executable, "-m", "benchmarks.training_effect"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=True)
    yield Figure(f"{len(NAMES)} scalars at each step, {PAIRS} pairs of {STRETCH_STEPS:,} steps", json.loads(done.stdout))


def main() -> None:
    """Stretches of both kinds by turns, and their order changed from pair to pair."""
    training = Training(_examples())
    with tempfile.TemporaryDirectory(prefix="runferry-bench-") as folder, _run_in(folder) as run:
        log, plain_ns, logged_ns, ratios = run.log, list[int](), list[int](), list[float]()
        for pair in range(-1, PAIRS):
            pair_ns = {}
            for is_logged in (pair % 2 == 0, pair % 2 == 1):
                pair_ns[is_logged] = _stretch(training, log if is_logged else None)
                run.flush(acked=True, timeout=FLUSH_TIMEOUT_S)
            if pair >= 0:
                plain_ns += pair_ns[False]
                logged_ns += pair_ns[True]
                ratios.append(sum(pair_ns[True]) / sum(pair_ns[False]))
        dropped = run.status().dropped_rows
    plain_us, logged_us = statistics.median(plain_ns) / 1000, statistics.median(logged_ns) / 1000
    quarters = statistics.quantiles(ratios, n=4)
    found = {
        "plain_step_us": plain_us,
        "logged_step_us": logged_us,
        "slower_percent": 100 * (logged_us / plain_us - 1),
        "slower_by_stretches_percent": 100 * (statistics.median(ratios) - 1),
        "first_quarter_percent": 100 * (quarters[0] - 1),
        "last_quarter_percent": 100 * (quarters[2] - 1),
        "steps_per_s": 1e6 / logged_us,
        "dropped": dropped,
    }
    print(json.dumps(found))


def _run_in(folder: str) -> runferry.Run:
    return runferry.init(project=PROJECT, dir=folder, settings={"silent": True, "disable_git": True})


def _stretch(training: Training, log: Callable[[dict[str, Any]], None] | None) -> list[int]:
    durations_ns = []
    for _ in range(STRETCH_STEPS):
        began_ns = perf_counter_ns()
        row = dict(zip(NAMES, training.step(), strict=True))
        if log is not None:
            log(row)
        durations_ns.append(perf_counter_ns() - began_ns)
    return durations_ns


def _examples() -> int:
    """So many that a step takes about `STEP_US`."""
    least, most = 1, 4096
    while least < most:
        examples = (least + most) // 2
        training = Training(examples)
        took_ns: Sequence[int] = [_timed_ns(training.step) for _ in range(_CALIBRATION_STEPS)]
        if statistics.median(took_ns) < 1000 * STEP_US:
            least = examples + 1
        else:
            most = examples
    return least


def _timed_ns(call: Callable[[], object]) -> int:
    began_ns = perf_counter_ns()
    call()
    return perf_counter_ns() - began_ns


def _statistics(tensor: NDArray[np.float32]) -> list[Any]:
    """Six numbers of a tensor, as Python floats, from two sums."""
    flat = tensor.ravel()
    count, total, squares = flat.size, float(flat.sum()), float(flat @ flat)
    mean = total / count
    return [mean, max(0.0, squares / count - mean * mean) ** 0.5, squares**0.5, float(flat.min()), float(flat.max()), count]


if __name__ == "__main__":
    main()
