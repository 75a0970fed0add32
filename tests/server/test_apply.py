"""The apply loop over a store that holds a poisoned writer: the others go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from runferry.server.apply import Applier
from runferry.server.documents import opening_of
from runferry.server.live import Hub
from runferry.server.metadata import writes
from runferry.server.store.protocol import Metric, RunTotals, Store, StoreError, WriterState

from tests.support.frames import ScriptedWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.server.metadata_scene import Scene


class TwoWriterStore:
    """Documents of two runs; those of one of them cannot be read."""

    def __init__(self, frames: dict[bytes, list[bytes]], poisoned: bytes) -> None:
        self._frames = frames
        self._poisoned = poisoned
        self.applied: list[tuple[bytes, int, int]] = []

    def next_seqs(self, run_id: bytes, writer_ids: Sequence[int]) -> dict[int, int]:
        return dict.fromkeys(writer_ids, len(self._frames[run_id]) + 1)

    def documents_after(self, run_id: bytes, _writer_id: int, applied_seq: int) -> Iterator[tuple[int, bytes]]:
        if run_id == self._poisoned:
            raise StoreError("this shard is damaged")
        yield from list(enumerate(self._frames[run_id], 1))[applied_seq:]

    def mark_applied(self, applied: Sequence[tuple[bytes, int, int]]) -> None:
        self.applied += applied

    def totals(self, _run_id: bytes) -> RunTotals:
        return RunTotals(0, 0, -1, 0)

    def metrics(self, _run_id: bytes) -> list[Metric]:
        return []

    def writers(self, _run_id: bytes) -> list[WriterState]:
        return []


def test_a_writer_that_cannot_be_applied_does_not_hold_up_the_others(scene: Scene) -> None:
    good, bad = ScriptedWriter(id="good", writer_id=1), ScriptedWriter(id="bad", writer_id=2)
    store = TwoWriterStore({good.run_id: [good.data(config={"lr": 1}), good.finish()], bad.run_id: [bad.finish()]}, bad.run_id)

    async def apply() -> None:
        applier = Applier(scene.database, cast("Store", store), Hub(asyncio.get_running_loop()))
        for writer in (good, bad):
            opening = opening_of({"entity": "local", "project": "demo", "id": writer.id})
            with scene.database.write() as connection:
                writes.open_writer(connection, writer.run_id, writer.writer_id, opening, 1)
            applier.notify(writer.run_id, writer.writer_id, has_documents=True)
        applier.start()
        await asyncio.to_thread(applier.stop)

    asyncio.run(apply())

    assert scene.run("good")["config"] == {"lr": 1}
    assert scene.run("good")["state"] == "finished"
    assert (good.run_id, 1, 2) in store.applied
    assert scene.run("bad")["state"] not in {"finished", "failed"}
