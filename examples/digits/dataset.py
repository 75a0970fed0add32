"""The digits of scikit-learn: 1,797 real handwritten digits, 8 x 8 pixels each, split and sharded.

scikit-learn takes a second to import, so the arrays are saved once and every worker, a restarted one too, loads them from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FILE = "digits.npz"
PIXEL_MAX = 16.0
TEST_IMAGES = 360
_SPLIT_SEED = 7


@dataclass(frozen=True, slots=True)
class Digits:
    """Images as rows of 64 numbers between 0 and 1, and the digit that each one shows."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def shard(self, rank: int, world_size: int) -> Digits:
        """Every `world_size`-th image, beginning at `rank`: the shards of all ranks are the whole."""
        return Digits(self.images[rank::world_size], self.labels[rank::world_size])

    def batches(self, size: int, order: NDArray[np.int64]) -> list[Digits]:
        """Whole batches in this order; what is left over waits for the next epoch's order."""
        starts = range(0, len(order) - size + 1, size)
        return [Digits(self.images[order[start : start + size]], self.labels[order[start : start + size]]) for start in starts]


def save(folder: Path) -> None:
    """Write the data set to `folder`, where `load` finds it."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second that a worker need not pay

    found: Any = load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(found.target))
    np.savez(
        folder / FILE,
        images=(found.data[order] / PIXEL_MAX).astype(np.float32),
        labels=found.target[order].astype(np.int64),
    )


def load(folder: Path) -> tuple[Digits, Digits]:
    """Training images and test images; `save` is called if nobody has."""
    if not (folder / FILE).exists():
        save(folder)
    with np.load(folder / FILE) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return Digits(images[TEST_IMAGES:], labels[TEST_IMAGES:]), Digits(images[:TEST_IMAGES], labels[:TEST_IMAGES])
