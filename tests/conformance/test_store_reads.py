"""What a store says about what it holds: exactly what was logged, before a merge as after it."""

from __future__ import annotations

import itertools
import json
import math
import struct
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runferry import _native
from runferry.server.store.protocol import Batch, Metric, Store

from tests.conformance.conftest import feed, make_writer
from tests.conformance.reading import bits, scan_rows
from tests.support.frames import START_US, Histogram

ODD_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_DEAD_BEEF))[0]

_runs = itertools.count()

_values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.sampled_from([ODD_NAN, -0.0, 0.0, 1, 1.0, True, math.inf, -math.inf, math.nan, None]),
    st.text(max_size=8),
    st.builds(Histogram, st.just(0.0), st.just(1.0), st.lists(st.integers(0, 9), min_size=1, max_size=3)),
)
_row = st.dictionaries(st.sampled_from(["a", "b", "<i>/c"]), _values, max_size=3)
_rows = st.lists(st.tuples(st.integers(0, 30), _row), min_size=1, max_size=8)
_operations = st.lists(st.one_of(st.tuples(st.integers(0, 2), _rows), st.just("merge"), st.just("final")), max_size=10)


def _expected(value: Any) -> Any:
    return ("bytes", value.encode()) if isinstance(value, Histogram) else bits(value)


def _everything(store: Store, run_id: bytes) -> Any:
    """All answers about a run that a merge must not change."""
    names = ["a", "b", "<i>/c"]
    summaries = [(one.name, one.label, one.kind, one.first_step, one.last_step, bits(one.last)) for one in store.metrics(run_id)]
    charts = [_rounded(chart) for buckets in (1, 3, 100) for chart in store.series(run_id, names, buckets=buckets)]
    parts = [_rounded(chart) for chart in store.series(run_id, names, buckets=4, min_step=5, max_step=20)]
    histograms = [store.histograms(run_id, name, limit=3) for name in names]
    rows = scan_rows(store, run_id)
    window = scan_rows(store, run_id, ["b"], min_step=3, max_step=25)
    return summaries, charts, parts, histograms, rows, window, scan_rows(store, run_id, samples=4)


def _rounded(chart: Any) -> Any:
    mean = [None if value is None or not math.isfinite(value) else float(f"{value:.9g}") for value in chart.mean]
    last = [struct.pack("<d", value) for value in chart.last]
    places = (chart.name, chart.label, chart.raw_points, chart.is_exact, chart.step_first, chart.step_last, chart.time_last_us)
    return (*places, chart.count, chart.min, chart.max, mean, last, chart.nan_count, chart.inf_count)


@pytest.mark.timeout(300)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=_operations, starts=st.permutations([0, 1, 2]))
def test_every_answer_is_the_same_before_and_after_a_merge(store: Store, operations: list[Any], starts: list[int]) -> None:
    run = f"run-{next(_runs)}"
    writers = [make_writer(store, run, label="" if index < 2 else "rank", started_s=start) for index, start in enumerate(starts)]
    run_id = writers[0].run_id
    model: dict[int, dict[str, tuple[tuple[int, int], Any]]] = {}
    logged = set()
    for operation in operations:
        if isinstance(operation, str):
            store.merge(run_id, final=operation == "final")
            continue
        index, rows = operation
        ordered = sorted(rows, key=lambda row: row[0])
        feed(store, writers[index], [writers[index].data(ordered)])
        for place, (step, values) in enumerate(ordered):
            logged.add((index < 2, step))
            row = model.setdefault(step, {})
            for name, value in values.items():
                decides = (starts[index], writers[index].next_seq * 100 + place)
                if name not in row or row[name][0] < decides:
                    row[name] = (decides, _expected(value))

    before = _everything(store, run_id)
    store.merge(run_id)
    after = _everything(store, run_id)

    assert after == before
    assert [(step, row) for step, _, row in before[4]] == [
        (step, {name: value for name, (_, value) in row.items()}) for step, row in sorted(model.items())
    ]
    assert store.totals(run_id).rows == len(logged), "a row per label and step"


