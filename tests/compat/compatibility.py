"""Prints docs/compatibility.md: each scene that W&B and Runferry both play, and whether they come to the same."""

from __future__ import annotations

import sys

from tests.compat.record_wandb import VERSION
from tests.compat.wandb_scenes import SCENES

HEAD = f"""# Compatibility with the W&B SDK

Each row is a small training in [tests/compat/wandb_scenes.py](../tests/compat/wandb_scenes.py). It was played with W&B {VERSION},
offline, and what that wrote is kept; `tests/integration/test_wandb.py` plays it with Runferry and a server, and compares rows, summary,
config and what the script itself saw. So *same* means that it was the same when the tests last passed. Numbers are compared by value:
W&B's file writes 1.0 as 1, Runferry keeps what it was. What is not listed here is not compared yet.

| what a script does | Runferry |
|---|---|
"""


def main() -> None:
    """Print the page; it is made by `make docs`."""
    rows = []
    for scene in SCENES.values():
        state = f"other, on purpose: {scene.differs}" if scene.differs else f"not yet: {scene.missing}" if scene.missing else "same"
        rows.append(f"| {scene.sentence} | {state} |")
    same = sum(scene.differs is None and scene.missing is None for scene in SCENES.values())
    tail = f"\n{same} of {len(SCENES)} are the same.\n"
    sys.stdout.write(HEAD + "\n".join(rows) + "\n" + tail)


if __name__ == "__main__":
    main()
