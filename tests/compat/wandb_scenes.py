"""Small trainings that W&B and Runferry both play: what each writes down is compared (`tests/integration/test_wandb.py`).

A scene says one sentence about W&B. It is given the module (`wandb`, or `runferry` in its place), an active run, and `seen`, where it notes
what a script can see as it goes. Standard library and numpy only: `record_wandb.py` imports this in W&B's own environment.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import math
import pathlib
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Play = Callable[[Any, Any, "Seen"], None]


class Seen:
    """What a script sees while it runs, by name."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.notes: dict[str, Any] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        """Note a value."""
        self.notes[name] = value

    def raised(self, name: str, call: Callable[[], object]) -> None:
        """Note what a call raises: class and text, or None."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - which one is the question
            self.notes[name] = [type(error).__name__, str(error)]
        else:
            self.notes[name] = None


@dataclasses.dataclass(frozen=True)
class Scene:
    """One sentence, and the calls that show it."""

    name: str
    sentence: str
    play: Play
    config: dict[str, Any]
    differs: str | None
    """Why Runferry does otherwise, on purpose; None: it does the same."""
    missing: str | None
    """What Runferry does instead as yet; None: nothing is missing."""


SCENES: dict[str, Scene] = {}


def scene(*, config: dict[str, Any] | None = None, differs: str | None = None, missing: str | None = None) -> Callable[[Play], Play]:
    """Add a function to the scenes; its docstring is the sentence."""

    def add(play: Play) -> Play:
        SCENES[play.__name__] = Scene(play.__name__, str(play.__doc__), play, config or {}, differs, missing)
        return play

    return add


# Steps and commit.


@scene()
def rows_count_up(_wandb: Any, run: Any, seen: Seen) -> None:
    """A call is a row, and the next call is the next step."""
    run.log({"a": 1})
    run.log({"a": 2})
    seen["step"] = run.step


@scene()
def commit_false_merges(_wandb: Any, run: Any, seen: Seen) -> None:
    """With commit=False a call only fills the open row, in which the later value of a key wins."""
    run.log({"a": 1, "b": 1}, commit=False)
    run.log({"a": 2, "c": 3})
    seen["step"] = run.step


@scene()
def a_step_given_does_not_end_its_row(_wandb: Any, run: Any, seen: Seen) -> None:
    """Two calls with one step make one row, which a larger step ends; a jump leaves a gap."""
    run.log({"a": 1}, step=3)
    run.log({"b": 2}, step=3)
    seen["step in between"] = run.step
    run.log({"a": 3}, step=10)
    run.log({"c": 4})
    seen["step"] = run.step


@scene()
def a_step_with_commit_ends_its_row(_wandb: Any, run: Any, seen: Seen) -> None:
    """With a step and commit=True the row ends, and the next one follows it."""
    run.log({"a": 1}, step=4, commit=True)
    seen["step"] = run.step
    run.log({"a": 2})


@scene()
def all_kinds_of_calls_meet_in_a_row(_wandb: Any, run: Any, seen: Seen) -> None:
    """After a call with a step, one without commit and a plain one all are in that row."""
    run.log({"a": 1}, step=12)
    run.log({"b": 2}, commit=False)
    run.log({"c": 3})
    seen["step"] = run.step


@scene()
def a_step_behind_drops_the_call(_wandb: Any, run: Any, seen: Seen) -> None:
    """A step behind the current one drops the whole call, without an exception."""
    run.log({"a": 1}, step=5)
    seen.raised("behind", lambda: run.log({"a": 9, "b": 9}, step=4))
    run.log({"c": 3}, step=5)
    seen["step"] = run.step


@scene()
def an_empty_call_is_a_row(_wandb: Any, run: Any, seen: Seen) -> None:
    """An empty dict makes a row all the same."""
    run.log({})
    run.log({"a": 1})
    seen["step"] = run.step


@scene()
def the_end_emits_the_open_row(_wandb: Any, run: Any, _seen: Seen) -> None:
    """A row that is open at the end is kept."""
    run.log({"a": 1})
    run.log({"a": 2}, commit=False)