def test_values_keep_their_kind_and_every_bit(store: Store) -> None:
    writer = make_writer(store)
    values: list[Any] = [1, 1.0, True, -0.0, ODD_NAN, math.inf, 2**63 - 1, -(2**63), 0.1, "1", None, 5e-324]
    feed(store, writer, [writer.data([(step, {"x": value}) for step, value in enumerate(values)])])
    store.merge(writer.run_id, final=True)

    found = [row["x"] for _, _, row in scan_rows(store, writer.run_id)]

    assert found == [bits(value) for value in values]


def test_a_late_journal_of_an_older_writer_does_not_overwrite_newer_values(store: Store) -> None:
    older = make_writer(store, started_s=1)
    newer = make_writer(store, started_s=2)
    feed(store, newer, [newer.data([(1, {"x": 2.0}), (2, {"x": 2.0})])])
    store.merge(newer.run_id)

    feed(store, older, [older.data([(0, {"x": 1.0}), (1, {"x": 1.0})])])
    before = scan_rows(store, newer.run_id)
    store.merge(newer.run_id)

    assert before == scan_rows(store, newer.run_id)
    assert [(step, row["x"]) for step, _, row in before] == [(0, bits(1.0)), (1, bits(2.0)), (2, bits(2.0))]


def test_two_labels_at_one_step_are_two_series(store: Store) -> None:
    writers = [make_writer(store, label=f"rank{number}", started_s=number) for number in range(2)]
    for number, writer in enumerate(writers):
        feed(store, writer, [writer.data([(0, {"loss": float(number)})])])
    store.merge(writers[0].run_id)

    charts = store.series(writers[0].run_id, ["loss", "unknown"], buckets=10)

    assert [(chart.label, chart.last) for chart in charts] == [("rank0", [0.0]), ("rank1", [1.0])]


def test_nan_and_infinity_are_counted_apart(store: Store) -> None:
    writer = make_writer(store)
    values = [1.0, math.nan, 3.0, math.inf, -math.inf, math.nan]
    feed(store, writer, [writer.data([(step, {"x": value}) for step, value in enumerate(values)])])
    for _ in range(2):
        (chart,) = store.series(writer.run_id, ["x"], buckets=1)
        assert (chart.count, chart.min, chart.max, chart.mean, chart.nan_count, chart.inf_count) == ([6], [1.0], [3.0], [2.0], [2], [2])
        assert (chart.raw_points, chart.is_exact) == (6, False)
        store.merge(writer.run_id)


def test_a_row_without_values_is_a_row(store: Store) -> None:
    writer = make_writer(store)
    feed(store, writer, [writer.data([(0, {"_timestamp": None}), (1, {"x": 1})])])
    for _ in range(2):
        assert [row for _, _, row in scan_rows(store, writer.run_id)] == [{}, {"x": bits(1)}]
        assert (store.totals(writer.run_id).rows, store.totals(writer.run_id).points) == (2, 1)
        store.merge(writer.run_id)


def test_rows_carry_the_time_they_were_logged_at(store: Store) -> None:
    writer = make_writer(store)
    feed(store, writer, writer.rows(3, 5))
    store.merge(writer.run_id)

    assert [time_us for _, time_us, _ in scan_rows(store, writer.run_id)] == [START_US + step * 1000 for step in range(15)]


def test_histograms_are_thinned_evenly_and_counted(store: Store) -> None:
    writer = make_writer(store)
    values = [Histogram(0.0, 1.0, [step, 1]) for step in range(300)]
    rows = [(step, {"h": value, "x": 1.0}) for step, value in enumerate(values)]
    feed(store, writer, [writer.data(rows[start : start + 50]) for start in range(0, 300, 50)])
    for _ in range(2):
        total, found = store.histograms(writer.run_id, "h", limit=4)
        assert (total, [one.step for one in found]) == (300, [0, 99, 199, 299])
        assert [one.value for one in found] == [values[one.step].encode() for one in found]
        assert store.histograms(writer.run_id, "h", limit=1000, min_step=290)[0] == 10
        assert store.histograms(writer.run_id, "x", limit=4) == (0, [])
        store.merge(writer.run_id)


