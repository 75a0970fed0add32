"""Frames written in plain Python from docs/format.md, for tests: a scripted writer that owes nothing to the Rust code.

    writer = ScriptedWriter(project="demo", id="r1")
    frames = [writer.data([(0, {"loss": 1.5})]), writer.finish()]

The rows of a DATA frame are `(step, {name: value})`. Values: int, float, bool, str, None, `Histogram`, `Single`, `Json`, `Marker`.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import blake3
import msgpack
import zstandard

MAGIC = b"\xf5\x9e\xd1\x8a"
HEADER = struct.Struct("<4sBBBBII16sQQIII")
DATA, OPEN, FINISH, GAP = 1, 2, 3, 4
FLAG_LAST, FLAG_RECOVERED, FLAG_DOCS = 1, 2, 4
NULL, F64, F32, I64, BOOL, STR, HIST, JSON, MARKER = range(9)
CONFIG, SUMMARY, META = 2, 3, 4
START_US = 1_700_000_000_000_000

Row = tuple[int, Mapping[str, Any]]


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc32c_table()


def crc32c(data: bytes) -> int:
    """CRC32C (Castagnoli)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def run_key(entity: str, project: str, id: str) -> bytes:  # noqa: A002 - the field's name everywhere
    """The 16 bytes by which frames name a run."""
    return blake3.blake3(f"{entity}\0{project}\0{id}".encode()).digest()[:16]


def varint(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """Signed to unsigned, small stays small."""
    return (value << 1) ^ (value >> 63)


@dataclass(frozen=True)
class Histogram:
    """A histogram of equal bins, or of the bins between `inner_edges`; counts are all int or all float."""

    first_edge: float
    last_edge: float
    counts: Sequence[float]
    nan_count: int = 0
    inf_count: int = 0
    inner_edges: Sequence[float] | None = None

    def encode(self) -> bytes:
        """Section 5."""
        has_edges, has_float_counts = self.inner_edges is not None, any(isinstance(count, float) for count in self.counts)
        edges = [self.first_edge, *(self.inner_edges or ()), self.last_edge]
        counts = struct.pack(f"<{len(self.counts)}d", *self.counts) if has_float_counts else b"".join(varint(int(n)) for n in self.counts)
        head = bytes([has_edges | has_float_counts << 1]) + varint(len(self.counts))
        return head + struct.pack(f"<{len(edges)}d", *edges) + counts + varint(self.nan_count) + varint(self.inf_count)


@dataclass(frozen=True)
class Single:
    """A float that is stored in 32 bits, by its bits."""

    bits: int


@dataclass(frozen=True)
class Json:
    """A list or map."""

    value: Any


@dataclass(frozen=True)
class Marker:
    """A value that could not be kept."""

    type: str
    text: str


def seal(  # noqa: PLR0913 - a header has as many fields
    kind: int,
    payload: object,
    *,
    run_id: bytes,
    writer_id: int,
    seq: int,
    record_count: int,
    flags: int = 0,
    version: int = 1,
    codec: int = 1,
) -> bytes:
    """One frame: header, compressed payload, padding."""
    raw = msgpack.packb(payload, use_bin_type=True)
    stored = zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=True).compress(raw) if codec else raw
    return seal_stored(
        kind,
        stored,
        raw_len=len(raw),
        run_id=run_id,
        writer_id=writer_id,
        seq=seq,
        record_count=record_count,
        flags=flags,
        version=version,
        codec=codec,
    )


def seal_stored(  # noqa: PLR0913 - as above
    kind: int,
    stored: bytes,
    *,
    raw_len: int,
    run_id: bytes,
    writer_id: int,
    seq: int,
    record_count: int,
    flags: int = 0,
    version: int = 1,
    codec: int = 1,
) -> bytes:
    """One frame around any bytes, true or not: both checksums are right."""
    head = HEADER.pack(
        MAGIC, version, kind, 0x10 | codec, flags, len(stored), raw_len, run_id, writer_id, seq, record_count, 0, crc32c(stored)
    )
    frame = head + struct.pack("<I", crc32c(head)) + stored
    return frame + bytes(-len(frame) % 8)


def rows_block(rows: Sequence[Row], *, start_us: int = START_US) -> list[Any]:
    """A ROWS block: section 4."""
    steps = [step for step, _ in rows]
    times = [start_us + step * 1_000 for step in steps]
    columns = []
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    for name in names:
        kinds = list(dict.fromkeys(_kind(values[name]) for _, values in rows if name in values))
        for kind in kinds:
            present = [name in values and _kind(values[name]) == kind for _, values in rows]
            chosen = [values[name] for (_, values), here in zip(rows, present, strict=True) if here]
            columns.append([name, kind, None if all(present) else _bits(present), _ENCODE[kind](chosen)])
    return [1, len(rows), _coded(steps), _coded(times), columns]


