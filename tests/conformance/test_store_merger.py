"""When runs are merged: the triggers, by a clock that the test moves, and the threads."""

from __future__ import annotations

import threading

import pytest
from runferry.server.store.append import Stored
from runferry.server.store.merger import AGE_S, BYTES, FRAMES, QUIET_S, ROWS, THREADS, Merger
from runferry.server.store.protocol import StoreError

from tests.conformance.conftest import StoreEngine, feed, make_writer

RUN, OTHER = b"r" * 16, b"o" * 16


class _Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def _merger(clock: _Clock) -> Merger:
    return Merger(lambda *_: 0, lambda _: None, clock)


def test_a_little_waits_until_it_is_old() -> None:
    clock = _Clock()
    merger = _merger(clock)

    merger.stored(RUN, Stored(frames=1, rows=5, bytes=100), is_finished=False)
    assert merger.due() == []
    clock.now_s += AGE_S

    assert merger.due() == [(RUN, False)]


def test_rows_frames_and_bytes_each_are_enough() -> None:
    for stored in (Stored(frames=1, rows=ROWS), Stored(frames=FRAMES), Stored(frames=1, bytes=BYTES)):
        merger = _merger(_Clock())

        merger.stored(RUN, stored, is_finished=False)

        assert merger.due() == [(RUN, False)]


def test_a_finished_run_is_merged_for_good_at_once() -> None:
    merger = _merger(_Clock())

    merger.stored(RUN, Stored(frames=1), is_finished=True)

    assert merger.due() == [(RUN, True)]
    merger.merged(RUN, 1, is_final=True)
    assert merger.due() == []


def test_the_thread_merges_a_finished_run_and_ends_with_the_store(store_engine: StoreEngine) -> None:
    store = store_engine.open(merging=True)
    writer = make_writer(store)
    feed(store, writer, [*writer.rows(5), writer.finish()])
    deadline = threading.Event()
    for _ in range(200):
        if store.writers(writer.run_id)[0].merged_seq == 6:
            break
        deadline.wait(0.05)

    assert store.writers(writer.run_id)[0].merged_seq == 6
    store.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rf-merge")]


def test_waiting_frames_are_counted_again_after_a_restart(store_engine: StoreEngine) -> None:
    store = store_engine.open()
    writer = make_writer(store)
    feed(store, writer, writer.rows(FRAMES))
    store.close()
    store = store_engine.open()

    assert store.merge() == FRAMES
    assert store.merge() == 0


def test_a_merge_that_fails_is_tried_again_later() -> None:
    clock = _Clock()
    calls: list[bytes] = []
    called = threading.Event()

    def merge(run_id: bytes, _is_final: bool) -> int:  # noqa: FBT001 - the merger's callback
        calls.append(run_id)
        called.set()
        raise StoreError("disk trouble")

    merger = Merger(merge, lambda _: None, clock)
    merger.stored(RUN, Stored(frames=FRAMES), is_finished=False)
    merger.start()
    assert called.wait(10)
    merger.close()

    assert calls == [RUN], "a pause comes first"
    assert merger.due() == []
    clock.now_s += 3
    assert merger.due() == [(RUN, False)]


@pytest.mark.skipif(THREADS < 2, reason="not run: one core, one thread")
def test_runs_are_merged_side_by_side_each_by_one_thread() -> None:
    together = threading.Barrier(2, timeout=10)
    at_work: list[bytes] = []
    overlaps: list[bytes] = []
    done = threading.Semaphore(0)

    def merge(run_id: bytes, _is_final: bool) -> int:  # noqa: FBT001 - the merger's callback
        overlaps.extend(one for one in at_work if one == run_id)
        at_work.append(run_id)
        together.wait()  # nobody comes past it alone
        at_work.remove(run_id)
        merger.merged(run_id, FRAMES, is_final=False)
        done.release()
        return FRAMES

    merger = Merger(merge, lambda _: None, _Clock())
    for run_id in (RUN, OTHER):
        merger.stored(run_id, Stored(frames=3 * FRAMES), is_finished=False)
    merger.start()

    assert all(done.acquire(timeout=10) for _ in range(6))
    merger.close()
    assert (overlaps, merger.due()) == ([], [])


def test_what_is_stored_while_a_merge_finds_nothing_is_merged_next() -> None:
    frames_of = [0, FRAMES]
    merged = threading.Event()

    def merge(run_id: bytes, is_final: bool) -> int:  # noqa: FBT001 - the merger's callback
        frames = frames_of.pop(0)
        if frames == 0:  # between its look at the tables and its return, as while the last frames of a run are being committed
            merger.stored(RUN, Stored(frames=FRAMES), is_finished=True)
        else:
            merger.merged(run_id, 1 << 62, is_final=is_final)
            merged.set()
        return frames

    merger = Merger(merge, lambda _: None, _Clock())
    merger.stored(RUN, Stored(frames=1), is_finished=True)
    merger.start()

    assert merged.wait(10), "the frames are counted no more, and nobody merges them"
    merger.close()


def test_what_is_stored_while_a_quiet_run_is_released_is_merged_next() -> None:
    clock = _Clock()
    released = threading.Event()

    def release(_run_id: bytes) -> None:
        merger.stored(RUN, Stored(frames=1), is_finished=False)
        released.set()

    merger = Merger(lambda *_: 0, release, clock)
    merger.stored(RUN, Stored(frames=1, rows=ROWS), is_finished=False)
    merger.merged(RUN, 1, is_final=False)
    clock.now_s += QUIET_S
    merger.start()
    assert released.wait(10)
    merger.close()

    clock.now_s += AGE_S
    assert merger.due() == [(RUN, False)]


def test_a_quiet_run_gives_its_live_tail_up() -> None:
    clock = _Clock()
    released = threading.Event()
    merger = Merger(lambda *_: 0, lambda _: released.set(), clock)
    merger.stored(RUN, Stored(frames=1, rows=ROWS), is_finished=False)
    merger.merged(RUN, 1, is_final=False)
    clock.now_s += QUIET_S

    merger.start()

    assert released.wait(10)
    merger.close()


@pytest.mark.parametrize("trouble", [StoreError("disk trouble"), ValueError("a row that nobody wrote")], ids=["expected", "unexpected"])
def test_a_quiet_run_that_cannot_be_released_is_tried_again_and_holds_up_no_other(trouble: Exception) -> None:
    class Walking(_Clock):
        def __call__(self) -> float:
            self.now_s += 1.0
            return self.now_s

    clock = Walking()
    failures: list[bytes] = []
    released: list[bytes] = []
    both = threading.Event()

    def release(run_id: bytes) -> None:
        if run_id == RUN and not failures:
            failures.append(run_id)
            raise trouble
        released.append(run_id)
        if len(released) == 2:
            both.set()

    merger = Merger(lambda *_: 0, release, clock)
    for run_id in (RUN, OTHER):
        merger.stored(run_id, Stored(frames=1, rows=ROWS), is_finished=False)
        merger.merged(run_id, 1, is_final=False)
    clock.now_s += QUIET_S
    merger.start()

    is_over = both.wait(20)
    merger.close()
    assert (is_over, sorted(released), failures) == (True, sorted([RUN, OTHER]), [RUN])
    assert not merger.knows(RUN)
