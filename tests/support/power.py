"""A disk whose power a test can cut: ext4 in a file on a loop device, shut down by ioctl.

`cut` is what a power failure is to the file system: nothing that is still in memory reaches the disk, not even its own journal.
What was synced stays, what was not may go, and every later call on the mount fails with EIO until `restore`.

# What counts
An fsync that is under way while the power goes may still return 0. So a promise counts only if it was heard before `cut` was called.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN."""
NO_LOG_FLUSH = 2
OPTIONS = ("data=ordered", "data=writeback", "nodelalloc", "data=ordered,commit=1")
"""Mount options that leave different things behind."""
COMMAND_TIMEOUT_S = 60.0


def _command(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


class LoopDisk:
    """An ext4 file system of its own at `path`; a context manager that leaves no mount and no loop device behind."""

    def __init__(self, path: Path, device: str) -> None:
        """A disk that `made` has made; a program that a test starts takes it over by these two."""
        self.path = path
        self.device = device

    @classmethod
    def made(cls, folder: Path, mebibytes: int) -> LoopDisk:
        """A new one in `folder`, mounted; skips the test where this user or machine may not."""
        image, path = folder / "disk.img", folder / "disk"
        path.mkdir()
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        try:
            _command("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
            disk = cls(path, _command("losetup", "--find", "--show", str(image)))
        except OSError as error:
            pytest.skip(f"not run: needs loop devices and mkfs.ext4: {error}")
        try:
            disk.mount(0)
        except OSError as error:
            disk.close()
            pytest.skip(f"not run: needs the right to mount: {error}")
        return disk

    def mount(self, option: int) -> None:
        """Mount it; `option` chooses one of `OPTIONS`."""
        _command("mount", "-t", "ext4", "-o", OPTIONS[option % len(OPTIONS)], self.device, str(self.path))

    def cut(self) -> None:
        """The power goes."""
        root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(root, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(root)

    def restore(self, option: int = 0) -> None:
        """The machine comes up again; whoever had files open there is dead by now."""
        _command("umount", str(self.path))
        self.mount(option)

    def close(self) -> None:
        """Unmount and detach, whatever state it is in."""
        if self.path.is_mount():
            _command("umount", "--lazy", str(self.path))
        _command("losetup", "--detach", self.device)

    def __enter__(self) -> LoopDisk:  # noqa: PYI034 - `Self` is newer than Python 3.10
        """Use it for the length of a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        """Unmount and detach."""
        self.close()
