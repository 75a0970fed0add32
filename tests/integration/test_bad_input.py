"""What users get wrong: calls, names, addresses, ports. The error names it; a wrong address costs no row."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import runferry
from runferry.errors import UsageError

from tests.support import stored
from tests.support.ports import free_port
from tests.support.servers import RunningServer
from tests.support.trainers import ROOT, client_environment, command, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def some_other_service() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that is not Runferry: answers every path with a page; its address, and what headers it was shown."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers))
            body = b"<html>hello</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the base class's spelling

        def log_message(self, *arguments: object) -> None:
            pass

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.daemon_threads = True
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{service.server_port}", seen
    finally:
        service.shutdown()
        thread.join()
        service.server_close()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "must be passed a dictionary"),
        ([("a", 1)], "must be passed a dictionary"),
        ("a", "must be passed a dictionary"),
        ({1: 2}, "must be strings"),
        ({None: 2}, "must be strings"),
        ({"a": object()}, "'a': a value of type object"),
        ({"fine": 1, "deep": {"x": {"y": object()}}}, "'deep.x.y'"),
        ({"r": range(3)}, "type range"),
    ],
)
def test_a_wrong_call_raises_and_changes_nothing(server: RunningServer, tmp_path: Path, data: Any, says: str) -> None:
    run = runferry.init(project="bad", dir=tmp_path, settings={"base_url": server.url, "silent": True})
    run.log({"before": 1})
    with pytest.raises(TypeError, match=says):
        run.log(data)
    run.log({"after": 2})
    run.finish()

    assert [cells for _, cells in stored.cells(server.url, run.path)] == [{"before": 1}, {"after": 2}]
    with pytest.raises(UsageError, match="is finished"):
        run.log({"late": 3})


@pytest.mark.parametrize(
    "names",
    [
        {"project": "a/b"},
        {"project": "a\x00b"},
        {"project": "x" * 200},
        {"id": "a/b"},
        {"id": "a:b"},
        {"id": "x" * 200},
        {"id": " "},
        {"entity": "a b/c"},
        {"tags": [""]},
        {"tags": ["x" * 65]},
    ],
    ids=repr,
)
def test_a_forbidden_name_is_refused_at_init(tmp_path: Path, names: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refused:
        runferry.init(**{"project": "bad", **names}, dir=tmp_path, mode="offline")

    assert next(iter(names)).rstrip("s") in str(refused.value)
    assert not list(tmp_path.rglob("seg-*"))


@pytest.mark.parametrize("odd", ["\u00fcml\u00e4ut \U0001f680", "a b", "a.b", "50%", "a+b&c=d", "..", "-x"])
def test_names_that_are_allowed_work_on_every_way(server: RunningServer, tmp_path: Path, odd: str) -> None:
    settings = {"base_url": server.url, "silent": True}
    try:
        run = runferry.init(project=odd, id=odd, name=odd, group=odd, dir=tmp_path, settings=settings)
    except UsageError:
        return  # refused is fine; half working is not
    run.log({odd: 1})
    run.finish()
    stored.wait_for_state(server.url, run.path, "finished")
    assert stored.rows(server.url, run.path, keys=[odd])[0][odd] == 1
    found = command(tmp_path, "export", run.path, "--format", "jsonl", base_url=server.url)
    assert (found.returncode, found.stdout.count("\n")) == (0, 1), found.stderr


@pytest.mark.timeout(120)
def test_an_address_that_is_not_runferry_is_said_and_costs_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with some_other_service() as (url, seen):
        run = runferry.init(project="bad", id="elsewhere", dir=tmp_path, settings={"base_url": url, "api_key": "k" * 40})
        for number in range(100):
            run.log({"n": number})
        wait_until(lambda: run.status().connection == "not_runferry", "the sender finds out")
        run.finish(timeout=0.2)
        said = capsys.readouterr().err
        synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=url)
        listed = command(tmp_path, "runs", "local/bad", base_url=url)

    assert "not" in said
    assert url in said
    assert "runferry sync" in said
    assert not any("k" * 40 in headers for headers in seen), "a key goes to a Runferry server only"
    assert synced.returncode in {1, 3}
    assert "Traceback" not in synced.stderr + listed.stderr
    assert listed.returncode == 3
    with RunningServer(tmp_path / "data") as server:
        assert command(tmp_path, "sync", str(tmp_path / "runferry"), "--base-url", server.url).returncode == 0
        assert [row["n"] for row in stored.rows(server.url, "local/bad/elsewhere")] == list(range(100))


@pytest.mark.timeout(120)
def test_commands_without_a_server_say_so_with_exit_code_3(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for words in (("runs",), ("runs", "local/x"), ("export", "local/x/y"), ("login", url)):
        found = command(tmp_path, *words, base_url=url)
        assert found.returncode == 3, (words, found.stdout, found.stderr)
        assert url in found.stderr
        assert "Traceback" not in found.stderr


@pytest.mark.timeout(60)
@pytest.mark.parametrize("taken", ["http", "write door"])
def test_a_server_whose_port_is_taken_says_which_and_ends(tmp_path: Path, taken: str) -> None:
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port + (taken == "write door")))
        holder.listen()
        started = subprocess.run(
            [sys.executable, "-m", "runferry.cli", "server", "--port", str(port), "--data", str(tmp_path / "data")],
            env={**client_environment(tmp_path), "PYTHONPATH": str(ROOT / "python")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert started.returncode not in {0, None}
    assert str(port + (taken == "write door")) in started.stdout + started.stderr
    assert "Traceback" not in started.stderr


@pytest.mark.timeout(60)
def test_a_second_server_on_the_same_data_says_so_and_ends(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data"):
        second = command(tmp_path, "server", "--port", "0", "--data", str(tmp_path / "data"))

    assert second.returncode not in {0, None}
    assert str(tmp_path / "data") in second.stdout + second.stderr
    assert "Traceback" not in second.stderr