def test_samples_are_spread_over_all_rows_that_match(store: Store) -> None:
    writer = make_writer(store)
    for start in range(0, 1000, 100):
        rows = [(step, {"x": step, "y": step} if step % 10 == 0 else {"x": step}) for step in range(start, start + 100)]
        feed(store, writer, [writer.data(rows)])
        if start in (300, 600):
            store.merge(writer.run_id)

    assert [row[0] for row in scan_rows(store, writer.run_id, samples=5)] == [0, 249, 499, 749, 999]
    assert [row[0] for row in scan_rows(store, writer.run_id, ["y"], samples=3)] == [0, 490, 990]
    assert scan_rows(store, writer.run_id, samples=0) == []


def test_a_long_run_is_scanned_in_windows_and_charted_from_statistics(store: Store) -> None:
    writer = make_writer(store)
    count = 20_000
    for start in range(0, count, 500):
        feed(store, writer, [writer.data([(step, {"x": float(step), "n": step}) for step in range(start, start + 500)])])
        if start % 2500 == 0:
            store.merge(writer.run_id)

    rows = scan_rows(store, writer.run_id)
    charts = store.series(writer.run_id, ["x", "n"], buckets=7)

    assert [(step, row) for step, _, row in rows] == [(step, {"x": bits(float(step)), "n": bits(step)}) for step in range(count)]
    for chart in charts:
        assert (sum(chart.count), len(chart.count), chart.raw_points) == (count, 7, count)
        assert chart.min == [float(step) for step in chart.step_first]
        assert chart.max == chart.last == [float(step) for step in chart.step_last]


def test_a_long_series_is_drawn_alike_from_chunks_that_were_read_for_another_chart_and_anew_after_a_merge(store: Store) -> None:
    writer = make_writer(store)
    count = 6_000
    rows = [(step, {"x": float(step % 97)}) for step in range(count)]
    feed(store, writer, [writer.data(rows[start : start + 500]) for start in range(0, count, 500)])
    store.merge(writer.run_id)

    def drawn(buckets: int, **window: int) -> Any:
        (chart,) = store.series(writer.run_id, ["x"], buckets=buckets, **window)
        return _rounded(chart)

    windows: list[dict[str, int]] = [{"min_step": 1_000, "max_step": 4_321}, {"min_step": 5_990}, {"max_step": 10}]
    before = [drawn(5, **window) for window in windows]
    first = drawn(5)

    assert drawn(5) == first
    assert [drawn(5, **window) for window in windows] == before
    assert sum(first[7]) == count

    feed(store, writer, [writer.data([(count, {"x": 1_000.0})])])
    waiting = drawn(5)
    store.merge(writer.run_id, final=True)

    assert drawn(5) == waiting
    assert (sum(waiting[7]), waiting[5][-1], waiting[9][-1]) == (count + 1, count, 1_000.0)


