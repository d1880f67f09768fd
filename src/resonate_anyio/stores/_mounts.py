"""Where a path lies: on a disk of this machine, or on a network file system.

SQLite's locks and its shared memory do not work between machines, so a file on a network file system would be taken
for free by two engines at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .._errors import StoreError

MOUNTS: Final = Path("/proc/self/mounts")
"""The mounts that this process sees, on Linux."""

_NETWORKED: Final = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
        "fuse.ceph",
        "fuse.davfs",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
    }
)


def refuse_network(path: str, mounts: Path = MOUNTS) -> None:
    """Refuse a path that is seen to lie on a network file system. Only Linux shows its mounts like this.

    Args:
        path: an absolute path without symbolic links.
        mounts: the system's list of mounts; if it is absent, nothing is refused.

    Raises:
        StoreError: the path lies on a network file system.
    """
    filesystem = _filesystem(path, mounts)
    if filesystem in _NETWORKED:
        msg = (
            f"{path} lies on a network file system ({filesystem}), where SQLite's locks cannot be trusted; "
            f"put the file on a local disk"
        )
        raise StoreError(msg)


def is_mounted(path: str, mounts: Path = MOUNTS) -> bool:
    """Whether the path itself is a mount point. Only Linux shows its mounts like this."""
    return any(point == path for point, _ in _mounted(mounts))


def _filesystem(path: str, mounts: Path) -> str | None:
    """Give the type of the file system that the path lies on, where it is known."""
    found = [
        (len(point), order, kind)
        for order, (point, kind) in enumerate(_mounted(mounts))
        if path == point or path.startswith(point.rstrip("/") + "/")
    ]
    # The deepest mount point counts, and of several mounts on one point the last.
    return max(found)[2] if found else None


def _mounted(mounts: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:
        return

    for line in lines:
        _, point, kind, *_ = line.split(b" ")
        yield os.fsdecode(_unescape(point)), os.fsdecode(kind)


def _unescape(point: bytes) -> bytes:
    # The kernel writes the bytes that would break the line as three octal digits.
    for escape, byte in ((rb"\040", b" "), (rb"\011", b"\t"), (rb"\012", b"\n"), (rb"\134", b"\\")):
        point = point.replace(escape, byte)

    return point
