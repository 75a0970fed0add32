"""One rank of a small data-parallel training, started by `demo.py` and fit to be killed at any moment.

Each rank learns from its shard of the data and logs every batch to a run of its own in one group, as DDP ranks do. After each
epoch it saves a checkpoint and takes the mean with the other ranks' latest ones, so no rank ever waits for one that died.

# After a kill
The rank goes on at its last checkpoint and trains the batches since then again, but logs them at fresh steps: `run.starting_step`
is the one behind the last that survived, and nothing is logged twice at one step. So a missing or doubled row is always
Runferry's doing, and the demo can count both exactly.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dataset
import model
import numpy as np
import runferry
from ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

PROJECT, GROUP = "digits", "digits-ddp"
BATCH_IMAGES = 16
HISTOGRAMS_EVERY_BATCHES = 10
HISTOGRAM_BINS = 32


def run_id(rank: int) -> str:
    """The run of a rank."""
    return f"demo-rank-{rank}"


class Rank:
    """One worker: its shard, its model, its run, its ledger."""

    def __init__(self, told: argparse.Namespace, run: runferry.Run) -> None:
        self.run = run
        self.rank: int = told.rank
        self.epochs: int = told.epochs
        self.step_s: float = told.step_ms / 1000
        self.checkpoint = told.work / f"rank-{told.rank}.npz"
        self.peer_checkpoints = [told.work / f"rank-{rank}.npz" for rank in range(told.world_size) if rank != told.rank]
        self.ledger = Ledger(told.work / f"rank-{told.rank}.ledger")
        train, self.test = dataset.load(told.work)
        self.shard = train.shard(told.rank, told.world_size)
        self.model = model.Classifier()
        self.next_step_s = time.monotonic()
        self.test_accuracy_ratio = 0.0

    def train(self) -> None:
        """All epochs that no checkpoint has yet."""
        for epoch in range(self.model.restore(self.checkpoint), self.epochs):
            self.model.average_with([model.parameters_of(path) for path in self.peer_checkpoints if path.exists()])
            losses = self._train_epoch(epoch)
            self.model.save(self.checkpoint, epoch + 1)
            print(f"epoch {epoch + 1} of {self.epochs}, loss {losses[-1]:.3f}, test accuracy {self.test_accuracy_ratio:.3f}", flush=True)

    def _train_epoch(self, epoch: int) -> list[float]:
        order = np.random.default_rng([epoch, self.rank]).permutation(len(self.shard.labels))
        batches = self.shard.batches(BATCH_IMAGES, order)
        losses = []
        for index, batch in enumerate(batches):
            began_ns = time.perf_counter_ns()
            learning_rate = model.learning_rate_at((epoch + index / len(batches)) / self.epochs)
            learned = self.model.learn(batch.images, batch.labels, learning_rate)
            losses.append(learned.loss)
            row: dict[str, Any] = {
                "train/loss": learned.loss,
                "train/accuracy": learned.accuracy_ratio,
                "train/learning_rate": learning_rate,
                "norm/gradients": model.norm_of(learned.gradients),
                "norm/weights": model.norm_of(self.model.parameters),
                "epoch": epoch,
                "batch_us": (time.perf_counter_ns() - began_ns) // 1000,
            }
            if index == len(batches) - 1:
                test_loss, self.test_accuracy_ratio = self.model.judge(self.test.images, self.test.labels)
                row |= {"test/loss": test_loss, "test/accuracy": self.test_accuracy_ratio}
            self._log(row, learned.gradients if index % HISTOGRAMS_EVERY_BATCHES == 0 else {})
            self._pace()
        return losses

    def _log(self, row: dict[str, Any], gradients: model.Arrays) -> None:
        """Log a row, and write down that the call returned and what it cost."""
        began_ns = time.perf_counter_ns()
        for name, gradient in gradients.items():
            row[f"gradients/{name}"] = runferry.Histogram(gradient, num_bins=HISTOGRAM_BINS)
            row[f"weights/{name}"] = runferry.Histogram(self.model.parameters[name], num_bins=HISTOGRAM_BINS)
        histograms_ns = time.perf_counter_ns() - began_ns if gradients else 0
        step = self.run.step

        began_ns = time.perf_counter_ns()
        self.run.log(row)
        log_ns = time.perf_counter_ns() - began_ns

        self.ledger.note(step, row, log_ns=log_ns, histograms_ns=histograms_ns)

    def _pace(self) -> None:
        """Wait for the next step's time: these batches take microseconds, and the page shall be worth watching."""
        self.next_step_s = max(self.next_step_s + self.step_s, time.monotonic() - self.step_s)
        time.sleep(max(0.0, self.next_step_s - time.monotonic()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train one rank; the server's address and the journals' folder come from `RUNFERRY_BASE_URL` and `RUNFERRY_DIR`."""
    options = argparse.ArgumentParser(description="One rank of the digits training.")
    options.add_argument("--rank", type=int, required=True)
    options.add_argument("--world-size", type=int, required=True)
    options.add_argument("--epochs", type=int, default=25)
    options.add_argument("--step-ms", type=float, default=9.0, help="a batch takes at least this long (default: %(default)s)")
    options.add_argument("--work", type=Path, required=True, help="folder of data set, checkpoints and ledgers, shared by all ranks")
    told = options.parse_args(arguments)

    config = {
        "rank": told.rank,
        "world_size": told.world_size,
        "epochs": told.epochs,
        "batch_images": BATCH_IMAGES,
        "optimizer": {"name": "sgd", "momentum": model.MOMENTUM, "peak_learning_rate": model.PEAK_LEARNING_RATE},
        "model": {"hidden": model.HIDDEN},
    }
    with runferry.init(
        project=PROJECT, id=run_id(told.rank), name=f"rank {told.rank}", group=GROUP, job_type="train", resume="allow", config=config
    ) as run:
        Rank(told, run).train()
    (told.work / f"rank-{told.rank}.status.json").write_text(json.dumps(asdict(run.status())), encoding="utf-8")


if __name__ == "__main__":
    main()
