"""What becomes of a run when its process ends without `finish`.

# Exit code
`atexit` hooks are not told the exit code, so two places that know it are wrapped once, at the first `init`: `sys.exit` (n, or 1 for
anything that is no number) and `sys.excepthook` (1, or 255 for Ctrl-C). Both go on to what was there before; the exit code
of the process is never changed. `raise SystemExit(n)` without `sys.exit` is not seen and counts as 0.

# Children of `multiprocessing`
They leave by `os._exit`, before Python 3.13 without `atexit`, but run their finalizers, in which the exception that ends them is still in
flight. Where both run, the second finds nothing left to do.

# Threads that go on
Before the interpreter is finalised no thread may be left inside the native module (`rust/native/src/fork.rs` says why). So the hook first
turns calls of `log` away, counted, then finishes the runs, then waits for a `finish` that another thread is in.

# Signals
None is handled while the program runs, unless the setting `finish_on_sigterm` asks for it: ring and journal hold everything, and the
default ends the process. While the hook runs Ctrl-C raises nothing, which would skip the rest of it: it ends all waiting, and a
second one the process.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from runferry import _current, _term

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from runferry.settings import Settings

INTERRUPTED = 255
SIGTERM_TIMEOUT_S = 5.0
_FIRST_FINALIZERS = 100
_THREAD_PATIENCE_S = 1.0
_state: dict[str, Any] = {"code": 0, "installed": False, "finalizer_pid": 0}


def install(settings: Settings) -> None:
    """Wrap and register; every call after the first does only what a new process, or a setting, needs."""
    if not _state["installed"]:
        _state["installed"] = True
        atexit.register(_finish_at_exit)
        sys.exit = _noting_exit(sys.exit)
        sys.excepthook = _noting_exception(sys.excepthook)
    multiprocessing_util = sys.modules.get("multiprocessing.util")
    if multiprocessing_util is not None and _state["finalizer_pid"] != os.getpid():
        _state["finalizer_pid"] = os.getpid()
        multiprocessing_util.Finalize(None, _finish_in_child, exitpriority=_FIRST_FINALIZERS)
    # Handlers can be set in the main thread only; somebody else's, or the order to ignore the signal, is left as it is.
    may_handle = settings.finish_on_sigterm and threading.current_thread() is threading.main_thread()
    if may_handle and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _finish_and_end)


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


def _finish_and_end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
    _finish_all(128 + number, SIGTERM_TIMEOUT_S, may_wait_for_threads=False)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _finish_all(code: int, timeout_s: float | None = None, *, may_wait_for_threads: bool = True) -> None:
    """Finish what is left, newest first; nothing a run does here may stop the exit of the process."""
    native = sys.modules.get("runferry._native")
    is_held = native is not None and _hold_interrupts(native)
    try:
        _finish_left(native, code, timeout_s, may_wait_for_threads=may_wait_for_threads)
    finally:
        if is_held:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _hold_interrupts(native: Any) -> bool:
    """Let Ctrl-C end the waiting, and not whatever line it meets. False: somebody handles it, or cannot here."""

    def hurry(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        native.hurry()
        signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, hurry)
    except KeyboardInterrupt:  # it waited to be heard
        native.hurry()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return True


def _finish_left(native: Any, code: int, timeout_s: float | None, *, may_wait_for_threads: bool) -> None:
    _current.end()
    if native is not None:
        native.leave(0.0, cut=False)
    patience_s = max([run.settings.exit_timeout for run in _current.finishing], default=_THREAD_PATIENCE_S)
    is_interrupted = False
    for run in reversed(list(_current.live)):
        try:
            if run._is_of_this_process():  # noqa: SLF001 - a child that never logged leaves its parent's run alone
                waited_s = run.settings.exit_timeout if timeout_s is None else timeout_s
                run.finish(exit_code=code, timeout=0.0 if is_interrupted else waited_s)
                is_interrupted |= run._was_interrupted  # noqa: SLF001 - one Ctrl-C is for all of them
        except BaseException as error:  # noqa: BLE001, PERF203 - a second Ctrl-C as well: the process is already leaving
            is_interrupted |= isinstance(error, KeyboardInterrupt)
            _term.termwarn(f"run {run.id} was not finished at exit: {error!r}; its journal keeps what was logged")
    if native is not None and may_wait_for_threads:
        try:
            native.leave(0.0 if is_interrupted else patience_s, cut=True)
        except BaseException as error:  # noqa: BLE001 - as above
            _term.termwarn(f"a thread was still inside Runferry at exit: {error!r}")
