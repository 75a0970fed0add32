"""Every answer of the read door, against its typed description."""

from __future__ import annotations

import json
import re
import socket
import struct
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgpack
import pytest
import zstandard
from runferry.server.http import models

from tests.server.test_write_door import wait_for_state
from tests.support.door import store_all
from tests.support.frames import START_US, Histogram, ScriptedWriter

if TYPE_CHECKING:
    import httpx

    from tests.support.servers import RunningServer

ODD_IDS = ["r1", "a b", "ü-日本", "a+b&c=d", "50%", "q?x#y", "<b>a\"b'<b>", "back\\slash", "..x", "a;b,c:d"]


def run_path(writer: ScriptedWriter, rest: str = "") -> str:
    """The path of its run."""
    return "/api/v1/runs/" + "/".join(quote(name, safe="") for name in (writer.entity, writer.project, writer.id)) + rest


def data_frames(body: bytes) -> list[list[Any]]:
    """ROWS blocks of concatenated DATA frames, read by hand."""
    blocks: list[list[Any]] = []
    while body:
        payload_len = struct.unpack_from("<I", body, 8)[0]
        stored = body[64 : 64 + payload_len]
        raw = zstandard.ZstdDecompressor().decompress(stored) if body[6] & 15 else stored
        blocks += msgpack.unpackb(raw)
        body = body[64 + (payload_len + 7) // 8 * 8 :]
    return blocks


@pytest.fixture
def trained(server: RunningServer, writer: ScriptedWriter, api: httpx.Client) -> ScriptedWriter:
    """A finished run with every kind of value."""
    rows = [(step, {"loss": 1 / (step + 1), "epoch": step // 10, "big": 2**53 + step, "ok": step % 2 == 0}) for step in range(100)]
    rows[50][1]["loss"] = float("nan")
    rows[60][1]["loss"] = float("inf")
    frames = [
        writer.data(rows[:40], config={"lr": 0.1, "inf": float("inf"), "layers": [1, 2]}, meta={"name": "first", "tags": ["t"]}),
        writer.data(rows[40:], summary={"best": 0.5}),
        writer.data([(step, {"hist": Histogram(0.0, 1.0, [step, 2, 3], nan_count=1), "note": f"n{step}"}) for step in range(100, 110)]),
        writer.finish(),
    ]
    writer.opening = {"group": "g", "job_type": "train", "notes": "hello", "config": {"seed": 7, "lr": 9}}
    opened = ScriptedWriter(project=writer.project, writer_id=writer.writer_id, opening=writer.opening)
    opened.next_seq = writer.next_seq
    store_all(server.write_address, opened, frames)
    wait_for_state(api, writer, "finished")
    return writer


def test_the_door_says_where_to_write(api: httpx.Client, server: RunningServer) -> None:
    door = models.Door.model_validate(api.get("/api/v1/door").json())

    assert (door.service, door.protocol, door.write_port, door.write_host, door.tls) == ("runferry", 1, server.write_port, None, False)


def test_a_run_has_everything_that_was_said_of_it(api: httpx.Client, trained: ScriptedWriter) -> None:
    run = models.Run.model_validate(api.get(run_path(trained)).json())

    assert (run.id, run.name, run.group, run.job_type, run.notes, run.tags) == ("r1", "first", "g", "train", "hello", ["t"])
    assert (run.state, run.exit_code, run.created_at_us, run.host) == ("finished", 0, START_US, "testhost")
    assert run.config == {"seed": 7, "lr": 0.1, "inf": {"_type": "float", "value": "Infinity"}, "layers": [1, 2]}
    assert run.summary["best"] == 0.5
    assert run.summary["loss"] == 1 / 100
    assert run.summary["big"] == 2**53 + 99
    assert run.summary["ok"] is False
    assert run.summary["note"] == "n109"
    assert run.summary["hist"]["values"] == [109, 2, 3]
    assert (run.rows, run.points, run.last_step, run.writers, run.gaps) == (110, 420, 109, 1, 0)


def test_projects_and_listings_hold_the_run(api: httpx.Client, trained: ScriptedWriter) -> None:
    projects = models.Projects.model_validate(api.get("/api/v1/projects").json()).projects
    assert [project.runs for project in projects if project.project == trained.project] == [1]

    filters = json.dumps({"config.lr": 0.1, "summary_metrics.best": {"$lte": 0.5}, "state": "finished"})
    asked = {"entity": "local", "project": trained.project, "filters": filters, "order": "-summary_metrics.loss"}
    page = models.Runs.model_validate(api.get("/api/v1/runs", params=asked).json())

    assert (len(page.runs), page.total, page.next_cursor) == (1, 1, None)
    assert page.runs[0] == models.Run.model_validate(api.get(run_path(trained)).json())


def test_a_run_of_very_many_names_lists_all_of_them_at_once_and_in_pages(
    server: RunningServer, api: httpx.Client, writer: ScriptedWriter
) -> None:
    names = [f"layer.{number:05}" for number in range(12_000)]
    store_all(server.write_address, writer, [writer.data([(0, dict.fromkeys(names, 1.0))]), writer.finish()])
    path = run_path(writer, "/metrics")

    whole = models.Metrics.model_validate(api.get(path).json())
    pages = [models.Metrics.model_validate(api.get(path, params={"limit": 5_000}).json())]
    while pages[-1].next_cursor:
        pages.append(models.Metrics.model_validate(api.get(path, params={"limit": 5_000, "cursor": pages[-1].next_cursor}).json()))

    assert [metric.name for metric in whole.metrics] == names
    assert [len(page.metrics) for page in pages] == [5_000, 5_000, 2_000]
    assert [metric for page in pages for metric in page.metrics] == whole.metrics
    assert whole.next_cursor is None


@pytest.mark.parametrize("cursor", ["x", "bm9uc2Vuc2U", "W10", "WzEsMl0"])
def test_a_cursor_that_no_page_ended_with_is_a_bad_request(api: httpx.Client, trained: ScriptedWriter, cursor: str) -> None:
    answer = api.get(run_path(trained, "/metrics"), params={"cursor": cursor})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_cursor")


def test_metrics_name_kind_range_and_last_value(api: httpx.Client, trained: ScriptedWriter) -> None:
    found = {metric.name: metric for metric in models.Metrics.model_validate(api.get(run_path(trained, "/metrics")).json()).metrics}

    assert {name: metric.kind for name, metric in found.items()} == {
        "loss": "number",
        "epoch": "number",
        "big": "number",
        "ok": "bool",
        "hist": "histogram",
        "note": "string",
    }
    loss = found["loss"]
    assert (loss.points, loss.first_step, loss.last_step, loss.last, loss.label) == (100, 0, 99, 0.01, "")
    assert found["big"].last == 2**53 + 99


def test_history_is_exact_while_it_fits_and_bucketed_beyond(api: httpx.Client, trained: ScriptedWriter) -> None:
    exact = models.History.model_validate(api.get(run_path(trained, "/history"), params={"keys": ["loss", "epoch"]}).json())
    coarse = models.History.model_validate(api.get(run_path(trained, "/history"), params={"keys": "loss", "buckets": 10}).json())

    by_key = {series.key: series for series in exact.series}
    assert by_key["epoch"].last == [step // 10 for step in range(100)]
    assert (by_key["loss"].exact, by_key["loss"].raw_points, by_key["loss"].drawn) == (True, 100, 100)
    assert by_key["loss"].last[50] is None
    assert (by_key["loss"].nan_count[50], by_key["loss"].inf_count[60]) == (1, 1)
    (series,) = coarse.series
    assert (series.exact, series.raw_points) == (False, 100)
    assert series.drawn <= 10
    assert sum(series.count) == 100
    assert max(value for value in series.max if value is not None) == 1.0


def test_history_can_be_cut_by_step(api: httpx.Client, trained: ScriptedWriter) -> None:
    answer = api.get(run_path(trained, "/history"), params={"keys": "epoch", "min_step": 10, "max_step": 19}).json()

    assert models.History.model_validate(answer).series[0].step_first == list(range(10, 20))


def test_histograms_are_answered_and_thinned(api: httpx.Client, trained: ScriptedWriter) -> None:
    whole = models.Histograms.model_validate(api.get(run_path(trained, "/histograms"), params={"key": "hist"}).json())
    thin = models.Histograms.model_validate(api.get(run_path(trained, "/histograms"), params={"key": "hist", "buckets": 3}).json())

    assert (whole.raw_points, len(whole.histograms)) == (10, 10)
    first = whole.histograms[0]
    assert (first.step, first.counts, first.nan_count) == (100, [100, 2, 3], 1)
    assert first.edges == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert (thin.raw_points, len(thin.histograms)) == (10, 3)


def test_a_scan_is_exact_frames(api: httpx.Client, trained: ScriptedWriter) -> None:
    answer = api.get(run_path(trained, "/scan"), params={"keys": "loss"})

    assert answer.headers["content-type"] == "application/vnd.runferry.frames"
    blocks = data_frames(answer.content)
    assert sum(block[1] for block in blocks) == 100
    assert {column[0] for block in blocks for column in block[4]} == {"loss"}


def test_a_scan_can_be_sampled(api: httpx.Client, trained: ScriptedWriter) -> None:
    blocks = data_frames(api.get(run_path(trained, "/scan"), params={"samples": 10}).content)

    assert sum(block[1] for block in blocks) == 10


def test_writers_show_how_far_each_is(api: httpx.Client, trained: ScriptedWriter) -> None:
    (found,) = models.Writers.model_validate(api.get(run_path(trained, "/writers")).json()).writers

    assert found.writer_id == f"{trained.writer_id:016x}"
    assert (found.state, found.host, found.pid, found.next_seq, found.finished, found.exit_code) == ("finished", "testhost", 42, 5, True, 0)


@pytest.mark.parametrize("id_", ODD_IDS)
def test_a_run_with_odd_but_legal_characters_in_its_id_is_found(
    server: RunningServer, api: httpx.Client, writer: ScriptedWriter, id_: str
) -> None:
    odd = ScriptedWriter(project=writer.project, id=id_, writer_id=writer.writer_id)
    store_all(server.write_address, odd, odd.rows(2))

    assert api.get(run_path(odd)).json()["id"] == id_
    assert api.get(run_path(odd, "/history"), params={"keys": "loss"}).json()["series"][0]["step_first"] == [0, 1]


@pytest.mark.parametrize("name", ['<b>a/"b"</b>', "a b&c=d", "日本/loss", "x" * 1_000, "%2F", "+"])
def test_a_metric_with_any_name_is_found(server: RunningServer, api: httpx.Client, writer: ScriptedWriter, name: str) -> None:
    store_all(server.write_address, writer, writer.rows(3, name=name))

    (series,) = api.get(run_path(writer, "/history"), params={"keys": name}).json()["series"]

    assert (series["key"], series["step_first"]) == (name, [0, 1, 2])


@pytest.mark.parametrize("path", ["/api/v1/door", "/api/v1/runs", "/api/v1/nothing"])
def test_an_answer_says_how_many_milliseconds_it_took_to_begin(api: httpx.Client, path: str) -> None:
    answer = api.get(path)

    name, duration = re.fullmatch(r"(\w+);dur=(\d+\.\d+)", answer.headers["server-timing"]).groups()  # type: ignore[union-attr]  # None fails
    assert name == "total"
    assert 0 < float(duration) <= answer.elapsed.total_seconds() * 1e3


BAD_REQUESTS = [
    ("/api/v1/runs?filters=%7B", 400, "bad_filter"),
    ("/api/v1/runs?filters=%7B%22x%22%3A1%7D", 400, "bad_filter"),
    ("/api/v1/runs?filters=" + "%5B" * 20_000, 400, "bad_filter"),
    ("/api/v1/runs?order=%2Bnothing", 400, "bad_order"),
    ("/api/v1/runs?cursor=x", 400, "bad_order"),
    ("/api/v1/runs?limit=0", 400, "bad_request"),
    ("/api/v1/runs?limit=many", 400, "bad_request"),
    ("/api/v1/runs/a/b/c", 404, "not_found"),
    ("/api/v1/runs/a/b/c/history?keys=x", 404, "not_found"),
    ("/api/v1/runs/a/b/c/metrics", 404, "not_found"),
    ("/api/v1/runs/a/b/c/writers", 404, "not_found"),
    ("/api/v1/runs/a/b/c/scan", 404, "not_found"),
    ("/api/v1/runs/a/b/c/histograms?key=x", 404, "not_found"),
    ("/api/v1/runs/a/b/c/live", 404, "not_found"),
    ("/api/v1/runs/a/b/c/history", 400, "bad_request"),
    ("/api/v1/nothing", 404, "not_found"),
    ("/api/v2/runs", 404, "not_found"),
]


@pytest.mark.parametrize(("path", "status", "code"), BAD_REQUESTS)
def test_a_bad_request_is_answered_in_words(api: httpx.Client, path: str, status: int, code: str) -> None:
    answer = api.get(path)

    error = models.Error.model_validate(answer.json()).error
    assert (answer.status_code, error.code) == (status, code)
    assert error.message


def test_a_long_address_is_read_whole_however_the_network_cuts_it(server: RunningServer, api: httpx.Client) -> None:
    filters = "%5B" * 20_000
    host, port = server.url.removeprefix("http://").split(":")

    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"GET /api/v1/runs?filters={filters[: len(filters) // 2]}".encode())
        assert api.get("/api/v1/runs").status_code == 200  # one loop serves both: it has read the first half by now
        connection.sendall(f"{filters[len(filters) // 2 :]} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "bad_filter"


def test_too_many_keys_are_refused(api: httpx.Client, trained: ScriptedWriter) -> None:
    answer = api.get(run_path(trained, "/history"), params={"keys": [f"k{index}" for index in range(1_001)]})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_many_keys")


def test_an_unknown_metric_is_an_empty_answer(api: httpx.Client, trained: ScriptedWriter) -> None:
    answer = models.History.model_validate(api.get(run_path(trained, "/history"), params={"keys": "nothing"}).json())

    assert [series.drawn for series in answer.series] in ([], [0])


def test_the_schema_lists_every_path_of_the_contract(api: httpx.Client) -> None:
    schema = api.get("/api/v1/openapi.json").json()

    run = "/api/v1/runs/{entity}/{project}/{id}"
    of_a_run = {run + rest for rest in ("", "/metrics", "/history", "/histograms", "/scan", "/writers", "/receipts", "/live")}
    assert set(schema["paths"]) == {
        "/api/v1/door",
        "/api/v1/session",
        "/api/v1/projects",
        "/api/v1/runs",
        "/api/v1/history",
        "/api/v1/live",
        *of_a_run,
    }


@pytest.mark.parametrize("path", ["/api/docs", "/", "/projects/some/page", "/api/v1/door", "/api/v1/nothing"])
def test_no_answer_loads_anything_from_elsewhere(api: httpx.Client, path: str) -> None:
    answer = api.get(path)

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"(src|href)=\"?(https?:)?//", answer.text)


def test_the_page_of_routes_names_them_all(api: httpx.Client) -> None:
    page = api.get("/api/docs").text

    for path in api.get("/api/v1/openapi.json").json()["paths"]:
        assert f"GET {path}" in page


@pytest.mark.parametrize("path", ["/../settings.py", "/%2e%2e/settings.py", "/assets/..%2f..%2fsettings.py", "/..%2fapp.py", "/%00"])
def test_no_path_leads_out_of_the_dashboard_folder(api: httpx.Client, path: str) -> None:
    answer = api.get(path)

    assert "from __future__" not in answer.text


def test_a_page_of_another_site_cannot_read_through_its_own_name(api: httpx.Client) -> None:
    answer = api.get("/api/v1/projects", headers={"host": "evil.example"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")


def test_numbers_that_json_cannot_hold_are_never_written_bare(api: httpx.Client, trained: ScriptedWriter) -> None:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} in an answer")

    for rest in ("", "/metrics", "/history?keys=loss", "/writers"):
        json.loads(api.get(run_path(trained, rest)).text, parse_constant=refuse)
