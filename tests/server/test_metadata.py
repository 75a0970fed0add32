"""The metadata database: schema, migrations, what openings and documents do to a run."""

from __future__ import annotations

import sqlite3
from itertools import permutations
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from runferry.server.documents import BadOpenError, json_value, opening_of
from runferry.server.metadata import schema, writes
from runferry.server.metadata.database import Database, NewerSchemaError

from tests.server.metadata_scene import NOW_US, Scene
from tests.support.frames import START_US, run_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_migrations_make_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    database = Database(tmp_path / "meta.db")
    with database.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    database.close()

    assert differences == []


def test_a_database_of_a_newer_server_is_refused_with_both_versions_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(NewerSchemaError, match=r"9999.*up to \d{4}"):
        Database(path)

    assert path.read_bytes() == before


def test_commits_are_synchronous_and_readers_see_them(tmp_path: Path) -> None:
    database = Database(tmp_path / "meta.db")
    with database.write() as connection:
        assert connection.scalar(sa.text("PRAGMA synchronous")) == 2
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
    database.close()


def test_a_failed_transaction_leaves_nothing(scene: Scene) -> None:
    scene.open("r1")

    def half() -> None:
        with scene.database.write() as connection:
            connection.execute(sa.update(schema.run).values(notes="half"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()

    assert scene.run("r1")["notes"] == ""


def test_opening_a_writer_again_changes_nothing(scene: Scene) -> None:
    assert scene.open("r1", config={"lr": 1}) is False
    scene.config("r1", {"lr": 2})

    assert scene.open("r1", config={"lr": 1}) is False

    assert scene.run("r1")["config"] == {"lr": 2}
    assert scene.run("r1")["writers"] == 1


def test_a_resumed_run_keeps_its_tags_unless_given_and_merges_its_config(scene: Scene) -> None:
    scene.open("r1", 1, config={"lr": 1, "old": True}, tags=["first"], name="before")

    existed = scene.open("r1", 2, config={"lr": 2}, started_us=START_US + 10)

    run = scene.run("r1")
    assert existed
    assert run["config"] == {"lr": 2, "old": True}
    assert run["tags"] == ["first"]
    assert run["name"] == "before"
    scene.open("r1", 3, tags=["second"], started_us=START_US + 20)
    assert scene.run("r1")["tags"] == ["second"]


def test_an_older_opening_that_arrives_late_does_not_overwrite_newer_values(scene: Scene) -> None:
    scene.open("r1", 2, config={"lr": 2}, started_us=START_US + 10)

    scene.open("r1", 1, config={"lr": 1, "seed": 7})

    assert scene.run("r1")["config"] == {"lr": 2, "seed": 7}
    assert scene.run("r1")["created_at_us"] == START_US


def test_what_the_user_sets_in_the_summary_wins_until_removed(scene: Scene) -> None:
    scene.open("r1")
    scene.last_values("r1", {"loss": 0.5, "acc": 1})

    scene.summary("r1", {"loss": 9.0})
    scene.last_values("r1", {"loss": 0.4, "acc": 2})
    assert scene.run("r1")["summary"] == {"loss": 9.0, "acc": 2}
    assert scene.ids({"summary_metrics.loss": 9.0}) == ["r1"]

    scene.summary("r1", {}, removed=("loss",))
    assert scene.run("r1")["summary"] == {"loss": 0.4, "acc": 2}
    assert scene.ids({"summary_metrics.loss": 0.4}) == ["r1"]


ARRIVALS = [order for order in permutations(["open old", "open new", "finish new"]) if order.index("open new") < order.index("finish new")]


@pytest.mark.parametrize("order", ARRIVALS)
def test_the_newest_writer_decides_the_state_in_whatever_order_journals_arrive(scene: Scene, order: tuple[str, ...]) -> None:
    steps: dict[str, Callable[[], object]] = {
        "open old": lambda: scene.open("r1", 1),
        "open new": lambda: scene.open("r1", 2, started_us=START_US + 10),
        "finish new": lambda: scene.finish("r1", 2, exit_code=3),
    }

    for step in order:
        steps[step]()

    assert (scene.run("r1")["state"], scene.run("r1")["exit_code"]) == ("failed", 3)


def test_a_resume_makes_a_finished_run_running_again(scene: Scene) -> None:
    scene.open("r1", 1)
    scene.finish("r1", 1)

    scene.open("r1", 2, started_us=START_US + 10)

    run = scene.run("r1")
    assert (run["exit_code"], run["finished_at_us"]) == (None, None)
    assert scene.ids({"state": {"$in": ["finished", "failed"]}}) == []


def test_a_shared_run_is_finished_when_every_label_is(scene: Scene) -> None:
    scene.open("r1", 1, label="rank0")
    scene.open("r1", 2, label="rank1")

    scene.finish("r1", 1)
    assert scene.run("r1")["state"] not in {"finished", "failed"}

    scene.finish("r1", 2)
    assert scene.run("r1")["state"] == "finished"


def test_a_forked_child_does_not_keep_its_run_from_finishing(scene: Scene) -> None:
    scene.open("r1", 1)
    scene.open("r1", 2, started_us=START_US + 10, parent_writer=1)

    scene.finish("r1", 1)

    assert scene.run("r1")["state"] == "finished"


def test_a_silent_run_becomes_quiet_then_lost_and_with_a_backlog_later() -> None:
    from runferry.server.run_columns import silent_state  # noqa: PLC0415 - beside its use

    seconds = 1_000_000
    assert [silent_state(silent * seconds, 0) for silent in (10, 60, 61, 300, 301)] == ["running", "running", "quiet", "quiet", "lost"]
    assert [silent_state(silent * seconds, 5) for silent in (301, 600, 601)] == ["quiet", "quiet", "lost"]


def test_the_states_of_the_listing_follow_the_clock(scene: Scene) -> None:
    from runferry.server.query import now_us  # noqa: PLC0415 - beside its use

    scene.open("fresh", now_us=now_us())
    scene.open("quiet", now_us=now_us() - 100 * 1_000_000)
    scene.open("lost", now_us=NOW_US)

    assert {run["id"]: run["state"] for run in scene.page().runs} == {"fresh": "running", "quiet": "quiet", "lost": "lost"}
    assert scene.ids({"state": "quiet"}) == ["quiet"]


@pytest.mark.parametrize(
    "identity",
    [
        {"project": "", "id": "x"},
        {"project": "a/b", "id": "x"},
        {"project": "p", "id": "x\x00"},
        {"project": "p", "id": ".."},
        {"id": "x"},
        {},
    ],
)
def test_an_open_without_a_usable_name_is_refused(identity: dict[str, str]) -> None:
    with pytest.raises(BadOpenError):
        opening_of({"entity": "local", **identity})


def test_strange_values_in_open_become_defaults() -> None:
    opening = opening_of({"entity": "e", "project": "p", "id": "i", "pid": "x", "tags": "no", "config": [1], "started_us": None})

    assert (opening.pid, opening.tags, opening.config, opening.started_us) == (0, None, {}, 0)


def test_what_json_cannot_hold_becomes_a_typed_marker() -> None:
    found = json_value({"a": float("nan"), "b": [float("-inf")], "c": b"\x00\xff", 1: 2})

    assert found == {
        "a": {"_type": "float", "value": "NaN"},
        "b": [{"_type": "float", "value": "-Infinity"}],
        "c": {"_type": "bytes", "value": "AP8="},
        "1": 2,
    }


def test_frames_between_beats_do_not_forget_the_backlog(scene: Scene) -> None:
    scene.open("r1")
    key = run_key("local", "demo", "r1")
    said = writes.Counters(lag_s=2.5, backlog_frames=7, backlog_bytes=9, dropped_rows=0, retries=1)

    for beat in (writes.Beat(key, 1, NOW_US + 1, said), writes.Beat(key, 1, NOW_US + 2, None), writes.Beat(key, 1, NOW_US, None)):
        with scene.database.write() as connection:
            writes.write_beats(connection, [beat])

    assert scene.run("r1")["heartbeat_at_us"] == NOW_US + 2
    with scene.database.read() as connection:
        row = connection.execute(sa.select(schema.writer)).one()
    assert (row.lag_s, row.backlog_frames, row.retries) == (2.5, 7, 1)


@pytest.mark.fault(32, 74)
def test_times_from_before_the_clock_was_set_back_keep_no_run_alive(scene: Scene) -> None:
    """Neither those of the writer itself nor those of another one of its run, which has ended since."""
    day_us = 86_400_000_000
    scene.open("r1")
    scene.open("r1", 2)
    key = run_key("local", "demo", "r1")

    for beat in (writes.Beat(key, 1, NOW_US, None), writes.Beat(key, 2, NOW_US, None), writes.Beat(key, 1, NOW_US - day_us, None)):
        with scene.database.write() as connection:
            writes.write_beats(connection, [beat])

    assert scene.run("r1")["heartbeat_at_us"] == NOW_US - day_us
