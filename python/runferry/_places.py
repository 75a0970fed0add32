"""What kind of place a folder is, for those where a journal is less safe than people expect.

A journal works anywhere, but not all file systems keep it: one in memory is gone after a restart, a container's own layer goes with the
container, and on a network file system the locks that say who is alive may not hold. `init` says so once instead of refusing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_OF_A_CONTAINER = frozenset({"overlay", "aufs"})
_ON_THE_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "lustre", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "beegfs", "gpfs", "afs"}
)

_OCTAL = re.compile(r"\\([0-7]{3})")
"""How the kernel writes a space in a name."""


def weakness(folder: str, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Why a journal in this folder may be lost while the machine lives on; None: nothing is known against it."""
    kind = _file_system(folder, mounts)
    if kind in _IN_MEMORY:
        return f"{folder} lies in memory ({kind}): journals in it are gone after a restart of the machine"
    if kind in _OF_A_CONTAINER:
        return f"{folder} lies in the container's own layer ({kind}): journals in it go with the container"
    if kind in _ON_THE_NETWORK:
        return f"{folder} lies on a network file system ({kind}): two machines must not use the same journals"
    return None


def _file_system(folder: str, mounts: Path) -> str | None:
    """The kind of the file system that holds `folder`, as the kernel calls it; None where nobody tells."""
    found: tuple[int, str | None] = (-1, None)
    resolved = os.path.realpath(folder)
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        _, mount_point, kind, *_ = line.split(" ")
        mount_point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), mount_point)
        is_above = resolved == mount_point or resolved.startswith(mount_point.rstrip("/") + "/")
        if is_above and len(mount_point) >= found[0]:
            found = (len(mount_point), kind)
    return found[1]
