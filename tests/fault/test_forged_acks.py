"""A journal whose file says that the server has everything, when it has nothing: the server's own number decides what is sent."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
import runferry

from tests.support import stored
from tests.support.frames import crc32c
from tests.support.trainers import command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import RunningServer

ROWS = 500
WRITER_ID_AT = slice(32, 40)


def forge(journal: Path, durable_next_seq: int) -> None:
    """Write the file ACK of a journal, as the client writes it."""
    (segment, *_) = sorted(journal.glob("seg-*.rfj"))
    told = b"RFACK\0\0\0" + segment.read_bytes()[WRITER_ID_AT] + struct.pack("<QI", durable_next_seq, 0)
    (journal / "ACK").write_bytes(told + struct.pack("<I", crc32c(told)))


@pytest.mark.fault(71, 17)
@pytest.mark.parametrize("durable_next_seq", [2, 1 << 40, (1 << 64) - 1])
def test_what_the_server_does_not_have_is_sent_whatever_the_file_says(tmp_path: Path, server: RunningServer, durable_next_seq: int) -> None:
    with runferry.init(project=f"forged{durable_next_seq}", mode="offline", dir=tmp_path, settings={"silent": True}) as run:
        for step in range(ROWS):
            run.log({"n": step})
    forge(next(tmp_path.glob("runferry/*/*")), durable_next_seq)

    synced = command(tmp_path, "sync", str(tmp_path), "--base-url", server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert stored.cells(server.url, run.path) == [(step, {"n": step}) for step in range(ROWS)]
    assert stored.gaps(server.url, run.path) == []
