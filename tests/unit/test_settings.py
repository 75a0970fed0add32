"""Settings: one table, many sources, one precedence."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import runferry
from runferry import settings as settings_module
from runferry.settings import Settings, resolve, settings_file, to_markdown, write_to_file

REPOSITORY = Path(__file__).parents[2]


def write_settings_file(text: str) -> None:
    path = settings_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_each_source_wins_over_the_ones_below_it() -> None:
    write_settings_file("[default]\n# a comment\nproject = from-file\nentity = from-file\nrun_group = from-file\nmode = offline\n")
    environ = {
        "RUNFERRY_CONFIG_DIR": str(settings_file().parent),
        "WANDB_ENTITY": "from-wandb",
        "WANDB_RUN_GROUP": "from-wandb",
        "RUNFERRY_RUN_GROUP": "from-env",
        "RUNFERRY_NAME": "from-env",
        "RUNFERRY_NOTES": "from-env",
        "RUNFERRY_TAGS": "from-env",
    }

    found = resolve(Settings(run_name="setup", run_notes="setup"), {"run_notes": "argument", "run_tags": None}, environ=environ)

    assert found.project == "from-file"
    assert found.entity == "from-wandb"
    assert found.run_group == "from-env"
    assert found.run_name == "setup"
    assert found.run_notes == "argument"
    assert found.run_tags == ("from-env",)
    assert found.finish_timeout == 60.0


@pytest.mark.parametrize("variable", ["WANDB_BASE_URL", "WANDB_API_KEY"])
def test_address_and_key_of_another_service_are_never_read(variable: str) -> None:
    found = resolve(environ={variable: "https://api.example.org"})

    assert (found.base_url, found.api_key) == (None, None)


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("RUNFERRY_MODE", "dryrun", "mode", "offline"),
        ("WANDB_MODE", "disabled", "mode", "disabled"),
        ("RUNFERRY_DIR", "/scratch", "root_dir", "/scratch"),
        ("RUNFERRY_ROOT_DIR", "/scratch", "root_dir", "/scratch"),
        ("RUNFERRY_TAGS", "a, b,,c", "run_tags", ("a", "b", "c")),
        ("RUNFERRY_SILENT", "true", "silent", True),
        ("RUNFERRY_QUIET", "0", "quiet", False),
        ("RUNFERRY_RING_BYTES", "16MiB", "ring_bytes", 16 << 20),
        ("RUNFERRY_FINISH_TIMEOUT", "2.5", "finish_timeout", 2.5),
        ("RUNFERRY_BASE_URL", "http://host:7070/", "base_url", "http://host:7070"),
        ("WANDB_RESUME", "allow", "resume", "allow"),
    ],
)
def test_a_variable_sets_its_field(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(resolve(environ={variable: text}), field) == value


def test_an_empty_variable_counts_as_unset() -> None:
    assert resolve(environ={"RUNFERRY_MODE": "", "WANDB_MODE": "offline"}).mode == "offline"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"mode": "onlin"}, "setting mode='onlin': expected online, offline or disabled"),
        ({"ring_bytes": "many"}, "setting ring_bytes='many': expected bytes, like 4194304 or 4MiB"),
        ({"ring_bytes": 10}, "setting ring_bytes=10: expected 65536 to 1073741824 bytes"),
        ({"finish_timeout": -1}, "setting finish_timeout=-1: expected zero seconds or more"),
        ({"finish_timeout": "nan"}, "expected zero seconds or more"),
        ({"fsync": "sometimes"}, "expected never, adaptive, interval or always"),
        ({"silent": "perhaps"}, "setting silent='perhaps': expected true or false"),
        ({"project": 7}, "setting project=7: expected a string, found int"),
        ({"base_url": "host:7070"}, "expected an address like http://host:7070"),
        ({"base_url": "http://"}, "the address has no host"),
        ({"base_url": "http://host:99999"}, "not an address"),
        ({"base_url": "http://user:secret@host"}, "without user, query or fragment"),
        ({"base_url": "http://ho st"}, "an address holds no blanks"),
        ({"projct": "x"}, "setting 'projct' is unknown; the nearest are project"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name_its_value_and_the_rule(given: dict[str, object], told: str) -> None:
    with pytest.raises(runferry.UsageError) as refused:
        Settings(**given)  # type: ignore[arg-type]

    assert told in str(refused.value)


def test_setting_an_attribute_is_checked_as_the_constructor_is() -> None:
    settings = Settings()

    with pytest.raises(runferry.UsageError, match="mode='x'"):
        settings.mode = "x"
    with pytest.raises(runferry.UsageError, match="'modee' is unknown"):
        settings.modee = "online"
    settings.mode = "offline"

    assert settings.given() == {"mode": "offline"}


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(runferry.UsageError, match=r"environment variable WANDB_MODE='fast': expected online"):
        resolve(environ={"WANDB_MODE": "fast"})


def test_a_wrong_line_of_the_settings_file_is_named() -> None:
    write_settings_file("\nmode = fast\n")

    with pytest.raises(runferry.UsageError, match=r"settings, line 2: setting mode='fast'"):
        resolve()


def test_writing_to_the_settings_file_keeps_the_other_lines_and_is_private() -> None:
    write_settings_file("project = demo\nbase_url = http://old:1\n")

    path = write_to_file({"base_url": "http://new:2", "api_key": "secret"})

    assert (resolve().project, resolve().base_url, resolve().api_key) == ("demo", "http://new:2", "secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_is_not_printed() -> None:
    assert "secret" not in repr(Settings(api_key="secret"))


def test_the_page_of_settings_is_the_one_in_the_repository() -> None:
    assert (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8") == to_markdown(), (
        "run: python -m runferry.settings > docs/settings.md"
    )


def test_every_field_has_a_variable_and_a_sentence() -> None:
    for name, row in settings_module.Settings.__dataclass_fields__.items():
        assert settings_module.variables(name)[0].startswith("RUNFERRY_")
        assert row.metadata["doc"].endswith((".", ";")), name
