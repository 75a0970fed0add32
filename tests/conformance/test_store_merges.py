"""Merges of runs with more metrics than one statement takes: everything as with a few, and no statement for each."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from runferry.server.store.sql import PAGE
from runferry.server.store.sqlite import SqliteStore

from tests.conformance.conftest import StoreEngine, feed, make_writer

if TYPE_CHECKING:
    from pathlib import Path

METRICS = PAGE + 3


def _row(step: int, metrics: int, value: float) -> tuple[int, dict[str, float]]:
    return step, {f"metric/{number}": value + number for number in range(metrics)}


def test_values_of_many_metrics_are_joined_replaced_and_counted_in_every_one(store_engine: StoreEngine) -> None:
    store = store_engine.open()
    early, late = make_writer(store), make_writer(store, started_s=5)
    for first in (0, 10, 20):
        feed(store, early, [early.data([_row(step, METRICS, 0.5) for step in range(first, first + 10)])])
        store.merge(early.run_id)
    feed(store, late, [late.data([_row(step, METRICS, 6.5) for step in (5, 15)])])
    store.merge(early.run_id)
    feed(store, late, [late.data([_row(step, METRICS, 7.5) for step in (6, 16, 40)])])

    store.merge(early.run_id, final=True)

    metrics = store.metrics(early.run_id)
    assert [(metric.points, metric.first_step, metric.last_step) for metric in metrics] == [(31, 0, 40)] * METRICS
    assert {metric.name: metric.last for metric in metrics} == _row(40, METRICS, 7.5)[1]
    assert store.check(early.run_id) == []
    sent = [{points for _, points, _ in sums.metrics} for sums in store.sums(early.run_id)]
    assert sent == [{30}, {5}], "what was replaced is counted for whoever sent it"


def test_least_and_greatest_values_are_those_that_are_left(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, shards=1, merging=False)
    early, late = make_writer(store), make_writer(store, started_s=5)
    feed(store, early, [early.data([_row(0, METRICS, -1000.0), _row(1, METRICS, 2.0), _row(2, METRICS, 5000.0)])])
    store.merge(early.run_id)
    feed(store, late, [late.data([_row(0, METRICS, 1.0), _row(2, METRICS, 3.0)])])

    store.merge(early.run_id)

    store.close()
    with sqlite3.connect(tmp_path / "metrics-00.db") as connection:
        ends = connection.execute("SELECT name, mn, mx FROM key WHERE role = 0").fetchall()
    low, high = _row(0, METRICS, 1.0)[1], _row(0, METRICS, 3.0)[1]
    assert sorted(ends) == sorted((name, low[name], high[name]) for name in low)


def test_a_merge_asks_the_database_once_for_many_metrics(tmp_path: Path) -> None:
    asked: list[str] = []

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = sqlite3.connect(*arguments, **options)
        connection.set_trace_callback(asked.append)
        return connection

    store = SqliteStore(tmp_path, shards=1, merging=False, connect=connect)
    counts = []
    for metrics in (1, PAGE // 3 - 1):  # their four chunks become one
        writer = make_writer(store, run=f"r{metrics}")
        for step in range(4):
            feed(store, writer, [writer.data([_row(step, metrics, 1.0)])])
            asked.clear()
            store.merge(writer.run_id)
        counts.append(len([statement for statement in asked if "SELECT" in statement]))

    assert counts[0] == counts[1] < 20
