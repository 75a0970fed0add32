"""Plays the scenes of `wandb_scenes` with W&B itself, offline, and keeps what it wrote down: `python -m tests.compat.record_wandb`.

W&B is no dependency of ours: the script makes an environment for it in `.make/wandb` and runs itself there. What it finds is committed
(`wandb_recorded/`), and is what Runferry's replay is compared with, so that tests need neither W&B nor a network.

A row is what W&B's core wrote to the run's file: blocks of 32 KiB as LevelDB's logs have them, each record a protobuf `Record`.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
VERSION = "0.31.0"
RECORDED = Path(__file__).parent / "wandb_recorded" / f"{VERSION}.json"
PINS = (f"wandb=={VERSION}", "numpy")
OWN = ("_timestamp", "_runtime", "_step", "_wandb")
_WRITTEN_S = 10.0
_BLOCK_BYTES, _HEAD_BYTES, _FILE_HEAD_BYTES = 32 << 10, 7, 7
_FULL, _FIRST, _LAST = 1, 2, 4


def main() -> int:
    """Make the environment, and play there; with `--here` this is the environment."""
    if sys.argv[1:] == ["--here"]:
        RECORDED.write_text(json.dumps(_played(), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    folder = ROOT / ".make" / "wandb"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PINS], check=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([str(python), "-m", "tests.compat.record_wandb", "--here"], cwd=ROOT, env=environment, check=False).returncode


def _played() -> dict[str, Any]:
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        del os.environ[name]
    quiet = {
        "MODE": "offline",
        "SILENT": "true",
        "CONSOLE": "off",
        "ERROR_REPORTING": "false",
        "DISABLE_GIT": "true",
        "DISABLE_CODE": "true",
    }
    os.environ.update({f"WANDB_{name}": value for name, value in quiet.items()})
    os.environ.update({"WANDB_X_DISABLE_STATS": "true", "WANDB_X_DISABLE_META": "true"})
    wandb = importlib.import_module("wandb")
    scenes = importlib.import_module("tests.compat.wandb_scenes")
    if wandb.__version__ != VERSION:
        raise RuntimeError(f"this environment has W&B {wandb.__version__}, not {VERSION}")
    found = {}
    for name, scene in scenes.SCENES.items():
        with tempfile.TemporaryDirectory(prefix="wandb-scene-") as folder:
            run = wandb.init(project="scenes", dir=folder, config=scene.config)
            seen = scenes.Seen()
            scene.play(wandb, run, seen)
            run.finish()
            (file,) = Path(folder).glob("wandb/offline-run-*/*.wandb")
            rows, summary = _written(file)
            found[name] = {"seen": plain(seen.notes), "summary": summary, "config": plain(_config(run)), "rows": rows}
    return found


def _config(run: Any) -> dict[str, Any]:
    return {key: value for key, value in run.config.as_dict().items() if key != "_wandb"}


def _written(file: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and summary, once W&B's process has written its last record: `finish` may return before."""
    proto: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    deadline = time.monotonic() + _WRITTEN_S
    while True:
        records = [proto.Record.FromString(data) for data in _records(file.read_bytes())]
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            break
        if time.monotonic() > deadline:
            raise RuntimeError(f"{file} has no end after {_WRITTEN_S} s")
        time.sleep(0.05)
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            step = items.get("_step", record.history.step.num)
            rows.append({"step": step, "values": plain({key: value for key, value in items.items() if key not in OWN})})
        elif record.WhichOneof("record_type") == "summary":
            for item in record.summary.remove:
                gone = ".".join(item.nested_key) or item.key
                summary = {path: value for path, value in summary.items() if path != gone and not path.startswith(f"{gone}.")}
            for item in record.summary.update:
                summary.update(leaves(".".join(item.nested_key) or item.key, json.loads(item.value_json)))
    return rows, plain({key: value for key, value in summary.items() if key.split(".", 1)[0] not in OWN})


def _records(data: bytes) -> Iterator[bytes]:
    place, parts = _FILE_HEAD_BYTES, b""
    while place + _HEAD_BYTES <= len(data):
        left = _BLOCK_BYTES - place % _BLOCK_BYTES
        if left < _HEAD_BYTES:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part = data[place + _HEAD_BYTES : place + _HEAD_BYTES + length]
        place += _HEAD_BYTES + length
        parts = part if kind in {_FULL, _FIRST} else parts + part
        if kind in {_FULL, _LAST}:
            yield parts


def leaves(path: str, value: Any) -> dict[str, Any]:
    """A nested value by the paths of its leaves."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {leaf: found for name, inner in value.items() for leaf, found in leaves(f"{path}.{name}", inner).items()}


def plain(value: Any) -> Any:
    """As strict JSON: floats that it does not know are `{"float": "nan"}`."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


if __name__ == "__main__":
    sys.exit(main())
