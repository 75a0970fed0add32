"""The server as a process: how it starts, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from runferry.server.app import listen
from runferry.server.settings import default_data_dir

from tests.server.test_write_door import steps_of
from tests.support.door import DoorStream
from tests.support.frames import ScriptedWriter
from tests.support.servers import RunningServer, server_environment


def refused(*arguments: str, cwd: Path) -> str:
    """Start a server that must not start; returns what it says."""
    ended = subprocess.run(
        [sys.executable, "-m", "runferry.server", *arguments],
        cwd=cwd,
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2, ended
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(data: Path, signal_number: int) -> None:
    writer = ScriptedWriter()
    server = RunningServer(data)
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        stream.send(writer.rows(50))
        stream.wait(lambda: stream.all("ack") or None)

        server.process.send_signal(signal_number)
        stream.wait_end()

        assert stream.wait_kind("drain").drain.reconnect_after_ms > 0
        assert stream.error is None
        received = max(message.ack.received_next_seq for message in stream.all("ack"))
        assert stream.durable == received
    assert server.wait() == 0
    with RunningServer(data) as again, httpx.Client(base_url=again.url, timeout=20.0) as api:
        assert steps_of(api, writer) == list(range(received - 1))


def test_a_signal_ends_live_readers_too(data: Path) -> None:
    server = RunningServer(data)
    with httpx.stream("GET", f"{server.url}/api/v1/live", timeout=20.0) as events:
        lines = events.iter_lines()
        next(lines)

        assert server.stop() == 0
        assert list(lines) == [""]


def test_a_second_server_on_the_same_folder_is_refused(data: Path, tmp_path: Path) -> None:
    with RunningServer(data) as server:
        said = refused("--port", "0", "--data", str(data), cwd=tmp_path)

    assert str(server.process.pid) in said
    assert str(data) in said


def test_a_killed_server_leaves_no_lock(data: Path) -> None:
    RunningServer(data).kill()

    with RunningServer(data) as server:
        assert httpx.get(f"{server.url}/api/v1/door").status_code == 200


def test_a_port_in_use_is_named_with_the_option_that_helps(data: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        said = refused("--port", str(port), "--data", str(data), cwd=tmp_path)

    assert str(port) in said
    assert "--port" in said


def test_a_taken_port_of_the_write_door_is_named(data: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        said = refused("--port", str(port - 1), "--data", str(data), cwd=tmp_path)

    assert f"port {port}" in said
    assert "--port" in said


def test_a_newer_schema_is_refused_with_both_versions(data: Path, tmp_path: Path) -> None:
    RunningServer(data).stop()
    with sqlite3.connect(data / "meta.db") as connection:
        ((newest,),) = connection.execute("SELECT version_num FROM alembic_version")
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    said = refused("--port", "0", "--data", str(data), cwd=tmp_path)

    assert "9999" in said
    assert newest in said


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    assert "file" in refused("--port", "0", "--data", str(tmp_path / "file" / "data"), cwd=tmp_path)


def test_a_folder_to_adopt_must_exist(data: Path, tmp_path: Path) -> None:
    assert "nowhere" in refused("--port", "0", "--data", str(data), "--adopt", str(tmp_path / "nowhere"), cwd=tmp_path)


def test_the_data_folder_is_told_or_in_the_users_data_home() -> None:
    assert default_data_dir({"RUNFERRY_SERVER_DATA": "/x"}) == Path("/x")
    assert default_data_dir({"XDG_DATA_HOME": "/y"}) == Path("/y/runferry")
    assert default_data_dir({}) == Path.home() / ".local/share/runferry"


@pytest.mark.parametrize(
    ("advertised", "host", "port"), [(":9001", None, 9001), ("runs.example.org:443", "runs.example.org", 443), ("[::1]:7", "[::1]", 7)]
)
def test_writers_are_sent_where_the_server_is_told_that_they_reach_it(data: Path, advertised: str, host: str | None, port: int) -> None:
    with RunningServer(data, "--advertise-write", advertised) as server:
        door = httpx.get(f"{server.url}/api/v1/door").json()

    assert (door["write_host"], door["write_port"]) == (host, port)


@pytest.mark.parametrize("bad", ["9001", "host:", "host:0", "host:65536", "a b:1", "http://host:1", "::1:7", "host:x"])
def test_an_advertised_address_that_is_none_is_refused_in_words(tmp_path: Path, bad: str) -> None:
    said = refused("--advertise-write", bad, cwd=tmp_path)

    assert f"{bad!r} is not HOST:PORT" in said


def test_an_answer_in_several_parts_waits_for_nobody() -> None:
    async def sends_at_once() -> bool:
        sent: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            sent.set_result(bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        with listen("127.0.0.1", 0) as listening:
            async with await asyncio.start_server(accept, sock=listening):
                _, writer = await asyncio.open_connection(*listening.getsockname())
                found = await sent
                writer.close()
                return found

    assert asyncio.run(sends_at_once())