@dataclass
class ScriptedWriter:
    """One writer: numbers its frames as a real one does."""

    project: str = "demo"
    id: str = "r1"
    entity: str = "local"
    writer_id: int = 0x1234
    label: str = ""
    next_seq: int = 1
    opening: dict[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> bytes:
        """The run's key."""
        return run_key(self.entity, self.project, self.id)

    def open_frame(self, *, version: int = 1, **more: Any) -> bytes:
        """The OPEN frame."""
        fields = {
            "entity": self.entity,
            "project": self.project,
            "id": self.id,
            "label": self.label,
            "started_us": START_US,
            "host": "testhost",
            "pid": 42,
            "mode": "online",
            **self.opening,
            **more,
        }
        return self._seal(OPEN, fields, seq=self.next_seq, record_count=0, version=version)

    def data(
        self,
        rows: Sequence[Row] = (),
        *,
        config: Mapping[str, Any] | None = None,
        summary: Mapping[str, Any] | None = None,
        removed: Sequence[str] = (),
        meta: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The next DATA frame."""
        blocks: list[Any] = [rows_block(rows)] if rows else []
        if config is not None:
            blocks.append([CONFIG, dict(config), list(removed)])
        if summary is not None:
            blocks.append([SUMMARY, dict(summary), list(removed)])
        if meta is not None:
            blocks.append([META, dict(meta)])
        has_documents = len(blocks) > bool(rows)
        records = len(rows) + len(blocks) - bool(rows)
        return self._numbered(DATA, blocks, record_count=records, flags=FLAG_DOCS if has_documents else 0)

    def raw(self, kind: int, payload: object) -> bytes:
        """A numbered frame of any kind."""
        return self._numbered(kind, payload, record_count=1)

    def finish(self, exit_code: int = 0, state: str | None = None) -> bytes:
        """The FINISH frame."""
        fields = {"exit_code": exit_code, "ended_us": START_US + 10_000_000, "state": state or ("failed" if exit_code else "finished")}
        return self._numbered(FINISH, fields, record_count=0, flags=FLAG_LAST)

    def gap(self, count: int = 1, reason: str = "dropped", **more: Any) -> bytes:
        """A GAP frame over the next `count` numbers."""
        frame = self._seal(GAP, {"reason": reason, **more}, seq=self.next_seq, record_count=count)
        self.next_seq += count
        return frame

    def rows(self, frames: int, rows_per_frame: int = 1, first_step: int = 0, name: str = "loss") -> list[bytes]:
        """So many DATA frames of one metric whose value is its step."""
        made = []
        for index in range(frames):
            first = first_step + index * rows_per_frame
            made.append(self.data([(step, {name: float(step)}) for step in range(first, first + rows_per_frame)]))
        return made

    def _numbered(self, kind: int, payload: object, *, record_count: int, flags: int = 0) -> bytes:
        frame = self._seal(kind, payload, seq=self.next_seq, record_count=record_count, flags=flags)
        self.next_seq += 1
        return frame

    def _seal(self, kind: int, payload: object, **more: Any) -> bytes:
        return seal(kind, payload, run_id=self.run_id, writer_id=self.writer_id, **more)


def flip_bit(frame: bytes, bit: int) -> bytes:
    """The frame with one bit changed."""
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _kind(value: object) -> int:
    if isinstance(value, bool):
        return BOOL
    kinds: dict[type, int] = {int: I64, float: F64, str: STR, Histogram: HIST, type(None): NULL, Single: F32, Json: JSON, Marker: MARKER}
    return kinds[type(value)]


def _coded(values: Sequence[int]) -> list[Any]:
    deltas = [later - earlier for earlier, later in itertools.pairwise(values)]
    if len(set(deltas)) <= 1:
        return [values[0], deltas[0] if deltas else 0]
    return [values[0], b"".join(varint(zigzag(delta)) for delta in deltas)]


def _bits(flags: Sequence[bool]) -> bytes:
    out = bytearray((len(flags) + 7) // 8)
    for index, flag in enumerate(flags):
        out[index // 8] |= flag << index % 8
    return bytes(out)


def _shuffled(values: Sequence[float]) -> bytes:
    plain = struct.pack(f"<{len(values)}d", *values)
    return b"".join(plain[byte::8] for byte in range(8))


def _singles(values: Sequence[Single]) -> bytes:
    plain = b"".join(value.bits.to_bytes(4, "little") for value in values)
    return b"".join(plain[byte::4] for byte in range(4))


def _integers(values: Sequence[int]) -> bytes:
    previous = 0
    out = []
    for value in values:
        delta = (value - previous + 2**63) % 2**64 - 2**63
        out.append(varint(zigzag(delta)))
        previous = value
    return b"".join(out)


def _encoded(values: Iterable[Histogram]) -> list[bytes]:
    return [value.encode() for value in values]


_ENCODE: dict[int, Callable[[Any], Any]] = {
    NULL: lambda _values: None,
    F64: _shuffled,
    I64: _integers,
    BOOL: _bits,
    STR: list,
    HIST: _encoded,
    F32: _singles,
    JSON: lambda values: [msgpack.packb(value.value, use_bin_type=True) for value in values],
    MARKER: lambda values: [[value.type, value.text] for value in values],
}
