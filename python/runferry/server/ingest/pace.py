"""How large frames should be: the more of them a server gets a second, the longer it asks its writers to let them fill.

A frame costs the server about the same whatever it holds. Ten a second of each of a few hundred writers is nothing; of eight thousand it
is more than two cores take. Points do not become fewer by a longer wait, frames do: the charts of a very busy server are a few
seconds behind instead of falling behind for good.

# Steps
Frames of living writers are counted in windows of five seconds. Over `most_per_s` the wait doubles, below three eighths of that it
halves: what one step takes away is not enough to take it back. A writer is told with its next frames, once for each change; an idle one
has nothing to let fill. What it was told holds for its stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_S = 5.0
FIRST_LINGER_MS = 100
"""What writers do unasked."""
LONGEST_LINGER_MS = 3_200


class Pace:
    """Frames a second, and the wait that follows from them; used on the event loop only."""

    def __init__(self, most_per_s: float, clock: Callable[[], float]) -> None:
        """Nothing counted yet. `clock` counts seconds and never goes back."""
        self._most_per_s = most_per_s
        self._clock = clock
        self._began_s = clock()
        self._frames = 0
        self.linger_ms = FIRST_LINGER_MS
        """How long a frame should fill now."""

    def count(self, frames: int) -> None:
        """Frames have come in."""
        self._frames += frames
        elapsed_s = self._clock() - self._began_s
        if elapsed_s < WINDOW_S:
            return
        frames_per_s = self._frames / elapsed_s
        self._began_s += elapsed_s
        self._frames = 0
        if frames_per_s > self._most_per_s:
            self.linger_ms = min(self.linger_ms * 2, LONGEST_LINGER_MS)
        elif frames_per_s < self._most_per_s * 3 / 8:
            windows = min(int(elapsed_s / WINDOW_S), 8)  # quiet ones pass uncounted
            self.linger_ms = max(self.linger_ms >> windows, FIRST_LINGER_MS)
