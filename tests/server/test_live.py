"""Live answers: deltas after frames, cursors, listings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.events import EventReader
from tests.server.test_read_door import run_path
from tests.support.door import DoorStream, store_all
from tests.support.frames import ScriptedWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.support.servers import RunningServer


@pytest.fixture
def stream(server: RunningServer, writer: ScriptedWriter) -> Iterator[DoorStream]:
    """An open stream with one stored frame."""
    with DoorStream(server.write_address) as connected:
        connected.open(writer)
        connected.send(writer.rows(1))
        connected.wait_durable(2)
        yield connected


def steps(event_data: dict[str, Any]) -> list[int]:
    """Steps of the first series of a delta."""
    return [step for series in event_data["series"][:1] for step in series["step_first"]]


def test_a_frame_moves_a_live_chart(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    cursor = api.get(run_path(writer, "/history"), params={"keys": "loss"}).json()["cursor"]
    with api.stream("GET", run_path(writer, "/live"), params={"cursor": cursor, "keys": "loss"}) as response:
        events = EventReader(response)
        first = events.next()
        stream.send(writer.rows(3, first_step=1))
        moved = events.until(lambda event: bool(event.data.get("series")))[-1]

    assert (first.name, first.data["run"]["id"], first.data["series"]) == ("delta", writer.id, [])
    assert steps(moved.data) == [1, 2, 3]
    assert moved.data["series"][0]["raw_points_added"] == 3
    assert moved.id == moved.data["cursor"]


def test_a_reader_that_comes_back_goes_on_where_it_was(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    with api.stream("GET", run_path(writer, "/live"), params={"keys": "loss"}) as response:
        last_id = EventReader(response).next().id or ""
    stream.send(writer.rows(2, first_step=1))
    stream.wait_durable(4)

    with api.stream(
        "GET", run_path(writer, "/live"), params={"keys": "loss", "cursor": "x"}, headers={"last-event-id": last_id}
    ) as response:
        missed = EventReader(response).next()

    assert steps(missed.data) == [1, 2]


@pytest.mark.usefixtures("stream")
def test_a_cursor_that_is_none_gets_a_snapshot_not_an_error(writer: ScriptedWriter, api: httpx.Client) -> None:
    with api.stream("GET", run_path(writer, "/live"), params={"keys": "loss", "cursor": "nonsense"}) as response:
        event = EventReader(response).next()

    assert event.name == "snapshot"
    assert event.data["cursor"] == event.id


def test_a_new_metric_is_announced_once(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    with api.stream("GET", run_path(writer, "/live"), params={"keys": "loss"}) as response:
        events = EventReader(response)
        events.next()
        stream.send(writer.rows(1, first_step=1, name="fresh"))
        announced = events.until(lambda event: bool(event.data.get("new_keys")))[-1]
        stream.send(writer.rows(1, first_step=2, name="fresh"))
        stream.send([writer.finish()])
        later = events.until(lambda event: event.data.get("run", {}).get("state") == "finished")

    assert announced.data["new_keys"] == ["fresh"]
    assert all(not event.data.get("new_keys") for event in later)


def test_config_and_the_end_of_a_run_are_told(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    with api.stream("GET", run_path(writer, "/live")) as response:
        events = EventReader(response)
        assert events.next().data["run"]["state"] == "running"
        stream.send([writer.data(config={"lr": 3})])
        configured = events.until(lambda event: "config" in event.data.get("run", {}))[-1]
        stream.send([writer.finish(exit_code=1)])
        ended = events.until(lambda event: "state" in event.data.get("run", {}))[-1]

    assert configured.data["run"]["config"] == {"lr": 3}
    assert "id" not in configured.data["run"]
    assert (ended.data["run"]["state"], ended.data["run"]["exit_code"]) == ("failed", 1)


def test_a_flood_is_at_most_five_deltas_a_second_and_loses_no_point(stream: DoorStream, writer: ScriptedWriter, api: httpx.Client) -> None:
    with api.stream("GET", run_path(writer, "/live"), params={"keys": "loss"}) as response:
        events = EventReader(response)
        events.next()
        started = time.monotonic()
        for frame in writer.rows(299, first_step=1):
            stream.send([frame])
        seen: set[int] = set()
        deltas = 0
        while not seen >= set(range(1, 300)):
            event = events.next()
            deltas += event.name == "delta"
            if event.name == "snapshot":  # the frames behind the cursor are merged: the whole chart is asked again
                (series,) = api.get(run_path(writer, "/history"), params={"keys": "loss", "buckets": 1_000}).json()["series"]
                seen.update(series["step_first"])
            seen.update(step for series in event.data.get("series", ()) for step in series["step_first"])
        took_s = time.monotonic() - started

    assert deltas <= 5 * took_s + 2


def test_a_listing_hears_of_new_and_changed_runs_of_its_project_only(server: RunningServer, api: httpx.Client, project: str) -> None:
    with api.stream("GET", "/api/v1/live", params={"entity": "local", "project": project}) as response:
        events = EventReader(response)
        other = ScriptedWriter(project=f"{project}-other", writer_id=0x77)
        store_all(server.write_address, other, other.rows(1))
        mine = ScriptedWriter(project=project, writer_id=0x78)
        store_all(server.write_address, mine, [*mine.rows(1), mine.finish()])
        seen = events.until(lambda event: event.data["runs"][0]["state"] == "finished")

    assert {event.name for event in seen} == {"runs"}
    assert {run["project"] for event in seen for run in event.data["runs"]} == {project}
