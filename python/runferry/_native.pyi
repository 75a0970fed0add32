"""Types of the Rust core. Prose is on the Python facade that uses each name."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypedDict, final, type_check_only

from runferry._access import Access

__version__: str

@final
class Writer:
    """One start of one process writing to a run: ring, journal, sender, and the three threads behind them."""

    def __new__(
        cls,
        *,
        root: str,
        run_id: bytes,
        open: dict[str, Any],
        base_url: str | None,
        start_step: int,
        convert: Callable[[str, object], list[tuple[str, Any]]],
        ring_bytes: int = ...,
        journal_cap_bytes: int | None = None,
        journal_min_free_bytes: int = ...,
        backpressure: str = "degrade",
        backpressure_block_ms: int = ...,
        fsync: str = "adaptive",
        access: Access | None = None,
        in_child: Callable[..., None] | None = None,
    ) -> Writer: ...
    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None: ...
    @property
    def fast_log(self) -> Callable[..., None]: ...
    def document(self, kind: str, updates: dict[str, Any], removed: list[str]) -> bool: ...
    def flush(self, durable: bool = False, acked: bool = False, timeout: float | None = None) -> bool: ...
    def finish(self, exit_code: int, timeout: float | None) -> WriterStatus: ...
    def status(self) -> WriterStatus: ...
    def last_values(self) -> dict[str, Any]: ...
    @property
    def step(self) -> int: ...
    @property
    def ignored_rows(self) -> int: ...
    @property
    def writer_id(self) -> int: ...
    @property
    def journal_dir(self) -> str: ...

@final
class Follower:
    """Sends what lies and what arrives in some folders to one server, until it is stopped."""

    def __new__(cls, paths: list[str], base_url: str, api_key: str | None = None) -> Follower: ...
    def status(self) -> dict[str, str]: ...
    def stop(self, timeout_s: float = 5.0) -> None: ...

def ask(base_url: str, path: str, *, api_key: str | None, ca_file: str | None, timeout_s: float) -> tuple[int, str, bytes]: ...
def hurry() -> None: ...
def leave(patience_s: float, cut: bool) -> bool: ...
def run_key(entity: str, project: str, id: str) -> bytes: ...
def histogram_from_bytes(data: bytes, dtype: str, bins: int) -> bytes: ...
def histogram_encode(edges: Sequence[float], counts: Sequence[float], nan_count: int, inf_count: int) -> bytes: ...
def histogram_decode(value: bytes) -> tuple[list[float], list[float], int, int]: ...

# Frames (docs/format.md), as the server and the readers take them apart.

def verify_frames(data: list[bytes]) -> list[tuple[int, int, bytes, int, int, int, int, str | None]]: ...

# kind, flags, run_id, writer_id, seq, next_seq, record_count, error; never raises on bad bytes (kind 0: no header).

def message_parts(message: bytes) -> int: ...

# Fields of a message of the write door, before protobuf unfolds it.

def documents(frame: bytes) -> list[tuple[str, Any]]: ...

# ("config" | "summary", {"updates": {...}, "removed": [...]}), ("meta" | "open" | "finish" | "gap", {...}). ValueError: unreadable.

def decode_rows(frame: bytes) -> list[tuple[list[int], list[int], list[tuple[str, str, list[bool] | None, list[Any]]]]]: ...

# Per ROWS block: steps, times_us, columns of (name, kind, presence per row or None for all, one value per present row).
# Kinds: "null", "float", "int", "bool", "string", "histogram" (bytes), "json" (objects), "marker" ((type, text)). ValueError: unreadable.

def pack_frame(kind: int, flags: int, run_id: bytes, writer_id: int, seq: int, record_count: int, raw: bytes) -> bytes: ...

# Compresses and seals a raw msgpack payload.

# What the journal's tools and the readers use. Each yields plain dicts whose keys are the TypedDicts at the end.

def local_last_step(root: str, run_id: bytes) -> int | None: ...
def sync(
    paths: list[str],
    base_url: str | None,
    access: Access | None,
    progress: Callable[[SyncProgress], None],
    timeout_s: float = 5.0,
) -> list[SyncResult]: ...
def journal_list(root: str) -> list[JournalState]: ...
def journal_frames(path: str) -> Iterator[JournalFrame]: ...
def journal_fsck(path: str) -> JournalCheck: ...
def journal_receipt(path: str, until: int | None = None) -> JournalReceipt: ...
def sums_together(metrics: Sequence[tuple[str, int, int]]) -> tuple[int, int]: ...

@type_check_only
class WriterStatus(TypedDict):
    """Keys of `Writer.status()` and `Writer.finish()`; meanings are on `runferry.RunStatus`."""

    accepted_rows: int
    packed_frames: int
    packed_points: int
    journaled_frames: int
    journaled_bytes: int
    durable_frames: int
    acked_frames: int
    thinned_rows: int
    thinned_points: int
    dropped_rows: int
    dropped_points: int
    dropped_by_reason: dict[str, int]
    gaps: int
    behind_rows: int
    dropped_values: int
    ignored_rows: int
    marked_values: int
    damaged_records: int
    lag_s: float
    linger_s: float
    backlog_frames: int
    backlog_bytes: int
    retries: int
    rejected_frames: int
    kill_safe: bool
    connection: str
    journal: str
    journal_bytes: int
    run_url: str
    last_error: str | None
    notices: list[str]
    journal_dir: str

@type_check_only
class SyncProgress(TypedDict):
    """Sent a few times a second while `sync` runs."""

    sent_frames: int
    total_frames: int
    sent_bytes: int
    total_bytes: int

@type_check_only
class SyncResult(TypedDict):
    """One writer of the journals given to `sync`."""

    path: str
    run: str
    writer_id: int
    frames: int
    acked_frames: int
    rows: int
    base_url: str | None
    error: str | None
    unreachable: bool

@type_check_only
class JournalState(TypedDict):
    """One writer below a folder of journals."""

    path: str
    run: str
    writer_id: int
    mode: str
    base_url: str | None
    alive: bool
    pid: int
    host: str
    finished: bool
    frames: int
    backlog_frames: int
    backlog_bytes: int
    last_ack_us: int | None
    error: str | None

@type_check_only
class JournalFrame(TypedDict):
    """One frame of a journal, or the place where one cannot be read (`error`)."""

    segment: str
    offset: int
    kind: str
    seq: int
    records: int
    stored_bytes: int
    raw_bytes: int
    error: str | None

@type_check_only
class JournalCheck(TypedDict):
    """What `journal fsck` found."""

    path: str
    segments: int
    frames: int
    rows: int
    stored_bytes: int
    raw_bytes: int
    first_seq: int
    next_seq: int
    gaps: list[GapFound]
    errors: list[str]
    torn_bytes: int

@type_check_only
class JournalReceipt(TypedDict):
    """What a writer packed, by its journal: `(name, points, sum of hashes)`, rows under the empty name."""

    run: str
    writer_id: int
    covers: int
    next_seq: int
    unreadable_frames: int
    metrics: list[tuple[str, int, int]]
    rest: tuple[int, int]

@type_check_only
class GapFound(TypedDict):
    """Numbers that no readable frame has."""

    seq: int
    count: int
    reason: str

# The chunk store (rust/columns); used by runferry.server.store alone. Rows are tuples in the column order of its tables `chunk`
# and `axis`, without the run. Faults: one text per item that failed, None for each that did not.

_StoredRow: TypeAlias = tuple[Any, ...]
_StoredWriter: TypeAlias = tuple[int, int, int, str, int]  # ordinal, started_us, writer_id, label, step_offset

def verify_chunks(chunks: Sequence[tuple[_StoredRow, _StoredRow]]) -> list[str | None]: ...

@final
class Tail:
    """Frames of a run that are not merged yet, decoded once and read often."""

    def __new__(cls) -> Tail: ...
    def set_writers(self, writers: Sequence[_StoredWriter]) -> None: ...
    def add_frames(self, frames: Sequence[tuple[int, bytes]], most_bytes: int) -> list[str | None]: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def row_count(self) -> int: ...
    def row_steps(self) -> list[int]: ...
    def names(self) -> list[str]: ...
    def labels(self, name: str) -> list[str]: ...
    def metric_count(self) -> int: ...
    def totals(self) -> tuple[int, int, int | None]: ...

@final
class Merge:
    """One merge of a run; used by one thread."""

    def __new__(cls) -> Merge: ...
    def set_writers(self, writers: Sequence[_StoredWriter]) -> None: ...
    def add_frames(self, frames: Sequence[tuple[int, bytes]], most_bytes: int) -> list[tuple[int, str | None]]: ...
    def series(self) -> list[tuple[int, str, str, int, int, int]]: ...
    def touch(self, series: int, ranges: Sequence[tuple[int, int]]) -> list[bool]: ...
    def leave(self, series: int, ranges: Sequence[tuple[int, int]]) -> None: ...
    def add_chunks(self, chunks: Sequence[tuple[int, _StoredRow, _StoredRow]]) -> list[str | None]: ...
    def finish(
        self, key_ids: Sequence[int], next_axis_id: int
    ) -> tuple[list[_StoredRow], list[_StoredRow], list[tuple[int, int, int, int]], list[tuple[int, int, bytes]]]: ...

@final
class StoredSums:
    """What a store holds of each writer of a run, from its bytes; used by one thread. `(name, points, hash)`: rows have the empty name."""

    def __new__(cls, offsets: Sequence[tuple[int, int]]) -> StoredSums: ...
    def add(self, kept: Sequence[tuple[int, str, int, int]]) -> None: ...
    def add_chunks(self, chunks: Sequence[tuple[str, _StoredRow, _StoredRow]]) -> list[str | None]: ...
    def add_frames(self, frames: Sequence[tuple[int, bytes]]) -> list[str | None]: ...
    def finish(self) -> dict[int, list[tuple[str, int, int]]]: ...

@final
class Heads:
    """The stored chunks of a series: good for any number of charts until a merge. ValueError: damage."""

    # Chunk row, then time1_us and sub of its axis, then n, crc32c and data of it, NULL without values; ascending.
    def __new__(cls, chunks: Sequence[_StoredRow]) -> Heads: ...
    @property
    def points(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    def step0(self, index: int) -> int | None: ...

@final
class SeriesRead:
    """One chart in the making; used by one thread. ValueError: damage."""

    def __new__(
        cls,
        tail: Tail,
        label: str,
        name: str,
        heads: Heads,
        span: tuple[int, int] | None,  # first and last step of all its chunks
        window: tuple[int, int],
        buckets: int,
    ) -> SeriesRead: ...
    def need(self) -> list[int]: ...
    def feed(self, chunks: Sequence[tuple[int, _StoredRow, _StoredRow]]) -> list[str | None]: ...
    def finish(self) -> Buckets: ...

@final
class Buckets:
    """A series cut into at most the asked number of buckets; a list, made when it is asked for, has one item per non-empty bucket."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def raw_points(self) -> int: ...
    @property
    def is_exact(self) -> bool: ...
    @property
    def step_first(self) -> list[int]: ...
    @property
    def step_last(self) -> list[int]: ...
    @property
    def time_last_us(self) -> list[int]: ...
    @property
    def count(self) -> list[int]: ...
    @property
    def min(self) -> list[float | None]: ...
    @property
    def max(self) -> list[float | None]: ...
    @property
    def mean(self) -> list[float | None]: ...
    @property
    def last(self) -> list[float]: ...
    @property
    def nan_count(self) -> list[int]: ...
    @property
    def inf_count(self) -> list[int]: ...
    def keep(self) -> int: ...

    # Its JSON is written once and for all; about how many bytes of memory all of it takes.

