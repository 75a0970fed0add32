"""Names of runs and projects: what is refused, and how the refusal reads."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import runferry
from runferry._names import check_place, check_run_id, check_tags, default_project, new_run_id, new_run_name

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("a/b", "project 'a/b' holds /; none of / \\ # ? % : is allowed"),
        ("50%", "project '50%' holds %;"),
        ("", "project '' is empty"),
        (" demo", "project ' demo' has blanks at an end"),
        ("x" * 129, "has 129 characters, at most 128 are allowed"),
        ("a\0b", "holds control characters"),
        ("..", "cannot stand in an address"),
        ("\ud800", "holds control characters"),
    ],
)
def test_a_forbidden_project_is_refused_with_the_value_and_the_rule(value: str, told: str) -> None:
    with pytest.raises(runferry.UsageError) as refused:
        check_place("project", value)

    assert told in str(refused.value)


@pytest.mark.parametrize("value", ["a:b", "a;b", "a,b", "a#b", "a?b", "a/b", "a'b", "", " a", "a ", "\n"])
def test_a_forbidden_run_id_is_refused(value: str) -> None:
    with pytest.raises(runferry.UsageError, match=r"^id "):
        check_run_id(value)


@pytest.mark.parametrize("value", ["x7k2m9qa", "ø-run", "run 7", "a.b_c-d"])
def test_an_ordinary_run_id_is_taken(value: str) -> None:
    assert check_run_id(value) == value


@pytest.mark.parametrize("tags", [[""], ["x" * 65], [7], ["a\n"]])
def test_a_forbidden_tag_is_refused(tags: list[str]) -> None:
    with pytest.raises(runferry.UsageError, match=r"^tag "):
        check_tags(tags)


def test_tags_are_kept_once_and_a_string_is_one_tag() -> None:
    assert check_tags(["b", "a", "b"]) == ("b", "a")
    assert check_tags("one tag") == ("one tag",)


def test_made_up_names_obey_the_rules() -> None:
    assert re.fullmatch(r"[0-9a-z]{8}", new_run_id())
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d{1,3}", new_run_name())


def test_the_default_project_is_the_repository_with_the_folder_inside_it(tmp_path: Path) -> None:
    repository = tmp_path / "my repo"
    inside = repository / "train" / "v:2"
    inside.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(repository)], check=True)  # noqa: S607 - fixed arguments

    assert default_project(str(repository)) == "my repo"
    assert default_project(str(inside)) == "my repo_train_v_2"


def test_outside_of_a_repository_the_project_is_uncategorized() -> None:
    assert default_project("/") == "uncategorized"
