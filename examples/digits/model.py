"""The classifier: one hidden layer, softmax, SGD with momentum. Plain numpy, all of it in sight.

Parameters and their velocities are dicts of float32 arrays, so that a checkpoint is one `numpy.savez`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.float32]]

PIXELS, HIDDEN, CLASSES = 64, 64, 10
MOMENTUM = 0.9
PEAK_LEARNING_RATE = 0.08
WARM_UP_RATIO = 0.05
_WEIGHTS_SEED = 1


@dataclass(frozen=True, slots=True)
class Learned:
    """What one batch said."""

    loss: float
    accuracy_ratio: float
    gradients: Arrays


class Classifier:
    """The network and its optimizer. All ranks begin with the same weights."""

    def __init__(self) -> None:
        draw = np.random.default_rng(_WEIGHTS_SEED)
        self.parameters: Arrays = {
            "hidden.weight": (draw.standard_normal((PIXELS, HIDDEN)) * math.sqrt(2 / PIXELS)).astype(np.float32),
            "hidden.bias": np.zeros(HIDDEN, np.float32),
            "output.weight": (draw.standard_normal((HIDDEN, CLASSES)) * math.sqrt(1 / HIDDEN)).astype(np.float32),
            "output.bias": np.zeros(CLASSES, np.float32),
        }
        self.velocities: Arrays = {name: np.zeros_like(values) for name, values in self.parameters.items()}

    def learn(self, images: NDArray[np.float32], labels: NDArray[np.int64], learning_rate: float) -> Learned:
        """One step of SGD with momentum."""
        hidden, shares = self._forward(images)
        loss, accuracy_ratio = _judged(shares, labels)
        error = shares
        error[np.arange(len(labels)), labels] -= 1
        error /= len(labels)
        hidden_error = (error @ self.parameters["output.weight"].T) * (hidden > 0)
        gradients: Arrays = {
            "hidden.weight": images.T @ hidden_error,
            "hidden.bias": hidden_error.sum(axis=0),
            "output.weight": hidden.T @ error,
            "output.bias": error.sum(axis=0),
        }
        for name, gradient in gradients.items():
            self.velocities[name] *= np.float32(MOMENTUM)
            self.velocities[name] -= np.float32(learning_rate) * gradient
            self.parameters[name] += self.velocities[name]
        return Learned(loss, accuracy_ratio, gradients)

    def judge(self, images: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
        """Loss and share of right answers on images it does not learn from."""
        return _judged(self._forward(images)[1], labels)

    def average_with(self, others: list[Arrays]) -> None:
        """Set the parameters to the mean of these and one's own."""
        for name, values in self.parameters.items():
            self.parameters[name] = np.mean([values, *(other[name] for other in others)], axis=0, dtype=np.float32)

    def save(self, path: Path, epochs_done: int) -> None:
        """Write a checkpoint in one step: a kill leaves the old one or the new one."""
        draft = path.with_suffix(".draft.npz")
        arrays: dict[str, Any] = {**self.parameters, **{f"velocity.{name}": values for name, values in self.velocities.items()}}
        np.savez(draft, **arrays, epochs_done=np.int64(epochs_done))
        os.replace(draft, path)  # noqa: PTH105 - the system call by its name

    def restore(self, path: Path) -> int:
        """Take up a checkpoint; returns how many epochs it has behind it, 0 without one."""
        if not path.exists():
            return 0
        with np.load(path) as arrays:
            self.parameters = {name: arrays[name] for name in self.parameters}
            self.velocities = {name: arrays[f"velocity.{name}"] for name in self.velocities}
            return int(arrays["epochs_done"])

    def _forward(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The hidden layer, and each class's share of the belief."""
        hidden = np.maximum(images @ self.parameters["hidden.weight"] + self.parameters["hidden.bias"], np.float32(0))
        scores = hidden @ self.parameters["output.weight"] + self.parameters["output.bias"]
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return hidden, powers / powers.sum(axis=1, keepdims=True)


def parameters_of(checkpoint: Path) -> Arrays:
    """The parameters in a checkpoint of another rank."""
    with np.load(checkpoint) as arrays:
        return {name: arrays[name] for name in arrays.files if name != "epochs_done" and not name.startswith("velocity.")}


def norm_of(arrays: Arrays) -> float:
    """Euclidean length of all arrays together."""
    return math.sqrt(sum(float(np.vdot(values, values)) for values in arrays.values()))


def learning_rate_at(progress_ratio: float) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if progress_ratio < WARM_UP_RATIO:
        return PEAK_LEARNING_RATE * progress_ratio / WARM_UP_RATIO
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (progress_ratio - WARM_UP_RATIO) / (1 - WARM_UP_RATIO)))


def _judged(shares: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    right = shares[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, np.float32(1e-12))).mean()), float((shares.argmax(axis=1) == labels).mean())