def test_a_chart_that_was_drawn_for_another_reader_is_never_shown_for_what_came_since(store: Store) -> None:
    writer, other = make_writer(store), make_writer(store, label="rank1")
    feed(store, writer, [writer.data([(step, {"x": float(step), "y": 0.5}) for step in range(40)])])
    store.merge(writer.run_id, final=True)

    def drawn(name: str) -> list[tuple[str, int, float, int]]:
        charts = store.series(writer.run_id, [name], buckets=4)
        told = json.loads(_native.series_json(charts))
        assert [(chart.label, chart.raw_points, chart.last) for chart in charts] == [
            (one["label"], one["raw_points"], one["last"]) for one in told
        ]
        return [(chart.label, chart.raw_points, chart.last[-1], len(chart.last)) for chart in charts]

    old_x, old_y = [("", 40, 39.0, 4)], [("", 40, 0.5, 4)]
    assert (drawn("x"), drawn("y")) == (drawn("x"), drawn("y")) == (old_x, old_y)
    assert store.series(writer.run_id, ["x"], buckets=4, min_step=10)[0].raw_points == 30
    assert len(store.series(writer.run_id, ["x"], buckets=2)[0].last) == 2

    feed(store, writer, [writer.data([(39, {"x": 1_000.0})])])
    assert (drawn("x"), drawn("y")) == ([("", 40, 1_000.0, 4)], old_y)
    store.merge(writer.run_id, final=True)
    assert (drawn("x"), drawn("y")) == (drawn("x"), drawn("y")) == ([("", 40, 1_000.0, 4)], old_y)

    feed(store, other, [other.data([(0, {"y": 7.0})])])
    assert drawn("y") == [*old_y, ("rank1", 1, 7.0, 1)]
    store.merge(writer.run_id, final=True)
    assert drawn("y") == drawn("y") == [*old_y, ("rank1", 1, 7.0, 1)]


def test_metrics_summarise_names_kinds_and_last_values(store: Store) -> None:
    writer = make_writer(store)
    feed(store, writer, [writer.data([(0, {"x": 3, "s": "a", "h": Histogram(0.0, 1.0, [1])}), (4, {"x": 1.5, "b": True})])])
    for _ in range(2):
        found = {one.name: one for one in store.metrics(writer.run_id)}
        assert {name: one.kind for name, one in found.items()} == {"x": "number", "s": "string", "h": "histogram", "b": "bool"}
        x = found["x"]
        assert (x.points, x.first_step, x.last_step, x.last) == (2, 0, 4, 1.5)
        assert (found["s"].last, found["b"].last, found["h"].last) == ("a", True, Histogram(0.0, 1.0, [1]).encode())
        store.merge(writer.run_id)


@pytest.mark.parametrize("merged", [0, 1, 2])
def test_metrics_come_in_pages_that_part_all_of_them_by_name_and_label(store: Store, merged: int) -> None:
    first = make_writer(store)
    other = make_writer(store, label="rank1")
    names = ["Zeta", "a", "a.b", "loss", "ß", "\U0001f600", "￿"]
    feed(store, first, [first.data([(0, dict.fromkeys(names[:5], 1.0))])])
    if merged:
        store.merge(first.run_id)
    feed(store, other, [other.data([(0, dict.fromkeys(names[2:], 2.0))])])
    if merged > 1:
        store.merge(first.run_id)

    pages: list[list[Metric]] = []
    while not pages or pages[-1]:
        after = (pages[-1][-1].name, pages[-1][-1].label) if pages else None
        pages.append(store.metrics(first.run_id, after=after, limit=3))

    assert [len(page) for page in pages] == [3, 3, 3, 1, 0]
    assert [metric for page in pages for metric in page] == store.metrics(first.run_id)
    expected = [(name, "") for name in names[:5]] + [(name, "rank1") for name in names[2:]]
    assert [(metric.name, metric.label) for page in pages for metric in page] == sorted(expected)
    assert store.metric_count(first.run_id) == (5 if merged == 1 else 10)


def test_metrics_that_were_read_before_a_merge_are_read_anew_after_it(store: Store) -> None:
    writer = make_writer(store)
    feed(store, writer, [writer.data([(0, {"a": 1.0, "b": "old"})])])
    store.merge(writer.run_id, final=True)

    def found() -> list[tuple[str, int, object]]:
        return [(metric.name, metric.points, metric.last) for metric in store.metrics(writer.run_id)]

    assert found() == found() == [("a", 1, 1.0), ("b", 1, "old")]
    assert [metric.name for metric in store.metrics(writer.run_id, after=("a", ""), limit=5)] == ["b"]

    feed(store, writer, [writer.data([(1, {"b": "new", "c": True})])])
    assert found() == [("a", 1, 1.0), ("b", 2, "new"), ("c", 1, True)]
    store.merge(writer.run_id, final=True)
    assert found() == [("a", 1, 1.0), ("b", 2, "new"), ("c", 1, True)]


