"""What the step rules of the W&B SDK make of a sequence of calls: the model that stored rows are compared with.

1. `log(d)`: merge into the open row, end it, the step moves on.
2. `log(d, commit=False)`: merge only.
3. `log(d, step=s)`: a later step ends the open row and moves there, an earlier one drops the call; then merge only.
4. `log(d, step=s, commit=True)`: as 3, then end the row; the step is `s + 1`.
5. `finish` ends the open row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class StepsModel:
    """Feed it the calls; `rows` are what has to be stored in the end."""

    step: int = 0
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    behind: int = 0

    def log(self, values: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:  # noqa: FBT001 - as `Run.log`
        """One call, its values as they are stored: flat, without `_step` and `_timestamp`."""
        if step is not None and step < self.step:
            self.behind += 1
            return
        at = self.step if step is None else step
        self.rows.setdefault(at, {}).update(values)
        is_ended = step is None if commit is None else commit
        self.step = at + 1 if is_ended else at
