"""Disks that fail, hang or are full while a training writes to them: rows go on, and promises are kept or refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.syscalls import injected
from tests.support.told import ToldTrainer, noise
from tests.support.trainers import command, wait_until

if TYPE_CHECKING:
    from tests.support.servers import RunningServer


def segments(trainer: ToldTrainer) -> list[Path]:
    """The segments of its journal, the oldest first."""
    return sorted(Path(trainer.status()["journal_dir"]).glob("seg-*.rfj"))


def numbers(server: RunningServer, run_id: str) -> list[int]:
    """The rows of a run, by number."""
    return [row["n"] for row in stored.rows(server.url, f"local/disks/{run_id}")]


def kill_and_sync(trainer: ToldTrainer, server: RunningServer, folder: Path) -> None:
    """The training dies; what it left is sent."""
    trainer.kill()
    synced = command(folder, "sync", str(folder / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr


@pytest.mark.fault(22)
def test_an_fsync_that_failed_is_never_believed_and_its_frames_are_written_elsewhere(server: RunningServer, tmp_path: Path) -> None:
    with ToldTrainer(tmp_path, id="fsync", mode="offline", environment={"fsync": "never"}) as trainer:
        trainer.log(50)
        with injected(trainer.pid, "fdatasync:error=EIO:when=1"):
            assert trainer.ask("flush", durable=True, timeout=30) is False
        trainer.log(10)
        assert trainer.ask("flush", durable=True, timeout=30) is True
        first, *others = segments(trainer)
        assert others
        assert trainer.status()["journal"] == "degraded"

        first.write_bytes(b"")  # what the kernel may make of pages it could not write
        kill_and_sync(trainer, server, tmp_path)

    assert numbers(server, "fsync") == list(range(60))
    assert stored.gaps(server.url, "local/disks/fsync") == []


@pytest.mark.fault(22)
def test_frames_in_doubt_that_are_not_in_memory_any_more_are_never_called_durable(tmp_path: Path) -> None:
    with ToldTrainer(tmp_path, id="doubt", mode="offline", environment={"fsync": "never"}) as trainer:
        for _ in range(30):
            trainer.log(10, noise_bytes=100_000)  # 15 MB packed, memory keeps 8
            trainer.ask("flush")
        with injected(trainer.pid, "fdatasync:error=EIO:when=1"):
            assert trainer.ask("flush", durable=True, timeout=30) is False
        journal_bytes = trainer.status()["journal_bytes"]

        answers = [trainer.ask("flush", durable=True, timeout=30) for _ in range(5)]

        status = trainer.status()
        assert answers == [False] * 5
        assert "may not survive a power cut" in status["last_error"]
        assert status["journal_bytes"] <= journal_bytes + (9 << 20), "written anew once, not again and again"


@pytest.mark.fault(21)
@pytest.mark.parametrize("count", ["1", "2+2"], ids=["once", "every other time"])
def test_a_write_that_fails_moves_to_a_new_segment_and_loses_nothing(server: RunningServer, tmp_path: Path, count: str) -> None:
    run_id = f"eio-{count[0]}"
    with ToldTrainer(tmp_path, id=run_id, mode="offline") as trainer:
        trainer.log(50)
        assert trainer.ask("flush")
        with injected(trainer.pid, f"pwrite64:error=EIO:when={count}"):
            for _ in range(4):
                trainer.log(50)
                trainer.ask("flush")
        trainer.log(50)
        assert trainer.ask("flush", durable=True, timeout=30)
        assert len(segments(trainer)) > 1
        kill_and_sync(trainer, server, tmp_path)

    assert numbers(server, run_id) == list(range(300))
    assert stored.gaps(server.url, f"local/disks/{run_id}") == []


@pytest.mark.fault(19)
def test_a_disk_that_is_full_in_the_middle_of_a_frame_leaves_no_half_frame(server: RunningServer, tmp_path: Path) -> None:
    with ToldTrainer(tmp_path, id="enospc", mode="offline") as trainer:
        trainer.log(50)
        assert trainer.ask("flush")
        with injected(trainer.pid, "pwrite64:error=ENOSPC", "fallocate:error=EOPNOTSUPP"):
            trainer.log(50)
            assert trainer.ask("flush", timeout=5) is False
            assert trainer.status()["journal"] == "full"
        assert trainer.ask("flush", timeout=30)
        assert trainer.status()["journal"] == "ok"
        assert len(segments(trainer)) == 1
        kill_and_sync(trainer, server, tmp_path)

    assert numbers(server, "enospc") == list(range(100))
    assert stored.gaps(server.url, "local/disks/enospc") == []


@pytest.mark.fault(20)
@pytest.mark.timeout(120)
def test_a_file_size_limit_makes_small_segments_and_kills_nobody(server: RunningServer, tmp_path: Path) -> None:
    dies_of_it = "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)"
    with ToldTrainer(tmp_path, id="xfsz", mode="offline", before=dies_of_it) as trainer:
        import resource  # noqa: PLC0415 - not on every system

        resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (700_001, 700_001))
        for _ in range(20):
            trainer.log(100, noise_bytes=3_000)
            assert trainer.ask("flush", timeout=30)
        sizes = [segment.stat().st_size for segment in segments(trainer)]
        assert len(sizes) > 3
        assert max(sizes) <= 700_001
        assert trainer.status()["dropped_rows"] == 0
        kill_and_sync(trainer, server, tmp_path)

    rows = stored.rows(server.url, "local/disks/xfsz")
    assert [row["n"] for row in rows] == list(range(2000))
    assert all(row["noise"] == noise(row["n"], 3_000) for row in rows)


@pytest.mark.fault(24)
@pytest.mark.timeout(120)
def test_a_disk_that_hangs_holds_up_neither_log_nor_the_server(server: RunningServer, tmp_path: Path) -> None:
    with ToldTrainer(tmp_path, id="hangs", settings={"base_url": server.url}) as trainer:
        trainer.log(10)
        with injected(trainer.pid, "fdatasync:delay_enter=8000000"):
            for _ in range(12):  # more than wait in any queue
                trainer.log(1)
                assert trainer.ask("flush", durable=True, timeout=0.1) is False
            slowest_s = trainer.log(20_000, noise_bytes=1_000)  # 20 MB: more than the ring holds
            assert trainer.ask("flush", acked=False, timeout=5)
            wait_until(lambda: trainer.status()["backlog_frames"] == 0, "the server has everything while the disk hangs")
            assert trainer.status()["dropped_rows"] == 0
            assert slowest_s < 0.5
        assert trainer.ask("flush", durable=True, timeout=60)
        trainer.ask("finish")

    assert numbers(server, "hangs") == list(range(trainer.logged))


@pytest.mark.fault(24)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("policy", ["degrade", "block"])
def test_a_disk_that_stands_still_is_waited_for_where_that_is_the_policy(server: RunningServer, tmp_path: Path, policy: str) -> None:
    settings = {"base_url": server.url, "ring_bytes": "256KiB", "backpressure": policy, "backpressure_block_ms": 20_000}
    with ToldTrainer(tmp_path, id=f"still-{policy}", settings=settings) as trainer:
        trainer.log(10)
        with injected(trainer.pid, "pwrite64:delay_enter=1000000"):
            trainer.log(1_000, noise_bytes=1_000)
        dropped_rows = trainer.status()["dropped_rows"]
        trainer.ask("finish")

    assert (dropped_rows == 0) == (policy == "block")
    assert len(numbers(server, f"still-{policy}")) == trainer.logged - dropped_rows


@pytest.mark.fault(28)
@pytest.mark.timeout(120)
def test_without_free_descriptors_open_files_work_on_and_the_journal_comes_back(server: RunningServer, tmp_path: Path) -> None:
    import resource  # noqa: PLC0415 - not on every system

    with ToldTrainer(tmp_path, id="emfile", settings={"base_url": server.url}) as trainer:
        trainer.log(10)
        assert trainer.ask("flush", acked=True, timeout=30)
        before = resource.prlimit(trainer.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(trainer.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        for _ in range(24):
            trainer.log(100, noise_bytes=10_000)  # 12 MB packed: a segment ends, and no other can be begun
        wait_until(lambda: trainer.status()["journal"] == "degraded", "no segment can be opened")
        wait_until(lambda: trainer.status()["backlog_frames"] == 0, "the server gets everything all the same")
        resource.prlimit(trainer.pid, resource.RLIMIT_NOFILE, before)
        trainer.log(100)
        assert trainer.ask("flush", durable=True, timeout=30)
        assert trainer.ask("finish")["backlog_frames"] == 0

    assert numbers(server, "emfile") == list(range(trainer.logged))
    assert stored.gaps(server.url, "local/disks/emfile") == []
