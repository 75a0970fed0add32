"""Whatever a real run logs, the independent reader finds in its journal, bit for bit, and so does the Rust decoder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import runferry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runferry import _native

from tests.compat.reader import frames_of
from tests.compat.test_golden import native_rows, split
from tests.support.exact import exact, from_bits
from tests.support.steps_model import StepsModel

EXAMPLES = int(os.environ.get("RUNFERRY_EXAMPLES", "60"))
HIDDEN = "_timestamp"

any_float = st.one_of(st.floats(), st.integers(0, 2**64 - 1).map(from_bits))
small_float = st.floats(width=32)
int64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-100, 100))
scalars = st.one_of(any_float, small_float, int64, st.booleans(), st.none(), st.text(max_size=20))
lists = st.recursive(st.lists(scalars, max_size=4), lambda inner: st.lists(st.one_of(inner, scalars), max_size=3), max_leaves=6)
names = st.sampled_from(["loss", "n", "a", "b", "a.b", "\u00fc/\U0001f680", "_own", " "])
rows = st.dictionaries(names, st.one_of(scalars, lists, st.dictionaries(names, scalars, max_size=3)), max_size=4)
calls = st.lists(st.tuples(rows, st.one_of(st.none(), st.integers(0, 60)), st.sampled_from([None, True, False])), max_size=40)


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A logged dict as it is stored: nested names joined by dots, the later of two equal ones kept."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        cells.update({f"{name}.{inner}": cell for inner, cell in flat(value).items()} if isinstance(value, dict) else {name: value})
    return cells


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(calls)
def test_the_journal_of_any_run_holds_what_was_logged_bit_for_bit(made: list[tuple[dict[str, Any], int | None, bool | None]]) -> None:
    model = StepsModel()
    with tempfile.TemporaryDirectory() as folder:
        run = runferry.init(project="any", dir=folder, mode="offline", settings={"silent": True, "disable_git": True, "fsync": "never"})
        for row, step, commit in made:
            run.log(row, step, commit)
            model.log(flat(row), step, commit)
        assert run.step == model.step
        assert run.status().behind_rows == model.behind
        run.finish()
        assert run.status().marked_values == 0
        data = b"".join(segment.read_bytes() for segment in sorted(Path(run.dir).glob("seg-*.rfj")))

    stored: dict[int, dict[str, Any]] = {}
    for frame in frames_of(data):
        for step, _, cells in frame.rows():
            stored.setdefault(step, {}).update({name: exact(value) for name, _, value in cells if name != HIDDEN})
    assert stored == {step: {name: exact(value) for name, value in row.items()} for step, row in model.rows.items()}

    for raw, frame in zip(split(data), frames_of(data), strict=True):
        if frame.kind_name == "data":
            independent = [
                [step, time_us, {name: [kind, exact(value)] for name, kind, value in cells}] for step, time_us, cells in frame.rows()
            ]
            assert native_rows(raw) == independent
        assert exact([list(document) for document in _native.documents(raw)]) == exact([list(document) for document in frame.documents()])
