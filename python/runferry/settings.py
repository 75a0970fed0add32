"""Every setting of the client, in one table; the only client module that reads the environment.

The table is the class `Settings`: a field, its default, its check, its variables and its sentence stand together, and
`docs/settings.md` is written from it (`python -m runferry.settings > docs/settings.md`). Everything else gets plain values.

# Precedence
Low to high: default, settings file, `WANDB_*`, `RUNFERRY_*`, `runferry.setup(settings)`, `init(settings=)`, arguments of
`init`. The environment is read at each `init`, once.

# Keys of another service
`WANDB_BASE_URL` and `WANDB_API_KEY` are never read: no address and no key of another service may end up in ours.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runferry._settings_checks import (
    as_base_url,
    as_bool,
    as_bytes,
    as_choice,
    as_milliseconds,
    as_mode,
    as_resume,
    as_seconds,
    as_tags,
    as_text,
)
from runferry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SETTINGS_FILE_HEADER = "# Written by `runferry login`; every field of docs/settings.md may stand here as `name = value`.\n"


def _field(default: Any, check: Callable[[object], Any], doc: str, *, env: str | None = None, from_wandb: bool = True) -> Any:
    """A row of the table. `env`: the variable without its prefix, where it is not the field's name."""
    metadata = {"check": check, "doc": doc, "env": env, "from_wandb": from_wandb}
    return dataclasses.field(default=default, metadata=metadata, repr=not doc.startswith("API key"))


@dataclasses.dataclass(kw_only=True)
class Settings:
    """Settings of a run. Unknown names and impossible values are refused when they are given.

    Raises:
        UsageError: A name is unknown (the message holds the nearest ones), or a value breaks its rule.

    Example:
        >>> runferry.Settings(mode="offline", ring_bytes="16MiB").ring_bytes
        16777216
    """

    base_url: str | None = _field(
        None, as_base_url, "Address of the server, `http://host:port`. Without one, runs stay in the local journal.", from_wandb=False
    )
    api_key: str | None = _field(
        None,
        as_text,
        "API key; sent to a Runferry server only, and over plain `http` to this machine only. From the settings file it goes to the "
        "server that the file names. A running training reads the file again when its key is refused.",
        from_wandb=False,
    )
    ca_file: str | None = _field(
        None,
        as_text,
        "PEM file of the authorities whose word on a server's certificate is taken. Unset: `SSL_CERT_FILE`, else the system's.",
        from_wandb=False,
    )
    insecure_key: bool = _field(
        default=False,
        check=as_bool,
        doc="Send the key over plain `http` to other machines too, where anybody on the way can read it.",
        from_wandb=False,
    )
    mode: str | None = _field(
        None, as_mode, "`online` (needs `base_url`), `offline` or `disabled`. Unset: online where a server is configured, else offline."
    )
    root_dir: str = _field(".", as_text, "Folder in which `runferry/`, the folder of the journals, is made.", env="DIR")
    project: str | None = _field(
        None, as_text, "Project of new runs. Unset: the git repository's name with the folder inside it, else `uncategorized`."
    )
    entity: str = _field("local", as_text, "Owner of the project.")
    run_id: str | None = _field(None, as_text, "Id of the run. Unset: eight random characters.")
    run_name: str | None = _field(None, as_text, "Name of the run. Unset: two words and a number.", env="NAME")
    run_group: str | None = _field(None, as_text, "Group of the run.")
    run_job_type: str | None = _field(None, as_text, "Job type of the run.", env="JOB_TYPE")
    run_notes: str | None = _field(None, as_text, "Notes on the run.", env="NOTES")
    run_tags: tuple[str, ...] | None = _field(None, as_tags, "Tags of the run, in text a comma list.", env="TAGS")
    resume: str | None = _field(None, as_resume, "What to do when the run exists: `allow` goes on behind its last step, `never` refuses.")
    reinit: str = _field(
        "default",
        as_choice("default", "return_previous", "finish_previous", "create_new"),
        "What `init` does while a run is active. `default`: finish it in a notebook, return it elsewhere.",
    )
    allow_val_change: bool | None = _field(None, as_bool, "Whether a config key may change its value. Unset: in notebooks only.")
    init_timeout: float = _field(30.0, as_seconds, "Seconds `init` waits where it needs the server's answer (`resume=never`).")
    finish_timeout: float = _field(60.0, as_seconds, "Seconds `finish` waits for the server. What is left stays in the journal.")
    exit_timeout: float = _field(10.0, as_seconds, "The same at the exit of a process that did not call `finish`.")
    finish_on_sigterm: bool = _field(
        default=False,
        check=as_bool,
        doc="On SIGTERM finish the runs, waiting 5 s at most for the server, then end by the signal as before. Only where nobody else "
        "handles SIGTERM. Without it nothing is lost either: the next `init`, `runferry sync` or a local server sends the rest.",
        from_wandb=False,
    )
    forked_children: str = _field(
        "write",
        as_choice("write", "ignore"),
        "What a forked child of the process (a `DataLoader` worker) does when it logs. `write`: to the run, as a writer of its own. "
        "`ignore`: nothing is kept, the calls are counted in the child's `status().ignored_rows`.",
        from_wandb=False,
    )
    disable_git: bool = _field(default=False, check=as_bool, doc="Do not ask git for the project's name.")
    quiet: bool = _field(default=False, check=as_bool, doc="Print warnings and errors only.")
    silent: bool = _field(default=False, check=as_bool, doc="Print nothing.")
    ring_bytes: int = _field(
        4 << 20, as_bytes(64 << 10, 1 << 30), "Size of the shared-memory ring; `16MiB` is understood.", from_wandb=False
    )
    journal_cap_bytes: int | None = _field(
        None,
        as_bytes(1 << 20, 1 << 50),
        "Most disk the journal of a writer may take. Unset: `10GiB`, or a fifth of the free disk if that is less.",
        from_wandb=False,
    )
    journal_min_free_bytes: int = _field(256 << 20, as_bytes(0, 1 << 50), "Free disk that the journal leaves to others.", from_wandb=False)
    backpressure: str = _field(
        "degrade",
        as_choice("degrade", "drop_oldest", "drop_newest", "block", "raise"),
        "What happens when the journal reaches its cap because the server is away or slow; whatever goes is counted. `degrade`: of each "
        "metric every 2nd, 4th, 8th ... value stays, and always the last. `drop_oldest`: the oldest rows that were not sent go. "
        "`drop_newest`: new rows go. `block`: `log` waits, then the row goes. `raise`: `log` raises `JournalFullError`.",
        from_wandb=False,
    )
    backpressure_block_ms: int = _field(
        1_000,
        as_milliseconds,
        "Milliseconds that one call of `log` waits at most, with `backpressure=block`: for room in a full journal, or for a disk that "
        "stands still.",
        from_wandb=False,
    )
    fsync: str = _field(
        "adaptive",
        as_choice("never", "adaptive", "interval", "always"),
        "When the journal is forced to the disk. `adaptive`: at most once a second, and only while the server's ack is late or absent.",
        from_wandb=False,
    )

    def __post_init__(self) -> None:
        """Check what was given; note which fields those were, for `merged`."""
        self._given: set[str] = getattr(self, "_given", set())

    def __setattr__(self, name: str, value: object) -> None:
        """Check on every write, so that a wrong value fails at the line that sets it."""
        if name == "_given":
            super().__setattr__(name, value)
            return
        row = _rows().get(name)
        if row is None:
            raise _unknown([name])
        super().__setattr__(name, _checked(name, value, row))
        if "_given" in self.__dict__:
            self._given.add(name)

    def given(self) -> dict[str, Any]:
        """The fields that were set, without those left at their default."""
        return {name: getattr(self, name) for name in _rows() if name in self._given}

    def merged(self, changes: Mapping[str, Any]) -> Settings:
        """A copy in which `changes` win over what was given here."""
        return Settings(**{**self.given(), **changes})


