"""`Histogram`: how many values fall between which edges, computed at the constructor and stored exactly.

Binning is numpy's (equal bins from least to greatest, the last one closed, half a unit to each side of a constant) and is done by
the Rust core, so numpy is not needed; with numpy imported, an array is binned without a Python object per element.
"""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from runferry import _native
from runferry._convert import as_array, encode_histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BINS_MAX = 512


class Histogram:
    """A histogram to log.

    Args:
        sequence: Numbers, in any nesting and of any tensor library. Empty: all counts are zero.
        np_histogram: Instead of it, `(counts, edges)` as `numpy.histogram` returns them.
        num_bins: Equal bins made of `sequence`, 1 to 512.

    Raises:
        ValueError: Neither or both of the first two are given, there are more than 512 bins or not one edge more than bins,
            edges do not ascend, or `sequence` holds NaN or infinities (in a plain array given to `log` these are counted instead).

    Example:
        >>> runferry.Histogram([1, 1, 2], num_bins=2).histogram
        [2, 1]
    """

    MAX_LENGTH = BINS_MAX

    def __init__(
        self,
        sequence: Sequence[Any] | Iterable[Any] | Any | None = None,
        np_histogram: tuple[Any, Any] | None = None,
        num_bins: int = 64,
    ) -> None:
        if (sequence is None) == (np_histogram is None):
            raise ValueError("give either sequence or np_histogram")
        if np_histogram is not None:
            if len(np_histogram) != 2:  # noqa: PLR2004 - a pair
                raise ValueError(f"np_histogram must be (counts, edges), found {len(np_histogram)} items")
            counts, edges = [_numbers(part) for part in np_histogram]
            self._encoded = _encode(counts, edges)
        else:
            _check_bins(num_bins)
            self._encoded = _encode_sequence(sequence, num_bins)
        edges, counts, self._nan_count, self._inf_count = _native.histogram_decode(self._encoded)
        self.bins: list[float] = edges
        """Edges of the bins, one more than bins, ascending."""
        self.histogram: list[float] = [int(count) if float(count).is_integer() else count for count in counts]
        """Counts of the bins."""

    def to_json(self, run: object = None) -> dict[str, Any]:  # noqa: ARG002 - the W&B SDK passes a run
        """The dict the W&B SDK stores for it."""
        return {"_type": "histogram", "values": self.histogram, "bins": self.bins}

    def _runferry_encoded(self) -> bytes:
        return self._encoded

    def __repr__(self) -> str:
        """Bins, range and total."""
        return f"<Histogram of {sum(self.histogram):g} values in {len(self.histogram)} bins from {self.bins[0]:g} to {self.bins[-1]:g}>"


def _check_bins(bins: int) -> None:
    if not 1 <= bins <= BINS_MAX:
        raise ValueError(f"{bins} bins, 1 to {BINS_MAX} are allowed")


def _encode(counts: list[float], edges: list[float]) -> bytes:
    _check_bins(len(counts))
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{len(counts)} bins need {len(counts) + 1} edges, found {len(edges)}")
    if not all(math.isfinite(edge) for edge in edges):
        raise ValueError("edges must be finite")
    if any(after < before for before, after in pairwise(edges)):
        raise ValueError("edges must ascend")
    if any(math.isnan(count) or count < 0 for count in counts):
        raise ValueError("counts must be zero or more")
    return _native.histogram_encode(edges, counts, 0, 0)


def _encode_sequence(sequence: Any, num_bins: int) -> bytes:
    array = as_array(sequence)
    if array is None:
        numbers = _numbers(sequence)
        if not numbers:
            return _native.histogram_encode([index / num_bins for index in range(num_bins + 1)], [0] * num_bins, 0, 0)
        encoded = _native.histogram_from_bytes(struct.pack(f"<{len(numbers)}d", *numbers), "f8", num_bins)
    elif array.size == 0:
        return _encode_sequence([], num_bins)
    else:
        encoded = encode_histogram(array, num_bins)
    edges, _, nan_count, inf_count = _native.histogram_decode(encoded)
    if nan_count or inf_count or not math.isfinite(edges[-1]):
        raise ValueError(f"the sequence holds {nan_count} NaN and {inf_count} infinite values: no finite range to make bins of")
    return encoded


def _numbers(values: Any) -> list[float]:
    """All numbers of a nested sequence, in order."""
    array = as_array(values)
    if array is not None:
        values = array.tolist()
    if isinstance(values, (int, float)):
        return [float(values)]
    if isinstance(values, (str, bytes)):
        raise TypeError(f"a histogram is made of numbers, found {type(values).__name__}")
    try:
        items = iter(values)
    except TypeError:
        raise TypeError(f"a histogram is made of numbers, found {type(values).__name__}") from None
    numbers: list[float] = []
    for item in items:
        if isinstance(item, (int, float)):
            numbers.append(float(item))
        else:
            numbers.extend(_numbers(item))
    return numbers
