"""Reading runs back: `Api`, and the runs it answers with.

Everything goes through the read door (`docs/http-api.md`). Rows arrive as the frames they are stored in, so NaN, infinities and the
difference between `1` and `1.0` survive the way.
"""

from __future__ import annotations

from runferry.api.client import Api
from runferry.api.run import Run
from runferry.api.runs import Runs

__all__ = ["Api", "Run", "Runs"]
