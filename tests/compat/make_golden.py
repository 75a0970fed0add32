"""Makes the golden files of a format version. Run once per version; released files are never made again.

    python -m tests.compat.make_golden tests/compat/v1

`kinds.rfj` and the `*.frame` files come from the encoder in `tests/support/frames.py`, which owes nothing to the Rust code; `written.rfj`
is what a real offline run wrote. What is in them stands in `expected.json`, from what was put in, not from reading it back.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import frames
from tests.support.exact import exact, from_bits
from tests.support.frames import DATA, Histogram, Json, Marker, Row, ScriptedWriter, Single

SIGNALLING_NAN = 0x7FF0_0000_0000_0001
FLOAT_BITS = [
    0x8000_0000_0000_0000,  # -0.0
    0x0000_0000_0000_0001,  # 5e-324
    0x7FF0_0000_0000_0000,  # inf
    0xFFF0_0000_0000_0000,  # -inf
    0x7FF8_0000_0000_0000,  # the usual NaN
    0xFFF8_0000_DEAD_BEEF,  # a negative NaN with a payload
    SIGNALLING_NAN,
    0x7FEF_FFFF_FFFF_FFFF,  # the greatest float
    0x3FB9_9999_9999_999A,  # 0.1
]
SINGLE_BITS = [0x3F00_0000, 0x8000_0000, 0x0000_0001, 0x7F80_0000, 0x7FC0_0000, 0xFFC1_2345, 0x3DCC_CCCD]
INTEGERS = [0, -1, 2**63 - 1, -(2**63), 2**53 + 1, 2**63 - 1, 7]
HISTOGRAMS = [
    Histogram(0.0, 1.0, [1, 2, 300]),
    Histogram(-1.5, 1.5, [0], nan_count=3, inf_count=70_000),
    Histogram(0.0, 9.0, [1, 2, 3], inner_edges=[1.0, 4.0]),
    Histogram(0.0, 9.0, [0.5, 2.25, 1e300], inner_edges=[1.0, 4.0], nan_count=1),
    Histogram(0.0, 2.0, [0.25, 0.75]),
    Histogram(0.0, 512.0, list(range(512))),
]
JSONS: list[Any] = [[], [1, 2.5, None, True, "x"], {"a": [[1], {"b": -0.0}]}, [2**63 - 1, -(2**63)], {"_type": "histogram", "values": [1]}]


def main() -> None:
    """Write all files of version 1 into a folder."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    folder: Path = options.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    expected = {name: _write(folder / name, parts) for name, parts in independent().items()}
    expected["written.rfj"] = written(folder / "written.rfj")
    text = json.dumps(expected, indent=None, separators=(",", ":"), ensure_ascii=True)
    (folder / "expected.json").write_text(text.replace('{"kind"', '\n{"kind"') + "\n")


Part = tuple[bytes, dict[str, Any]]


def independent() -> dict[str, list[Part]]:
    """Name of a file to its frames, each with what is in it."""
    return {
        "kinds.rfj": _kinds(),
        "floats.frame": [_data("floats", _one_column("x", [from_bits(bits) for bits in FLOAT_BITS]))],
        "singles.frame": [_data("singles", _one_column("x", [Single(bits) for bits in SINGLE_BITS]))],
        "integers.frame": [_data("integers", _one_column("n", INTEGERS))],
        "histograms.frame": [_data("histograms", _one_column("h", HISTOGRAMS))],
        "json.frame": [_data("json", _one_column("j", [Json(value) for value in JSONS]))],
        "mixed.frame": [_data("mixed", _mixed_rows())],
        "plain.frame": [_data("plain", [(0, {"loss": 0.5}), (3, {"loss": 0.25})], codec=0)],
        "later.frame": [_later_blocks()],
    }


