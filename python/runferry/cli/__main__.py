"""`python -m runferry.cli`."""

from __future__ import annotations

from runferry.cli import entry

entry()