def series_json(series: Sequence[Buckets], *, added: bool = False) -> bytes: ...

# A JSON list as docs/http-api.md section 3 has it, or (`added`) section 4.

@final
class StoredMetrics:
    """What is merged of some metrics of a run, by name and label: good until the next merge. ValueError: damage."""

    # name, label, points, step0, step1, last, ordinal of the writer of the last; in order
    def __new__(cls, rows: Sequence[_StoredRow]) -> StoredMetrics: ...
    def __len__(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...

@final
class Metrics:
    """Some metrics of a run, by name and label: what is merged and what waits, together."""

    def __new__(
        cls,
        tail: Tail,
        stored: StoredMetrics,  # the first behind `after`, and maybe others before them
        after: tuple[str, str] | None,
        limit: int,
    ) -> Metrics: ...
    def __len__(self) -> int: ...
    def last_name(self) -> tuple[str, str] | None: ...
    def rows(self) -> list[tuple[str, str, str, int, int, int, Any]]: ...
    def json(self, shown: Callable[[str, Any], tuple[str, str]]) -> bytes: ...

# Rows: as `protocol.Metric`. JSON: a list as docs/http-api.md has it; `shown` gives kind and JSON of values that have no plain form.

@final
class Scan:
    """One window of a scan; used by one thread."""

    def __new__(cls, tail: Tail, names: Sequence[str] | None, histograms: bool, window: tuple[int, int]) -> Scan: ...
    def add_chunks(self, chunks: Sequence[tuple[int, str, _StoredRow, _StoredRow]]) -> list[str | None]: ...
    def steps(self) -> list[int]: ...
    def frames(self, run_id: bytes, first_seq: int, steps: Sequence[int]) -> list[bytes]: ...
    def histograms(self, keep: Sequence[int]) -> list[tuple[int, int, bytes]]: ...
