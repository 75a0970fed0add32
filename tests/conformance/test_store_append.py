"""What a store answers to frames: numbers, duplicates, gaps, restarts."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from runferry.server.store.protocol import Batch, Store, StoreError, WriterOpening

from tests.conformance.conftest import StoreEngine, batch, feed, make_writer
from tests.conformance.reading import scan_rows
from tests.support.frames import START_US, ScriptedWriter, flip_bit


def test_frames_in_order_are_accepted_and_the_next_number_moves(store: Store) -> None:
    writer = make_writer(store)
    frames = writer.rows(3)

    (answer,) = store.append([batch(writer, frames, 1)])

    assert (answer.next_seq, answer.accepted_frames, answer.duplicate_frames, answer.is_gap) == (4, 3, 0, False)
    assert store.next_seqs(writer.run_id, [writer.writer_id, 5]) == {writer.writer_id: 4}


def test_a_frame_sent_twice_is_stored_once_and_counted(store: Store) -> None:
    writer = make_writer(store)
    frames = writer.rows(3)
    feed(store, writer, frames)

    (answer,) = store.append([batch(writer, frames, 1)])

    assert (answer.next_seq, answer.accepted_frames, answer.duplicate_frames, answer.is_gap) == (4, 0, 3, False)
    assert store.totals(writer.run_id).points == 3
    assert store.writers(writer.run_id)[0].duplicates == 3


def test_a_batch_that_overlaps_what_is_there_adds_only_what_is_new(store: Store) -> None:
    writer = make_writer(store)
    frames = writer.rows(4)
    store.append([Batch(writer.run_id, writer.writer_id, 1, 3, frames[:2])])

    (answer,) = store.append([batch(writer, frames, 1)])

    assert (answer.next_seq, answer.accepted_frames, answer.duplicate_frames) == (5, 2, 2)
    assert store.totals(writer.run_id).points == 4


def test_a_batch_that_begins_too_high_stores_nothing(store: Store) -> None:
    writer = make_writer(store)
    frames = writer.rows(3)

    (answer,) = store.append([batch(writer, frames[1:], 2)])

    assert (answer.next_seq, answer.accepted_frames, answer.is_gap) == (1, 0, True)
    assert store.totals(writer.run_id).points == 0


def test_a_gap_frame_keeps_the_numbers_contiguous_and_is_counted(store: Store) -> None:
    writer = make_writer(store)
    frames = [*writer.rows(1), writer.gap(5), *writer.rows(1, first_step=9)]

    feed(store, writer, frames)

    assert store.next_seqs(writer.run_id, [writer.writer_id]) == {writer.writer_id: 8}
    assert store.writers(writer.run_id)[0].gaps == 5


def test_a_gap_over_frames_that_did_arrive_counts_only_the_missing(store: Store) -> None:
    writer = make_writer(store)
    feed(store, writer, writer.rows(3))
    writer.next_seq = 2
    gap = writer.gap(6)

    (answer,) = store.append([batch(writer, [gap], 2)])

    assert (answer.next_seq, answer.is_gap) == (8, False)
    assert store.writers(writer.run_id)[0].gaps == 4


def test_several_writers_of_several_runs_share_a_group(store: Store) -> None:
    writers = [make_writer(store, f"run-{number}") for number in range(10)] + [make_writer(store, "run-0")]
    batches = [batch(writer, writer.rows(2), 1) for writer in writers]

    answers = store.append(batches)

    assert [answer.next_seq for answer in answers] == [3] * 11
    assert [len(store.writers(writer.run_id)) for writer in writers[:2]] == [2, 1]


def test_a_writer_that_was_never_opened_is_refused(store: Store) -> None:
    stranger = ScriptedWriter(id="nobody")

    with pytest.raises(StoreError, match="never opened"):
        store.append([batch(stranger, stranger.rows(1), 1)])


def test_opening_a_writer_again_changes_nothing(store: Store) -> None:
    writer = make_writer(store)
    feed(store, writer, writer.rows(2))

    again = store.open_writer(writer.run_id, writer.writer_id, b"other", label="other", started_us=7, is_relative=True)

    assert (again.next_seq, again.label, again.step_offset) == (3, "", 0)
    assert again.open_frame != b"other"


def test_writers_that_open_together_are_those_that_open_alone(store_engine: StoreEngine) -> None:
    together, alone = store_engine.open(), store_engine.open_elsewhere()
    scripted = [ScriptedWriter(id=f"run{number // 3}", writer_id=number + 1) for number in range(9)]
    openings = [
        WriterOpening(one.run_id, one.writer_id, one.open_frame(), "", START_US + number, is_relative=number % 3 == 1, predecessor=number)
        for number, one in enumerate(scripted)
    ]

    found = together.open_writers([*openings, openings[4]])

    expected = [
        alone.open_writer(
            one.run_id,
            one.writer_id,
            one.open_frame,
            label=one.label,
            started_us=one.started_us,
            is_relative=one.is_relative,
            predecessor=one.predecessor,
        )
        for one in openings
    ]
    assert [replace(state, last_seen_us=0) for state in found[:9]] == [replace(state, last_seen_us=0) for state in expected]
    assert found[9] == found[4]
    assert [one.writer_id for one in together.writers(scripted[0].run_id)] == [1, 2, 3]
    assert together.open_writers(openings) == found[:9]


def test_a_successor_has_the_steps_of_its_predecessor_wherever_the_run_is_by_then(store: Store) -> None:
    first = make_writer(store)
    feed(store, first, first.rows(5))
    relative = make_writer(store, is_relative=True)
    feed(store, relative, relative.rows(5))

    opened = store.open_writer(
        first.run_id, 77, relative.open_frame(), label="", started_us=9, is_relative=True, predecessor=relative.writer_id
    )
    stranger = store.open_writer(first.run_id, 78, relative.open_frame(), label="", started_us=9, is_relative=False, predecessor=79)

    before = next(state for state in store.writers(first.run_id) if state.writer_id == relative.writer_id)
    assert (opened.step_offset, stranger.step_offset) == (before.step_offset, 0)
    assert before.step_offset > 0


def test_finish_is_remembered_with_its_exit_code(store: Store) -> None:
    writer = make_writer(store)

    feed(store, writer, [*writer.rows(1), writer.finish(3)])

    state = store.writers(writer.run_id)[0]
    assert (state.finished_seq, state.exit_code) == (2, 3)


def test_a_restart_loses_nothing_and_keeps_the_epoch(store_engine: StoreEngine) -> None:
    store = store_engine.open()
    writer = make_writer(store)
    feed(store, writer, writer.rows(3))
    before = (store.epoch, store.writers(writer.run_id), scan_rows(store, writer.run_id))
    store.close()

    again = store_engine.open()

    assert (again.epoch, again.writers(writer.run_id), scan_rows(again, writer.run_id)) == before
    feed(again, writer, writer.rows(1, first_step=3))


def test_a_new_store_has_a_new_epoch(store: Store, store_engine: StoreEngine) -> None:
    assert store_engine.open_elsewhere().epoch != store.epoch


def test_a_journal_replayed_after_merge_and_restart_adds_nothing(store_engine: StoreEngine) -> None:
    store = store_engine.open()
    writer = make_writer(store)
    frames = [*writer.rows(20, 10), writer.finish()]
    feed(store, writer, frames)
    store.merge(writer.run_id, final=True)
    store.mark_applied([(writer.run_id, writer.writer_id, writer.next_seq - 1)])
    before = (scan_rows(store, writer.run_id), store.totals(writer.run_id))
    store.close()
    store = store_engine.open()

    (answer,) = store.append([batch(writer, frames, 1)])
    store.merge(writer.run_id, final=True)

    assert (answer.accepted_frames, answer.duplicate_frames) == (0, 21)
    assert (scan_rows(store, writer.run_id), store.totals(writer.run_id)) == before


def test_a_different_frame_under_the_last_number_is_kept_aside(store: Store) -> None:
    writer = make_writer(store)
    feed(store, writer, writer.rows(1))
    writer.next_seq = 1
    other = writer.rows(1, first_step=500)

    (answer,) = store.append([batch(writer, other, 1)])

    assert (answer.accepted_frames, answer.duplicate_frames) == (0, 1)
    ((writer_id, seq, reason),) = store.quarantined(writer.run_id)
    assert (writer_id, seq) == (writer.writer_id, 1)
    assert "different" in reason


def test_two_threads_that_append_the_same_frames_store_them_once(store: Store) -> None:
    writer = make_writer(store)
    frames = writer.rows(50)
    batches = [Batch(writer.run_id, writer.writer_id, number + 1, number + 2, [frame]) for number, frame in enumerate(frames)]
    accepted = [0, 0, 0]
    start = threading.Barrier(3)

    def send(thread: int) -> None:
        start.wait()
        for one in batches:
            (answer,) = store.append([one])
            assert not answer.is_gap
            accepted[thread] += answer.accepted_frames

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(accepted) == 50
    assert len(scan_rows(store, writer.run_id)) == 50


def test_a_frame_that_does_not_decode_is_kept_aside_and_the_rest_is_merged(store: Store) -> None:
    writer = make_writer(store)
    bad = writer.raw(1, {"not": "blocks"})
    frames = [bad, *writer.rows(2), writer.raw(200, "of a later version")]
    feed(store, writer, frames)
    before = scan_rows(store, writer.run_id)

    store.merge(writer.run_id)

    assert scan_rows(store, writer.run_id) == before
    assert [row[0] for row in before] == [0, 1]
    assert [(seq, reason.split(" ")[0]) for _, seq, reason in store.quarantined(writer.run_id)] == [(1, "blocks:"), (4, "frame")]
    assert store.writers(writer.run_id)[0].merged_seq == 4


def test_a_damaged_frame_in_the_tail_is_set_aside_by_the_merge(store: Store) -> None:
    writer = make_writer(store)
    frames = writer.rows(3)
    feed(store, writer, [frames[0], flip_bit(frames[1], 70 * 8), frames[2]])

    store.merge(writer.run_id)

    assert [row[0] for row in scan_rows(store, writer.run_id)] == [0, 2]
    assert [(seq, "corrupt" in reason) for _, seq, reason in store.quarantined(writer.run_id)] == [(2, True)]


def test_documents_come_in_order_until_they_are_applied(store: Store) -> None:
    writer = make_writer(store)
    frames = [writer.data(config={"lr": 1}), *writer.rows(1), writer.gap(2)]
    frames += [writer.data([(5, {"a": 1})], summary={"best": 2}), writer.finish()]
    feed(store, writer, frames)
    key = (writer.run_id, writer.writer_id)

    assert list(store.documents_after(*key, 0)) == [(1, frames[0]), (3, frames[2]), (5, frames[3]), (6, frames[4])]
    store.merge(writer.run_id, final=True)
    assert [seq for seq, _ in store.documents_after(*key, 1)] == [3, 5, 6]

    store.mark_applied([(*key, 6)])
    assert list(store.documents_after(*key, 6)) == []
    assert store.totals(writer.run_id).points == 2


def test_a_relative_resume_begins_behind_the_last_step(store: Store) -> None:
    first = make_writer(store)
    feed(store, first, first.rows(1, 5))

    second = make_writer(store, started_s=9, is_relative=True)
    feed(store, second, second.rows(1, 5))
    store.merge(first.run_id)

    assert [row[0] for row in scan_rows(store, first.run_id)] == list(range(10))
    assert store.totals(first.run_id).last_step == 9


def test_writers_that_went_quiet_with_frames_that_nobody_applied_are_found(store: Store) -> None:
    applied, waiting = make_writer(store), make_writer(store)
    for writer in (applied, waiting):
        feed(store, writer, writer.rows(2))
    store.mark_applied([(applied.run_id, applied.writer_id, 2)])

    assert store.unapplied(1 << 62) == [(waiting.run_id, waiting.writer_id)]
    assert store.unapplied(1) == [], "they are young"