def _named_arguments_only_known(generated: Callable[..., None]) -> Callable[..., None]:
    """Dataclasses answer an unknown name with a bare TypeError; the wrapper names it and its neighbours."""

    def __init__(self: Settings, **given: Any) -> None:  # noqa: N807 - it becomes the class's __init__
        unknown = [name for name in given if name not in _rows()]
        if unknown:
            raise _unknown(unknown)
        generated(self, **given)
        self._given = set(given)

    return __init__


if not TYPE_CHECKING:  # type checkers shall see the names and types of the generated one
    Settings.__init__ = _named_arguments_only_known(Settings.__init__)


def _rows() -> dict[str, dataclasses.Field[Any]]:
    return Settings.__dataclass_fields__


def _checked(name: str, value: object, row: dataclasses.Field[Any]) -> Any:
    if value is None and row.default is None:
        return None
    try:
        return row.metadata["check"](value)
    except ValueError as error:
        raise UsageError(f"setting {name}={value!r}: {error}") from None


def _unknown(names: Iterable[str]) -> UsageError:
    told = []
    for name in names:
        near = get_close_matches(name, _rows(), n=3)
        told.append(f"setting {name!r} is unknown" + (f"; the nearest are {', '.join(near)}" if near else ""))
    return UsageError(". ".join(told))


def as_settings(given: Settings | Mapping[str, Any] | None) -> Settings:
    """Settings from what a caller passed as `settings=`.

    Raises:
        UsageError: A name is unknown, a value breaks its rule, or `given` is neither settings nor a mapping.
    """
    if given is None:
        return Settings()
    if isinstance(given, Settings):
        return given
    try:
        return Settings(**dict(given))
    except (TypeError, ValueError) as error:
        raise UsageError(f"settings {given!r} must be runferry.Settings or a dict: {error}") from None


