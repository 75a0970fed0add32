"""Which pairs of fail point and hit a walk goes to, and the small journal in which few calls come by all of them."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from tests.support.effort import effort

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping

HITS = effort("hits", 2)
SEED = int(os.environ.get("RUNFERRY_SEED", "1"))
CALLS = 32
# So little data rotates and trims its segments.
SMALL = "journal.segment_bytes=value(700);journal.tail_keep_bytes=value(0);pack.housekeeping_ms=value(0)"
LIMIT_S = 120 + 60 * HITS


def hits_in(trace: Iterable[str]) -> Counter[str]:
    """How often a process came by each fail point."""
    return Counter(line.split()[1] for line in trace)


def chosen(hits: Mapping[str, int], chance: random.Random, after: Mapping[str, int] | None = None) -> list[tuple[str, int]]:
    """Of each fail point the first hit (behind those of `after`), the last, and some in between."""
    pairs = []
    for site, last in sorted(hits.items()):
        first = 1 + (after or {}).get(site, 0)
        if first > last:
            continue
        between = range(first + 1, last)
        some = chance.sample(between, min(len(between), HITS - 1))
        pairs += [(site, hit) for hit in sorted({first, *some, *([last] if HITS > 1 else [])})]
    return pairs
