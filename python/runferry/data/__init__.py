"""Values that are more than a number: what `runferry.Histogram` and its later siblings are."""

from __future__ import annotations

from runferry.data.histogram import Histogram

__all__ = ["Histogram"]
