"""A reader that finds more waiting frames than it may hold: it reads after a merge, whoever did that merge."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

import pytest
from runferry.server.store import tail as tail_module
from runferry.server.store.protocol import StoreError
from runferry.server.store.sqlite import SqliteStore
from runferry.server.store.tail import Known, RunViews, TailTooLargeError

from tests.conformance.conftest import feed, make_writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from runferry import _native
    from runferry.server.store.sql import Shard
    from runferry.server.store.tail import RunView, TailCache

RUN = b"r" * 16


class Heads:
    """Chunks of some weight."""

    def __init__(self, weight_bytes: int) -> None:
        self.weight_bytes = weight_bytes


class Drawn:
    """A chart of some weight."""

    def __init__(self, weight_bytes: int) -> None:
        self._weight_bytes = weight_bytes

    def keep(self) -> int:
        """What it takes."""
        return self._weight_bytes


def heads(weight_bytes: int) -> _native.Heads:
    return cast("_native.Heads", Heads(weight_bytes))


class OneShard:
    """Its connections are never used."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Nothing to read."""
        yield


class LargeUntilMerge:
    """Tails too large to read while fewer than so many merges have been."""

    def __init__(self, readable_at: int) -> None:
        self.merges = 0
        self._readable_at = readable_at

    def view(self, _connection: sqlite3.Connection, _run_id: bytes) -> RunView | None:
        """None, as of a run that is not there."""
        if self.merges < self._readable_at:
            raise TailTooLargeError(self.merges)
        return None


def views(tails: LargeUntilMerge, *, merged_by_others: bool) -> RunViews:
    """Views whose merges find nothing to do, since somebody else was quicker or nobody can."""

    def merge(_run_id: bytes) -> int:
        tails.merges += merged_by_others
        return 0

    return RunViews(cast("TailCache", tails), merge)


def test_a_run_that_somebody_else_has_merged_meanwhile_is_read() -> None:
    tails = LargeUntilMerge(readable_at=3)

    with views(tails, merged_by_others=True).of(cast("Shard", OneShard()), RUN) as (_, view):
        assert view is None

    assert tails.merges == 3


def test_a_run_that_no_merge_makes_readable_is_an_error_and_not_a_loop() -> None:
    with (
        pytest.raises(StoreError, match="cannot be held in memory"),
        views(LargeUntilMerge(readable_at=1), merged_by_others=False).of(cast("Shard", OneShard()), RUN),
    ):
        raise AssertionError("not reached")


def test_what_is_kept_of_a_run_never_weighs_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "MAX_KNOWN_BYTES", 100)
    known = Known()
    small = [heads(40), heads(40), heads(40)]

    known.keep_heads(1, small[0])
    known.keep_heads(2, small[1])
    known.keep_heads(2, small[1])
    assert (known.heads(1), known.heads(2), known.weight_bytes) == (small[0], small[1], 80)

    known.keep_heads(3, small[2])
    assert (known.heads(1), known.heads(2), known.heads(3), known.weight_bytes) == (None, None, small[2], 40)

    known.keep_metrics(metrics := cast("_native.StoredMetrics", Heads(60)))
    assert (known.metrics, known.heads(3), known.weight_bytes) == (metrics, small[2], 100)

    known.keep_heads(3, small[2])
    known.keep_heads(5, small[0])
    assert (known.metrics, known.heads(3), known.heads(5), known.weight_bytes) == (None, None, small[0], 40)

    known.keep_heads(4, heads(101))
    assert (known.heads(5), known.heads(4), known.weight_bytes) == (small[0], None, 40)


def test_charts_that_are_kept_of_a_run_never_weigh_more_than_they_may_and_drive_nothing_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known()
    known.keep_heads(1, chunks := heads(40))
    weights = iter([0, 100_000, 100_000, 100_000, 400_000])
    lists = {name: [cast("_native.Buckets", Drawn(next(weights)))] for name in ("empty", "a", "b", "c", "large")}
    monkeypatch.setattr(tail_module, "MAX_CHART_BYTES", 300_000)

    def kept() -> set[str]:
        found = {name: known.charts((name, 500, (0, 9))) for name in lists}
        assert all(charts is None or charts is lists[name] for name, charts in found.items())
        return {name for name, charts in found.items() if charts is not None}

    for name, expected in [("empty", {"empty"}), ("a", {"empty", "a"}), ("a", {"empty", "a"}), ("b", {"empty", "a", "b"}), ("c", {"c"})]:
        known.keep_charts((name, 500, (0, 9)), lists[name])
        assert kept() == expected
        assert 40 + sum(lists[one][0].keep() for one in expected) < known.weight_bytes <= 300_040

    known.keep_charts(("large", 500, (0, 9)), lists["large"])
    assert kept() == {"c"}
    assert known.charts(("c", 501, (0, 9))) is known.charts(("c", 500, (0, 8))) is None
    assert known.heads(1) is chunks


def test_what_is_kept_of_all_runs_never_weighs_more_than_it_may_and_answers_stay_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "store", merging=False)
    writers = [make_writer(store, f"run-{number}") for number in range(6)]
    for number, writer in enumerate(writers):
        feed(store, writer, writer.rows(1, 3_000))
        if number % 2:
            store.merge(writer.run_id, final=True)

    def drawn() -> list[list[int]]:
        return [store.series(writer.run_id, ["loss"], buckets=2)[0].count for writer in writers]

    def kept() -> tuple[int, int]:
        cached = store._tails._tails  # noqa: SLF001 - memory is the question, and shows nowhere else
        assert store._tails._counted_bytes == sum(one.weight_bytes for one in cached.values())  # noqa: SLF001
        return len(cached), store._tails._counted_bytes  # noqa: SLF001

    first = drawn()
    runs, all_bytes = kept()
    assert runs == 6

    monkeypatch.setattr(tail_module, "MAX_CACHED_BYTES", all_bytes // 2)
    assert drawn() == first
    assert kept()[0] < 6
    assert kept()[1] <= all_bytes // 2

    for writer in writers:
        store.merge(writer.run_id, final=True)
    assert drawn() == first
    kept()
    store.close()
