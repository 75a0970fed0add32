"""`Summary`: what was set, over what was logged last."""

from __future__ import annotations

from typing import Any

import pytest
from runferry._summary import Summary


class Published(list[tuple[dict[str, Any], list[str]]]):
    def __call__(self, updates: dict[str, Any], removed: list[str]) -> None:
        self.append((updates, removed))


@pytest.fixture
def logged() -> dict[str, Any]:
    return {"loss": 0.5, "val.acc": 0.9, "val.deep.f1": 0.8}


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def summary(logged: dict[str, Any], published: Published) -> Summary:
    return Summary(lambda: logged, published, {"before": 1, "loss": 9.0})


def test_a_read_sees_the_last_logged_value_at_once(summary: Summary, logged: dict[str, Any]) -> None:
    before = summary["loss"]
    logged["loss"] = 0.25

    assert (before, summary["loss"], summary.loss) == (0.5, 0.25, 0.25)


def test_values_of_earlier_starts_are_below_those_of_this_one(summary: Summary) -> None:
    assert summary["before"] == 1
    assert summary["loss"] == 0.5


def test_a_set_value_hides_the_logged_one_and_is_published(summary: Summary, logged: dict[str, Any], published: Published) -> None:
    summary["loss"] = 0.1
    summary.best = 7
    logged["loss"] = 0.05

    assert (summary["loss"], summary.best) == (0.1, 7)
    assert published == [({"loss": 0.1}, []), ({"best": 7}, [])]


def test_removing_a_set_value_shows_the_logged_one_again(summary: Summary, published: Published) -> None:
    summary["loss"] = 0.1
    del summary["loss"]

    assert summary["loss"] == 0.5
    assert published[-1] == ({}, ["loss"])
    with pytest.raises(KeyError):
        del summary["never"]


def test_paths_are_read_as_nested_dicts_and_with_dots(summary: Summary) -> None:
    assert summary["val"]["acc"] == summary["val.acc"] == 0.9
    assert summary["val"]["deep"]["f1"] == 0.8
    assert summary["val"] == {"acc": 0.9, "deep": {"f1": 0.8}}
    assert "val" in summary


def test_setting_inside_a_nested_value_publishes_its_top_level_key(summary: Summary, published: Published) -> None:
    summary["test"] = {"acc": 0.5}
    summary["test"]["acc"] = 0.6
    summary["test"]["deep"] = {"f1": 1}
    summary["test"]["deep"]["f1"] = 2

    assert published[-1] == ({"test": {"acc": 0.6, "deep": {"f1": 2}}}, [])
    assert summary["test.deep.f1"] == 2


def test_a_set_parent_hides_the_paths_below_it(summary: Summary) -> None:
    summary["val"] = 3

    assert summary["val"] == 3
    assert "val.acc" not in summary


def test_it_reads_as_a_dict(summary: Summary) -> None:
    assert sorted(summary.keys()) == ["before", "loss", "val.acc", "val.deep.f1"]
    assert dict(summary.items()) == summary.as_dict()
    assert (len(summary), summary.get("no"), summary.get("no", 1)) == (4, None, 1)
    with pytest.raises(AttributeError, match="no key 'no'"):
        _ = summary.no
