"""The Python interpreters of this machine that the client promises to run in: the tests' own, and every other one that is found.

The native module is built once, against the stable ABI: the same file must load in all of them.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.trainers import ROOT

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
NAME = re.compile(r"\d+\.\d+\.\d+")


@functools.cache
def interpreters() -> dict[str, str]:
    """Version ("3.12") to path; the tests' own first. What cannot import the client's native module is not among them."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = {own: sys.executable}
    for version in VERSIONS:
        if version in found:
            continue
        path = next(filter(_loads_the_module, _candidates(version)), None)
        if path is not None:
            found[version] = path
    return found


def missing() -> list[str]:
    """Versions that the client promises to run in and that this machine does not have."""
    return [version for version in VERSIONS if version not in interpreters()]


def _candidates(version: str) -> list[str]:
    on_path = shutil.which(f"python{version}")
    of_pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    return [*([on_path] if on_path else []), *(str(path) for path in reversed(of_pyenv) if NAME.fullmatch(path.parts[-3]))]


def _loads_the_module(path: str) -> bool:
    """A shim on the path may stand for an interpreter that is not installed."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'python')!r}); import runferry._native"
    try:
        return subprocess.run([path, "-B", "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
