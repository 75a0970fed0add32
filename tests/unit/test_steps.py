"""Steps and commit: the five rules of the W&B SDK, through the real writer and back out of the journal.

State: a current step and one open row. A call without `step` ends the row unless `commit=False`; a call with `step` does not unless
`commit=True`; a larger step ends the row before; a smaller one drops the call.
"""

from __future__ import annotations

import math
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest
import runferry
from runferry import _native

if TYPE_CHECKING:
    from tests.unit.conftest import Journals

Call = tuple[dict[str, Any], dict[str, Any]]


def call(data: dict[str, Any], **options: Any) -> Call:
    return data, options


CASES: dict[str, tuple[list[Call], dict[int, dict[str, Any]], int]] = {
    "rows_count_up": ([call({"a": 1}), call({"a": 2})], {0: {"a": 1}, 1: {"a": 2}}, 2),
    "commit_false_only_merges": ([call({"a": 1}, commit=False), call({"b": 2})], {0: {"a": 1, "b": 2}}, 1),
    "the_later_value_of_a_key_wins_in_an_open_row": ([call({"a": 1}, commit=False), call({"a": 2})], {0: {"a": 2}}, 1),
    "two_calls_with_one_step_are_one_row": ([call({"a": 1}, step=3), call({"b": 2}, step=3)], {3: {"a": 1, "b": 2}}, 3),
    "a_step_is_not_emitted_by_its_own_call": ([call({"a": 1}, step=5)], {5: {"a": 1}}, 5),
    "a_larger_step_ends_the_row_before": ([call({"a": 1}, step=1), call({"a": 2}, step=4)], {1: {"a": 1}, 4: {"a": 2}}, 4),
    "a_larger_step_ends_a_row_left_open_by_commit_false": (
        [call({"a": 1}, commit=False), call({"a": 2}, step=4)],
        {0: {"a": 1}, 4: {"a": 2}},
        4,
    ),
    "a_jump_leaves_a_gap": (
        [call({"a": 1}), call({"a": 2}, step=10, commit=True), call({"a": 3})],
        {0: {"a": 1}, 10: {"a": 2}, 11: {"a": 3}},
        12,
    ),
    "a_smaller_step_drops_the_whole_call": (
        [call({"a": 1}, step=5), call({"a": 9, "b": 9}, step=4), call({"c": 3}, step=5)],
        {5: {"a": 1, "c": 3}},
        5,
    ),
    "a_smaller_step_with_commit_is_dropped_too": ([call({"a": 1}, step=5), call({"a": 9}, step=4, commit=True)], {5: {"a": 1}}, 5),
    "commit_true_with_step_emits": ([call({"a": 1}, step=2, commit=True), call({"b": 2})], {2: {"a": 1}, 3: {"b": 2}}, 4),
    "step_then_commit_false_then_plain_share_a_row": (
        [call({"a": 1}, step=12), call({"b": 2}, commit=False), call({"c": 3})],
        {12: {"a": 1, "b": 2, "c": 3}},
        13,
    ),
    "an_empty_call_is_a_row": ([call({}), call({"a": 1})], {0: {}, 1: {"a": 1}}, 2),
    "finish_emits_the_open_row": ([call({"a": 1}, commit=False)], {0: {"a": 1}}, 0),
    "a_step_in_the_dict_is_discarded": ([call({"_step": 99, "a": 1})], {0: {"a": 1}}, 1),
    "other_underscore_keys_pass": ([call({"_mine": 7})], {0: {"_mine": 7}}, 1),
    "step_zero_is_the_first_row": ([call({"a": 1}, step=0), call({"b": 2})], {0: {"a": 1, "b": 2}}, 1),
    "the_largest_step_is_kept": ([call({"a": 1}, step=2**63 - 2)], {2**63 - 2: {"a": 1}}, 2**63 - 2),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_where_the_rules_put_them(name: str, journals: Journals) -> None:
    calls, rows, next_step = CASES[name]
    run = runferry.init(mode="offline")

    for data, options in calls:
        run.log(data, **options)
    step_before_finish = run.step
    run.finish()

    assert journals.rows() == rows
    assert step_before_finish == next_step


def test_a_dropped_call_is_counted_and_no_exception() -> None:
    run = runferry.init(mode="offline")
    run.log({"a": 1}, step=5)

    run.log({"a": 2}, step=4)
    run.log({"a": 3}, step=-1)

    assert run.status().behind_rows == 2
    assert run.status().accepted_rows == 1


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (([("a", 1)],), "must be passed a dictionary"),
        (("loss",), "must be passed a dictionary"),
        ((None,), "must be passed a dictionary"),
        (({1: 2},), "must be strings"),
        (({"a": 1, None: 2},), "must be strings"),
        (({"a": object()},), "key 'a'"),
    ],
)
def test_a_wrong_argument_is_a_type_error_and_leaves_no_trace(wrong: tuple[Any, ...], told: str, journals: Journals) -> None:
    run = runferry.init(mode="offline")

    with pytest.raises(TypeError, match=told):
        run.log(*wrong)
    run.log({"b": 1})
    run.finish()

    assert journals.rows() == {0: {"b": 1}}


