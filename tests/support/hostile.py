"""Frames whose checksums are right and whose payloads are meant to harm whoever decodes them, for tests.

A few KiB each, they unfold to as much as they claim, or to more, or to less; nest deeply; count to 2^32; or say things that are
well formed and far too large to be kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
import zstandard

from tests.support.frames import CONFIG, DATA, FINISH, FLAG_DOCS, GAP, HIST, JSON, NULL, STR, SUMMARY, ScriptedWriter, seal_stored, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MOST_RAW_BYTES = 64 << 20
MANY = 1 << 20
_FAR = (1 << 32) - 1
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_RLE_BLOCK_BYTES = 128 << 10


def zstd(raw: bytes) -> bytes:
    """As a writer compresses."""
    return zstandard.ZstdCompressor(level=1, write_checksum=True, write_content_size=True).compress(raw)


def endless_zstd(size_bytes: int) -> bytes:
    """A zstd frame of equal bytes that unfolds to any size and claims it: 4 bytes for each 128 KiB."""
    blocks = size_bytes // _RLE_BLOCK_BYTES
    block = (_RLE_BLOCK_BYTES << 3 | 1 << 1).to_bytes(3, "little") + b"\xc0"
    last = (_RLE_BLOCK_BYTES << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\xc0"
    return _ZSTD_MAGIC + b"\xe0" + size_bytes.to_bytes(8, "little") + block * (blocks - 1) + last


def huge_window_zstd() -> bytes:
    """A zstd frame of one byte that asks for a window of 2 TiB and does not say its size."""
    return _ZSTD_MAGIC + b"\x00" + b"\xf8" + (1 << 3 | 1).to_bytes(3, "little") + b"\xc0"


def _raw(raw: bytes, **more: Any) -> tuple[bytes, dict[str, Any]]:
    return zstd(raw), {"raw_len": len(raw), **more}


def _packed(value: object, **more: Any) -> tuple[bytes, dict[str, Any]]:
    return _raw(msgpack.packb(value, use_bin_type=True), **more)


def _rows(columns: list[Any], rows: int = 1) -> tuple[bytes, dict[str, Any]]:
    return _packed([[1, rows, [0, 1], [0, 1], columns]], record_count=min(rows, _FAR))


def _documents(block: list[Any]) -> tuple[bytes, dict[str, Any]]:
    return _packed([block], flags=FLAG_DOCS)


def _array_head(items: int) -> bytes:
    return b"\xdd" + items.to_bytes(4, "big")


PAYLOADS: Mapping[str, Callable[[], tuple[bytes, dict[str, Any]]]] = {
    # zstd
    "zeros, 64 MiB": lambda: _raw(bytes(MOST_RAW_BYTES)),
    "4 GiB that say 64 MiB": lambda: (endless_zstd(1 << 32), {"raw_len": MOST_RAW_BYTES}),
    "4 GiB that say 4 GiB": lambda: (endless_zstd(1 << 32), {"raw_len": _FAR}),
    "64 MiB that say 1 byte": lambda: (endless_zstd(MOST_RAW_BYTES), {"raw_len": 1}),
    "1 byte that says 64 MiB": lambda: (zstd(b"\x90"), {"raw_len": MOST_RAW_BYTES}),
    "a window of 2 TiB": lambda: (huge_window_zstd(), {"raw_len": 1}),
    "no zstd at all": lambda: (b"\x00" * 64, {"raw_len": 64}),
    # msgpack
    "lists in lists, 1 M deep": lambda: _raw(b"\x91" * MANY + b"\xc0"),
    "maps in maps, 1 M deep": lambda: _raw(b"\x91\x93\x02" + b"\x81\xa1a" * MANY + b"\xc0" + b"\x90", flags=FLAG_DOCS),
    "2^32 blocks, none there": lambda: _raw(_array_head(_FAR)),
    "64 promises of 2^32": lambda: _raw(_array_head(_FAR) * 60),
    "64 M nils as blocks": lambda: _raw(_array_head(MOST_RAW_BYTES - 5) + b"\xc0" * (MOST_RAW_BYTES - 5)),
    "16 M blocks of no kind": lambda: _raw(_array_head(MANY * 16) + b"\x91\x63" * MANY * 16),
    "a text of 4 GiB, none there": lambda: _raw(b"\x91\xdb\xff\xff\xff\xff"),
    # rows
    "2^32 rows without a value": lambda: _rows([], _FAR),
    "131,072 rows by 131,072 nulls": lambda: _rows([[f"n{index}", NULL, None, None] for index in range(1 << 17)], 1 << 17),
    "a million columns": lambda: _rows([[f"n{index}", NULL, None, None] for index in range(MANY)]),
    "a metric's name of 15 MiB": lambda: _rows([["n" * (15 << 20), NULL, None, None]]),
    "a text of 15 MiB": lambda: _rows([["text", STR, None, ["t" * (15 << 20)]]]),
    "a million texts": lambda: _rows([[f"t{index}", STR, None, ["t" * 60]] for index in range(200_000)]),
    "2^60 bins": lambda: _rows([["h", HIST, None, [bytes([0]) + varint(1 << 60) + bytes(16)]]]),
    "a deep list": lambda: _rows([["j", JSON, None, [b"\x91" * MANY + b"\xc0"]]]),
    # documents
    "a config of 15 MiB": lambda: _documents([CONFIG, {"text": "c" * (15 << 20)}, []]),
    "a config of 500,000 keys": lambda: _documents([CONFIG, {f"key{index}": index for index in range(500_000)}, []]),
    "a summary of 500,000 keys": lambda: _documents([SUMMARY, {f"key{index}": index for index in range(500_000)}, []]),
    "a config 60 deep": lambda: _raw(b"\x91\x93\x02" + b"\x81\xa1a" * 60 + b"\xc0" + b"\x90", flags=FLAG_DOCS),
    "a million tags": lambda: _documents([4, {"tags": [f"tag{index}" for index in range(MANY)]}]),
    "a note of 15 MiB": lambda: _documents([4, {"notes": "n" * (15 << 20), "name": "n" * MANY}]),
    "a million removed keys": lambda: _documents([CONFIG, {}, ["k"] * MANY]),
    "a gap with 15 MiB to say": lambda: _packed({"reason": "r" * (7 << 20), "detail": "d" * (7 << 20)}, kind=GAP),
    "a finish of 15 MiB": lambda: _packed({"exit_code": 1 << 63, "ended_us": -(1 << 63), "state": "s" * (15 << 20)}, kind=FINISH),
}
"""By what is hostile: stored bytes, and what the header says of them."""


TOO_LONG = frozenset({"4 GiB that say 4 GiB"})
"""Those whose header alone is reason to refuse them."""


def hostile_frame(writer: ScriptedWriter, name: str) -> bytes:
    """The writer's next frame, with that payload."""
    stored, header = PAYLOADS[name]()
    fields = {"kind": DATA, "record_count": 1, **header}
    frame = seal_stored(fields.pop("kind"), stored, run_id=writer.run_id, writer_id=writer.writer_id, seq=writer.next_seq, **fields)
    writer.next_seq += 1
    return frame
