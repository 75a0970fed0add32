"""Reads frames in plain Python from `docs/format.md` alone; owes nothing to the Rust code, nor to the encoder of the tests.

    for frame in frames_of(path.read_bytes()):
        frame.rows()        # [(step, time_us, [(name, kind, value), ...])]
        frame.documents()   # [(name, map)]

Strict: whatever the page does not allow raises `FormatError`. What it tells readers to skip is skipped.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack
import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = bytes([0xF5, 0x9E, 0xD1, 0x8A])
HEADER_BYTES = 64
PAYLOAD_MAX_BYTES = 8 << 20
RAW_MAX_BYTES = 64 << 20
KINDS = {1: "data", 2: "open", 3: "finish", 4: "gap", 5: "dict", 6: "mark", 7: "blobref", 8: "receipt"}
COLUMN_KINDS = ("null", "float", "float", "int", "bool", "string", "histogram", "json", "marker")
DOCUMENTS = {2: "config", 3: "summary", 4: "meta"}

Row = tuple[int, int, list[tuple[str, str, Any]]]
"""Step, microseconds since 1970, and (name, kind, value) in the order of the columns."""


class FormatError(Exception):
    """The bytes are not what the page says."""


def crc32c(data: bytes) -> int:
    """CRC32C, bit by bit over a table of nibbles: slow, and unlike the other two in this repository."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        value = _NIBBLES[value & 15] ^ (value >> 4)
        value = _NIBBLES[value & 15] ^ (value >> 4)
    return value ^ 0xFFFFFFFF


def _nibble(value: int) -> int:
    for _ in range(4):
        value = (value >> 1) ^ (0x82F63B78 * (value & 1))
    return value


_NIBBLES = [_nibble(value) for value in range(16)]


@dataclass(frozen=True)
class Frame:
    """Header fields by the names of section 1; `body` is the decompressed payload, decoded."""

    kind: int
    flags: int
    run_id: bytes
    writer_id: int
    seq: int
    record_count: int
    body: Any

    @property
    def kind_name(self) -> str:
        """Section 2."""
        return KINDS.get(self.kind, f"unknown {self.kind}")

    def rows(self) -> list[Row]:
        """Rows of all ROWS blocks of a DATA frame."""
        return [row for block in self.body if block[0] == 1 for row in _rows(block)] if self.kind == 1 else []

    def documents(self) -> list[tuple[str, Any]]:
        """Maps of OPEN, FINISH, GAP and RECEIPT; changes of config, summary and meta."""
        if self.kind != 1:
            return [(self.kind_name, self.body)]
        found: list[tuple[str, Any]] = []
        for block in self.body:
            name = DOCUMENTS.get(block[0])
            if name == "meta":
                found.append((name, block[1]))
            elif name is not None:
                found.append((name, {"updates": block[1], "removed": list(block[2])}))
        return found


def frames_of(data: bytes) -> Iterator[Frame]:
    """Frames one behind the other; zeros up to the end are a clean end."""
    offset = 0
    while offset < len(data) and any(data[offset:]):
        frame, length = read_frame(data[offset:])
        offset += length
        yield frame


