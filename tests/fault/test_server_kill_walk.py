"""The server killed at its n-th write, sync, send or receive, one after the other: in each commit, between its steps, before its ack.

The kernel kills it as it enters the call (strace injects the signal), so the walk needs no hooks in the server and misses no step.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from runferry.server import check

from tests.support import stored
from tests.support.door import DoorStream
from tests.support.effort import effort, record
from tests.support.frames import ScriptedWriter
from tests.support.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEPTH = effort("kill_walk", 2)
CALLS = ("pwrite64", "fdatasync", "sendmsg", "recvmsg")
MOST_FRAMES = 40 + 10 * DEPTH
END_S = 30


@contextlib.contextmanager
def killed_at(server: RunningServer, call: str, when: int) -> Iterator[None]:
    """The server dies as one of its threads enters that system call for the `when`-th time."""
    words = ["strace", "-f", "-p", str(server.process.pid), "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={when}"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as tracer:
        assert tracer.stderr is not None
        first = tracer.stderr.readline()
        if "attached" not in first:
            pytest.skip(f"not run: strace may not attach here: {first}")
        try:
            yield
        finally:
            server.kill()
            tracer.communicate(timeout=END_S)


@pytest.mark.fault(9)
@pytest.mark.timeout(120 + 20 * DEPTH * len(CALLS))
@pytest.mark.parametrize("call", CALLS)
def test_what_was_acked_is_there_wherever_the_server_was_killed(tmp_path: Path, call: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("not run: strace is not installed")
    data, writer = tmp_path / "data", ScriptedWriter()
    frames: list[bytes] = []
    acked = 1
    killed = unacked = 0
    for when in range(1, DEPTH + 1):
        with RunningServer(data) as server, DoorStream(server.write_address) as stream:
            ok = stream.open(writer)
            assert ok.next_seq >= acked, f"frames {ok.next_seq} to {acked - 1} were acked and are lost"
            unacked += ok.next_seq - acked
            begun = len(frames)
            with killed_at(server, call, when):
                stream.send(frames[ok.next_seq - 1 :])
                while len(frames) < begun + MOST_FRAMES and not stream.has_ended:
                    step = len(frames)
                    frames.append(writer.data([(step, {"loss": float(step)})], config={f"step{step}": step}))
                    stream.send(frames[-1:])
                    stream.wait(lambda: stream.durable > len(frames) or stream.has_ended or None, may_end=True)
                if stream.has_ended:
                    server.process.wait(END_S)
                    killed += 1
            stream.wait_end()
            acked = max(acked, stream.durable)

    with RunningServer(data) as server:
        with DoorStream(server.write_address) as stream:
            assert stream.open(writer).next_seq >= acked
            stream.send([*frames, writer.finish()])
            stream.wait_durable(writer.next_seq)
        stored.wait_for_state(server.url, "local/demo/r1", "finished")
        assert [row["_step"] for row in stored.rows(server.url, "local/demo/r1")] == list(range(len(frames)))
        assert stored.run(server.url, "local/demo/r1").config == {f"step{step}": step for step in range(len(frames))}
        assert server.stop() == 0
    assert check.main(["--data", str(data)]) == 0
    assert killed == DEPTH, f"the server lived through {DEPTH - killed} of {DEPTH} kills"
    record("server killed at each system call", call=call, kills=killed, frames=len(frames), frames_committed_and_not_acked=unacked)
