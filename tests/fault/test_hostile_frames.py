"""Frames made to harm whoever decodes them, against a server that may not use much memory: it lives, and goes on for everybody.

Each comes from a writer of its own, between good frames. Whatever cannot be taken is kept aside; what was good can be read.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import httpx
import pytest
from runferry.server import check

from tests.support import stored
from tests.support.door import DoorStream
from tests.support.effort import record
from tests.support.frames import ScriptedWriter
from tests.support.hostile import PAYLOADS, TOO_LONG, hostile_frame
from tests.support.memory_group import MemoryGroup, memory_group
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMORY_BYTES = 512 << 20

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def group() -> Iterator[MemoryGroup]:
    """As much memory as the server may have."""
    with memory_group(MEMORY_BYTES) as made:
        yield made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of the server."""
    return tmp_path_factory.mktemp("hostile") / "data"


@pytest.fixture(scope="module")
def server(group: MemoryGroup, data: Path) -> Iterator[RunningServer]:
    """One server for all attacks; in the end its ledger must balance."""
    with RunningServer(data, prefix=group.prefix) as running:
        yield running
        assert running.stop() == 0
        assert group.kills() == 0
    assert check.main(["--data", str(data)]) == 0


@pytest.fixture(scope="module")
def innocent(server: RunningServer) -> Iterator[tuple[ScriptedWriter, DoorStream]]:
    """A writer that is connected all the time."""
    writer = ScriptedWriter(id="innocent", writer_id=7)
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        yield writer, stream


@pytest.mark.fault(55, 56)
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_hostile_frame_harms_neither_its_neighbours_nor_anybody_else(
    server: RunningServer, group: MemoryGroup, innocent: tuple[ScriptedWriter, DoorStream], name: str
) -> None:
    number = list(PAYLOADS).index(name)
    writer = ScriptedWriter(id=f"attack-{number}", writer_id=1_000 + number)
    path = f"local/demo/{writer.id}"
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        before, frame, after = writer.rows(1), hostile_frame(writer, name), writer.rows(1, first_step=1)
        if name in TOO_LONG:  # refused as a whole: what comes behind it waits for it
            stream.send([*before, frame, *after])
            assert stream.wait_kind("rewind").rewind.next_seq == 2
        else:
            stream.send([*before, frame, *after, writer.finish()])
            stream.wait_durable(writer.next_seq)
            stored.wait_for_state(server.url, path, "finished")
    with httpx.Client(base_url=server.url, timeout=60) as api:
        answers = [
            api.get(f"/api/v1/{what}") for what in (f"runs/{path}", f"runs/{path}/metrics", f"runs/{path}/writers", "runs?limit=1000")
        ]
        assert [answer.status_code for answer in answers] == [200] * len(answers)
    steps = [row["_step"] for row in stored.rows(server.url, path, keys=["loss"])]
    assert steps == ([0] if name in TOO_LONG else [0, 1])

    good, connected = innocent
    connected.send(good.rows(1, first_step=good.next_seq))
    connected.wait_durable(good.next_seq)
    assert group.kills() == 0, f"{name}: the server needed more than {MEMORY_BYTES >> 20} MiB"
    record("a hostile frame", name=name, server_mib=group.take_peak_bytes() >> 20)


@pytest.mark.fault(55, 56)
def test_documents_that_grow_with_every_frame_end_at_their_limit_and_listings_stay_small(server: RunningServer, data: Path) -> None:
    writer = ScriptedWriter(id="grows", writer_id=900)
    with DoorStream(server.write_address) as stream:
        stream.open(writer)
        for index in range(6):
            stream.send([writer.data(config={f"part{index}": "x" * (2 << 20)})])
        stream.send([writer.data(config={"small": 1}), writer.finish()])
        stream.wait_durable(writer.next_seq)
    stored.wait_for_state(server.url, "local/demo/grows", "finished")

    assert sorted(stored.run(server.url, "local/demo/grows").config) == ["part0", "part1", "part2", "small"]
    assert [reason.partition(":")[0] for reason in _quarantined(data, writer)] == ["its documents cannot be applied"] * 3
    with httpx.Client(base_url=server.url, timeout=60) as api:
        page = api.get("/api/v1/runs?limit=1000").json()
        seen = [run["id"] for run in page["runs"]]
        while page["next_cursor"]:
            page = api.get("/api/v1/runs", params={"limit": 1000, "cursor": page["next_cursor"]}).json()
            seen += [run["id"] for run in page["runs"]]
        assert len(seen) == len(set(seen)) == page["total"]


def _quarantined(data: Path, writer: ScriptedWriter) -> list[str]:
    """Why frames of this writer are kept aside."""
    reasons: list[str] = []
    for shard in (data / "metrics").glob("metrics-*.db"):
        with contextlib.closing(sqlite3.connect(shard)) as connection:
            query = "SELECT reason FROM quarantine WHERE run_id = ? ORDER BY seq"
            reasons += [reason for (reason,) in connection.execute(query, (writer.run_id,))]
    return reasons
