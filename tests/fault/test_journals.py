"""Journals that were damaged, copied, half removed or sent twice: everything readable arrives once, everything else is a counted gap."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import runferry

from tests.compat.reader import read_frame
from tests.support import stored
from tests.support.trainers import COMMAND_TIMEOUT_S, Trainer, client_environment, command, wait_until

if TYPE_CHECKING:
    from tests.support.servers import RunningServer

FRAMES, ROWS_A_FRAME = 12, 50


def offline_run(folder: Path, run_id: str) -> Path:
    """A finished offline run of `FRAMES` data frames; the folder of its writer."""
    run = runferry.init(project="journals", id=run_id, dir=folder, mode="offline", settings={"silent": True})
    for first in range(0, FRAMES * ROWS_A_FRAME, ROWS_A_FRAME):
        for number in range(first, first + ROWS_A_FRAME):
            run.log({"n": number})
        assert run.flush()
    run.finish()
    return Path(run.dir)


def frames_in(segment: Path) -> list[tuple[int, int, str]]:
    """Offset, length and kind of each frame."""
    found, offset, data = [], 0, segment.read_bytes()
    while offset < len(data) and any(data[offset:]):
        frame, length = read_frame(data[offset:])
        found.append((offset, length, frame.kind_name))
        offset += length
    return found


def numbers(server: RunningServer, run_id: str) -> list[int]:
    """The values of `n` on the server, in order."""
    return [row["n"] for row in stored.rows(server.url, f"local/journals/{run_id}")]


@pytest.mark.fault(39)
@pytest.mark.timeout(120)
def test_one_journal_sent_by_three_programs_at_once_is_stored_once(server: RunningServer, tmp_path: Path) -> None:
    journal = offline_run(tmp_path, "thrice")

    syncs = [
        subprocess.Popen(
            [sys.executable, "-m", "runferry.cli", "sync", str(journal)],
            env=client_environment(tmp_path, base_url=server.url),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(3)
    ]
    said = [sync.communicate(timeout=COMMAND_TIMEOUT_S)[0] for sync in syncs]

    assert [sync.returncode for sync in syncs] == [0, 0, 0], said
    assert numbers(server, "thrice") == list(range(FRAMES * ROWS_A_FRAME))
    assert stored.run(server.url, "local/journals/thrice").stored["rows"] == FRAMES * ROWS_A_FRAME


@pytest.mark.fault(39)
@pytest.mark.timeout(120)
def test_a_journal_sent_again_from_a_copy_adds_nothing(server: RunningServer, tmp_path: Path) -> None:
    journal = offline_run(tmp_path, "copied")
    shutil.copytree(journal, tmp_path / "elsewhere" / journal.name)
    assert command(tmp_path, "sync", str(journal), base_url=server.url).returncode == 0

    again = command(tmp_path, "sync", str(tmp_path / "elsewhere"), base_url=server.url)

    assert again.returncode == 0, again.stdout + again.stderr
    assert numbers(server, "copied") == list(range(FRAMES * ROWS_A_FRAME))


@pytest.mark.fault(14, 15)
@pytest.mark.timeout(120)
def test_flipped_bits_cost_exactly_the_frames_they_hit(server: RunningServer, tmp_path: Path) -> None:
    journal = offline_run(tmp_path, "flipped")
    (segment,) = journal.glob("seg-*.rfj")
    frames = [frame for frame in frames_in(segment) if frame[2] == "data"]
    assert len(frames) == FRAMES
    chance = random.Random(3)
    hit = sorted(chance.sample(range(FRAMES), 3))
    data = bytearray(segment.read_bytes())
    for place, index in enumerate(hit):
        offset, length, _ = frames[index]
        at = chance.randrange(offset, offset + 64) if place == 0 else chance.randrange(offset + 64, offset + length - 8)
        data[at] ^= 1 << chance.randrange(8)
    segment.write_bytes(data)

    checked = command(tmp_path, "journal", "fsck", str(journal))
    counted = command(tmp_path, "journal", "stats", str(journal))
    listed = command(tmp_path, "journal", "cat", str(journal))
    synced = command(tmp_path, "sync", str(journal), base_url=server.url)

    assert checked.returncode == 1
    assert "damaged" in checked.stdout
    assert counted.returncode == 0, counted.stderr
    assert (listed.returncode, listed.stdout.count("UNREADABLE")) == (1, 3), listed.stdout
    assert synced.returncode == 0, synced.stdout + synced.stderr
    left = [index for index in range(FRAMES) if index not in hit]
    expected = [index * ROWS_A_FRAME + row for index in left for row in range(ROWS_A_FRAME)]
    assert numbers(server, "flipped") == expected
    gaps = stored.gaps(server.url, "local/journals/flipped")
    assert sum(gap["count"] for gap in gaps) == 3
    assert {gap["reason"] for gap in gaps} == {"corrupt"}
    stored.wait_for_state(server.url, "local/journals/flipped", "finished")


@pytest.mark.fault(13, 16, 17)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("damage", ["cut in a frame", "garbage behind", "zeros behind", "hint is garbage", "segment renamed"])
def test_other_damage_costs_no_whole_frame(server: RunningServer, tmp_path: Path, damage: str) -> None:
    run_id = damage.replace(" ", "-")
    journal = offline_run(tmp_path, run_id)
    (segment,) = journal.glob("seg-*.rfj")
    data, frames = segment.read_bytes(), frames_in(segment)
    rows = FRAMES * ROWS_A_FRAME
    if damage == "cut in a frame":
        segment.write_bytes(data[: frames[-2][0] + 70])  # in the last data frame: a disk that lost its end
        rows -= ROWS_A_FRAME
    elif damage == "garbage behind":
        segment.write_bytes(data + random.Random(1).randbytes(1_000))
    elif damage == "zeros behind":
        segment.write_bytes(data + bytes(4_096))
    elif damage == "hint is garbage":
        (journal / "ACK").write_bytes(random.Random(1).randbytes(64))
    else:
        segment.rename(journal / "seg-00000000000000004711.rfj")

    synced = command(tmp_path, "sync", str(journal), base_url=server.url)

    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert numbers(server, run_id) == list(range(rows))


@pytest.mark.fault(54)
@pytest.mark.timeout(120)
def test_a_journal_of_a_newer_format_is_named_and_the_others_are_sent(server: RunningServer, tmp_path: Path) -> None:
    newer, other = offline_run(tmp_path, "newer"), offline_run(tmp_path, "other")
    (segment,) = newer.glob("seg-*.rfj")
    data = bytearray(segment.read_bytes())
    for offset, length, _ in frames_in(segment):
        data[offset + 4] = 2
        data[offset : offset + length] = _resealed(bytes(data[offset : offset + length]))
    segment.write_bytes(data)

    synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    checked = command(tmp_path, "journal", "fsck", str(newer))

    for found in (synced, checked):
        said = found.stdout + found.stderr
        assert found.returncode == 1, said
        assert segment.name in said, "it names the file"
        assert "version 2" in said, "and the version found"
        assert "1" in said.split("version 2", 1)[1], "and the one that is known"
        assert "Traceback" not in said
    assert numbers(server, "other") == list(range(FRAMES * ROWS_A_FRAME))
    assert segment.read_bytes() == bytes(data), "nothing is changed in it"
    assert other.exists()


def _resealed(frame: bytes) -> bytes:
    """The frame with the header checksum that its header has now."""
    from tests.support.frames import crc32c  # noqa: PLC0415 - only here

    return frame[:60] + crc32c(frame[:60]).to_bytes(4, "little") + frame[64:]


FORKED_CHILD = """
import os, sys, time, runferry
run = runferry.init(project="journals", id="forked", mode="offline", settings={"silent": True})
child = os.fork()
if child == 0:
    time.sleep(600)  # a data loader's worker that outlives the trainer
    os._exit(0)
