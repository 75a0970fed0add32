"""How a writer is opened: the OPEN map of `docs/format.md`, the native writer, and the stand-in of disabled runs."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runferry import __version__
from runferry._access import access_of
from runferry.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runferry._native import Writer
    from runferry.settings import Settings

MOST_OPEN_CONFIG_CHARS = 1 << 20
CLIENT = f"runferry/{__version__}"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Everything `init` has decided; plain values, fit to open a second writer from in a forked child."""

    entity: str
    project: str
    id: str
    name: str | None
    notes: str | None
    tags: tuple[str, ...]
    group: str | None
    job_type: str | None
    settings: Settings
    mode: str
    """online, offline or disabled."""
    root: str
    """Folder of the journals."""
    starting_step: int = 0
    resumed: bool = False
    is_relative: bool = False
    """Nobody could say where the run stands: the server adds its last step + 1."""
    earlier_summary: dict[str, Any] = field(default_factory=dict)


def open_writer(
    start: Start, config: dict[str, Any], *, step: int, in_child: Callable[..., None], parent_writer: int | None = None
) -> Writer | DisabledWriter:
    """A writer for this process.

    Args:
        start: What `init` has decided.
        config: The run's config.
        step: First step.
        in_child: Gets the arguments of `log` where a forked child calls the method it has inherited.
        parent_writer: Number of the parent's writer, in a forked child.

    Raises:
        JournalError: The journal's folder cannot be made or written.
    """
    if start.mode == "disabled":
        return DisabledWriter()
    if parent_writer is not None and start.settings.forked_children == "ignore":
        return IgnoringWriter()
    from runferry import _native  # noqa: PLC0415 - 5 ms that `import runferry` shall not cost
    from runferry._convert import convert  # noqa: PLC0415 - as above

    settings = start.settings
    opening, behind = _split(config)
    writer = _native.Writer(
        root=start.root,
        run_id=_native.run_key(start.entity, start.project, start.id),
        open=_open_map(start, opening, step=step, parent_writer=parent_writer),
        base_url=settings.base_url if start.mode == "online" else None,
        start_step=step,
        convert=convert,
        ring_bytes=settings.ring_bytes,
        journal_cap_bytes=settings.journal_cap_bytes,
        journal_min_free_bytes=settings.journal_min_free_bytes,
        backpressure=settings.backpressure,
        backpressure_block_ms=settings.backpressure_block_ms,
        fsync=settings.fsync,
        access=access_of(settings),
        in_child=in_child,
    )
    for key, value in behind.items():
        writer.document("config", {key: value}, [])
    return writer


def _split(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of a config goes with OPEN, and what behind it, where a value that is too large costs itself alone.

    OPEN is repeated at the head of each segment, and a run whose OPEN is refused for its size could not be sent at all.
    """
    left_chars = MOST_OPEN_CONFIG_CHARS
    opening, behind = {}, {}
    for key, value in config.items():
        chars = len(key) + len(repr(value))
        if chars <= left_chars:
            opening[key] = value
            left_chars -= chars
        else:
            behind[key] = value
    return opening, behind


def _open_map(start: Start, config: dict[str, Any], *, step: int, parent_writer: int | None) -> dict[str, Any]:
    known: dict[str, Any] = {
        "entity": start.entity,
        "project": start.project,
        "id": start.id,
        "label": "",
        "name": start.name,
        "group": start.group,
        "job_type": start.job_type,
        "notes": start.notes,
        "tags": list(start.tags),
        "config": config,
        "mode": start.mode,
        "base_url": start.settings.base_url,
        "started_us": time.time_ns() // 1000,
        "boottime_us": _boottime_us(),
        "host": platform.node(),
        "boot_id": _boot_id(),
        "client": CLIENT,
        "python": platform.python_version(),
        "program": sys.argv[0] if sys.argv else "",
        "pid": os.getpid(),
        "resume": start.settings.resume,
        "start_step": step,
        "relative": start.is_relative or None,
        "parent_writer": parent_writer,
    }
    return {key: value for key, value in known.items() if value is not None}


def _boottime_us() -> int:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1000


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return None  # not Linux: the lock alone tells who is alive


class DisabledWriter:
    """Answers what a native writer answers and keeps the last values only: no ring, no journal, no threads."""

    def __init__(self) -> None:
        self._last_values: dict[str, Any] = {}
        self._is_finished = False
        self.step = 0
        self.ignored_rows = 0
        self.is_ending = False
        """Set where the process ends: a call after `finish` is no error then."""
        self.writer_id = int.from_bytes(os.urandom(8), "little") >> 1 | 1
        self.journal_dir = ""

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:  # noqa: ARG002, FBT001
        """Keep the values; the argument checks are those of the native writer."""
        if not isinstance(data, dict):
            raise TypeError("runferry.log must be passed a dictionary")
        if not all(isinstance(key, str) for key in data):
            raise TypeError("Key values passed to `runferry.log` must be strings.")
        if self._is_finished and not self.is_ending:
            raise UsageError("the writer is finished")
        self._last_values.update(data)

    @property
    def fast_log(self) -> Callable[..., None]:
        """`log`."""
        return self.log

    def document(self, kind: str, updates: dict[str, Any], removed: list[str]) -> bool:  # noqa: ARG002 - nobody reads it
        """Nothing to do."""
        return True

    def flush(self, durable: bool = False, acked: bool = False, timeout: float | None = None) -> bool:  # noqa: ARG002, FBT001, FBT002
        """Nothing to wait for."""
        return True

    def finish(self, exit_code: int, timeout: float | None) -> dict[str, Any]:  # noqa: ARG002 - nobody reads it
        """End it."""
        self._is_finished = True
        return {}

    def status(self) -> dict[str, Any]:
        """Nothing to count."""
        return {}

    def last_values(self) -> dict[str, Any]:
        """What `log` was given last, per top-level key."""
        return self._last_values


class WriterElsewhere(DisabledWriter):
    """Of a run that came from another process by pickle: what there is to know before the first use opens a writer here."""

    def __init__(self, writer_id: int, step: int) -> None:
        super().__init__()
        self.writer_id = writer_id
        self.step = step


class IgnoringWriter(DisabledWriter):
    """Of a forked child whose rows are not wanted (`forked_children="ignore"`): counts them."""

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:  # noqa: FBT001 - as `Run.log`
        """Count the call."""
        super().log(data, step, commit)
        self.ignored_rows += 1

    def status(self) -> dict[str, Any]:
        """The count."""
        return {"ignored_rows": self.ignored_rows}

    def finish(self, exit_code: int, timeout: float | None) -> dict[str, Any]:
        """End it."""
        super().finish(exit_code, timeout)
        return self.status()
