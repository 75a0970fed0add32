"""`Config`: keys keep their value, changes are published key by key."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import runferry
from runferry import Config, Histogram
from runferry.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass
class Optimizer:
    name: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)


@pytest.fixture
def published() -> list[tuple[dict[str, Any], list[str]]]:
    return []


@pytest.fixture
def config(published: list[tuple[dict[str, Any], list[str]]]) -> Config:
    return Config({"lr": 0.1, "_hidden": 1}, lambda updates, removed: published.append((updates, removed)))


def test_items_and_attributes_are_the_same_thing(config: Config) -> None:
    config.depth = 3
    config["width"] = 4

    assert (config.lr, config["depth"], config.width, config.get("no"), config.get("no", 5)) == (0.1, 3, 4, None, 5)
    assert "depth" in config
    assert "no" not in config
    with pytest.raises(AttributeError, match="no key 'no'"):
        _ = config.no
    with pytest.raises(KeyError):
        config["no"]


def test_keys_and_items_hide_names_that_start_with_an_underscore(config: Config) -> None:
    assert list(config) == list(config.keys()) == ["lr"]
    assert dict(config.items()) == {"lr": 0.1}
    assert config.as_dict() == {"lr": 0.1, "_hidden": 1}


def test_only_what_changed_is_published(config: Config, published: list[tuple[dict[str, Any], list[str]]]) -> None:
    config.update({"lr": 0.1, "depth": 3})
    config.setdefaults({"depth": 4, "width": 5})
    del config["width"]

    assert published == [({"depth": 3}, []), ({"width": 5}, []), ({}, ["width"])]


def test_another_value_for_a_key_is_refused_and_nothing_of_the_update_is_taken(config: Config) -> None:
    with pytest.raises(ConfigError, match=r'change value of key "lr" from 0\.1 to 0\.2'):
        config.update({"new": 1, "lr": 0.2})
    with pytest.raises(ConfigError):
        config.lr = 1

    assert config.as_dict() == {"lr": 0.1, "_hidden": 1}


def test_another_value_is_taken_where_it_is_allowed(config: Config) -> None:
    config.update({"lr": 0.2}, allow_val_change=True)

    assert config.lr == 0.2


def test_the_same_value_again_is_no_change_nan_included() -> None:
    config = Config({"limit": math.nan, "layers": [1, 2]})

    config.update({"limit": math.nan, "layers": (1, 2)})

    assert config.layers == [1, 2]


def test_dashes_at_the_ends_of_a_key_go() -> None:
    config = Config({"--dash-": 1})

    assert config.dash == 1
    assert config["-dash-"] == 1


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        ({"a": {1: (2, 3)}}, {"a": {"1": [2, 3]}}),
        ({3, 1, 2}, [1, 2, 3]),
        (slice(1, 2), {"slice_start": 1, "slice_step": None, "slice_stop": 2}),
        (Optimizer(), {"name": "adam", "betas": [0.9, 0.999]}),
        (argparse.Namespace(a=1), {"a": 1}),
        (2**70, float(2**70)),
        (b"text", "text"),
        (1 + 2j, "(1+2j)"),
        (None, None),
        ("\ud800", "\\ud800"),
    ],
    ids=repr,
)
def test_values_become_json_friendly(value: object, kept: object) -> None:
    assert Config({"k": value}).k == kept


def test_a_foreign_object_becomes_its_text() -> None:
    class Model:
        def __str__(self) -> str:
            return "a model"

    assert Config({"k": Model()}).k == "a model"


def test_a_histogram_is_a_result_and_no_input() -> None:
    with pytest.raises(TypeError, match="config key 'k': a Histogram is a result"):
        Config({"k": Histogram([1])})


@pytest.mark.parametrize("given", [{"name": "adam"}, argparse.Namespace(name="adam"), Optimizer(), Config({"name": "adam"})], ids=repr)
def test_config_is_taken_from_whatever_holds_names(given: object) -> None:
    assert Config(given).name == "adam"


@pytest.mark.parametrize("wrong", [7, ["a"], Optimizer])
def test_what_holds_no_names_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match="config must be a dict"):
        Config(wrong)


def test_a_yaml_path_without_pyyaml_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)

    with pytest.raises(runferry.UsageError, match="pip install pyyaml"):
        Config(str(tmp_path / "config.yaml"))
