"""The apply loop over a store that holds a poisoned writer: the others go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from runferry.server import totals as totals_module
from runferry.server.apply import Applier
from runferry.server.documents import opening_of
from runferry.server.live import Hub
from runferry.server.metadata import writes
from runferry.server.store.protocol import Metric, RunTotals, Store, StoreError
from runferry.server.totals import Totals
from runferry.server.values import LEFT_OUT

from tests.support.frames import ScriptedWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

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

    def metrics(self, _run_id: bytes, *, limit: int) -> list[Metric]:
        return [][:limit]

    def duplicates(self, _run_id: bytes) -> int:
        return 0


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


def test_totals_that_cannot_be_read_hold_up_no_others(scene: Scene) -> None:
    good, bad = ScriptedWriter(id="good", writer_id=1), ScriptedWriter(id="bad", writer_id=2)

    class HalfReadableStore(TwoWriterStore):
        def totals(self, run_id: bytes) -> RunTotals:
            if run_id == bad.run_id:
                raise StoreError("this shard is damaged")
            return RunTotals(points=7, rows=7, last_step=6, stored_bytes=0)

    for writer in (good, bad):
        with scene.database.write() as connection:
            opening = opening_of({"entity": "local", "project": "demo", "id": writer.id})
            writes.open_writer(connection, writer.run_id, writer.writer_id, opening, 1)
    totals = Totals(scene.database, cast("Store", HalfReadableStore({}, b"")))
    for writer in (bad, good):
        totals.want(writer.run_id)

    assert totals.write(is_last=False) == [good.run_id]

    assert scene.run("good")["points"] == 7
    assert totals.due_at() > 0, "the other one is tried again, but later"
    assert totals.write(is_last=True) == []


def test_a_summary_ends_where_no_more_names_have_a_place_in_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals_module, "MOST_NAMES", 3)

    class ManyNames(TwoWriterStore):
        def metrics(self, _run_id: bytes, *, limit: int) -> list[Metric]:
            return [Metric(f"m{number}", "", "number", 1, 0, 0, number) for number in range(10)][:limit]

        def metric_count(self, _run_id: bytes) -> int:
            return 10

    found = Totals(scene.database, cast("Store", ManyNames({}, b""))).read(b"r" * 16)

    assert found.last_summary == {"m0": 0, "m1": 1, "m2": 2, LEFT_OUT: 7}
