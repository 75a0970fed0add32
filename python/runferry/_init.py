"""`init`: from arguments, settings, the server's answer and this machine's journals to a run.

Everything that can be wrong is checked here, before the first row: names, mode, address, resume rule. After that `init` needs nobody:
without a server the run goes to its journal, and only `resume="never"` and `force` wait for an answer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runferry import _current, _exit, _term
from runferry._config import Config
from runferry._names import check_label, check_place, check_run_id, check_tags, default_project, new_run_id, new_run_name
from runferry._places import weakness
from runferry._resume import Earlier, look_up
from runferry._run import Run, show_command
from runferry._writer import Start
from runferry.errors import JournalError, UnsupportedError, UsageError
from runferry.settings import Settings, as_settings, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_setup: dict[str, Settings | None] = {"settings": None}


def setup(settings: Settings | Mapping[str, Any] | None = None) -> None:
    """Keep settings for every later `init` of this process. There is no service to start.

    Raises:
        UsageError: A setting is unknown or breaks its rule.
    """
    _setup["settings"] = as_settings(settings)


def teardown(exit_code: int | None = None) -> None:
    """Finish every run of this process."""
    for run in reversed(list(_current.live)):
        run.finish(exit_code=exit_code)
    _setup["settings"] = None


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:  # noqa: FBT001 - W&B signature
    """Finish the active run; nothing without one. Arguments as in `Run.finish`."""
    run = _current.active()
    if run is not None:
        run.finish(exit_code=exit_code, quiet=quiet)


def init(  # noqa: PLR0913, PLR0917 - the signature of the W&B SDK
    entity: str | None = None,
    project: str | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - as above
    id: str | None = None,  # noqa: A002 - as above
    name: str | None = None,
    notes: str | None = None,
    tags: Sequence[str] | None = None,
    config: object = None,
    config_exclude_keys: Sequence[str] | None = None,
    config_include_keys: Sequence[str] | None = None,
    allow_val_change: bool | None = None,  # noqa: FBT001 - as above
    group: str | None = None,
    job_type: str | None = None,
    mode: str | None = None,
    force: bool | None = None,  # noqa: FBT001 - as above
    reinit: bool | str | None = None,  # noqa: FBT001 - as above
    resume: bool | str | None = None,  # noqa: FBT001 - as above
    resume_from: str | None = None,
    fork_from: str | None = None,
    save_code: bool | None = None,  # noqa: FBT001 - as above
    tensorboard: bool | None = None,  # noqa: FBT001 - as above
    sync_tensorboard: bool | None = None,  # noqa: FBT001 - as above
    monitor_gym: bool | None = None,  # noqa: FBT001 - as above
    settings: Settings | Mapping[str, Any] | None = None,
    anonymous: str | None = None,
) -> Run:
    """Start a run and make it the one behind `runferry.log`, `run`, `config` and `summary`.

    It completes on this machine: with a server that does not answer the run goes to its journal and is sent later.

    Args:
        entity: Owner of the project. Default: `local`.
        project: Project. Default: the git repository's name with the folder inside it, else `uncategorized`.
        dir: Folder in which `runferry/` with the journals is made. Default: the working directory.
        id: Id of the run. Default: eight random characters.
        name: Name of the run. Default: two words and a number.
        notes: Notes on the run.
        tags: Tags of 1 to 64 characters; on resume they replace the old ones.
        config: The inputs: a dict, an `argparse.Namespace`, a dataclass or a path of a YAML file.
        config_exclude_keys: Deprecated. Keys of `config` to leave out.
        config_include_keys: Deprecated. The only keys of `config` to take.
        allow_val_change: Whether config keys may change their value. Default: in notebooks only.
        group: Group of runs that belong together, as the ranks of one training do.
        job_type: What the run does in its group.
        mode: `online`, `offline` (journal only) or `disabled` (nothing at all). Default: online where a server is configured.
        force: True: fail unless the server answers.
        reinit: What to do while a run is active: `return_previous`, `finish_previous` or `create_new` (independent of the active
            one). Default: finish it in a notebook, return it elsewhere.
        resume: What to do if the run exists: `allow` goes on behind its last step, `never` refuses. Default: write to it anew.
        resume_from: Not supported yet.
        fork_from: Not supported yet.
        save_code: True is not supported yet.
        tensorboard: True is not supported yet.
        sync_tensorboard: True is not supported yet.
        monitor_gym: True is not supported yet.
        settings: `runferry.Settings` or a dict of its fields.
        anonymous: Deprecated, without effect.

    Raises:
        UsageError: An argument or setting breaks its rule, or `resume="never"` and the run exists.
        UnsupportedError: An argument asks for something Runferry does not do yet.
        CommError: `resume="never"` or `force`, and the server does not answer within `init_timeout`.
        JournalError: The journal cannot be made.

    Example:
        >>> with runferry.init(project="demo", config={"lr": 3e-4}, mode="offline") as run:
        ...     run.log({"loss": 0.25})
    """
    later = {"resume_from": resume_from, "fork_from": fork_from, "save_code": save_code, "tensorboard": tensorboard,
             "sync_tensorboard": sync_tensorboard, "monitor_gym": monitor_gym}  # fmt: skip
    for argument, given in later.items():
        if given:
            raise UnsupportedError(f"init({argument}={given!r}) is not supported yet")
    if anonymous is not None:
        _term.termwarn("init(anonymous=) is deprecated and has no effect", repeat=False)
    arguments = {
        "entity": entity, "project": project, "root_dir": dir, "run_id": id, "run_name": name, "run_notes": notes, "run_tags": tags,
        "allow_val_change": allow_val_change, "run_group": group, "run_job_type": job_type, "mode": mode,
        "reinit": _reinit_rule(reinit), "resume": resume,
    }  # fmt: skip
    resolved = resolve(_setup["settings"], as_settings(settings), arguments)
    _term.set_loudness(quiet=resolved.quiet, silent=resolved.silent)
    if mode in {"dryrun", "run"}:
        _term.termwarn(f"init(mode={mode!r}) is deprecated: use {resolved.mode!r}", repeat=False)

    previous = _current.active()
    rule = _rule_of(resolved.reinit)
    if previous is not None and rule == "return_previous":
        return previous
    chosen = _filtered(Config(config).as_dict(), config_include_keys, config_exclude_keys)
    start, config_values = _decide(resolved, chosen, is_id_given=resolved.run_id is not None, must_answer=bool(force))
    if previous is not None and rule == "finish_previous":
        previous.finish()

    allow = _in_notebook() if resolved.allow_val_change is None else resolved.allow_val_change
    run = Run(start, Config(config_values), allow_val_change=allow)
    _current.add(run)
    _exit.install(resolved)
    if rule != "create_new" or previous is None:
        _current.activate(run)
    _announce(run, start)
    return run


def _reinit_rule(reinit: bool | str | None) -> str | None:  # noqa: FBT001 - as `init` takes it
    if isinstance(reinit, bool):
        _term.termwarn("init(reinit=) as a bool is deprecated: use 'finish_previous' or 'return_previous'", repeat=False)
        return "finish_previous" if reinit else "return_previous"
    return reinit


def _rule_of(reinit: str) -> str:
    if reinit == "default":
        return "finish_previous" if _in_notebook() else "return_previous"
    return reinit


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _filtered(config: dict[str, Any], include: Iterable[str] | None, exclude: Iterable[str] | None) -> dict[str, Any]:
    for argument, given in (("config_include_keys", include), ("config_exclude_keys", exclude)):
        if given is not None:
            _term.termwarn(f"init({argument}=) is deprecated: choose the keys before", repeat=False)
    if include is not None and exclude is not None:
        raise UsageError("init takes config_include_keys or config_exclude_keys, not both")
    if include is not None:
        return {key: config[key] for key in include if key in config}
    return {key: value for key, value in config.items() if key not in set(exclude or ())}


def _decide(settings: Settings, config: dict[str, Any], *, is_id_given: bool, must_answer: bool) -> tuple[Start, dict[str, Any]]:
    """Names, mode, place and first step of the run; and its config, with that of an earlier start underneath."""
    mode = _mode(settings)
    if settings.resume in {"must", "auto"}:
        shown = "True or 'auto'" if settings.resume == "auto" else "'must'"
        raise UnsupportedError(f"resume={shown} is not supported yet; 'allow' and 'never' are")
    if must_answer and mode != "online":
        raise UsageError("init(force=True) needs a server: give its address by `runferry login URL` or RUNFERRY_BASE_URL")
    entity = check_place("entity", settings.entity)
    project = check_place("project", settings.project) if settings.project is not None else _project_here(settings, mode)
    run_id = check_run_id(settings.run_id) if settings.run_id is not None else new_run_id()
    given_tags = None if settings.run_tags is None else check_tags(settings.run_tags)
    root = _root(settings.root_dir) if mode != "disabled" else ""
    names = {
        "name": check_label("name", settings.run_name),
        "group": check_label("group", settings.run_group),
        "job_type": check_label("job_type", settings.run_job_type),
    }

    earlier = Earlier()
    if mode != "disabled":
        asked = settings.resume if is_id_given else None
        earlier = look_up(settings, (entity, project, run_id), root, rule=asked, is_online=mode == "online", must_answer=must_answer)
    if names["name"] is None and not earlier.is_unknown:
        names["name"] = earlier.name or new_run_name()
    start = Start(
        entity=entity,
        project=project,
        id=run_id,
        name=names["name"],
        notes=settings.run_notes if settings.run_notes is not None else earlier.notes,
        tags=given_tags if given_tags is not None else earlier.tags,
        group=names["group"] or earlier.group,
        job_type=names["job_type"] or earlier.job_type,
        settings=settings,
        mode=mode,
        root=root,
        starting_step=0 if earlier.last_step is None else earlier.last_step + 1,
        resumed=earlier.exists,
        is_relative=earlier.is_unknown,
        earlier_summary=earlier.summary,
    )
    return start, {**earlier.config, **config}


def _mode(settings: Settings) -> str:
    if settings.mode == "shared":
        raise UnsupportedError("mode='shared' is not supported yet; runs of one group are: init(group=...)")
    if settings.mode == "online" and settings.base_url is None:
        raise UsageError(
            "mode='online' needs a server and none is configured: run `runferry login http://host:7070` or set RUNFERRY_BASE_URL"
        )
    return settings.mode or ("online" if settings.base_url is not None else "offline")


def _project_here(settings: Settings, mode: str) -> str:
    if settings.disable_git or mode == "disabled":
        return "uncategorized"
    return default_project(str(Path.cwd()))


def _root(root_dir: str) -> str:
    """The journals' folder, made; in the temp directory where `root_dir` cannot be written.

    Raises:
        JournalError: Neither can be.
    """
    wanted = Path(root_dir).expanduser().absolute() / "runferry"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if not os.access(wanted, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        import tempfile  # noqa: PLC0415 - 10 ms for what hardly ever happens

        fallback = Path(tempfile.gettempdir()).absolute() / f"runferry-{os.getuid()}" / "runferry"
        try:
            fallback.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as second:
            raise JournalError(f"no journal can be kept: {wanted}: {error.strerror}; {fallback}: {second.strerror}") from second
        _term.termwarn(f"{wanted} cannot be written ({error.strerror}); the journal goes to {fallback}")
        return str(fallback)
    return str(wanted)


def _announce(run: Run, start: Start) -> None:
    resumed = f", goes on at step {run.starting_step}" if run.resumed else ""
    if start.mode == "online":
        _term.termlog(f"run {run.name} ({run.id}){resumed}: {run.url}")
    elif start.mode == "offline":
        _term.termlog(f"run {run.name} ({run.id}){resumed} goes to {start.root}; show it: {show_command(str(Path(start.root).parent))}")
    if start.mode in {"online", "offline"}:
        if found := weakness(start.root):
            _term.termwarn(found, repeat=False)
        if not run.status().kill_safe:
            text = "there is no room for the shared memory of log(), neither in /dev/shm nor beside the journal: rows of the last second"
            _term.termwarn(f"{text} before a kill -9 of this process would be lost", repeat=False)
