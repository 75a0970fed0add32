"""What becomes of a run when its process ends without `finish`.

# Exit code
`atexit` hooks are not told the exit code, so two places that know it are wrapped once, at the first `init`: `sys.exit` (n, or 1 for
anything that is no number) and `sys.excepthook` (1, or 255 for Ctrl-C). Both go on to what was there before; the exit code
of the process is never changed. `raise SystemExit(n)` without `sys.exit` is not seen and counts as 0.

# Children of `multiprocessing`
They leave by `os._exit`, without `atexit`, but run their finalizers, in which the exception that ends them is still in flight.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING, Any

from runferry import _current, _term

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

INTERRUPTED = 255
_FIRST_FINALIZERS = 100
_state: dict[str, Any] = {"code": 0, "installed": False, "finalizer_pid": 0}


def install() -> None:
    """Wrap and register; every call after the first does only what a new process needs."""
    if not _state["installed"]:
        _state["installed"] = True
        atexit.register(_finish_at_exit)
        sys.exit = _noting_exit(sys.exit)
        sys.excepthook = _noting_exception(sys.excepthook)
    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is not None and _state["finalizer_pid"] != os.getpid():
        _state["finalizer_pid"] = os.getpid()
        multiprocessing_util.Finalize(None, _finish_in_child, exitpriority=_FIRST_FINALIZERS)


def code_of(exception: BaseException | None) -> int:
    """The exit code Python gives a process that this exception ends."""
    if exception is None:
        return 0
    if isinstance(exception, KeyboardInterrupt):
        return INTERRUPTED
    return _code_of_argument(exception.code) if isinstance(exception, SystemExit) else 1


def _code_of_argument(argument: object) -> int:
    if argument is None:
        return 0
    return int(argument) if isinstance(argument, int) else 1


def _noting_exit(previous: Callable[..., Any]) -> Callable[..., Any]:
    def exit(status: object = None, /) -> Any:  # noqa: A001 - it replaces sys.exit
        _state["code"] = _code_of_argument(status)
        return previous(status)

    exit.__doc__ = previous.__doc__
    return exit


def _noting_exception(previous: Callable[..., Any]) -> Callable[..., Any]:
    def excepthook(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> Any:
        _state["code"] = INTERRUPTED if issubclass(kind, KeyboardInterrupt) else 1
        return previous(kind, value, traceback)

    return excepthook


def _finish_at_exit() -> None:
    _finish_all(_state["code"])


def _finish_in_child() -> None:
    _finish_all(code_of(sys.exc_info()[1]) or _state["code"])


def _finish_all(code: int) -> None:
    """Finish what is left, newest first; nothing a run does here may stop the exit of the process."""
    for run in reversed(list(_current.live)):
        try:
            if run._is_of_this_process():  # noqa: SLF001 - a child that never logged leaves its parent's run alone
                run.finish(exit_code=code, timeout=run.settings.exit_timeout)
        except BaseException as error:  # noqa: BLE001, PERF203 - Ctrl-C during the wait as well: the process is already leaving
            _term.termwarn(f"run {run.id} was not finished at exit: {error!r}; its journal keeps what was logged")
