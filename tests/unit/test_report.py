"""The tables of the performance page are made from kept figures."""

from benchmarks.report import filled

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
