"""Released bytes stay readable: the Rust decoder and the independent one both read the golden files, and agree with what was put in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runferry import _native

from tests.compat.reader import FormatError, frames_of, read_frame
from tests.support.exact import exact

V1 = Path(__file__).parent / "v1"
EXPECTED: dict[str, list[dict[str, Any]]] = json.loads((V1 / "expected.json").read_text())
INDEPENDENT = sorted(set(EXPECTED) - {"written.rfj"})
KIND_BYTES = {"data": 1, "open": 2, "finish": 3, "gap": 4, "mark": 6, "unknown 9": 9}


def split(data: bytes) -> list[bytes]:
    """The frames of a file."""
    found = []
    while data:
        _, length = read_frame(data)
        found.append(data[:length])
        data = data[length:]
    return found


def native_rows(frame: bytes) -> list[list[Any]]:
    """Rows as the Rust decoder has them, in the shape of `expected.json`."""
    rows: list[list[Any]] = []
    for steps, times_us, columns in _native.decode_rows(frame):
        block: list[list[Any]] = [[step, time_us, {}] for step, time_us in zip(steps, times_us, strict=True)]
        for name, kind, presence, values in columns:
            present = block if presence is None else [row for row, has in zip(block, presence, strict=True) if has]
            for row, value in zip(present, values, strict=True):
                assert name not in row[2], f"two values of {name} in a row"
                row[2][name] = [kind, exact(value)]
        rows.extend(block)
    return rows


def test_every_golden_file_has_its_expected_values_and_none_is_missing() -> None:
    files = {path.name for path in V1.iterdir()} - {"expected.json"}

    assert files == set(EXPECTED)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_independent_reader_reads_what_was_put_in(name: str) -> None:
    found = [
        {
            "kind": frame.kind_name,
            "flags": frame.flags,
            "run_id": frame.run_id.hex(),
            "writer_id": frame.writer_id,
            "seq": frame.seq,
            "record_count": frame.record_count,
            "rows": [[step, time_us, {cell: [kind, exact(value)] for cell, kind, value in cells}] for step, time_us, cells in frame.rows()],
            "documents": [[document, exact(value)] for document, value in frame.documents()]
            if "rows" in frame.kind_name or frame.kind < 5
            else [],
        }
        for frame in frames_of((V1 / name).read_bytes())
    ]

    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_rust_decoder_reads_what_was_put_in(name: str) -> None:
    frames = split((V1 / name).read_bytes())

    verified = _native.verify_frames(frames)

    for frame, found, expected in zip(frames, verified, EXPECTED[name], strict=True):
        kind, flags, run_id, writer_id, seq, _, record_count, error = found
        assert error is None
        assert (kind, flags, run_id.hex(), writer_id) == (
            KIND_BYTES[expected["kind"]], expected["flags"], expected["run_id"], expected["writer_id"],
        )  # fmt: skip
        assert (seq, record_count) == (expected["seq"], expected["record_count"])
        if expected["kind"] == "data":
            assert native_rows(frame) == expected["rows"]
        if expected["kind"] in {"data", "open", "finish", "gap"}:
            assert [[document, exact(value)] for document, value in _native.documents(frame)] == expected["documents"]


def test_frames_of_the_real_writer_are_read_by_both() -> None:
    frames = split((V1 / "written.rfj").read_bytes())
    expected = [row for part in EXPECTED["written.rfj"] for row in part["rows"]]

    independent = [read_frame(frame)[0] for frame in frames]
    rows = [
        [step, time_us, {cell: [kind, exact(value)] for cell, kind, value in cells}]
        for frame in independent
        for step, time_us, cells in frame.rows()
    ]

    assert rows == expected
    assert [row for frame, found in zip(frames, independent, strict=True) if found.kind == 1 for row in native_rows(frame)] == expected
    assert [frame.kind_name for frame in independent] == ["open", "data", "finish"]
    opening, ending = dict(independent[0].documents())["open"], dict(independent[2].documents())["finish"]
    assert (opening["project"], opening["id"], opening["config"], opening["mode"]) == ("golden", "written", {"lr": 0.1}, "offline")
    assert (ending["state"], ending["exit_code"], ending["rows"]) == ("finished", 0, 6)
    assert _native.documents(frames[0]) == independent[0].documents()
    assert _native.documents(frames[2]) == independent[2].documents()


def test_both_say_no_to_every_flipped_bit_of_a_header_and_a_payload() -> None:
    frame = (V1 / "plain.frame").read_bytes()
    (payload_bytes,) = {int.from_bytes(frame[8:12], "little")}

    for bit in range((64 + payload_bytes) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8

        assert _native.verify_frames([bytes(damaged)])[0][7] is not None, f"bit {bit}"
        with pytest.raises(FormatError):
            read_frame(bytes(damaged))
