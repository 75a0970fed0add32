"""Places that are taken away from a training while it runs, and places that are there in a lesser form from the start."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.mounts import mounted
from tests.support.power import LoopDisk
from tests.support.told import ToldTrainer
from tests.support.trainers import command, train, wait_until

if TYPE_CHECKING:
    from tests.support.servers import RunningServer


def numbers(server: RunningServer, run_id: str) -> list[int]:
    """The rows of a run, by number."""
    return [row["n"] for row in stored.rows(server.url, f"local/disks/{run_id}")]


def in_own_mounts(script: str) -> list[str]:
    """Words before a command that runs it with mounts of its own; skips the test where they cannot be had."""
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f'{script}; exec "$@"', "sh"]
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False, timeout=30)
    if tried.returncode:
        pytest.skip(f"not run: no mounts of our own here: {tried.stderr.strip()}")
    return words


@pytest.mark.fault(25)
def test_a_journal_deleted_under_a_training_is_written_anew_from_memory(server: RunningServer, tmp_path: Path) -> None:
    with ToldTrainer(tmp_path, id="deleted", mode="offline") as trainer:
        trainer.log(50)
        assert trainer.ask("flush", durable=True, timeout=30)
        folder = Path(trainer.status()["journal_dir"])

        shutil.rmtree(tmp_path / "runferry")
        wait_until(lambda: list(folder.glob("seg-*.rfj")), "the journal is there again")
        trainer.log(50)
        assert trainer.ask("flush", durable=True, timeout=30)
        trainer.kill()

    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert numbers(server, "deleted") == list(range(100))
    assert stored.gaps(server.url, "local/disks/deleted") == []


@pytest.mark.fault(25)
def test_a_folder_that_takes_no_new_files_costs_nothing_while_there_is_a_server(server: RunningServer, tmp_path: Path) -> None:
    with ToldTrainer(tmp_path, id="frozen", settings={"base_url": server.url}) as trainer:
        trainer.log(10)
        assert trainer.ask("flush", acked=True, timeout=30)
        folder = trainer.status()["journal_dir"]
        frozen = subprocess.run(["chattr", "+i", folder], capture_output=True, text=True, check=False)  # noqa: S607
        if frozen.returncode:
            pytest.skip(f"not run: no immutable folders here: {frozen.stderr.strip()}")
        try:
            for _ in range(24):
                trainer.log(100, noise_bytes=10_000)  # 12 MB packed: more than a segment
            wait_until(lambda: trainer.status()["journal"] == "degraded", "no segment can be made")
            wait_until(lambda: trainer.status()["backlog_frames"] == 0, "the server gets everything all the same")
        finally:
            subprocess.run(["chattr", "-i", folder], check=True)  # noqa: S607
        trainer.log(10)
        assert trainer.ask("flush", durable=True, timeout=30)
        assert trainer.ask("finish")["dropped_rows"] == 0

    assert numbers(server, "frozen") == list(range(trainer.logged))
    assert stored.gaps(server.url, "local/disks/frozen") == []


@pytest.mark.fault(21, 25)
@pytest.mark.timeout(120)
def test_a_disk_that_dies_under_a_training_stops_neither_it_nor_the_sending(server: RunningServer, tmp_path: Path) -> None:
    with LoopDisk.made(tmp_path, 1024) as disk:
        folder = disk.path / "training"
        folder.mkdir()
        with ToldTrainer(folder, id="died", settings={"base_url": server.url}) as trainer:
            trainer.log(50)
            assert trainer.ask("flush", acked=True, timeout=30)

            disk.cut()
            slowest_s = max(trainer.log(500) for _ in range(20))
            status = trainer.ask("finish")

            assert (status["dropped_rows"], status["backlog_frames"]) == (0, 0), status
            assert status["journal"] == "degraded"
            assert status["last_error"]
            assert slowest_s < 0.5

    assert numbers(server, "died") == list(range(trainer.logged))


@pytest.mark.fault(26)
@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_a_journal_on_a_file_system_that_does_not_last_works_and_is_warned_about_once(
    server: RunningServer, tmp_path: Path, kind: str
) -> None:
    code = (
        f"import runferry\nfor part in range(2):\n"
        f"    with runferry.init(project='disks', id='{kind}', settings={{'base_url': {server.url!r}}}) as run:\n"
        f"        run.log({{'n': part}}, step=part)\n        assert run.flush(durable=True)\n"
    )
    if kind == "tmpfs":
        with mounted(tmp_path / "place", "size=300m"):
            ended = train(code, tmp_path / "place")
    else:
        for name in ("lower", "upper", "work", "place"):
            (tmp_path / name).mkdir()
        options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        words = ["mount", "-t", "overlay", "-o", options, "overlay", str(tmp_path / "place")]
        made = subprocess.run(words, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"not run: no overlay here: {made.stderr.strip()}")
        try:
            ended = train(code, tmp_path / "place")
        finally:
            subprocess.run(["umount", "--lazy", str(tmp_path / "place")], check=True, timeout=30)  # noqa: S607

    assert ended.returncode == 0, ended.stderr
    warnings = [line for line in ended.stderr.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert f"({kind})" in warnings[0]
    assert numbers(server, kind) == [0, 1]


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    ("kind", "script"),
    [("read-only", "mount -t tmpfs -o ro tmpfs /dev/shm"), ("small", "mount -t tmpfs -o size=1m tmpfs /dev/shm")],
    ids=["read-only", "1 MiB"],
)
def test_without_shared_memory_the_ring_lies_beside_the_journal_and_survives_a_kill(
    server: RunningServer, tmp_path: Path, kind: str, script: str
) -> None:
    run_id = f"shm-{kind}"
    with ToldTrainer(tmp_path, id=run_id, mode="offline", prefix=in_own_mounts(script)) as trainer:
        assert trainer.status()["kill_safe"] is True
        trainer.log(500)
        trainer.kill()

    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert numbers(server, run_id) == list(range(500))


@pytest.mark.fault(27, 18)
def test_without_any_room_for_the_ring_it_is_said_that_a_kill_costs_rows(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    prefix = in_own_mounts(f"mount -t tmpfs -o ro tmpfs /dev/shm; mount -t tmpfs -o size=2m tmpfs {tmp_path}/place")
    with ToldTrainer(tmp_path, prefix=prefix, id="heap", dir=str(tmp_path / "place"), settings={"base_url": server.url}) as trainer:
        assert trainer.status()["kill_safe"] is False
        assert trainer.said.count("kill -9") == 1
        trainer.log(500)
        status = trainer.ask("finish")

    assert (status["dropped_rows"], status["backlog_frames"]) == (0, 0), status
    assert numbers(server, "heap") == list(range(500))