def test_the_callers_dict_is_not_changed() -> None:
    run = runferry.init(mode="offline")
    data = {"a": 1, "n": {"b": 2}, "_step": 3}

    run.log(data)

    assert data == {"a": 1, "n": {"b": 2}, "_step": 3}


def test_keys_may_change_between_calls(journals: Journals) -> None:
    run = runferry.init(mode="offline")

    for index in range(200):
        run.log({f"metric/{index % 7}": index, "fixed": float(index)})
    run.finish()

    assert journals.rows() == {index: {f"metric/{index % 7}": index, "fixed": float(index)} for index in range(200)}


BITS = [
    0.0,
    -0.0,
    5e-324,
    1e300,
    1.0,
    0.1,
    math.nan,
    -math.nan,
    math.inf,
    -math.inf,
    struct.unpack("<d", bytes([1, 2, 3, 4, 5, 6, 0xF8, 0x7F]))[0],
]


def test_every_bit_of_a_number_survives(journals: Journals) -> None:
    run = runferry.init(mode="offline")

    for value in BITS:
        run.log({"x": value})
    run.finish()

    found = [row["x"] for row in journals.rows().values()]
    assert [struct.pack("<d", value) for value in found] == [struct.pack("<d", value) for value in BITS]


def test_the_kind_of_a_value_survives_when_it_changes_from_row_to_row(journals: Journals) -> None:
    values = [1, 1.0, True, "1", None, [1], 2**63 - 1, -(2**63), 2**64, False, ""]
    run = runferry.init(mode="offline")

    for value in values:
        run.log({"x": value})
    run.finish()

    found = [row["x"] for row in journals.rows().values()]
    assert found == values
    assert [type(value) for value in found] == [int, float, bool, str, type(None), list, int, int, float, bool, str]


def test_nested_dicts_are_stored_as_paths(journals: Journals) -> None:
    run = runferry.init(mode="offline")

    run.log({"val": {"acc": 0.5, 1: {"deep": 2}}, "dot.key": 3})
    run.finish()

    assert journals.rows() == {0: {"val.acc": 0.5, "val.1.deep": 2, "dot.key": 3}}


@pytest.mark.parametrize("key", ["", "k" * 1025, "\ud800"])
def test_an_item_with_an_impossible_key_is_dropped_and_counted_and_the_row_stays(key: str, journals: Journals) -> None:
    run = runferry.init(mode="offline")

    run.log({key: 1, "a": 2})
    status = run.status()
    run.finish()

    assert journals.rows() == {0: {"a": 2}}
    assert status.dropped_values == 1


def test_a_string_that_cannot_be_encoded_is_kept_as_a_marker_and_counted(journals: Journals) -> None:
    run = runferry.init(mode="offline")

    run.log({"text": "a\ud800"})
    status = run.status()
    run.finish()

    assert journals.rows() == {0: {"text": {"_type": "marker", "type": "str", "text": "'a\\ud800'"}}}
    assert status.marked_values == 1


def test_a_timestamp_in_the_dict_is_the_rows_time(journals: Journals) -> None:
    run = runferry.init(mode="offline")

    run.log({"_timestamp": 1700000000.25, "a": 1})
    run.finish()

    [frame] = [frame for frame in journals.frames() if frame[5] == 1]
    [(_, times_us, _)] = _native.decode_rows(frame)
    assert times_us == [1700000000250000]


def test_calls_of_many_threads_are_all_rows(journals: Journals) -> None:
    run = runferry.init(mode="offline")

    def work(thread: int) -> None:
        for index in range(250):
            run.log({f"thread/{thread}": index})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()

    rows = journals.rows()
    assert sorted(rows) == list(range(1000))
    for number in range(4):
        assert [row[f"thread/{number}"] for row in rows.values() if f"thread/{number}" in row] == list(range(250))


def test_the_summary_is_the_last_value_without_a_flush() -> None:
    run = runferry.init(mode="offline")

    run.log({"loss": 1.0, "n": {"x": 1}})
    run.log({"loss": 0.5})

    assert run.summary["loss"] == 0.5
    assert run.summary["n"]["x"] == 1


def test_after_finish_log_is_a_usage_error_through_every_name() -> None:
    run = runferry.init(mode="offline", id="abc")
    bound_before = run.log
    run.finish()

    with pytest.raises(runferry.UsageError, match=r"Run \(abc\) is finished\. The call to `log` will be ignored\."):
        run.log({"a": 1})
    with pytest.raises(runferry.UsageError):
        bound_before({"a": 1})
