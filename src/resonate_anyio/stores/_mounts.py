"""Whether a path lies on a disk of this machine or on a network file system.

SQLite's locks and shared memory do not work between machines. On a network file system, two engines could own one file
at the same time.
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
    """Refuse a path on a network file system. Only on Linux the mounts are known.

    Args:
        path: an absolute path without symbolic links.
        mounts: the system's list of mounts. If it does not exist, no path is refused.

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
    """Return whether the path itself is a mount point. Only on Linux the mounts are known."""
    return any(point == path for point, _ in _mounted(mounts))


def _filesystem(path: str, mounts: Path) -> str | None:
    """Return the type of the file system of the path, or None if it is unknown."""
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
    # The kernel writes bytes that would break the line as three octal digits.
    for escape, byte in ((rb"\040", b" "), (rb"\011", b"\t"), (rb"\012", b"\n"), (rb"\134", b"\\")):
        point = point.replace(escape, byte)

    return point