def resolve(*layers: Settings | Mapping[str, Any] | None, environ: Mapping[str, str] | None = None) -> Settings:
    """All sources as one `Settings`: file, environment, then `layers`, the later the stronger.

    Args:
        layers: `setup(settings)`, `init(settings=)`, arguments of `init`; of a mapping, values that are None do not count.
        environ: Instead of the process's environment.

    Raises:
        UsageError: A value breaks its rule; the message names the variable or the file it came from.
    """
    environment = os.environ if environ is None else environ
    kept = _from_file(settings_file(environment))
    values = _from_environment(environment)
    if "ca_file" not in {*values, *kept} and environment.get("SSL_CERT_FILE"):
        values["ca_file"] = environment["SSL_CERT_FILE"]
    for layer in layers:
        if isinstance(layer, Settings):
            values.update(layer.given())
        elif layer is not None:
            values.update({name: value for name, value in layer.items() if value is not None})
    if "base_url" in kept and values.get("base_url", kept["base_url"]) != kept["base_url"]:
        kept.pop("api_key", None)  # it is for the server that the file names
    return Settings(**{**kept, **values})


def key_in_file() -> str | None:
    """The key that the settings file holds now."""
    key: str | None = _from_file(settings_file()).get("api_key")
    return key


def variables(name: str) -> list[str]:
    """Environment variables that set a field, the strongest first."""
    row = _rows()[name]
    suffixes = [row.metadata["env"], name.upper()] if row.metadata["env"] else [name.upper()]
    prefixes = ["RUNFERRY_", "WANDB_"] if row.metadata["from_wandb"] else ["RUNFERRY_"]
    return [prefix + suffix for prefix in prefixes for suffix in suffixes]


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for name, row in _rows().items():
        variable = next((variable for variable in variables(name) if environ.get(variable)), None)
        if variable is None:
            continue
        try:
            values[name] = row.metadata["check"](environ[variable])
        except ValueError as error:
            raise UsageError(f"environment variable {variable}={environ[variable]!r}: {error}") from None
    return values


def settings_file(environ: Mapping[str, str] | None = None) -> Path:
    """Where the settings file lies: `RUNFERRY_CONFIG_DIR`, else `$XDG_CONFIG_HOME/runferry`, else `~/.config/runferry`."""
    environment = os.environ if environ is None else environ
    if environment.get("RUNFERRY_CONFIG_DIR"):
        return Path(environment["RUNFERRY_CONFIG_DIR"]) / "settings"
    if environment.get("XDG_CONFIG_HOME"):
        return Path(environment["XDG_CONFIG_HOME"]) / "runferry" / "settings"
    return Path(os.path.expanduser("~")) / ".config" / "runferry" / "settings"  # noqa: PTH111 - Path.home() raises without a home


def _lines_of_file(path: Path) -> list[tuple[int, str, str]]:
    """Line number, name and value of each setting; comments and `[section]` lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"settings file {path} cannot be read: {error}") from None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith(("#", ";", "[")):
            continue
        name, equals, value = stripped.partition("=")
        if not equals:
            raise UsageError(f"settings file {path}, line {number}: expected `name = value`, found {stripped!r}")
        lines.append((number, name.strip(), value.strip()))
    return lines


def _from_file(path: Path) -> dict[str, Any]:
    values = {}
    for number, name, value in _lines_of_file(path):
        row = _rows().get(name)
        try:
            if row is None:
                raise _unknown([name])
            values[name] = _checked(name, value, row)
        except UsageError as error:
            raise UsageError(f"settings file {path}, line {number}: {error}") from None
    return values


def write_to_file(changes: Mapping[str, str | None]) -> Path:
    """Set fields in the settings file, or remove those that are None; other lines with a value stay. Returns its path.

    The file is replaced in one step and readable by its owner only, as it may hold a key.

    Raises:
        UsageError: The file cannot be written, or a value breaks its rule.
    """
    path = settings_file()
    values: dict[str, str | None] = {name: value for _, name, value in _lines_of_file(path)}
    values.update(changes)
    as_settings({name: value for name, value in changes.items() if value is not None})
    text = SETTINGS_FILE_HEADER + "".join(f"{name} = {value}\n" for name, value in values.items() if value is not None)
    draft = path.with_name(f"settings.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        raise UsageError(f"settings file {path} cannot be written: {error}") from None
    return path


def to_markdown() -> str:
    """The page `docs/settings.md`."""
    head = (
        "# Settings\n\n"
        "Written by `python -m runferry.settings > docs/settings.md` from the table in `python/runferry/settings.py`.\n\n"
        "Precedence, low to high: default, settings file, `WANDB_*`, `RUNFERRY_*`, `runferry.setup(settings)`, `init(settings=)`,\n"
        "arguments of `init`. The settings file is `~/.config/runferry/settings` (`RUNFERRY_CONFIG_DIR` names another folder): lines\n"
        "`name = value`, written by `runferry login URL`. Of the variables of a field the first that is set and not empty wins.\n"
        "`WANDB_BASE_URL` and `WANDB_API_KEY` are never read: no address and no key of another service may end up here.\n\n"
        "| field | default | variables | meaning |\n|---|---|---|---|\n"
    )
    rows = [
        "| " + " | ".join([f"`{name}`", _shown_default(row.default), " ".join(map(_code, variables(name))), row.metadata["doc"]]) + " |\n"
        for name, row in _rows().items()
    ]
    return head + "".join(rows)


def _shown_default(default: object) -> str:
    return "" if default is None else _code(str(default))


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    sys.stdout.write(to_markdown())
