"""How do the cost of a frame and the server's memory grow with the writers, from 1 to 10,000?

As the first part of `writers.py`, for each number of writers on a server of its own: each has a run and a stream, all are connected, then
all send frames of 20 points, packed before, as fast as they are allowed. Units: frames a second that became durable, us of the server's
CPU a frame (the merges that ran meanwhile included), KiB by which the server had grown once all were connected, by their number (with
one writer: all that a server loads for its first), MiB of the server once all was durable, seconds until all were connected.

Not measured: a network, TLS, connections (50 writers share one). The simulator takes its share of the cores, and with one writer or
ten it is the slower side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.writers import small_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.figures import Figure

FRAMES = {1: 10_000, 10: 4_000, 100: 640, 1_000: 64, 10_000: 8}
"""Of each writer, by their number: some seconds of work each time."""


def measure(at_most: int = max(FRAMES)) -> Iterator[Figure]:
    """A server for each number, up to `at_most` writers."""
    for writers, frames in FRAMES.items():
        if writers <= at_most:
            yield small_frames(writers, frames)
