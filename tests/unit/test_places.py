"""What kind of place a journal's folder is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from runferry._places import weakness

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("kind", "reason"), [("tmpfs", "memory"), ("overlay", "container"), ("nfs4", "network"), ("lustre", "network"), ("ext4", None)]
)
def test_the_innermost_mount_decides_what_is_said_of_a_folder(tmp_path: Path, kind: str, reason: str | None) -> None:
    folder = tmp_path / "my data" / "runferry"
    folder.mkdir(parents=True)
    place = str(tmp_path / "my data").replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / overlay rw 0 0\nsource {place} {kind} rw 0 0\nother {place}-2 tmpfs rw 0 0\n")

    said = weakness(str(folder), mounts)

    assert (said is None) == (reason is None)
    assert said is None or (reason or "") in said


def test_where_nobody_tells_nothing_is_said(tmp_path: Path) -> None:
    assert weakness(str(tmp_path), tmp_path / "none") is None
