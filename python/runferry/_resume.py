"""What is known of a run before this start of it: asked from the server, and from this machine's journals.

The server may be away, and the journals may hold rows it has not got yet, so both are asked and the later step wins. If nobody
can say, the run goes on at *relative* steps: the server adds its last step + 1 to each (docs/format.md, OPEN).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runferry import _term
from runferry._access import server_of
from runferry.errors import AuthenticationError, CommError, NotFoundError, UnreachableError, UntrustedError, UsageError

if TYPE_CHECKING:
    from runferry._http import Server
    from runferry.settings import Settings

PROBE_TIMEOUT_S = 1.0
RESUME_TIMEOUT_S = 2.0
RETRY_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known of earlier starts of a run."""

    exists: bool = False
    is_unknown: bool = False
    """Resume is allowed, and neither server nor journals could say."""
    last_step: int | None = None
    name: str | None = None
    notes: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


def look_up(  # noqa: PLR0913 - all by name
    settings: Settings, path: tuple[str, str, str], root: str, *, rule: str | None, is_online: bool, must_answer: bool
) -> Earlier:
    server = server_of(settings, settings.base_url or "") if is_online else None
    if server is not None and must_answer:
        _until_answered(server.door, settings.init_timeout)
    if rule is None:
        if server is not None and not must_answer:
            _probe(server)
        return Earlier()
    from runferry import _native  # noqa: PLC0415 - 5 ms that `import runferry` shall not cost

    local_step = _native.local_last_step(root, _native.run_key(*path))
    if rule == "never":
        return _refuse_existing(server, path, local_step, settings.init_timeout)
    try:
        run = server.get(["runs", *path], timeout_s=RESUME_TIMEOUT_S) if server is not None else None
    except NotFoundError:
        return Earlier(exists=local_step is not None, last_step=local_step)
    except CommError as error:
        _say_unanswered(error)
        run = None
    if run is None:
        return Earlier(exists=local_step is not None, is_unknown=local_step is None, last_step=local_step)
    steps = [step for step in (local_step, run.get("last_step")) if isinstance(step, int) and step >= 0]
    return Earlier(
        exists=True,
        last_step=max(steps, default=None),
        name=run.get("name") or None,
        notes=run.get("notes") or None,
        group=run.get("group") or None,
        job_type=run.get("job_type") or None,
        tags=tuple(run.get("tags") or ()),
        config=dict(run.get("config") or {}),
        summary=dict(run.get("summary") or {}),
    )


def _refuse_existing(server: Server | None, path: tuple[str, str, str], local_step: int | None, timeout_s: float) -> Earlier:
    exists = UsageError(f"run {'/'.join(path)} exists and resume='never': give another id")
    if local_step is not None:
        raise exists
    if server is None:
        return Earlier()
    try:
        _until_answered(lambda timeout_s: server.get(["runs", *path], timeout_s=timeout_s), timeout_s)
    except NotFoundError:
        return Earlier()
    raise exists


def _until_answered(ask: Any, timeout_s: float) -> None:
    """Ask until there is an answer; the last `UnreachableError` is raised when the time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            ask(timeout_s=max(0.05, deadline - time.monotonic()))
        except UnreachableError:  # noqa: PERF203 - each try is a request
            if time.monotonic() + RETRY_PAUSE_S >= deadline:
                raise
            time.sleep(RETRY_PAUSE_S)
        else:
            return


def _probe(server: Server) -> None:
    """One look at the address, so that a wrong one is said at the start and not found out at the end."""
    try:
        if server.door(timeout_s=PROBE_TIMEOUT_S).get("wants_key"):
            server.check_key("write", timeout_s=PROBE_TIMEOUT_S)
    except CommError as error:
        _say_unanswered(error)


def _say_unanswered(error: CommError) -> None:
    if isinstance(error, UnreachableError):
        _term.termwarn(f"{error}. The run goes to its journal and is sent when the server answers")
    elif isinstance(error, AuthenticationError):
        _term.termwarn(f"{error}. The run goes to its journal and is sent once there is a good key: runferry login URL")
    elif isinstance(error, UntrustedError):
        _term.termwarn(f"{error}. The run goes to its journal and is sent once the certificate is trusted")
    else:
        _term.termwarn(f"{error}. The run goes to its journal; `runferry sync` sends it once the address is right")
