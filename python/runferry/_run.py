"""`Run`: one training as seen from the process that does it.

A run holds its config and summary, and a writer that carries everything away (`_writer.open_writer`). `log` is bound to the
writer's native method in each instance, as a Python frame alone would cost more than the call; the class keeps the words.

# Fork
A writer belongs to the process that opened it. In a forked child the native method is taken away (`_current`), and the first
use opens a writer of the child's own on the same run, with the parent's as `parent_writer`. A child that never uses the run
leaves no trace. A run that is pickled to a child of `spawn` or `forkserver` behaves there in the same way.

# Failure
Once `init` has returned, nothing here raises because of disk or network: wrong calls raise, everything else is `status()`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runferry import _current, _exit, _term
from runferry._config import Config
from runferry._names import check_label, check_tags
from runferry._status import RunStatus
from runferry._summary import Summary
from runferry._writer import DisabledWriter, WriterElsewhere, open_writer
from runferry.errors import JournalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from runferry._native import Writer
    from runferry._writer import Start
    from runferry.settings import Settings


class Run:
    """A run that this process writes to. Made by `runferry.init`, ended by `finish` or at the end of a `with` block."""

    def __init__(self, start: Start, config: Config, *, allow_val_change: bool, elsewhere: WriterElsewhere | None = None) -> None:
        self._start = start
        self._name = start.name
        self._notes = start.notes
        self._tags = start.tags
        self._is_finished = False
        self._has_ended = False
        self._was_interrupted = False
        self._last_status = RunStatus()
        self.start_time = time.time()
        """Seconds since 1970 at which this process opened the run."""
        self._pid = os.getpid() if elsewhere is None else 0
        self._fork_lock = threading.Lock()
        self._sent_by = elsewhere.writer_id if elsewhere else None
        self._inherited: list[Writer | DisabledWriter] = []  # kept for ever: the threads a parent's writer would end are not here
        self._writer: Writer | DisabledWriter = elsewhere or open_writer(
            start, config.as_dict(), step=start.starting_step, in_child=_log_of(self)
        )
        self._last_values: Mapping[str, Any] = {}
        self.config = Config(config, self._publish_config, allow_val_change=allow_val_change)
        """The inputs of the run."""
        self.summary = Summary(self._read_last_values, self._publish_summary, start.earlier_summary)
        """One value per metric: the last logged, or what is set here."""
        if elsewhere is None:
            self._bind_native()

    # A class-level `log` keeps the documentation and the slow path; instances bind the native one over it.

    def log(
        self,
        data: dict[str, Any],
        step: int | None = None,
        commit: bool | None = None,  # noqa: FBT001 - the signature of the W&B SDK
    ) -> None:
        """Record values for one step and return at once.

        The values are copied to a ring in shared memory; background threads write them to the run's journal and send
        them. No I/O, no lock. The call waits only while the ring is full, at most 250 ms, and then drops the row and
        counts it in ``status().dropped_rows``; with the setting ``backpressure="block"`` it waits as long as that says. Once it
        has returned, ``kill -9`` of this process loses nothing while ``status().kill_safe``; a power cut loses nothing after
        ``flush(durable=True)``.

        Args:
            data: Name to value. ``/`` in a name makes groups, nested dicts make paths. Numbers keep every bit, NaN and
                infinities included. The dict is not changed.
            step: Row to write to, 0 to 2**63 - 1. A step behind the current one or beyond the last one drops the call, with a count
                and one warning. Default: the current row.
            commit: Whether the row is complete. Default: yes, unless ``step`` is given.

        Raises:
            TypeError: ``data`` is not a dict, a name is not a string, or a value is of a type without a stored form.
            UsageError: The run is finished.
            JournalFullError: The journal is at its cap, and the setting ``backpressure`` is "raise".

        Example:
            >>> run = runferry.init(mode="offline")
            >>> run.log({"train/loss": 0.25, "train/lr": 3e-4})
        """
        self._refuse_if_finished("log")
        self._own_writer().log(data, step, commit)

    def flush(self, durable: bool = False, acked: bool = False, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002
        """Wait until everything logged so far is in the journal, or safer. An open row is not ended by it.

        Args:
            durable: Wait until the journal is forced to the disk: a power cut loses nothing.
            acked: Wait until the server has stored it durably: the loss of this machine loses nothing. Offline this is never reached.
            timeout: Seconds to wait at most. None: the setting ``finish_timeout``.

        Returns:
            Whether it was reached in time. False loses nothing: the threads go on.

        Raises:
            UsageError: The run is finished.
        """
        self._refuse_if_finished("flush")
        waited_s = self.settings.finish_timeout if timeout is None else timeout
        return self._own_writer().flush(durable=durable, acked=acked, timeout=waited_s)

    def finish(self, exit_code: int | None = None, quiet: bool | None = None, timeout: float | None = None) -> None:  # noqa: FBT001
        """End the run: the open row is emitted, the journal is forced to the disk, and the server gets what time allows.

        What the server does not have by then stays in the journal and is sent by the next ``init`` on this machine, by
        ``runferry sync`` or by a server started in that folder. Calling it again does nothing.

        Args:
            exit_code: 0, or None: the run is "finished"; anything else: "failed".
            quiet: True: print no receipt.
            timeout: Seconds to wait for the server. None: the setting ``finish_timeout``. The first Ctrl-C ends the waiting, and
                ``finish`` returns; the second one interrupts the program as ever.
        """
        if self._is_finished:
            return
        try:
            self._is_finished = True
            self._finish(exit_code, timeout)
        except BaseException:  # between any two lines: a second Ctrl-C, or what a signal handler of the user's raises
            if not self._has_ended:
                self._is_finished = False
                _current.put_back(self)
            raise
        if self._has_ended and not quiet and not self.disabled:
            self._print_receipt(self._last_status)

    def _finish(self, exit_code: int | None, timeout: float | None) -> None:
        """End the writer; done a second time from any point it comes to the same."""
        if not _current.is_ending():
            self.__dict__.pop("log", None)
        _current.remove(self)
        if not self._is_of_this_process():
            return
        code = 0 if exit_code is None else exit_code
        waited_s = self.settings.finish_timeout if timeout is None else timeout
        if isinstance(self._writer, DisabledWriter):
            self._writer.is_ending = _current.is_ending()
        _current.finishing.append(self)
        try:
            self._last_values = dict(self._writer.last_values())
        except KeyboardInterrupt:  # the one that ends the waiting has come before it began
            self._was_interrupted, waited_s = True, 0.0
        ended = self._writer.finish(code, waited_s)
        self._has_ended = True
        _current.finishing.remove(self)
        self._was_interrupted |= bool(ended.get("interrupted"))
        self._last_status = RunStatus.of(ended)

    def status(self) -> RunStatus:
        """Counts and states of this process's writer, read from memory; after ``finish``, the last ones."""
        if not self._is_of_this_process():
            return self._last_status
        if self._is_finished:
            return replace(self._last_status, ignored_rows=self._writer.ignored_rows)
        return RunStatus.of(self._writer.status())

    @property
    def id(self) -> str:
        """Id of the run, unique in its project."""
        return self._start.id

    @property
    def project(self) -> str:
        """Project of the run."""
        return self._start.project

    @property
    def entity(self) -> str:
        """Owner of the project."""
        return self._start.entity

    @property
    def path(self) -> str:
        """``entity/project/id``, as ``Api().run`` takes it."""
        return f"{self.entity}/{self.project}/{self.id}"

    @property
    def group(self) -> str:
        """Group of the run, or an empty string."""
        return self._start.group or ""

    @property
    def job_type(self) -> str:
        """Job type of the run, or an empty string."""
        return self._start.job_type or ""

    @property
    def name(self) -> str:
        """Name of the run; may be set while it is live."""
        return self._name or self.id

    @name.setter
    def name(self, name: str) -> None:
        self._refuse_if_finished("name")
        self._name = check_label("name", name)
        self._publish("meta", {"name": self._name}, [])

    @property
    def notes(self) -> str | None:
        """Notes on the run; may be set while it is live."""
        return self._notes

    @notes.setter
    def notes(self, notes: str) -> None:
        self._refuse_if_finished("notes")
        self._notes = str(notes)
        self._publish("meta", {"notes": self._notes}, [])

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the run; may be set while it is live."""
        return self._tags

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        self._refuse_if_finished("tags")
        self._tags = check_tags(tags)
        self._publish("meta", {"tags": list(self._tags)}, [])

    @property
    def url(self) -> str | None:
        """Page of the run; None offline."""
        return self._page("runs", self.id)

    @property
    def project_url(self) -> str | None:
        """Page of the project; None offline."""
        return self._page("p")

    def _page(self, kind: str, *more: str) -> str | None:
        if self._start.mode != "online":
            return None
        return "/".join([self.settings.base_url or "", kind, *(quote(part, safe="") for part in (self.entity, self.project, *more))])

    @property
    def step(self) -> int:
        """Step of the current row: the one the next ``log`` without ``step`` goes to."""
        return self._writer.step

    @property
    def starting_step(self) -> int:
        """First step of this start of the run: 0, or the one behind the last when it was resumed."""
        return self._start.starting_step

    @property
    def resumed(self) -> bool:
        """Whether the run existed before this process opened it."""
        return self._start.resumed

    @property
    def offline(self) -> bool:
        """Whether nothing is sent to a server."""
        return self._start.mode == "offline"

    @property
    def disabled(self) -> bool:
        """Whether nothing is kept at all."""
        return self._start.mode == "disabled"

    @property
    def dir(self) -> str:
        """Folder of this writer's journal; empty when disabled."""
        return self._writer.journal_dir

    @property
    def settings(self) -> Settings:
        """The settings in force; changing them has no effect on this run."""
        return self._start.settings

    # What follows is private.

    def _own_writer(self) -> Writer | DisabledWriter:
        """The writer of this process; a forked child gets its own here."""
        if self._is_of_this_process():
            return self._writer
        with self._fork_lock:
            if not self._is_of_this_process():
                parent = self._writer
                config = self.config.as_dict()
                try:
                    self._writer = open_writer(
                        self._start, config, step=parent.step, in_child=_log_of(self), parent_writer=parent.writer_id
                    )
                except JournalError as error:  # a training must not end because a worker of it finds no disk
                    _term.termwarn(f"run {self.id}: nothing that process {os.getpid()} logs is kept: {error}")
                    self._writer = DisabledWriter()
                self._inherited.append(parent)
                self._pid = os.getpid()
                self._bind_native()
                if _current.active() is self:
                    _current.activate(self)
                _exit.install(self.settings)
        return self._writer

    def _is_of_this_process(self) -> bool:
        return self._pid == os.getpid()

    def _bind_native(self) -> None:
        self.log = self._writer.fast_log  # type: ignore[method-assign]

    def _forget_native(self) -> None:
        """In a forked child: the next use goes through `_own_writer`. The lock is new, as the parent's may have been held."""
        self.__dict__.pop("log", None)
        self._fork_lock = threading.Lock()

    def _refuse_if_finished(self, call: str) -> None:
        if self._is_finished and not _current.is_ending():
            raise UsageError(
                f"Run ({self.id}) is finished. The call to `{call}` will be ignored. Please make sure that you are using an active run."
            )

    def _publish(self, kind: str, updates: dict[str, Any], removed: list[str]) -> None:
        if not self._is_finished:
            self._own_writer().document(kind, updates, removed)

    def _publish_config(self, updates: dict[str, Any], removed: list[str]) -> None:
        self._publish("config", updates, removed)

    def _publish_summary(self, updates: dict[str, Any], removed: list[str]) -> None:
        self._publish("summary", updates, removed)

    def _read_last_values(self) -> Mapping[str, Any]:
        return self._last_values if self._is_finished else self._writer.last_values()

    def _print_receipt(self, status: RunStatus) -> None:
        # Rows that a full ring or their size kept out were never accepted; the other reasons take them out behind it.
        turned_away = sum(status.dropped_by_reason.get(reason, 0) for reason in ("ring_full", "refused"))
        missing = status.thinned_rows + status.dropped_rows
        logged = status.accepted_rows + turned_away
        rows = f"{logged:,} row{'' if logged == 1 else 's'} logged"
        kept = "all" if not missing else f"{logged - missing:,}"
        folder = os.path.dirname(self._start.root)  # noqa: PTH120 - text in, text out
        if status.journal == "dead":
            place = f"some may still be in shared memory; save them: runferry sync {self._start.root}"
        elif self.offline:
            place = f"{kept} in the journal; show them: {show_command(folder)}"
        elif status.backlog_frames:
            send = f"runferry sync {_quoted(self._start.root)}"
            place = f"{kept} in the journal; {status.backlog_frames:,} frames not on the server yet, send them: {send}"
        else:
            but_refused = " but those in refused frames" if status.rejected_frames else ""
            place = f"{kept}{but_refused} durable on the server: {self.url}"
        _term.termlog(f"run {self.name} ({self.id}) finished: {rows}, {place}")
        lost = {"rows thinned out": status.thinned_rows, "rows dropped": status.dropped_rows,
                "calls with a step behind the current one dropped": status.behind_rows,
                "values dropped": status.dropped_values, "values kept as markers": status.marked_values,
                "frames refused by the server": status.rejected_frames}  # fmt: skip
        told = [f"{count:,} {what}" for what, count in lost.items() if count]
        if status.gaps and (status.thinned_points or status.dropped_points):
            told.append(f"{status.thinned_points + status.dropped_points:,} values in all, counted in {status.gaps:,} gaps")
        if told:
            _term.termwarn(f"run {self.name} ({self.id}): {', '.join(told)}")
        is_dead = "dead" in {status.journal, status.connection}
        if status.last_error and (status.backlog_frames or status.dropped_rows or status.rejected_frames or is_dead):
            _term.termwarn(f"run {self.name} ({self.id}): {status.last_error}")

    def __enter__(self) -> Run:  # noqa: PYI034 - nobody subclasses it
        """The run itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Finish it; with exit code 1 if the block raised, and the exception goes on."""
        self.finish(exit_code=0 if kind is None else _exit.code_of(error) or int(not isinstance(error, SystemExit)))

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process: the same run, which a writer of that process's own writes to once it is used."""
        allow_val_change = self.config._allow_val_change  # noqa: SLF001 - the other half of this run
        state = (self._start, self.config.as_dict(), allow_val_change, self._writer.writer_id, self._writer.step, self._is_finished)
        return _reopened, state

    def __copy__(self) -> Run:
        """As of `deepcopy`."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Run:
        """A run is one thing: its copy is itself."""
        return self

    def __repr__(self) -> str:
        """Its path and state."""
        return f"<runferry.Run {self.path} ({'finished' if self._is_finished else self._start.mode})>"


def _reopened(  # noqa: PLR0913, PLR0917 - what `Run.__reduce__` gives
    start: Start,
    config: dict[str, Any],
    allow_val_change: bool,  # noqa: FBT001 - as above
    writer_id: int,
    step: int,
    is_finished: bool,  # noqa: FBT001 - as above
) -> Run:
    """The run that was pickled: itself where it lives in this process or came to before (a pool's worker gets it with every task),
    else one that has no writer yet; active if no other is.
    """  # noqa: D205 - one sentence
    for run in _current.live:
        if writer_id in {run._writer.writer_id, run._sent_by}:  # noqa: SLF001 - a run like this one
            return run
    run = Run(start, Config(config), allow_val_change=allow_val_change, elsewhere=WriterElsewhere(writer_id, step))
    if is_finished:
        run._is_finished = True  # noqa: SLF001 - as above
        return run
    _current.add(run)
    if _current.active() is None:
        _term.set_loudness(quiet=start.settings.quiet, silent=start.settings.silent)
        _current.activate(run)
    return run


def _log_of(run: Run) -> Callable[..., None]:
    """`Run.log` of the class, for the native writer of `run` to call in a forked child. It holds no reference that keeps the run alive."""
    reference = weakref.ref(run)

    def log(data: dict[str, Any], step: int | None, commit: bool | None) -> None:  # noqa: FBT001 - as `Run.log`
        found = reference()
        if found is not None:
            Run.log(found, data, step, commit)

    return log


def show_command(folder: str) -> str:
    """The one command that shows the journals in `folder`."""
    here = os.path.samefile(folder, os.getcwd()) if os.path.exists(folder) else False  # noqa: PTH109, PTH110, PTH121 - text
    return "runferry server" if here else f"cd {_quoted(folder)} && runferry server"


def _quoted(path: str) -> str:
    import shlex  # noqa: PLC0415 - only for this line

    return shlex.quote(path)
