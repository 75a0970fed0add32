"""The native module with fail points, for processes that are to die or fail at an exact moment.

`make test-fault` builds it beside the one that ships. `package()` is a folder for PYTHONPATH in which `runferry` is this checkout's,
file by file, but for that module. `client_environment(folder, failpoints="pack.before_write=kill@3")` uses it;
rust/failpoints/src/lib.rs says what a plan may be.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / ".make/failpoints/_native.abi3.so"
_SITE = re.compile(r'runferry_failpoints::(hit|check|cut)!\("([a-z_.]+)"')


def package() -> Path:
    """The folder; skips the test where the module was not built."""
    if not MODULE.exists():
        pytest.skip("not run: the native module with fail points is not there (`make test-fault` builds it)")
    place = MODULE.parent / "python"
    (place / "runferry").mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in (ROOT / "python/runferry").iterdir() if not path.name.startswith(("_native.abi3", "__pycache__"))}
    wanted[MODULE.name] = MODULE
    for link in (place / "runferry").iterdir():
        if link.is_symlink() and link.name not in wanted:
            link.unlink()
    for name, target in wanted.items():
        link = place / "runferry" / name
        if not link.is_symlink():
            # Made under another name first: somebody else may be doing the same.
            new = place / "runferry" / f".{name}.{os.getpid()}"
            new.symlink_to(target)
            new.replace(link)
    return place


def sites(*macros: str) -> set[str]:
    """Every fail point in the Rust sources, or those of these macros: `hit`, `check`, `cut`."""
    sources = (path for path in (ROOT / "rust").glob("*/src/**/*.rs") if "failpoints/src" not in str(path))
    found = (pair for path in sources for pair in _SITE.findall(path.read_text(encoding="utf-8")))
    return {site for macro, site in found if not macros or macro in macros}
