"""The step rules of the W&B SDK, as they are read back from the server."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import runferry

from tests.support import stored
from tests.support.exact import exact
from tests.support.steps_model import StepsModel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

Call = tuple[dict[str, Any], int | None, bool | None]
A, B, C = {"a": 1}, {"b": 2}, {"c": 3}

TABLE: dict[str, tuple[list[Call], list[tuple[int, dict[str, Any]]], int]] = {
    "each call ends its row": ([(A, None, None), (B, None, None)], [(0, A), (1, B)], 2),
    "an open row takes the next call": ([(A, None, False), (B, None, None)], [(0, A | B)], 1),
    "finish ends an open row": ([(A, None, None), (B, None, False)], [(0, A), (1, B)], 1),
    "a step given opens that row": ([(A, 5, None), (B, None, None)], [(5, A | B)], 6),
    "two calls with one step make one row": ([(A, 5, None), (B, 5, None)], [(5, A | B)], 5),
    "a later step ends the row before": ([(A, 5, None), (B, 7, None)], [(5, A), (7, B)], 7),
    "a step with commit moves on": ([(A, 5, True), (B, None, None)], [(5, A), (6, B)], 7),
    "all three kinds meet in one row": ([(A, 12, None), (B, None, False), (C, None, None)], [(12, A | B | C)], 13),
    "a jump leaves a gap": ([(A, None, None), (B, 100, True), (C, None, None)], [(0, A), (100, B), (101, C)], 102),
    "a step behind drops the whole call": ([(A, 5, True), (B, 3, None), (C, None, None)], [(5, A), (6, C)], 7),
    "the current step is not behind": ([(A, None, None), (B, 1, None), (C, None, None)], [(0, A), (1, B | C)], 2),
    "an empty call makes a row": ([({}, None, None), (A, None, None), ({}, None, None)], [(0, {}), (1, A), (2, {})], 3),
    "the later value of a key wins": ([({"a": 1}, None, False), ({"a": "x"}, None, None)], [(0, {"a": "x"})], 1),
    "a step in the dict is ignored": ([({"_step": 9, "a": 1}, None, None)], [(0, A)], 1),
    "the greatest step is kept": ([(A, 2**63 - 2, True)], [(2**63 - 2, A)], 2**63 - 1),
}  # fmt: skip


def settings_of(server: RunningServer) -> dict[str, Any]:
    """Silent, to this server."""
    return {"base_url": server.url, "silent": True}


@pytest.mark.parametrize("rule", TABLE)
def test_step_rules_hold_on_the_server(server: RunningServer, tmp_path: Path, rule: str) -> None:
    calls, expected, step_after = TABLE[rule]
    run = runferry.init(project="steps", id=rule.replace(" ", "-"), dir=tmp_path, settings=settings_of(server))
    for values, step, commit in calls:
        run.log(values, step=step, commit=commit)
    assert run.step == step_after
    run.finish()

    assert stored.cells(server.url, run.path) == [(step, {name: exact(value) for name, value in row.items()}) for step, row in expected]
    behind = sum(len(calls) > 2 and step == 3 for _, step, _ in calls)
    assert run.status().behind_rows == behind
    gaps = stored.gaps(server.url, run.path)
    assert sum(gap["rows"] for gap in gaps) == behind


def test_times_given_are_kept_and_those_not_given_are_those_of_the_call(server: RunningServer, tmp_path: Path) -> None:
    run = runferry.init(project="steps", id="times", dir=tmp_path, settings=settings_of(server))
    run.log({"a": 1, "_timestamp": 1_700_000_000.25})
    run.log({"a": 2, "_timestamp": 1_700_000_001})
    run.log({"a": 3})
    run.log({"a": 4, "_runtime": 77, "_own": 5})
    run.finish()

    rows = stored.rows(server.url, run.path)

    assert [row["_timestamp"] for row in rows[:2]] == [1_700_000_000.25, 1_700_000_001.0]
    assert abs(rows[2]["_timestamp"] - run.start_time) < 30
    assert 0 <= rows[2]["_runtime"] < 30
    assert rows[3]["_own"] == 5


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(3))
def test_a_long_random_sequence_of_calls_ends_as_the_model_says(server: RunningServer, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    model = StepsModel()
    run = runferry.init(project="steps", id=f"random-{seed}", dir=tmp_path, settings=settings_of(server))
    for number in range(20_000):
        step = model.step + chance.randrange(-2, 5) if chance.random() < 0.3 else None
        step = None if step is not None and step < 0 else step
        values = {chance.choice("abcdef"): chance.choice([number, number / 7, str(number)]) for _ in range(chance.randrange(4))}
        commit = chance.choice([None, None, True, False])
        run.log(values, step, commit)
        model.log(values, step, commit)
    run.finish()

    expected = [(step, {name: exact(value) for name, value in row.items()}) for step, row in sorted(model.rows.items())]
    assert stored.cells(server.url, run.path) == expected
    assert run.status().behind_rows == model.behind
    assert stored.run(server.url, run.path).stored["rows"] == len(model.rows)
