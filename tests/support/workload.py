"""A training whose every value can be computed again from its seed. Run as a program: `python workload.py SEED ROWS`."""

from __future__ import annotations

import random
import sys
from typing import Any


def row(seed: int, step: int) -> dict[str, Any]:
    """What is logged at a step: scalars always, others now and then."""
    chance = random.Random(seed << 32 | step)
    values: dict[str, Any] = {"loss": 1.0 / (step + 1) + chance.random() * 0.01, "lr": chance.random(), "samples": step * 64}
    if step % 10 == 3:
        values["eval/accuracy"] = chance.random()
    if step % 50 == 7:
        values["note"] = f"step {step} of seed {seed}"
        values["is_best"] = chance.random() < 0.5
    if step % 100 == 99:
        del values["loss"]
        values["batch"] = [step, chance.random(), None]
    return values


def main() -> None:
    """Log all rows."""
    import runferry  # noqa: PLC0415 - the tests import `row` alone

    seed, rows = int(sys.argv[1]), int(sys.argv[2])
    with runferry.init(project="many", group="eight", id=f"seed{seed}", config={"seed": seed}) as run:
        for step in range(rows):
            run.log(row(seed, step))


if __name__ == "__main__":
    main()
