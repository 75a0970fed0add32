"""Named shapes of what trainings log. The same seed gives the same rows for ever, so that figures of two versions can be compared.

Noise is float32-exact: losses come out of float32 (or narrower) tensors, and `float(loss)` keeps those bits. Noise of all 53 bits
would make every store look twice as large as it is in practice, and noise-free curves half as large.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import runferry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SEED = 20_240_229
_CURVES = ("loss", "grad_norm", "accuracy", "perplexity", "weight_norm", "loss_aux", "tokens_per_s")


@dataclass(frozen=True, slots=True)
class Workload:
    """Rows, and how they come."""

    name: str
    rows: Sequence[dict[str, Any]]
    burst_rows: int = 0
    """Rows logged without a pause; 0: all of them."""
    pause_s: float = 0.0

    @property
    def points(self) -> int:
        """Values in all rows; a histogram is one."""
        return sum(len(row) for row in self.rows)

    def play(self, run: runferry.Run) -> None:
        """Log every row in its rhythm."""
        for first in range(0, len(self.rows), self.burst_rows or len(self.rows)):
            for row in self.rows[first : first + (self.burst_rows or len(self.rows))]:
                run.log(row)
            time.sleep(self.pause_s)


def loss_curve(rows: int) -> Workload:
    """The standard: 10 scalars a row, seven noisy float32 curves, a smooth float64 learning rate, two integers."""
    draw = np.random.default_rng(_SEED)
    progress = np.arange(rows) / rows
    decay = 0.4 + 2.2 * np.exp(-6 * progress)
    curves = {
        f"train/{name}": _float32(decay * (index + 1) * (1 + 0.05 * draw.standard_normal(rows))) for index, name in enumerate(_CURVES)
    }
    columns = {
        **curves,
        "learning_rate": (3e-4 * 0.5 * (1 + np.cos(np.pi * progress))).tolist(),
        "epoch": (np.arange(rows) * 10 // rows).tolist(),
        "tokens": (np.arange(rows) * 524_288).tolist(),
    }
    return Workload("loss curve, 10 scalars", _rows_of(columns))


def wide(rows: int, metrics: int = 200) -> Workload:
    """Many metrics in every row, as with norms per layer."""
    draw = np.random.default_rng(_SEED)
    columns = {f"norm/layer.{index}.weight": _float32(1 + 0.1 * draw.standard_normal(rows)) for index in range(metrics)}
    return Workload(f"wide, {metrics} scalars", _rows_of(columns))


def sparse(rows: int, metrics: int = 50, per_row: int = 3) -> Workload:
    """Each row holds a few of many metrics, as from tasks that take turns."""
    draw = np.random.default_rng(_SEED)
    chosen = draw.random((rows, metrics)).argsort(axis=1, kind="stable")[:, :per_row].tolist()
    values = _float32(draw.standard_normal(rows * per_row))
    made = [{f"task/{one}/reward": values[row * per_row + place] for place, one in enumerate(of_row)} for row, of_row in enumerate(chosen)]
    return Workload(f"sparse, {per_row} of {metrics} scalars", made)


def bursty(rows: int, burst_rows: int = 250, pause_s: float = 0.2) -> Workload:
    """The standard rows in bursts with pauses, so that frames close half full."""
    return Workload(f"bursts of {burst_rows} rows", loss_curve(rows).rows, burst_rows, pause_s)


def rank(rows: int) -> Workload:
    """One of 1,000 ranks: two of the standard rows at a time and a pause, so that a frame holds 20 points."""
    return Workload("one of 1,000 ranks", loss_curve(rows).rows, burst_rows=2, pause_s=0.3)


def histograms(rows: int, per_row: int = 4) -> Workload:
    """Histograms of 64 bins of gradients that shrink, beside a loss and a learning rate."""
    draw = np.random.default_rng(_SEED)
    made = []
    for row in range(rows):
        scale = 1 / (1 + row / 100)
        gradients = (scale * draw.standard_normal((per_row, 4096))).astype(np.float32)
        made.append(
            {f"gradients/{index}": runferry.Histogram(one) for index, one in enumerate(gradients)}
            | {"loss": float(np.float32(scale + 0.01 * draw.standard_normal())), "learning_rate": 3e-4 * scale}
        )
    return Workload(f"{per_row} histograms of 64 bins, 2 scalars", made)


def _float32(values: NDArray[np.float64]) -> list[float]:
    found: list[float] = values.astype(np.float32).astype(np.float64).tolist()
    return found


def _rows_of(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
