"""`RunStatus`: what a run knows about itself, without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - `typing.get_type_hints` of the class shall work
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Counts since this process began to write, and the state of the threads behind the run.

    A row is on its way from `accepted_rows` over a packed, a journaled and an acked frame; nothing leaves that way uncounted.
    """

    accepted_rows: int = 0
    """Calls of `log` that were copied to the ring."""
    packed_frames: int = 0
    """Frames made of them."""
    packed_points: int = 0
    """Values in them."""
    journaled_frames: int = 0
    """Frames written to the journal: they survive the death of the process, not yet a power cut."""
    journaled_bytes: int = 0
    """Their bytes."""
    durable_frames: int = 0
    """Frames forced to the disk."""
    acked_frames: int = 0
    """Frames the server has stored durably."""
    thinned_rows: int = 0
    """Rows taken out between others as the journal neared its cap (``backpressure="degrade"``); counted in GAPs."""
    thinned_points: int = 0
    """Values that went so, those of rows that stay for a text in them included."""
    dropped_rows: int = 0
    """Rows lost to a full ring or a full journal, or refused; each is a counted GAP on the server."""
    dropped_points: int = 0
    """Values in them."""
    dropped_by_reason: Mapping[str, int] = field(default_factory=dict)
    """Dropped rows by reason: ``journal_full``, ``oldest`` (made room for newer ones), ``ring_full`` (the packer did not keep up),
    ``refused`` (too large a call, or a step beyond 2**63 - 1)."""
    gaps: int = 0
    """GAP frames written: places in the sequence that say what is missing there."""
    behind_rows: int = 0
    """Calls that named a step behind the current one and were dropped, as in the W&B SDK."""
    ignored_rows: int = 0
    """Calls after the process began to exit, or in a forked child whose rows are not wanted (setting `forked_children`)."""
    dropped_values: int = 0
    """Values under keys that cannot be stored (empty, longer than 1 KiB)."""
    marked_values: int = 0
    """Values kept as a typed marker, as they have no exact form."""
    damaged_records: int = 0
    """Records of the ring that could not be read back: each is a counted GAP."""
    lag_s: float = 0.0
    """Age of the oldest record that is not where it belongs: on the server, offline in the journal."""
    linger_s: float = 0.0
    """How long rows gather before they become a frame: 0.1 s online, unless a server with very many writers asks for more; 1 s offline."""
    backlog_frames: int = 0
    """Frames journaled and not acked."""
    backlog_bytes: int = 0
    """Their bytes."""
    retries: int = 0
    """Connections tried again."""
    rejected_frames: int = 0
    """Frames the server refused for good (too large, unknown kind): each is a counted GAP there, and a copy in `rejected/` of
    `journal_dir`."""
    kill_safe: bool = False
    """Whether a `log` call that has returned survives `kill -9` of this process."""
    connection: str = "off"
    """`off` (offline), `connecting` (or waiting for the next try), `connected`, `blocked` (the server refuses this run),
    `unauthenticated` (it refuses the key, or wants one: another key is waited for), `untrusted` (its certificate is not to be believed),
    `incompatible` (its version does), `not_runferry` (something else answers at the address), `done` (all is sent and acked), `dead`
    (a fault of ours ended the sending; what is in the journal is sent by the next `init` or `runferry sync`)."""
    journal: str = "none"
    """`ok`, `full` (at its cap, or the disk is: the policy ``backpressure`` is at work, or frames go to the server directly),
    `degraded` (the disk fails: frames go to the server directly), `dead` (a fault of ours ended the writing;
    what is in the ring is saved by the next `init` or `runferry sync`), `none` (disabled run)."""
    journal_bytes: int = 0
    """Bytes on the disk now: what was acked is trimmed."""
    last_error: str | None = None
    """Latest trouble with disk, server or address, in words; None: none so far."""
    notices: tuple[str, ...] = ()
    """What the server had to say, latest last."""
    journal_dir: str | None = None
    """Folder of this writer's segments."""

    @classmethod
    def of(cls, native: Mapping[str, Any]) -> RunStatus:
        """From the native writer's dict; names it does not hold keep their default, names unknown here are left out."""
        known = {its.name: native[its.name] for its in fields(cls) if its.name in native}
        return cls(**{**known, "notices": tuple(known.get("notices", ()))})
