"""The tables of the performance page are made from kept figures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.__main__ import NAMES
from benchmarks.figures import RESULTS, newest
from benchmarks.report import PAGE, filled
from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

KEPT = {
    "machine": {"cpu": "a small one", "cores": 2, "host": "mine"},
    "questions": {
        "log_call": {
            "made": {"date": "2026-11-21 10:00:00 UTC", "commit": "abc", "load_1min_before": 0.5},
            "figures": {
                "10 scalars": {"median_ns": 123.456, "dropped": 0},
                "100 scalars": {"median_ns": 1234.5, "dropped": 0},
                "wandb": {"absent": "not installed"},
            },
        }
    },
}
CLUSTER: dict[str, Any] = {
    "bytes_per_point": {
        "figures": {
            "loss curve, 10 scalars": {"wire_journal_bytes": 3.0, "pages_bytes": 4.0},
            "one of 1,000 ranks": {"wire_journal_bytes": 13.0},
        }
    },
    "ingest": {
        "figures": {
            "4 streams, 20,000,000 points": {"merged_points_per_s": 8e6, "server_cpu_s_per_million_points": 0.1},
            "wide, 2,000 metrics x 10 steps a frame, 4 streams, 20,000,000 points": {
                "merged_points_per_s": 1e6,
                "server_cpu_s_per_million_points": 0.5,
            },
        }
    },
    "writers": {
        "figures": {
            "1,000 writers, 64,000 frames of 20 points": {"durable_frames_per_s": 10_000, "server_cpu_us_per_frame": 50},
            "10,000 writers are connected": {"kib_per_writer": 40},
            "10,000 writers come back": {"back_s": 50},
        }
    },
}


def page(mark: str) -> str:
    return f"before\n\n<!-- {mark} -->\nold\n<!-- end -->\nafter\n"


def test_a_marked_table_is_made_anew_and_the_text_around_it_stays() -> None:
    made = filled(page("figures log_call | rows: 10 scalars; wandb | columns: median_ns as median, dropped"), KEPT)

    assert "old" not in made
    assert made.startswith("before\n")
    assert made.endswith("<!-- end -->\nafter\n")
    assert "|  | median | dropped |\n| --- | ---: | ---: |\n| 10 scalars | 123 | 0 |\n" in made
    assert "100 scalars" not in made
    assert "| wandb | absent: not installed |  |" in made
    assert "abc" in made


def test_making_it_twice_changes_nothing() -> None:
    once = filled(page("figures log_call | columns: median_ns"), KEPT)

    assert filled(once, KEPT) == once


def test_a_question_without_figures_says_so() -> None:
    made = filled(page("figures memory | columns: resident_mib"), KEPT)

    assert "Not measured yet" in made


def test_the_machine_is_named_without_its_host() -> None:
    made = filled(page("machine"), KEPT)

    assert "a small one" in made
    assert "mine" not in made


def kept(folder: Path, name: str, cpu: str, **dates: str) -> None:
    questions = {question: {"made": {"date": date}, "figures": {"from": {"file": name}}} for question, date in dates.items()}
    (folder / name).write_text(json.dumps({"machine": {"cpu": cpu}, "questions": questions}), encoding="utf-8")


def test_of_each_question_the_figures_made_last_count_in_whichever_file_they_are(tmp_path: Path) -> None:
    kept(tmp_path, "1.json", "small", memory="2026-11-21 10:00:00 UTC", ingest="2026-11-21 10:00:00 UTC", start="2026-11-23 10:00:00 UTC")
    kept(tmp_path, "2.json", "small", memory="2026-11-22 10:00:00 UTC", start="2026-11-22 10:00:00 UTC")

    found = newest(tmp_path.glob("*.json"))["questions"]

    assert {question: answer["figures"]["from"]["file"] for question, answer in found.items()} == {
        "memory": "2.json",
        "ingest": "1.json",
        "start": "1.json",
    }


def test_figures_of_another_machine_are_not_mixed_in(tmp_path: Path) -> None:
    kept(tmp_path, "1.json", "large", ingest="2026-11-21 10:00:00 UTC")
    kept(tmp_path, "2.json", "small", memory="2026-11-20 10:00:00 UTC")

    found = newest(tmp_path.glob("*.json"))

    assert found["machine"] == {"cpu": "small"}
    assert set(found["questions"]) == {"memory"}


def test_every_target_has_a_question_that_can_be_asked() -> None:
    assert {target.benchmark for target in TARGETS} <= set(NAMES)


def test_a_cluster_without_figures_says_what_to_measure() -> None:
    made = filled(page("cluster"), KEPT)

    assert "Not measured yet" in made
    assert "`make bench NAME=writers`" in made


def test_a_cluster_has_as_many_servers_as_what_is_scarce_asks_for() -> None:
    made = filled(page("cluster"), {**KEPT, "questions": CLUSTER})

    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.splitlines() if line.startswith("|")]
    first, wide = ({cells[0]: cells[column] for cells in lines} for column in (1, 4))
    assert first["points/s"] == "800,000"  # 8,000 writers x 10 scalars x 10 steps/s
    assert first["frames/s"] == "40,000"
    assert first["MB/s into the servers"] == "10.4"  # 3 bytes a point, 200 more a frame
    assert first["CPU cores of the servers"] == "2.08"  # 50 us a frame, 0.1 s a million points
    assert first["servers, by their frames"] == "4"
    assert first["servers"] == "4"
    assert first["scarce"] == "frames"
    assert first["s until all are back, one server restarted"] == "10"  # 2,000 of 10,000 writers
    assert wide["servers"] == "2"  # 2 M points a second
    assert wide["scarce"] == "points"
    assert "10,000 (`writers`)" in made


def test_the_page_shows_what_is_kept() -> None:
    shown = PAGE.read_text(encoding="utf-8")

    assert filled(shown, newest(RESULTS.glob("*.json"))) == shown, "python -m benchmarks.report makes it anew"
