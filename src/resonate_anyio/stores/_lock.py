"""The lock that makes one engine the owner of a database file.

The lock is a transaction that is never ended, on a SQLite file of its own beside the database. So the lock is portable,
it is released when the process ends in any way, a forked child does not inherit it, and readers of the database are not
blocked. The lock file is never removed: a file that is removed while a process waits for its lock locks nothing.

Open the lock file and the database through SQLite only. On POSIX, closing any descriptor of a file releases every lock
that the process holds on the file.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from .._errors import StoreInUse
from ._faults import code_of, error_on_open

_SUFFIX: Final = "-owner"


def lock_file(path: str) -> str:
    """Return the path of the lock file of a database file."""
    return path + _SUFFIX


def lock(path: str) -> sqlite3.Connection:
    """Become the owner of a database file until the returned connection is closed.

    Args:
        path: an absolute path without symbolic links, so that every link to the file leads to one lock.

    Raises:
        StoreInUse: another engine owns it, in this process or in another.
        StoreError: the lock file cannot be used.
    """
    try:
        connection = sqlite3.connect(lock_file(path), timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise error_on_open(path, error) from error

    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        connection.close()
        if code_of(error) == sqlite3.SQLITE_BUSY:
            pid = _owner(path)
            raise StoreInUse(path, pid, here=pid == os.getpid()) from None

        raise error_on_open(lock_file(path), error) from error

    return connection


def sign(database: sqlite3.Connection, pid: int) -> None:
    """Record the owner's process id in the database, so that an engine that is refused can name the owner."""
    database.execute(
        "INSERT INTO owner (only, pid) VALUES (1, ?) ON CONFLICT (only) DO UPDATE SET pid = excluded.pid", (pid,)
    )


def open_for_reading(path: str) -> sqlite3.Connection:
    """Open a read-only connection."""
    return sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, timeout=0.1, isolation_level=None)


def _owner(path: str) -> int | None:
    try:
        with closing(open_for_reading(path)) as database:
            row = database.execute("SELECT pid FROM owner").fetchone()
    except sqlite3.Error:
        # The owner has not created the table yet. It owns the file nevertheless.
        return None

    return None if row is None else int(row[0])
