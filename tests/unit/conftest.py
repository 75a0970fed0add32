"""A clean world for each test: no settings of the machine, a folder of its own, no run left over."""

from __future__ import annotations

import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import msgpack
import pytest
from runferry import _native
from runferry.api.scan import frames_of, rows_of

from tests.support.world import clean_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FRAME_KIND_OFFSET = 5
DATA = 1


__all__ = ["clean_world"]


class Journals:
    """Reads the journals below a folder straight from their segments."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def frames(self) -> list[bytes]:
        """All frames, segment by segment."""
        found: list[bytes] = []
        for segment in sorted(self.root.rglob("seg-*.rfj")):
            with segment.open("rb") as file:
                found.extend(frames_of(file))
        return found

    def rows(self) -> dict[int, dict[str, Any]]:
        """Step to values, without times. Pieces of one row meet by their step, as in the store."""
        rows: dict[int, dict[str, Any]] = {}
        data = [frame for frame in self.frames() if frame[FRAME_KIND_OFFSET] == DATA]
        for row in rows_of(iter(data), start_us=0, keys=None):
            step = row.pop("_step")
            del row["_timestamp"], row["_runtime"]
            rows.setdefault(step, {}).update(row)
        return rows

    def documents(self, name: str) -> list[dict[str, Any]]:
        """Documents of one name (`open`, `finish`, `config`, `summary`, `meta`), in order."""
        return [document for frame in self.frames() for found, document in _native.documents(frame) if found == name]


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    """The journals of runs made in this test's folder."""
    return Journals(tmp_path)


RUN = {
    "entity": "local",
    "project": "demo",
    "id": "x1",
    "name": "plucky-otter-3",
    "group": "g",
    "job_type": None,
    "notes": None,
    "tags": ["t"],
    "state": "finished",
    "config": {"lr": 0.1, "limit": {"_type": "float", "value": "Infinity"}},
    "summary": {"loss": {"_type": "float", "value": "NaN"}, "raw": {"_type": "bytes", "value": "AQI="}},
    "created_at_us": 1_700_000_000_000_000,
    "heartbeat_at_us": 1_700_000_001_500_000,
    "finished_at_us": None,
    "exit_code": 0,
    "points": 4,
    "rows": 2,
    "last_step": 7,
    "host": "h",
    "writers": 1,
    "gaps": 0,
    "duplicates": 0,
}
RUN_PATH = "/api/v1/runs/local/demo/x1"


def f64(*values: float) -> bytes:
    """An F64 column's data, byte-shuffled."""
    rows = [struct.pack("<d", value) for value in values]
    return bytes(row[place] for place in range(8) for row in rows)


def data_frame(first_step: int, columns: list[Any], rows: int = 2) -> bytes:
    """A DATA frame with one ROWS block."""
    block = [1, rows, [first_step, 1], [1_700_000_000_250_000, 1_000_000], columns]
    return bytes(_native.pack_frame(1, 0, b"r" * 16, 7, 1, rows, msgpack.packb([block])))


class ReadDoor:
    """A loopback HTTP server with canned answers: path to what is sent; what was asked is kept in `asked`."""

    run: dict[str, Any] = RUN
    """A stored run, as the server describes it."""
    run_path = RUN_PATH
    """Its address."""
    f64 = staticmethod(f64)
    frame = staticmethod(data_frame)

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/api/v1/door": {"service": "runferry", "version": "0.1.0", "protocol": 1, "write_port": 1}}
        self.asked: list[tuple[str, dict[str, list[str]], str | None]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _handler(self) -> Callable[..., BaseHTTPRequestHandler]:
        door = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                door.asked.append((parts.path, parse_qs(parts.query), self.headers["Authorization"]))
                answer = door.answers.get(parts.path)
                if callable(answer):
                    answer = answer(parse_qs(parts.query))
                status = 200
                if answer is None:
                    status, answer = 404, {"error": {"code": "not_found", "message": f"{parts.path} does not exist"}}
                elif isinstance(answer, tuple):
                    status, answer = answer
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    def close(self) -> None:
        """Stop it and wait for its thread."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def door() -> Iterator[ReadDoor]:
    """A read door with canned answers."""
    found = ReadDoor()
    yield found
    found.close()