def test_an_unknown_run_is_empty(store: Store) -> None:
    run_id = b"\x01" * 16

    assert (store.metrics(run_id), store.series(run_id, ["x"], buckets=1), store.writers(run_id)) == ([], [], [])
    assert list(store.scan(run_id, None)) == []
    assert store.totals(run_id).last_step == -1
    assert store.histograms(run_id, "x", limit=1) == (0, [])


def test_a_delta_holds_what_came_since_the_cursor(store: Store) -> None:
    writer = make_writer(store)
    feed(store, writer, writer.rows(2, 10))
    cursor = store.cursor(writer.run_id)
    feed(store, writer, [*writer.rows(1, 10, first_step=20), writer.data([(30, {"new": 1})])])

    delta = store.delta(writer.run_id, cursor, ["loss", "new"], ["loss"], max_points=100)

    assert not delta.is_snapshot_needed
    assert [(one.name, one.step_first) for one in delta.series] == [("loss", list(range(20, 30))), ("new", [30])]
    assert delta.new_keys == ["new"]
    assert delta.cursor == store.cursor(writer.run_id)
    assert store.delta(writer.run_id, delta.cursor, ["loss"], [], max_points=100).series == []


def test_a_delta_survives_one_merge_and_asks_for_a_snapshot_after_more(store: Store) -> None:
    writer = make_writer(store)
    cursor = store.cursor(writer.run_id)
    feed(store, writer, writer.rows(2, 10))

    store.merge(writer.run_id)
    after_one = store.delta(writer.run_id, cursor, ["loss"], [], max_points=5)
    feed(store, writer, writer.rows(1, 10, first_step=20))
    store.merge(writer.run_id)
    after_two = store.delta(writer.run_id, cursor, ["loss"], [], max_points=5)

    assert (after_one.is_snapshot_needed, after_one.series[0].raw_points, sum(after_one.series[0].count)) == (False, 20, 20)
    assert len(after_one.series[0].count) <= 5
    assert (after_two.is_snapshot_needed, after_two.series) == (True, [])
    assert store.delta(writer.run_id, "not a cursor", ["loss"], [], max_points=5).is_snapshot_needed


def test_readers_see_whole_groups_while_writers_append_and_merge(store: Store) -> None:
    writer = make_writer(store)
    frames = writer.rows(200, 5)
    is_done = threading.Event()
    faults: list[str] = []

    def read() -> None:
        seen = 0
        while not is_done.is_set():
            rows = scan_rows(store, writer.run_id)
            chart = next(iter(store.series(writer.run_id, ["loss"], buckets=10)), None)
            if [row[0] for row in rows] != list(range(len(rows))):
                faults.append(f"{len(rows)} rows with holes")
            if len(rows) < seen or len(rows) % 5:
                faults.append(f"{len(rows)} rows after {seen}")
            if chart is not None and (sum(chart.count) < len(rows) or chart.step_last[-1] + 1 != sum(chart.count)):
                faults.append(f"a chart of {sum(chart.count)} points over {len(rows)} rows")
            seen = len(rows)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 200, 4):
        first = start + 1
        store.append([Batch(writer.run_id, writer.writer_id, first, first + 4, frames[start : start + 4])])
        if start % 20 == 0:
            store.merge(writer.run_id)
    is_done.set()
    for reader in readers:
        reader.join()

    assert faults == []
    assert len(scan_rows(store, writer.run_id)) == 1000


def test_many_values_that_take_few_bytes_are_read_back_in_as_many_frames_as_it_takes(store: Store) -> None:
    writer = make_writer(store)
    flags = {f"flag{index}": True for index in range(300)}
    for first in (0, 2_000):
        feed(store, writer, [writer.data([(step, flags) for step in range(first, first + 2_000)])])

    rows = scan_rows(store, writer.run_id)

    assert [(step, len(row)) for step, _, row in rows] == [(step, len(flags)) for step in range(4_000)]