def read_frame(data: bytes) -> tuple[Frame, int]:
    """The frame at the start of `data`, and its length with padding.

    Raises:
        FormatError: Section 1 is broken.
    """
    if len(data) < HEADER_BYTES:
        raise FormatError("torn header")
    header = data[:HEADER_BYTES]
    if header[:4] != MAGIC:
        raise FormatError("magic")
    version, kind, codec, flags = header[4:8]
    payload_len, raw_len = struct.unpack_from("<II", header, 8)
    writer_id, seq, record_count, dict_id, payload_crc, header_crc = struct.unpack_from("<QQIIII", header, 32)
    if crc32c(header[:60]) != header_crc:
        raise FormatError("header checksum")
    if version != 1:
        raise FormatError(f"version {version}")
    if payload_len > PAYLOAD_MAX_BYTES or raw_len > RAW_MAX_BYTES:
        raise FormatError("too large")
    if writer_id == 0 or dict_id != 0:
        raise FormatError("writer 0 or a dictionary")
    length = -(-(HEADER_BYTES + payload_len) // 8) * 8
    if len(data) < length:
        raise FormatError("torn payload")
    stored = data[HEADER_BYTES : HEADER_BYTES + payload_len]
    if any(data[HEADER_BYTES + payload_len : length]):
        raise FormatError("padding is not zero")
    if crc32c(stored) != payload_crc:
        raise FormatError("payload checksum")
    raw = _decompressed(stored, codec, raw_len)
    body = msgpack.unpackb(raw, raw=False, strict_map_key=False) if codec >> 4 == 1 else None
    return Frame(kind, flags, header[16:32], writer_id, seq, record_count, body), length


def _decompressed(stored: bytes, codec: int, raw_len: int) -> bytes:
    if codec & 15 == 0:
        raw = stored
    elif codec & 15 == 1:
        found = zstandard.get_frame_parameters(stored)
        if found.content_size != raw_len or not found.has_checksum:
            raise FormatError("zstd frame without size or checksum")
        raw = zstandard.ZstdDecompressor().decompress(stored)
    else:
        raise FormatError(f"compression {codec & 15}")
    if len(raw) != raw_len:
        raise FormatError("raw_len")
    return raw


@dataclass
class Histogram:
    """Section 5, taken apart."""

    edges: list[float]
    counts: list[float]
    nan_count: int
    inf_count: int

    @classmethod
    def decode(cls, data: bytes) -> Histogram:
        """Read one; equal bins get the edges between the first and the last."""
        flags, place = data[0], 1
        bins, place = _varint(data, place)
        if not 1 <= bins <= 512:
            raise FormatError(f"{bins} bins")
        if flags & 1:
            edges = list(struct.unpack_from(f"<{bins + 1}d", data, place))
            place += 8 * (bins + 1)
        else:
            first, last = struct.unpack_from("<dd", data, place)
            edges = [first + (last - first) * index / bins for index in range(bins)] + [last]
            place += 16
        counts: list[float]
        if flags & 2:
            counts = list(struct.unpack_from(f"<{bins}d", data, place))
            place += 8 * bins
        else:
            counts = []
            for _ in range(bins):
                count, place = _varint(data, place)
                counts.append(count)
        nan_count, place = _varint(data, place)
        inf_count, place = _varint(data, place)
        if place != len(data):
            raise FormatError("histogram length")
        return cls(edges, counts, nan_count, inf_count)


def _rows(block: list[Any]) -> list[Row]:
    _, count, steps, times, columns = block[:5]
    rows: list[Row] = [(step, time_us, []) for step, time_us in zip(_coded(steps, count), _coded(times, count), strict=True)]
    if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(rows)):
        raise FormatError("steps go back")
    for name, kind, presence, data in (column[:4] for column in columns):
        present = range(count) if presence is None else [row for row in range(count) if presence[row // 8] >> row % 8 & 1]
        if presence is not None and len(presence) != (count + 7) // 8:
            raise FormatError("presence length")
        values = _DECODE[kind](data, len(present))
        for row, value in zip(present, values, strict=True):
            if any(name == other for other, _, _ in rows[row][2]):
                raise FormatError(f"two values of {name!r} in a row")
            rows[row][2].append((name, COLUMN_KINDS[kind], value))
    return rows


def _coded(coded: list[Any], count: int) -> list[int]:
    first, rest = coded
    if isinstance(rest, int):
        return [first + rest * index for index in range(count)]
    values = [first]
    for delta in _zigzags(rest, count - 1):
        values.append(values[-1] + delta)
    return values


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def _zigzags(data: bytes, count: int) -> list[int]:
    values, place = [], 0
    for _ in range(count):
        value, place = _varint(data, place)
        values.append(value >> 1 if value & 1 == 0 else -(value >> 1) - 1)
    if place != len(data):
        raise FormatError("varints left over")
    return values


def _unshuffled(data: bytes, count: int, width: int) -> bytes:
    if len(data) != count * width:
        raise FormatError("column length")
    return bytes(data[byte * count + value] for value in range(count) for byte in range(width))


def _f64(data: bytes, count: int) -> list[float]:
    return list(struct.unpack(f"<{count}d", _unshuffled(data, count, 8)))


def _f32(data: bytes, count: int) -> list[float]:
    """Widened by hand where it is NaN, since processors may touch the payload of one on the way."""
    plain = _unshuffled(data, count, 4)
    values = []
    for place in range(0, len(plain), 4):
        (bits,) = struct.unpack_from("<I", plain, place)
        if bits >> 23 & 255 == 255:
            wide = (bits >> 31) << 63 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29
            values.append(struct.unpack("<d", struct.pack("<Q", wide))[0])
        else:
            values.append(struct.unpack_from("<f", plain, place)[0])
    return values


def _integers(data: bytes, count: int) -> list[int]:
    values, value = [], 0
    for delta in _zigzags(data, count):
        value = (value + delta + 2**63) % 2**64 - 2**63
        values.append(value)
    return values


_DECODE: dict[int, Callable[[Any, int], list[Any]]] = {
    0: lambda _data, count: [None] * count,
    1: _f64,
    2: _f32,
    3: _integers,
    4: lambda data, count: [bool(data[row // 8] >> row % 8 & 1) for row in range(count)],
    5: lambda data, _count: list(data),
    6: lambda data, _count: list(data),
    7: lambda data, _count: [msgpack.unpackb(value, raw=False, strict_map_key=False) for value in data],
    8: lambda data, _count: [(kind, text) for kind, text in data],
}
