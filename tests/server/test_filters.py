"""Filters, orders and paging of runs, against the real database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from runferry.server.filters import FilterError
from runferry.server.metadata.patterns import PatternError, compile_pattern, matches_pattern
from runferry.server.query import OrderError

from tests.support.frames import START_US

if TYPE_CHECKING:
    from tests.server.metadata_scene import Scene


@pytest.fixture
def runs(scene: Scene) -> Scene:
    """Five runs that differ in everything that can be filtered."""
    configs = {
        "a": {"lr": 0.1, "model": "resnet", "deep": {"er": {"x": 1}}, "flag": True},
        "b": {"lr": 0.01, "model": "vit", "flag": False},
        "c": {"lr": 1, "model": "vit-large"},
        "d": {"lr": float("nan")},
        "e": {},
    }
    tags = {"a": ["x"], "b": ["x", "y"], "c": ["y"], "d": [], "e": []}
    for index, (name, config) in enumerate(configs.items()):
        scene.open(
            name,
            config=config,
            tags=tags[name],
            name=f"name-{name}",
            group="g1" if name in "ab" else "",
            host=f"host{index % 2}",
            started_us=START_US + index * 1_000_000,
        )
    scene.last_values("a", {"loss": 3.0})
    scene.last_values("b", {"loss": 1.0})
    scene.last_values("c", {"loss": 2.0})
    scene.finish("a")
    scene.finish("b", exit_code=1)
    return scene


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "abcde"),
        ({"config.lr": 0.1}, "a"),
        ({"config.lr": {"$lt": 0.5}}, "ab"),
        ({"config.lr": {"$gte": 0.1, "$lte": 1}}, "ac"),
        ({"config.lr": {"$ne": 0.1}}, "bcde"),
        ({"config.lr": {"$in": [0.1, 1]}}, "ac"),
        ({"config.lr": {"$nin": [0.1, 1]}}, "bde"),
        ({"config.lr": {"$in": []}}, ""),
        ({"config.lr": {"$exists": True}}, "abcd"),
        ({"config.lr": {"$exists": False}}, "e"),
        ({"config.lr": None}, "e"),
        ({"config.lr": "NaN"}, "d"),
        ({"config.lr": {"$not": {"$lt": 0.5}}}, "cde"),
        ({"config.deep.er.x": 1}, "a"),
        ({"config.flag": True}, "a"),
        ({"config.flag": False}, "b"),
        ({"config.model": "vit"}, "b"),
        ({"config.model": {"$regex": "^vit"}}, "bc"),
        ({"config.model": {"$gt": "s"}}, "bc"),
        ({"summary_metrics.loss": {"$lt": 2.5}}, "bc"),
        ({"state": "finished"}, "a"),
        ({"state": {"$in": ["finished", "failed"]}}, "ab"),
        ({"tags": "x"}, "ab"),
        ({"tags": {"$in": ["x", "y"]}}, "abc"),
        ({"tags": {"$nin": ["x"]}}, "cde"),
        ({"tags": {"$exists": False}}, "de"),
        ({"tags": {"$regex": "^[xz]$"}}, "ab"),
        ({"group": "g1"}, "ab"),
        ({"group": {"$exists": False}}, "cde"),
        ({"display_name": "name-c"}, "c"),
        ({"name": {"$regex": "[de]$"}}, "de"),
        ({"id": {"$in": ["a", "e"]}}, "ae"),
        ({"host": "host1"}, "bd"),
        ({"created_at": {"$gt": START_US + 2_000_000}}, "de"),
        ({"created_at": {"$lt": "2023-11-14T22:13:22Z"}}, "ab"),
        ({"$or": [{"id": "a"}, {"config.lr": 1}]}, "ac"),
        ({"$and": [{"group": "g1"}, {"state": "failed"}]}, "b"),
        ({"$nor": [{"id": "a"}, {"id": "b"}]}, "cde"),
        ({"$not": {"group": "g1"}}, "cde"),
        ({"id": "'; DROP TABLE run; --"}, ""),
    ],
)
def test_a_filter_finds_exactly_these_runs(runs: Scene, filters: object, expected: str) -> None:
    assert "".join(runs.ids(filters)) == expected
    assert runs.page(filters=filters).total == len(expected)


@pytest.mark.parametrize(
    "filters",
    [
        [],
        "x",
        {"unknown": 1},
        {"$xor": []},
        {"$and": {}},
        {"config.lr": {"$near": 1}},
        {"config.lr": {"a": 1}},
        {"config.lr": {}},
        {"config.lr": [1]},
        {"config.lr": {"$in": 3}},
        {"config.lr": {"$exists": 1}},
        {"config.lr": {"$lt": None}},
        {"config.": 1},
        {"tags": {"$gt": "x"}},
        {"tags": 3},
        {"id": 3},
        {"created_at": "yesterday"},
        {"created_at": 1e300},
        {"id": {"$regex": "("}},
        {"id": {"$regex": "(a+)+$"}},
        {"id": {"$in": ["x"] * 5_000}},
        {"$or": [{"id": "x"}] * 500},
    ],
)
def test_a_filter_that_cannot_be_understood_is_refused(runs: Scene, filters: object) -> None:
    with pytest.raises(FilterError):
        runs.ids(filters)


def test_a_filter_nested_too_deep_is_refused(runs: Scene) -> None:
    filters: object = {"id": "a"}
    for _ in range(100):
        filters = {"$and": [filters]}

    with pytest.raises(FilterError, match="deeper"):
        runs.ids(filters)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("+created_at", "abcde"),
        ("-created_at", "edcba"),
        ("created_at", "abcde"),
        ("+summary_metrics.loss", "bcade"),
        ("-summary_metrics.loss", "acbed"),
        ("+config.lr", "bacde"),
        ("+config.model", "abcde"),
        ("-config.model", "cbaed"),
        ("-display_name", "edcba"),
        ("+group", "abcde"),
    ],
)
def test_an_order_sorts_and_puts_runs_without_the_field_last(runs: Scene, order: str, expected: str) -> None:
    assert "".join(runs.ids(order=order)) == expected


@pytest.mark.parametrize(
    "order", ["+created_at", "-summary_metrics.loss", "+config.lr", "-config.model", "+state", "+heartbeat_at", "+group"]
)
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_put_together_are_the_whole_listing(runs: Scene, order: str, limit: int) -> None:
    whole = runs.ids(order=order)
    paged: list[str] = []
    cursor = None
    while True:
        page = runs.page(order=order, limit=limit, cursor=cursor)
        assert page.total == 5
        paged += [run["id"] for run in page.runs]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert paged == whole


def test_a_run_that_appears_between_two_pages_repeats_no_other(runs: Scene) -> None:
    first = runs.page(order="-created_at", limit=2)
    runs.open("new", started_us=START_US + 60_000_000)

    second = runs.page(order="-created_at", limit=10, cursor=first.next_cursor)

    assert [run["id"] for run in second.runs] == ["c", "b", "a"]


@pytest.mark.parametrize("order", ["+tags", "+nothing", "", "+config."])
def test_an_unknown_order_is_refused(runs: Scene, order: str) -> None:
    with pytest.raises(OrderError):
        runs.ids(order=order)


@pytest.mark.parametrize("cursor", ["x", "!!!", "bnVsbA", "W10"])
def test_a_cursor_that_is_not_ours_is_refused(runs: Scene, cursor: str) -> None:
    with pytest.raises(OrderError):
        runs.page(cursor=cursor)


def test_a_cursor_of_another_order_is_refused(runs: Scene) -> None:
    page = runs.page(order="+created_at", limit=1)

    with pytest.raises(OrderError, match="another order"):
        runs.page(order="-created_at", cursor=page.next_cursor)


@pytest.mark.parametrize("pattern", ["(a*)*", "(a|b+)+", "(a|a)+", "((a+)b)*", "a*" * 10, "a?" * 20, "(a|a)" * 20, "x" * 1_000, "("])
def test_a_pattern_that_could_run_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["^run-[0-9]+$", r"a\.b", "(?:ab)+c", "x|y", "[(]+", r"\(+"])
def test_an_ordinary_pattern_is_taken(pattern: str) -> None:
    assert compile_pattern(pattern).pattern == pattern


def test_the_worst_pattern_that_is_taken_ends_soon() -> None:
    started = time.monotonic()

    compile_pattern("a*a*b")
    assert not matches_pattern("a*a*b", "a" * 100_000)

    assert time.monotonic() - started < 10
