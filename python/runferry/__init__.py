"""Runferry: an experiment tracker that ferries the records of a training to a server, fast and without losing any.

```python
import runferry

with runferry.init(project="demo", config={"lr": 3e-4}) as run:
    for step in range(100):
        run.log({"loss": 1 / (step + 1)})
```

Importing this costs a few milliseconds: everything but the guards below is imported at its first use.
`log`, `run`, `config` and `summary` are set by `init` (`_current.activate`); the modules behind them are `_run`, `_config` and
`_summary`, as importing a submodule sets the package's attribute of its name.
"""

from __future__ import annotations

from runferry import _current
from runferry._current import log
from runferry.errors import CommError, Error, UsageError

TYPE_CHECKING = False  # typing.TYPE_CHECKING by the name that checkers know: importing typing costs more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from runferry._config import Config
    from runferry._init import finish, init, setup, teardown
    from runferry._login import login
    from runferry._run import Run
    from runferry._status import RunStatus
    from runferry._summary import Summary
    from runferry._term import termerror, termlog, termwarn
    from runferry.api import Api
    from runferry.data import Histogram
    from runferry.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Api",
    "CommError",
    "Config",
    "Error",
    "Histogram",
    "Run",
    "RunStatus",
    "Settings",
    "UsageError",
    "__version__",
    "config",
    "finish",
    "init",
    "log",
    "login",
    "run",
    "setup",
    "summary",
    "teardown",
    "termerror",
    "termlog",
    "termwarn",
]

run: Run | None = None
"""The active run; None before `init` and after `finish`."""
config: Config = _current.config  # type: ignore[assignment]  # a guard until `init`
"""Config of the active run."""
summary: Summary = _current.summary  # type: ignore[assignment]  # as above
"""Summary of the active run."""

_HOMES = {
    "Api": "api",
    "Config": "_config",
    "Histogram": "data",
    "Run": "_run",
    "RunStatus": "_status",
    "Settings": "settings",
    "finish": "_init",
    "init": "_init",
    "login": "_login",
    "setup": "_init",
    "teardown": "_init",
    "termerror": "_term",
    "termlog": "_term",
    "termwarn": "_term",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'runferry' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - the point of this function

    value = getattr(import_module(f"runferry.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return __all__
