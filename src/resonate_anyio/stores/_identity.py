"""Which files an open store stands on, told by device and inode, and which files it does not take.

The owner's lock is found by the name of the file, so a file with two names could have two owners: those are refused. A
file that is deleted or replaced while it is in use keeps working for who has it open, and is gone afterwards: so it is
looked at before each commit. That takes microseconds, and opens nothing (see `_lock` for why that matters).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from attrs import frozen

from .._errors import StoreError, StoreLost
from ._mounts import MOUNTS, is_mounted

_Key: TypeAlias = tuple[int, int]

_AFTER: Final = (
    "while it was in use, so what was recorded since then may not be in it. Stop whatever moves or deletes it, put the "
    "right file in place (without the -wal and -shm files of another one), and start again"
)


def refuse_unusual(path: str, mounts: Path = MOUNTS) -> None:
    """Refuse what is no ordinary file, and a file that has more than one name.

    Args:
        path: an absolute path without symbolic links.
        mounts: the system's list of mounts.

    Raises:
        StoreError: it is such a file.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - a path is a str here, as SQLite wants it
    except OSError:
        # It is to be made, or SQLite will say what is wrong.
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


@frozen
class Files:
    """The files of an open store, as they were when it was opened."""

    _path: str
    _keys: Mapping[str, _Key]

    @classmethod
    def at(cls, path: str, names: Iterable[str]) -> Files:
        """Note the files `names`, which exist, of the database `path`.

        Raises:
            StoreLost: one of them is gone already.
        """
        return cls(path, {name: _key_of(path, name) for name in names})

    def check(self) -> None:
        """See that they are still in place.

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
