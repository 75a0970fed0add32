"""No server at init, none at the end, one that comes later, one that hangs: training never waits for it, and nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import runferry
from runferry import _native

from tests.support import stored
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import command, train

if TYPE_CHECKING:
    from pathlib import Path

INIT_MAX_S = 1.5
LOG_MAX_S = 0.3


@pytest.mark.timeout(120)
def test_a_run_that_begins_before_its_server_arrives_when_the_server_does(tmp_path: Path) -> None:
    port = free_port()
    begun = time.monotonic()
    run = runferry.init(project="absent", id="later", dir=tmp_path, settings={"base_url": f"http://127.0.0.1:{port}", "silent": True})
    init_s = time.monotonic() - begun
    for number in range(1_000):
        run.log({"n": number})
    assert run.flush(durable=True)

    with RunningServer(tmp_path / "data", port=port) as server:
        assert run.flush(acked=True, timeout=60), run.status()
        stored.wait_for_state(server.url, run.path, "running")
        run.finish()
        assert [row["n"] for row in stored.rows(server.url, run.path)] == list(range(1_000))
        stored.wait_for_state(server.url, run.path, "finished")
    assert init_s < INIT_MAX_S


TRAINING = """
import os, sys, time
import runferry
begun = time.monotonic()
run = runferry.init(project="absent", id=sys.argv[1] if len(sys.argv) > 1 else "alone")
for number in range(500):
    run.log({"n": number})
begun = time.monotonic()
run.finish(timeout=1.0)
print("finish took", time.monotonic() - begun)
print("status", run.status().backlog_frames, run.status().dropped_rows)
"""


@pytest.mark.fault(78)
@pytest.mark.timeout(120)
def test_finish_without_a_server_returns_in_time_and_names_the_command_that_sends_the_run(tmp_path: Path) -> None:
    port = free_port()
    ended = train(TRAINING, tmp_path, base_url=f"http://127.0.0.1:{port}")

    assert ended.returncode == 0, ended.stderr
    took_s = float(ended.stdout.split("finish took ")[1].split()[0])
    assert took_s < 1.5
    assert f"runferry sync {tmp_path / 'runferry'}" in ended.stderr
    assert "500 rows" in ended.stderr
    refused = command(tmp_path, "sync", str(tmp_path / "runferry"))
    said = refused.stdout + refused.stderr
    assert refused.returncode == 3, said
    with RunningServer(tmp_path / "data", port=port) as server:
        synced = command(tmp_path, "sync", str(tmp_path / "runferry"))
        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert [row["n"] for row in stored.rows(server.url, "local/absent/alone")] == list(range(500))
        stored.wait_for_state(server.url, "local/absent/alone", "finished")


@pytest.mark.fault(78)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["nobody listens", "nobody answers", "it is something else"])
def test_sync_gives_up_a_server_that_is_not_there_in_seconds_however_many_journals_wait(tmp_path: Path, way: str) -> None:
    for name in ("one", "two", "three"):
        run = runferry.init(project="absent", id=name, dir=tmp_path, mode="offline", settings={"silent": True})
        run.log({"n": 0})
        run.finish()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = free_port() if way == "nobody listens" else listening.getsockname()[1]
        if way == "it is something else":
            threading.Thread(target=hang_up_rudely, args=(listening,), daemon=True).start()
        begun = time.monotonic()
        synced = command(tmp_path, "sync", str(tmp_path / "runferry"), "--base-url", f"http://127.0.0.1:{port}", "--timeout", "2")
        took_s = time.monotonic() - begun
    assert synced.returncode == 3, synced.stdout + synced.stderr
    words = {
        "nobody listens": "cannot reach the server",
        "nobody answers": "does not answer",
        "it is something else": "not a Runferry server",
    }
    assert synced.stdout.count(words[way]) == 3, synced.stdout
    assert took_s < 12, "it is waited for once, not for each journal"


def hang_up_rudely(listening: socket.socket) -> None:
    """Answer each connection as no HTTP server does, until the socket is closed."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"220 mail.example.org ESMTP\r\n")


@pytest.mark.fault(78)
@pytest.mark.timeout(120)
def test_sync_finds_a_server_that_comes_up_while_it_tries(tmp_path: Path) -> None:
    port = free_port()
    run = runferry.init(project="absent", id="patient", dir=tmp_path, mode="offline", settings={"silent": True})
    run.log({"n": 0})
    run.finish()
    syncing = ThreadPoolExecutor(1).submit(
        command, tmp_path, "sync", str(tmp_path / "runferry"), "--base-url", f"http://127.0.0.1:{port}", "--timeout", "60"
    )
    with RunningServer(tmp_path / "data", port=port) as server:
        synced = syncing.result(90)
        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert [row["n"] for row in stored.rows(server.url, run.path)] == [0]


@pytest.mark.fault(78)
@pytest.mark.timeout(120)
def test_what_one_run_left_is_sent_by_the_next_init(tmp_path: Path) -> None:
    port = free_port()
    assert train(TRAINING, tmp_path, base_url=f"http://127.0.0.1:{port}").returncode == 0

    with RunningServer(tmp_path / "data", port=port) as server:
        run = runferry.init(project="absent", id="next", dir=tmp_path, settings={"base_url": server.url, "silent": True})
        stored.wait_for_state(server.url, "local/absent/alone", "finished")
        run.finish()
        assert [row["n"] for row in stored.rows(server.url, "local/absent/alone")] == list(range(500))


@pytest.mark.fault(46)
@pytest.mark.timeout(120)
def test_a_server_that_hangs_slows_no_log_call_and_gets_everything_when_it_wakes(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        run = runferry.init(project="absent", id="hanging", dir=tmp_path, settings={"base_url": server.url, "silent": True})
        run.log({"n": 0})
        assert run.flush(acked=True, timeout=30)
        server.process.send_signal(signal.SIGSTOP)
        try:
            slowest_s, number = 0.0, 1
            until = time.monotonic() + 3
            while time.monotonic() < until:
                begun = time.monotonic()
                run.log({"n": number})
                slowest_s = max(slowest_s, time.monotonic() - begun)
                number += 1
                if number % 1_000 == 0:
                    time.sleep(0.01)  # a training does something else as well
            begun = time.monotonic()
            assert not run.flush(acked=True, timeout=0.5)
            flush_s = time.monotonic() - begun
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert run.flush(acked=True, timeout=60)
        run.finish()
        status = run.status()
        assert (status.dropped_rows, status.backlog_frames) == (0, 0)
        assert [row["n"] for row in stored.rows(server.url, run.path)] == list(range(number))
    assert slowest_s < LOG_MAX_S
    assert flush_s < 1.0


@pytest.mark.timeout(120)
def test_an_offline_run_is_never_sent_unasked(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        offline = runferry.init(project="absent", id="offline", dir=tmp_path, mode="offline", settings={"silent": True})
        offline.log({"n": 0})
        offline.finish()
        online = runferry.init(project="absent", id="online", dir=tmp_path, settings={"base_url": server.url, "silent": True})
        online.log({"n": 0})
        online.finish()
        stored.wait_for_state(server.url, online.path, "finished")

        assert {run.id for run in runferry.Api({"base_url": server.url}).runs("local/absent")} == {"online"}
        (left,) = [state for state in _native.journal_list(str(tmp_path / "runferry")) if state["run"] == offline.path]
        assert (left["mode"], left["finished"], left["backlog_frames"]) == ("offline", True, left["frames"])