def _mixed_rows() -> list[Row]:
    """One name in four kinds, holes on every side of a byte of a presence mask, steps that jump and stay."""
    rows: list[Row] = []
    values: list[Any] = [1, 1.0, True, None, "1", Marker("torch.Tensor", "meta tensor"), 0, -0.0, False]
    for index in range(27):
        row: dict[str, Any] = {"x": values[index % len(values)]}
        if index % 8 == 7 or index in {0, 26}:
            row["sparse/edge"] = index
        if index == 13:
            row = {"_timestamp": None}
        rows.append((index * index // 2, row))
    return rows


def _one_column(name: str, values: list[Any]) -> list[Row]:
    return [(10 + index, {name: value}) for index, value in enumerate(values)]


def _kinds() -> list[Part]:
    writer = ScriptedWriter(project="golden", id="kinds", writer_id=0x7FED_CBA9_8765_4321)
    opening: dict[str, Any] = {
        "entity": "local", "project": "golden", "id": "kinds", "label": "", "name": "brisk-fox-1", "group": "g", "job_type": "train",
        "notes": "two\nlines \u00fc", "tags": ["a", "b c"], "mode": "offline", "base_url": "http://127.0.0.1:7070",
        "config": {"lr": 3e-4, "layers": [1, 2], "deep": {"x": None}, "nan": math.nan}, "started_us": frames.START_US, "boottime_us": 5,
        "host": "h", "boot_id": "b", "client": "golden/1", "python": "3.10.0", "program": "train.py", "pid": 42, "resume": "allow",
        "start_step": 7, "relative": True, "parent_writer": 99, "a later key": {"readers": "ignore it"},
    }  # fmt: skip
    parts = [_part(writer.open_frame(**opening), writer, kind="open", seq=1, documents=[("open", opening)])]

    rows: list[Row] = [(7, {"loss": 0.5, "n": 1}), (7, {"loss": math.nan}), (9, {"text": "\U0001f680 \u00e9", "n": 2, "h": HISTOGRAMS[0]})]
    changes: dict[str, Any] = {"updates": {"lr": 1e-3, "new": [True]}, "removed": ["deep"]}
    frame = writer.data(rows, config=changes["updates"], removed=changes["removed"], meta={"name": "n", "notes": "", "tags": []})
    documents = [("config", changes), ("meta", {"name": "n", "notes": "", "tags": []})]
    parts.append(_part(frame, writer, kind="data", flags=4, seq=1, record_count=5, rows=rows, documents=documents))

    summary = {"best": 0.125, "nested": {"a": {"b": 2**53 + 1}}}
    frame = writer.data(summary=summary)
    parts.append(
        _part(frame, writer, kind="data", flags=4, seq=2, record_count=1, documents=[("summary", {"updates": summary, "removed": []})])
    )

    gap: dict[str, Any] = {"reason": "dropped", "rows": 12, "points": 34, "bytes": 56, "detail": "the ring was full"}
    frame = writer.gap(count=3, **gap)
    parts.append(_part(frame, writer, kind="gap", seq=3, record_count=3, documents=[("gap", gap)]))

    frame = frames.seal(6, {"wall_us": 1}, run_id=writer.run_id, writer_id=writer.writer_id, seq=6, record_count=0)
    parts.append(_part(frame, writer, kind="mark", seq=6))
    frame = frames.seal(9, {"of": "a later version"}, run_id=writer.run_id, writer_id=writer.writer_id, seq=6, record_count=0)
    parts.append(_part(frame, writer, kind="unknown 9", seq=6))

    ending = {"exit_code": 3, "ended_us": frames.START_US + 10_000_000, "state": "failed"}
    parts.append(_part(writer.finish(3), writer, kind="finish", flags=1, seq=6, documents=[("finish", ending)]))
    return parts


def _data(run: str, rows: list[Row], *, codec: int = 1) -> Part:
    writer = ScriptedWriter(project="golden", id=run, writer_id=0x1000 + len(rows))
    payload = [frames.rows_block(rows)]
    frame = frames.seal(DATA, payload, run_id=writer.run_id, writer_id=writer.writer_id, seq=1, record_count=len(rows), codec=codec)
    return _part(frame, writer, kind="data", seq=1, record_count=len(rows), rows=rows)


def _later_blocks() -> Part:
    """Unknown block kinds before and behind, surplus items in every known block: to be passed over."""
    writer = ScriptedWriter(project="golden", id="later", writer_id=0x2000)
    rows: list[Row] = [(0, {"loss": 1.5})]
    block = frames.rows_block(rows)
    block[4][0].append("a later item")
    payload = [[77, {"x": [1]}], [*block, "surplus"], [2, {"a": 1}, [], "surplus"], [4, {"name": "n"}, 5], [5], [9, None]]
    frame = frames.seal(DATA, payload, run_id=writer.run_id, writer_id=writer.writer_id, seq=1, record_count=3, flags=4)
    documents = [("config", {"updates": {"a": 1}, "removed": []}), ("meta", {"name": "n"})]
    return _part(frame, writer, kind="data", flags=4, seq=1, record_count=3, rows=rows, documents=documents)


def _part(  # noqa: PLR0913 - the fields of a frame, by name
    frame: bytes,
    writer: ScriptedWriter,
    *,
    kind: str,
    seq: int,
    flags: int = 0,
    record_count: int = 0,
    rows: list[Row] = [],  # noqa: B006 - never changed
    documents: list[tuple[str, Any]] = [],  # noqa: B006 - as above
) -> Part:
    shown_rows = []
    for step, values in rows:
        cells = {name: [_kind_name(value), _stored(value)] for name, value in values.items()}
        shown_rows.append([step, frames.START_US + step * 1_000, cells])
    expected = {
        "kind": kind, "flags": flags, "run_id": writer.run_id.hex(), "writer_id": writer.writer_id, "seq": seq,
        "record_count": record_count, "rows": shown_rows, "documents": [[name, exact(document)] for name, document in documents],
    }  # fmt: skip
    return frame, expected


def _kind_name(value: Any) -> str:
    names: dict[type, str] = {
        bool: "bool", int: "int", float: "float", Single: "float", str: "string", type(None): "null",
        Histogram: "histogram", Json: "json", Marker: "marker",
    }  # fmt: skip
    return names[type(value)]


def _stored(value: Any) -> Any:
    if isinstance(value, Single):
        return exact(from_bits(_widened(value.bits)))
    if isinstance(value, Histogram):
        return exact(value.encode())
    if isinstance(value, Json):
        return exact(value.value)
    return exact((value.type, value.text) if isinstance(value, Marker) else value)


def _widened(bits: int) -> int:
    """Bits of the 64-bit float that a 32-bit one stands for; NaN payloads move up by 29 bits."""
    if bits >> 23 & 0xFF == 0xFF:
        return (bits >> 31) << 63 | 0x7FF << 52 | (bits & 0x7F_FFFF) << 29
    (wide,) = struct.unpack("<Q", struct.pack("<d", struct.unpack("<f", struct.pack("<I", bits))[0]))
    return int(wide)


def _write(path: Path, parts: list[Part]) -> list[dict[str, Any]]:
    path.write_bytes(b"".join(frame for frame, _ in parts))
    return [expected for _, expected in parts]


WRITTEN_ROWS: list[dict[str, Any]] = [
    {"loss": 0.5, "n": 1},
    {"loss": from_bits(0x7FF8_0000_0000_BEEF), "n": 2**53 + 1, "ok": True},
    {"loss": -0.0, "n": -(2**63), "text": "\u00fc\U0001f680"},
    {"deep": {"a": {"b": 0.1}}, "list": [1, [2.5, None], {"k": "v"}]},
    {"loss": 1, "none": None, "inf": math.inf},
    {},
]
WRITTEN_STEPS = [0, 1, 2, 3, 10, 11]
WRITTEN_CELLS: list[dict[str, list[Any]]] = [
    {"loss": ["float", 0.5], "n": ["int", 1]},
    {"loss": ["float", WRITTEN_ROWS[1]["loss"]], "n": ["int", 2**53 + 1], "ok": ["bool", True]},
    {"loss": ["float", -0.0], "n": ["int", -(2**63)], "text": ["string", "\u00fc\U0001f680"]},
    {"deep.a.b": ["float", 0.1], "list": ["json", [1, [2.5, None], {"k": "v"}]]},
    {"loss": ["int", 1], "none": ["null", None], "inf": ["float", math.inf]},
    {"_timestamp": ["null", None]},
]


def written(path: Path) -> list[dict[str, Any]]:
    """A real offline run with fixed times; returns what was logged."""
    import runferry  # noqa: PLC0415 - the other files are made without it

    sys.argv[0] = "train.py"  # goes into OPEN, where no path of a machine belongs
    with tempfile.TemporaryDirectory() as folder:
        settings = {"silent": True, "disable_git": True}
        run = runferry.init(project="golden", id="written", dir=folder, mode="offline", config={"lr": 0.1}, settings=settings)
        for index, (step, row) in enumerate(zip(WRITTEN_STEPS, WRITTEN_ROWS, strict=True)):
            run.log({**row, "_timestamp": 1_700_000_000 + index}, step=step, commit=True)
        run.finish()
        (segment,) = Path(run.dir).glob("seg-*.rfj")
        shutil.copy(segment, path)
    return [
        {"rows": [[step, (1_700_000_000 + index) * 1_000_000, {name: [kind, exact(value)] for name, (kind, value) in cells.items()}]]}
        for index, (step, cells) in enumerate(zip(WRITTEN_STEPS, WRITTEN_CELLS, strict=True))
    ]


if __name__ == "__main__":
    main()
