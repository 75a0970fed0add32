"""Faults of ours that these tests found, each with the test that fails where it comes back."""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.marks import Test


@dataclass(frozen=True, slots=True)
class Bug:
    """One entry of the record."""

    symptom: str
    cause: str
    test: Test


BUGS: tuple[Bug, ...] = (
    Bug(
        "a program ended by SIGABRT (`FATAL: exception not rethrown`) where a thread was inside `log` at the exit",
        "CPython before 3.14 ends a thread that asks for the interpreter's lock at the end by unwinding, which Rust frames do not allow",
        Test("tests/fault/test_exit.py", "test_threads_in_the_middle_of_slow_calls_at_the_exit_neither_crash_nor_complain"),
    ),
    Bug(
        "a forked child hung for ever at its first `log`",
        "it waited for a lock held by a thread that only its parent had",
        Test("tests/fault/test_forks.py", "test_a_fork_at_any_instant_of_logging_threads_leaves_parent_and_child_well"),
    ),
    Bug(
        "rows lost without a gap, while `sync` said that everything was on the server",
        "the server knew more of a writer whose disk was set back; its adopter took other frames of the same numbers for stored",
        Test("tests/fault/test_set_back.py", "test_what_such_a_process_leaves_when_it_is_killed_is_sent_in_the_name_it_went_on_under"),
    ),
    Bug(
        "a training that had been set back went on, and nothing of it arrived any more",
        "the server's answer that it knows more was taken for a refusal",
        Test("tests/fault/test_set_back.py", "test_a_process_that_was_set_back_goes_on_as_a_new_writer_and_overwrites_nothing"),
    ),
    Bug(
        "`init` hung while the resolver was silent",
        "the look-up of the server's name had no limit of its own",
        Test(
            "tests/fault/test_names.py",
            "test_a_resolver_that_never_answers_stops_neither_training_nor_finish_and_the_name_is_looked_up_again",
        ),
    ),
    Bug(
        "a full disk of the server made every writer send everything anew, each second",
        "a COMMIT refused for want of room counted as one of unknown outcome",
        Test("tests/fault/test_full_server.py", "test_a_full_disk_of_the_server_makes_writers_wait_and_costs_nothing"),
    ),
    Bug(
        "`init` beside a poll of `runferry status` left an orphan lying",
        "the poll took each journal's lock for a moment",
        Test("tests/fault/test_kill_walk.py", "test_a_recovery_killed_five_times_running_at_any_fail_point_loses_and_repeats_nothing"),
    ),
    Bug(
        "after a kill in the very first write every later `runferry sync` failed",
        "a torn OPEN frame was left, over which the scan stopped",
        Test("tests/fault/test_kill_walk.py", "test_a_training_killed_at_any_fail_point_loses_and_repeats_nothing"),
    ),
    Bug(
        "after a panic of a thread behind the run `flush()` never returned",
        "nobody told those who wait that it was dead",
        Test("tests/fault/test_panics.py", "test_a_thread_that_dies_takes_neither_the_training_nor_a_row_with_it"),
    ),
    Bug(
        "a query for hundreds of metrics was answered, or its connection reset, by how the network cut the request",
        "the HTTP parser's 16 KiB are measured only while a request's head is incomplete",
        Test("tests/server/test_read_door.py", "test_a_long_address_is_read_whole_however_the_network_cuts_it"),
    ),
    Bug(
        "with the disk full a short run lost all its rows although its server was there",
        "what had no room was dropped before the first attempt to reach the server was over",
        Test("tests/fault/test_lost_places.py", "test_without_any_room_for_the_ring_it_is_said_that_a_kill_costs_rows"),
    ),
    Bug(
        "packing and sending stood still while the disk hung",
        "the packer waited for the thread that syncs",
        Test("tests/fault/test_sick_disks.py", "test_a_disk_that_hangs_holds_up_neither_log_nor_the_server"),
    ),
    Bug(
        "`flush(durable=True)` said yes after an fsync that had failed",
        "the next fsync was believed, although the kernel had let the failed pages go",
        Test("tests/fault/test_sick_disks.py", "test_an_fsync_that_failed_is_never_believed_and_its_frames_are_written_elsewhere"),
    ),
    Bug(
        "a journal deleted under a training was written on for ever, to a file without a name",
        "nobody looked whether the file was still there",
        Test("tests/fault/test_lost_places.py", "test_a_journal_deleted_under_a_training_is_written_anew_from_memory"),
    ),
    Bug(
        "a forked child kept the trainer's connection, and the server a dead writer for alive",
        "sockets were not closed at the fork",
        Test("tests/fault/test_forks.py", "test_a_child_forked_past_python_has_none_of_our_files_and_connections"),
    ),
    Bug(
        "with the server's clock set back a dead run stayed running",
        "silence was measured by the wall clock alone",
        Test("tests/fault/test_clocks.py", "test_a_run_that_dies_behind_a_jump_of_the_servers_clock_is_quiet_in_time_and_not_a_day_later"),
    ),
    Bug(
        "one histogram that cannot be read kept a run from ever finishing",
        "its totals failed, and the FINISH was rolled back with them",
        Test("tests/fault/test_hostile_frames.py", "test_a_hostile_frame_harms_neither_its_neighbours_nor_anybody_else"),
    ),
    Bug(
        "a FINISH that holds no map made every later commit of its writer fail",
        "the server read it before it stored it",
        Test("tests/fault/test_hostile_clients.py", "test_a_gap_and_a_finish_that_say_nothing_readable_count_all_the_same"),
    ),
    Bug(
        "`finish()` reported a disk error that had long been over",
        "what the server alone had taken was not stepped over in the journal",
        Test("rust/sim/tests/seeds.rs", "in_every_world_each_row_is_stored_once_or_its_absence_is_named"),
    ),
    Bug(
        "a run passed to the workers of a pool had a writer, a ring and three threads for every task",
        "each task brings its copy of the run, and a copy was not known as the one that had come before",
        Test("tests/fault/test_spawns.py", "test_a_worker_that_gets_the_run_with_every_task_is_one_writer"),
    ),
    Bug(
        "a second Ctrl-C at the exit left a run without its FINISH",
        "it raised wherever the exit hook was, and skipped the rest",
        Test("tests/fault/test_shutdown.py", "test_a_ctrl_c_at_any_line_leaves_no_run_unfinished"),
    ),
    Bug(
        "with `backpressure=block` calls were refused after 250 ms of a disk that stood still",
        "only a full journal was waited for, not a full ring",
        Test("tests/fault/test_sick_disks.py", "test_a_disk_that_stands_still_is_waited_for_where_that_is_the_policy"),
    ),
    Bug(
        "the last rows of a burst lay behind the run's own FINISH and were never sent; `flush()` said yes before they were in the journal",
        "one round of the packer was taken for all that a full ring holds",
        Test("rust/sim/tests/full_ring.rs", "finish_writes_a_full_ring_to_the_last_row_and_nothing_behind_its_own_frame"),
    ),
    Bug(
        "a training that logged 100,000 new names a step needed ever more memory",
        "names were forgotten only where a row ended a block, and 256 calls were unfolded before one was written",
        Test("tests/fault/test_memory.py", "test_names_that_never_come_again_cost_bounded_memory_and_one_warning_and_all_are_stored"),
    ),
    Bug(
        "a training short of memory was aborted where it logged a large text",
        "Rust ends the process where an allocation fails",
        Test("tests/fault/test_memory.py", "test_without_memory_for_a_large_text_a_marker_is_kept_and_the_training_goes_on"),
    ),
    Bug(
        "a damaged row in a dead process's ring could unfold to gigabytes in whoever adopted it",
        "each value was looked up within the row, but many could mean the same bytes of it",
        Test("rust/wire/src/record.rs", "values_that_all_mean_the_same_bytes_are_no_row"),
    ),
    Bug(
        "a worker that logged large texts needed more than 32 MiB while its server took a kilobyte a second",
        "messages of up to 8 MiB were copied once more by the connection, beside 8 MiB that waited for it and 8 MiB of newer frames; the "
        "test's rows had been too small to fill any of them",
        Test("tests/fault/test_memory.py", "test_a_worker_needs_less_than_32_mib_while_its_server"),
    ),
)