@scene()
def a_step_in_the_dict_is_discarded(_wandb: Any, run: Any, _seen: Seen) -> None:
    """`_step` in the dict is discarded, other keys with an underscore pass."""
    run.log({"_step": 99, "_mine": 7, "a": 1})


@scene()
def the_callers_dict_stays_as_it_was(_wandb: Any, run: Any, seen: Seen) -> None:
    """The dict is not changed by the call, and may be changed after it."""
    row: dict[str, Any] = {"a": 1, "n": {"b": [1, 2]}}
    run.log(row)
    seen["after the call"] = dict(row)
    row["a"] = 2
    row["n"]["b"].append(3)
    run.log(row)


@scene()
def wrong_calls_raise(_wandb: Any, run: Any, seen: Seen) -> None:
    """What is no dict, and a key that is no string, raise TypeError at the call."""
    seen.raised("a list", lambda: run.log([("a", 1)]))
    seen.raised("none", lambda: run.log(None))
    seen.raised("a number as key", lambda: run.log({1: 2}))
    run.log({"a": 1})


@scene()
def the_module_logs_to_the_active_run(wandb: Any, run: Any, seen: Seen) -> None:
    """`wandb.log`, `wandb.config` and `wandb.summary` are those of the active run."""
    wandb.log({"a": 1})
    wandb.config.update({"lr": 0.5})
    wandb.summary["best"] = 7
    seen["is active"] = wandb.run is run
    seen["config"] = run.config["lr"]


# Names and nesting.


