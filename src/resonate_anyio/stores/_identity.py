"""The files of an open store, identified by device and inode, and the files that a store refuses.

The owner's lock is found by the name of the file, so a file with two names could have two owners: it is refused. A file
that is deleted or replaced while it is in use can still be written by the process that has it open, but the records are
lost afterwards. So the files are checked before each commit. This takes microseconds, and opens no file (see `_lock`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from attrs import frozen

from .._errors import StoreError, StoreLost
from .._values import ValueObject
from ._mounts import MOUNTS, is_mounted

_Key: TypeAlias = tuple[int, int]

_AFTER: Final = (
    "while it was in use, so what was recorded since then may not be in it. Stop whatever moves or deletes it, put the "
    "right file in place (without the -wal and -shm files of another one), and start again"
)


def refuse_unusual(path: str, mounts: Path = MOUNTS) -> None:
    """Refuse a path that is not an ordinary file, and a file that has more than one name.

    Args:
        path: an absolute path without symbolic links.
        mounts: the system's list of mounts.

    Raises:
        StoreError: the path is refused.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - a path is a str here, as SQLite wants it
    except OSError:
        # The file will be created, or SQLite will raise the error.
        return

    if not stat.S_ISREG(found.st_mode):
        msg = f"{path} is {_kind_of(found.st_mode)}, not a file; name a file on a local disk"
        raise StoreError(msg)

    if found.st_nlink > 1:
        msg = (
            f"{path} has {found.st_nlink} names (hard links), and the lock that makes one engine its owner goes by the "
            f"name: a second engine would not be noticed. Remove the other names (`find -samefile` lists them), or "
            f"use a copy"
        )
        raise StoreError(msg)

    if is_mounted(path, mounts):
        msg = (
            f"{path} is mounted as a single file, so the lock that makes one engine its owner, and SQLite's own files "
            f"beside it, are not where other users of the file look for them. Mount its directory instead"
        )
        raise StoreError(msg)


def _kind_of(mode: int) -> str:
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "a device"

    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "something else"


@frozen(eq=False, repr=False)
class Files(ValueObject):
    """The files of an open store, with their identities at the time of opening."""

    _path: str
    _keys: Mapping[str, _Key]

    @classmethod
    def at(cls, path: str, names: Iterable[str]) -> Files:
        """Return the files `names` of the database `path`, which exist, with their present identities.

        Raises:
            StoreLost: one of them does not exist any more.
        """
        return cls(path, {name: _key_of(path, name) for name in names})

    def check(self) -> None:
        """Check that the files are in place.

        Raises:
            StoreLost: one of them was deleted, moved or replaced.
        """
        for name, key in self._keys.items():
            if _key_of(self._path, name) != key:
                reason = f"another file was put in the place of {os.path.basename(name)} {_AFTER}"  # noqa: PTH119
                raise StoreLost(self._path, reason)


def _key_of(path: str, name: str) -> _Key:
    try:
        found = os.stat(name)  # noqa: PTH116 - half the time of Path.stat, before each commit
    except FileNotFoundError:
        reason = f"{os.path.basename(name)} was deleted or moved away {_AFTER}"  # noqa: PTH119
        raise StoreLost(path, reason) from None

    return found.st_dev, found.st_ino