print(child)
for number in range(10**9):
    run.log({"n": number})
    if number % 1000 == 0:
        print("logged", number)
"""


@pytest.mark.fault(30)
@pytest.mark.timeout(120)
def test_a_killed_trainer_is_adopted_while_its_forked_child_lives(server: RunningServer, tmp_path: Path) -> None:
    with Trainer(FORKED_CHILD, tmp_path) as trainer:
        child = int(trainer.line())
        try:
            trainer.wait_for("logged 3000")
            trainer.process.kill()
            trainer.process.wait(COMMAND_TIMEOUT_S)

            synced = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)

            Path(f"/proc/{child}").stat()  # it lives
        finally:
            subprocess.run(["kill", "-9", str(child)], check=True, timeout=10)  # noqa: S607 - the child the trainer forked
        rest = trainer.ended()[1].splitlines()
    returned = max([3_000, *(int(line.removeprefix("logged ")) for line in rest if line.startswith("logged "))])
    assert synced.returncode == 0, synced.stdout + synced.stderr
    found = numbers(server, "forked")
    assert found == list(range(len(found)))
    assert len(found) > returned


@pytest.mark.fault(29)
@pytest.mark.timeout(120)
def test_eight_adopters_at_once_make_one_copy(server: RunningServer, tmp_path: Path) -> None:
    code = """
import runferry
run = runferry.init(project="journals", id="fought-over", mode="offline", settings={"silent": True})
for number in range(5000):
    run.log({"n": number})
print("logged")
input()
"""
    with Trainer(code, tmp_path) as trainer:
        trainer.wait_for("logged")
        trainer.kill()

        adopters = [
            subprocess.Popen(
                [sys.executable, "-m", "runferry.cli", "sync", str(tmp_path / "runferry")],
                env=client_environment(tmp_path, base_url=server.url),
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(8)
        ]
        said = [adopter.communicate(timeout=COMMAND_TIMEOUT_S)[0] for adopter in adopters]

    assert 0 in {adopter.returncode for adopter in adopters}, said
    last = command(tmp_path, "sync", str(tmp_path / "runferry"), base_url=server.url)
    assert last.returncode == 0, last.stdout + last.stderr
    assert numbers(server, "fought-over") == list(range(5_000))
    wait_until(lambda: stored.run(server.url, "local/journals/fought-over").stored["rows"] == 5_000, "counts")
