"""Clients that open and drop calls without end, send endless heads, or forge numbers: the server keeps its bounds, and serves others."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from runferry.server import check
from runferry.server._generated import ingest_pb2_grpc as services

from tests.support import http2, stored
from tests.support.door import DoorStream
from tests.support.effort import effort, record
from tests.support.frames import DATA, FINISH, GAP, ScriptedWriter, seal
from tests.support.memory_group import MemoryGroup, memory_group
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMORY_BYTES = 512 << 20
CALLS = effort("hostile_calls", 10_000)
SILENT_CONNECTIONS = 300
FARTHEST = 2**64 - 1

pytestmark = [pytest.mark.fault(57), pytest.mark.timeout(180 + CALLS // 100)]


@pytest.fixture(scope="module")
def group() -> Iterator[MemoryGroup]:
    """As much memory as the server may have."""
    with memory_group(MEMORY_BYTES) as made:
        yield made


@pytest.fixture(scope="module")
def server(group: MemoryGroup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all of them; in the end its ledger must balance."""
    data: Path = tmp_path_factory.mktemp("clients") / "data"
    with RunningServer(data, prefix=group.prefix) as running:
        yield running
        assert running.stop() == 0
        assert group.kills() == 0
    assert check.main(["--data", str(data)]) == 0


def serves_others(server: RunningServer, name: str) -> None:
    """A new writer is taken, its rows are stored, and both doors answer."""
    writer = ScriptedWriter(id=name)
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        stream.send([*writer.rows(3), writer.finish()])
        stream.wait_durable(writer.next_seq)
    stored.wait_for_state(server.url, f"local/demo/{name}", "finished")
    assert len(stored.rows(server.url, f"local/demo/{name}")) == 3


def test_calls_opened_and_dropped_without_end_cost_nobody_else_anything(server: RunningServer, group: MemoryGroup) -> None:
    writer = ScriptedWriter(id="meanwhile")
    done: list[tuple[int, int]] = []
    flood = threading.Thread(target=lambda: done.append(http2.open_and_drop(server.write_port, CALLS)))
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        flood.start()
        sent = 0
        while flood.is_alive() or sent < 10:
            stream.send(writer.rows(1, first_step=sent))
            sent += 1
            stream.wait_durable(writer.next_seq)
        flood.join()
        stream.send([writer.finish()])
        stream.wait_durable(writer.next_seq)

    ((calls, connections),) = done
    serves_others(server, "after-the-flood")
    assert group.kills() == 0
    record("calls opened and dropped", calls=calls, connections=connections, acked_meanwhile=sent, server_mib=group.take_peak_bytes() >> 20)


def test_connections_that_say_nothing_or_half_a_head_keep_nobody_out(server: RunningServer) -> None:
    read_port = int(server.url.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        for index in range(SILENT_CONNECTIONS):
            port, words = ((read_port, b"GET /api/v1/runs HT"), (server.write_port, http2.PREFACE[:10]))[index % 2]
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            connection.sendall(words)

        serves_others(server, "beside-the-silent")


@pytest.mark.timeout(120)
def test_a_head_that_does_not_come_to_its_end_is_given_up(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=90) as connection:
        connection.sendall(b"GET /api/v1/runs HT")
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b"", "closed without an answer"


def test_heads_without_end_are_refused(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20) as connection:
        connection.sendall(b"GET /api/v1/runs HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            for _ in range(1_000):
                connection.sendall(b"x-more: " + b"y" * 4_000 + b"\r\n")
        with contextlib.suppress(ConnectionError):
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            assert answer.split(b" ")[1:2] in ([], [b"400"], [b"431"])
    with grpc.insecure_channel(server.write_address) as channel:
        call = services.IngestStub(channel).Stream(iter([]), metadata=[("x-more", "y" * (1 << 20))], timeout=20)  # type: ignore[no-untyped-call]  # generated
        with pytest.raises(grpc.RpcError):
            list(call)

    serves_others(server, "after-the-heads")


@pytest.mark.parametrize("kind", [DATA, GAP])
def test_a_forged_number_moves_nothing(server: RunningServer, kind: int) -> None:
    writer = ScriptedWriter(id=f"forger-{kind}")
    path = f"local/demo/{writer.id}"
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        for seq in (1 << 63, (1 << 63) - 1, FARTHEST):
            stream.send([seal(kind, {}, run_id=writer.run_id, writer_id=writer.writer_id, seq=seq, record_count=(1 << 32) - 1)])
        stream.send([*writer.rows(2), writer.finish()])
        stream.wait_durable(writer.next_seq)

        assert {message.rewind.next_seq for message in stream.all("rewind")} == {1}
    stored.wait_for_state(server.url, path, "finished")
    assert len(stored.rows(server.url, path)) == 2
    assert stored.gaps(server.url, path) == []
    assert httpx.get(f"{server.url}/api/v1/runs/{path}").json()["last_step"] == 1


def test_a_gap_and_a_finish_that_say_nothing_readable_count_all_the_same(server: RunningServer) -> None:
    writer = ScriptedWriter(id="mumbles")
    path = f"local/demo/{writer.id}"
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        gap = seal(GAP, [1], run_id=writer.run_id, writer_id=writer.writer_id, seq=1, record_count=5)
        writer.next_seq = 6
        stream.send([gap, *writer.rows(1), writer.raw(FINISH, "no map")])
        stream.wait_durable(writer.next_seq)

    stored.wait_for_state(server.url, path, "finished")
    assert [(found["seq"], found["count"], found["reason"]) for found in stored.gaps(server.url, path)] == [(1, 5, "unknown")]