@scene()
def nested_dicts_are_paths(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Nested dicts are stored by their leaves; names inside that are no strings become strings."""
    run.log({"a": {"b": 1, "c": {"d": 2}}, "n": {1: "x", 2.5: "y"}})


@scene()
def a_slash_is_part_of_a_name(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Slashes, blanks and any letter are part of a name."""
    run.log({"train/loss": 1, "a name": 2, "größe 📏": 3})


@scene()
def scalar_and_dict_may_take_turns(_wandb: Any, run: Any, _seen: Seen) -> None:
    """A key may hold a number in one row and a dict in the next."""
    run.log({"a": 1})
    run.log({"a": {"b": 2}})


@scene()
def an_empty_name_has_no_place(_wandb: Any, run: Any, _seen: Seen) -> None:
    """An empty name is left out; the rest of its row stays."""
    run.log({"": 1, "a": 2})


# Values.


@scene()
def plain_values(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Numbers, truth values, texts and None are kept."""
    run.log({"i": 3, "f": 0.1, "whole": 1.0, "t": True, "s": "text", "n": None, "large": 2**62, "-0": -0.0, "tiny": 5e-324})


@scene()
def values_beyond_numbers(_wandb: Any, run: Any, _seen: Seen) -> None:
    """NaN and the infinities are kept."""
    run.log({"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "np": np.float32("nan")})


@scene()
def integers_beyond_64_bits(_wandb: Any, run: Any, _seen: Seen) -> None:
    """From 2**63 on an integer is a float."""
    run.log({"max": 2**63 - 1, "over": 2**63, "far": 2**70})


@scene()
def numpy_scalars(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Scalars of numpy, and arrays of one element, are numbers."""
    run.log(
        {"f32": np.float32(0.5), "f16": np.float16(0.25), "i": np.int64(7), "b": np.bool_(1), "0d": np.array(3), "one": np.array([4.0])}
    )
    run.log({"complex": np.complex64(1 + 2j)})


@scene()
def small_arrays_are_lists(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Arrays of 2 to 32 elements are lists of their shape."""
    run.log({"two": np.array([1.0, 2.0]), "square": np.arange(4).reshape(2, 2), "most": np.arange(32)})


@scene()
def large_arrays_are_histograms(_wandb: Any, run: Any, _seen: Seen) -> None:
    """An array of more than 32 elements is a histogram of 32 bins."""
    run.log({"h": np.arange(33, dtype=np.float64)})


@scene()
def lists_of_any_length(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Lists and tuples of any length are lists."""
    run.log({"list": [1, "a", None], "tuple": (1, 2), "long": list(range(40)), "nested": [[1], [2, 3]]})


class Colour(enum.Enum):
    """An Enum of texts."""

    RED = "r"


class Level(enum.IntEnum):
    """An Enum of numbers."""

    HIGH = 3


class Point(NamedTuple):
    """A tuple with names."""

    x: int
    y: int


@dataclasses.dataclass
class Net:
    """A dataclass."""

    depth: int = 2
    name: str = "n"


def _a_function() -> None:
    """Stored by its name."""


@scene()
def texts_of_python_objects(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Bytes are text, decimals and complex numbers are texts."""
    run.log(
        {
            "bytes": b"abc",
            "array": bytearray(b"abc"),
            "decimal": decimal.Decimal("1.50"),
            "complex": 1 + 2j,
            "other": -1.5 - 0.5j,
            "imaginary": 2j,
        }
    )


@scene()
def times_are_iso(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Dates and times are ISO texts."""
    at = dt.datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - one without a zone is a case
    east = dt.timezone(dt.timedelta(hours=2))
    run.log({"date": at.date(), "naive": at, "utc": at.replace(tzinfo=dt.timezone.utc), "east": at.replace(microsecond=7, tzinfo=east)})


@scene()
def time_spans_are_iso(_wandb: Any, run: Any, _seen: Seen) -> None:
    """A time span is an ISO duration."""
    spans = {
        "none": dt.timedelta(),
        "day": dt.timedelta(days=1),
        "all": dt.timedelta(days=40, hours=2, minutes=3, seconds=4, microseconds=5),
    }
    run.log({**spans, "short": dt.timedelta(milliseconds=1), "hours": dt.timedelta(hours=30), "back": -dt.timedelta(days=1, seconds=2)})


@scene()
def an_enum_is_its_value(_wandb: Any, run: Any, _seen: Seen) -> None:
    """An Enum is its value."""
    run.log({"text": Colour.RED, "number": Level.HIGH})


@scene()
def collections_are_lists(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Sets, generators and named tuples are lists."""
    run.log({"set": {5}, "frozen": frozenset({6}), "generator": (n for n in range(3)), "named": Point(1, 2)})


class Thing:
    """Of no known type."""


ODD_VALUES: dict[str, tuple[str, Any]] = {
    "object": ("An object of no known type raises TypeError.", Thing()),
    "range": ("A range raises TypeError.", range(3)),
    "path": ("A path raises TypeError.", pathlib.PurePosixPath("a/b")),
    "buffer": ("A memoryview raises TypeError.", memoryview(b"abc")),
    "uuid": ("A UUID is its text.", uuid.UUID(int=1)),
    "fraction": ("A fraction is its text.", fractions.Fraction(1, 2)),
    "time_of_day": ("A time of day is an ISO text.", dt.time(3, 4)),
    "function": ("A function is its name with its module's.", _a_function),
    "class": ("A class is its name with its module's.", Thing),
    "dataclass": ("A dataclass is a dict of its fields.", Net()),
}


def _odd_value(name: str) -> Play:
    def play(_wandb: Any, run: Any, seen: Seen) -> None:
        try:
            run.log({"odd": ODD_VALUES[name][1]})
        except TypeError:
            seen["raised"] = "TypeError"
        run.log({"a": 1})

    play.__name__, play.__doc__ = f"odd_value_{name}", ODD_VALUES[name][0]
    return play


for _name in ODD_VALUES:
    scene(differs="it is text, as other bytes are" if _name == "buffer" else None)(_odd_value(_name))


# Summary.


@scene()
def the_summary_is_the_last_value(_wandb: Any, run: Any, seen: Seen) -> None:
    """The summary of a name is the last value logged under it."""
    run.log({"a": 1, "b": "x"})
    run.log({"a": 2})
    seen["a"], seen["b"], seen["missing"] = run.summary["a"], run.summary["b"], run.summary.get("missing", "none")


@scene(missing="after a None the summary has no entry")
def a_none_leaves_the_summary(_wandb: Any, run: Any, _seen: Seen) -> None:
    """None makes no entry in the summary, and leaves the one that is there."""
    run.log({"a": 1, "b": None})
    run.log({"a": None})


@scene()
def the_summary_can_be_set(_wandb: Any, run: Any, _seen: Seen) -> None:
    """What is set in the summary is kept beside what was logged."""
    run.log({"a": 1})
    run.summary["best"] = 0.5
    run.summary.update({"more": {"x": 1}})
    run.summary.note = "text"


@scene(missing="what was set stays, whatever is logged after it")
def what_is_logged_after_wins_over_what_was_set(_wandb: Any, run: Any, _seen: Seen) -> None:
    """A value set in the summary is replaced by the next one logged, and one set after it stays."""
    run.summary["a"] = 100
    run.log({"a": 1, "b": 1})
    run.summary["b"] = 200


@scene()
def a_summary_entry_can_be_deleted(_wandb: Any, run: Any, _seen: Seen) -> None:
    """A deleted entry is gone."""
    run.summary["a"] = 1
    run.summary["b"] = 2
    del run.summary["a"]


# Config.


@scene(config={"lr": 0.1, "net": {"depth": 3}, "-dash-": 1})
def config_holds_what_init_was_given(_wandb: Any, run: Any, seen: Seen) -> None:
    """Config is read by item, attribute and `get`; dashes around a name are stripped."""
    seen["item"], seen["attribute"], seen["nested"] = run.config["lr"], run.config.lr, run.config["net"]["depth"]
    seen["get"], seen["missing"], seen["in"] = run.config.get("lr"), run.config.get("nothing", 5), "lr" in run.config
    seen["keys"] = sorted(run.config.keys())


@scene(config={"lr": 0.1})
def config_refuses_another_value(_wandb: Any, run: Any, seen: Seen) -> None:
    """Another value for a key is refused unless it is allowed; the same one is not."""

    def other() -> None:
        run.config["lr"] = 0.2

    try:
        other()
    except Exception as error:  # noqa: BLE001 - which one is the question
        seen["other value"] = type(error).__name__
    run.config["lr"] = 0.1
    run.config["new"] = 1
    run.config.update({"lr": 0.3}, allow_val_change=True)
    seen["after"] = run.config["lr"]


@scene(config={"a": 1})
def config_defaults_fill_only_gaps(_wandb: Any, run: Any, _seen: Seen) -> None:
    """`setdefaults` sets what is not there yet."""
    run.config.setdefaults({"a": 2, "b": 3})


@scene()
def config_takes_python_objects(_wandb: Any, run: Any, _seen: Seen) -> None:
    """Tuples become lists, dataclasses dicts, numpy scalars numbers."""
    run.config.update({"t": (1, 2), "d": Net(), "np": np.float64(0.5), "none": None, "nested": {"x": {"y": 1}}})
    run.config.update({"enum": Colour.RED, "decimal": decimal.Decimal("1.5"), "date": dt.date(2026, 1, 2), "set": {5}})


# The end.


@scene()
def a_finished_run_refuses_to_log(_wandb: Any, run: Any, seen: Seen) -> None:
    """After `finish` a call of `log` raises UsageError; `finish` again does nothing."""
    run.log({"a": 1})
    run.finish()
    try:
        run.log({"a": 2})
    except Exception as error:  # noqa: BLE001 - which one is the question
        seen["log"] = [type(error).__name__, str(error).replace(run.id, "ID")]
    seen.raised("finish", run.finish)


@scene()
def an_unknown_attribute_is_refused(_wandb: Any, run: Any, seen: Seen) -> None:
    """An attribute that a run does not have is refused with its name."""
    try:
        run.nothing_like_it  # noqa: B018 - the access is the question
    except Exception as error:  # noqa: BLE001 - which one is the question
        seen["read"] = [type(error).__name__, str(error)]
