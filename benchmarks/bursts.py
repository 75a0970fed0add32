"""The loop by which calls are timed, ours and the peers' alike: bursts of calls, several kinds of call taking turns.

Each call is timed alone, the timer's own cost taken off. Between two bursts whatever works in the background comes to rest, so a
call pays for itself and not for its neighbour. As the kinds take turns burst by burst, a change of the machine's pace meets all
of them, and the ratio of their medians holds where the medians themselves do not. Standard library only: peers' environments
have nothing else of ours.
"""

from __future__ import annotations

import gc
import itertools
import random
import statistics
import struct
from dataclasses import dataclass
from time import monotonic, perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Rows = Sequence[dict[str, Any]]

BURST_CALLS = 500
_TIMER_SAMPLES = 500
_LEAST_SAMPLES = {"p99": 100, "p99.9": 1000}


@dataclass(frozen=True)
class Kind:
    """One kind of call."""

    burst: Callable[[], list[int]]
    """Makes some calls; returns the nanoseconds of each, the timer included."""
    rest: Callable[[], object]
    """Returns when nothing of the burst is left to do."""


def calling(call: Callable[[dict[str, Any]], object], rows: Rows, rest: Callable[[], object], *, most_s: float = 1.0) -> Kind:
    """`call(row)`. A burst of slow calls ends early, at the first call after `most_s`."""

    def burst() -> list[int]:
        durations_ns = []
        deadline_s = monotonic() + most_s
        for row in rows:
            began_ns = perf_counter_ns()
            call(row)
            durations_ns.append(perf_counter_ns() - began_ns)
            if monotonic() > deadline_s:
                break
        return durations_ns

    return Kind(burst, rest)


def stepping(call: Callable[..., object], rows: Rows, rest: Callable[[], object]) -> Kind:
    """`call(row, step=step)` with a step that grows for ever."""
    steps = itertools.count()

    def burst() -> list[int]:
        durations_ns = []
        for row, step in zip(rows, steps, strict=False):
            began_ns = perf_counter_ns()
            call(row, step=step)
            durations_ns.append(perf_counter_ns() - began_ns)
        return durations_ns

    return Kind(burst, rest)


def appending(rows: Rows) -> Kind:
    """The yardstick: `kept.append(dict(row))`, the least that keeps a copy of a row; the list is emptied between bursts.

    Its last row stays: with nothing above them the allocator would hand the pages of the others back, and the next burst would pay the
    kernel for new ones, half of the time of wide rows; whether it did was chance.
    """
    kept: list[dict[str, Any]] = []

    def burst() -> list[int]:
        durations_ns = []
        for row in rows:
            began_ns = perf_counter_ns()
            kept.append(dict(row))
            durations_ns.append(perf_counter_ns() - began_ns)
        return durations_ns

    def rest() -> None:
        del kept[:-1]

    return Kind(burst, rest)


def paced(call: Callable[[dict[str, Any]], object], rows: Rows, rest: Callable[[], object], *, per_s: int, at_once: int = 10) -> Kind:
    """`call(row)`, some at once and then a sleep, so that a burst makes `per_s` calls a second."""

    def burst() -> list[int]:
        durations_ns = []
        began_s = monotonic()
        for number, row in enumerate(rows):
            if number % at_once == 0:
                sleep(max(0.0, began_s + number / per_s - monotonic()))
            began_ns = perf_counter_ns()
            call(row)
            durations_ns.append(perf_counter_ns() - began_ns)
        return durations_ns

    return Kind(burst, rest)


def in_turns(kinds: Mapping[str, Kind], *, bursts: int, warm_up: int = 4) -> dict[str, list[float]]:
    """Nanoseconds of each call of each kind, those of the first `warm_up` bursts left out.

    Args:
        kinds: Name to kind of call, in the order in which they take turns.
        bursts: Bursts of each kind that count.
        warm_up: Bursts of each kind before them.
    """
    found: dict[str, list[int]] = {name: [] for name in kinds}
    timer_ns: list[int] = []
    gc.collect()
    gc.freeze()  # the prepared rows are no part of what a collection during a burst should walk
    for burst in range(warm_up + bursts):
        timer_ns += _of_nothing()
        for name, kind in kinds.items():
            durations_ns = kind.burst()
            kind.rest()
            if burst >= warm_up:
                found[name] += durations_ns
    gc.unfreeze()
    of_timer_ns = statistics.median(timer_ns)
    return {name: [max(0.0, one - of_timer_ns) for one in durations_ns] for name, durations_ns in found.items()}


def rows(scalars: int, kind: Callable[[float], Any] = float, *, fresh_keys: bool = False, count: int = BURST_CALLS) -> Rows:
    """A burst of rows with values of their own, float32-exact, under the same key objects unless these shall be fresh."""
    draw = random.Random(scalars)  # noqa: S311 - values of a metric
    names = [f"train/metric_{index}" for index in range(scalars)]
    return [
        {("".join([*name]) if fresh_keys else name): kind(struct.unpack("f", struct.pack("f", draw.gauss(0, 1)))[0]) for name in names}
        for _ in range(count)
    ]


def quantiles(samples: Sequence[float], unit: str) -> dict[str, float]:
    """Median, and the 99th and 99.9th percentile where there are samples enough for them."""
    ordered = sorted(samples)
    found = {f"median_{unit}": statistics.median(ordered)}
    for name, least in _LEAST_SAMPLES.items():
        if len(ordered) >= least:
            found[f"{name}_{unit}"] = ordered[int(float(name[1:]) / 100 * (len(ordered) - 1))]
    return found


def _of_nothing() -> list[int]:
    """What the timer measures where there is nothing."""
    durations_ns = []
    for _ in range(_TIMER_SAMPLES):
        began_ns = perf_counter_ns()
        durations_ns.append(perf_counter_ns() - began_ns)
    return durations_ns
