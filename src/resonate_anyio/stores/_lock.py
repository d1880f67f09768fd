"""The lock that makes one engine the owner of a database file.

It is a transaction that is never ended, on a SQLite file of its own beside the database. So the lock is portable, it is
gone with the process however that ends, a forked child does not inherit it, and readers of the database are not
disturbed. The lock file stays where it is: a file that is removed while somebody waits for its lock locks nothing.

Never open the lock file or the database but through SQLite: on POSIX, closing any descriptor of a file drops every lock
that the process holds on it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from .._errors import StoreInUse
from ._faults import code_of, named

_SUFFIX: Final = "-owner"


def lock_file(path: str) -> str:
    """Give the path of the lock file that belongs to a database file."""
    return path + _SUFFIX


def lock(path: str) -> sqlite3.Connection:
    """Become the owner of a database file until the connection that is returned is closed.

    Args:
        path: an absolute path without symbolic links, so that every name of the file leads to one lock.

    Raises:
        StoreInUse: another engine owns it, in this process or in another.
        StoreError: the lock file cannot be used.
    """
    try:
        connection = sqlite3.connect(lock_file(path), timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise named(path, error) from error

    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        connection.close()
        if code_of(error) == sqlite3.SQLITE_BUSY:
            pid = _owner(path)
            raise StoreInUse(path, pid, here=pid == os.getpid()) from None

        raise named(lock_file(path), error) from error

    return connection


def sign(database: sqlite3.Connection, pid: int) -> None:
    """Record the owner's process id in the database, where an engine that is refused can read it."""
    database.execute(
        "INSERT INTO owner (only, pid) VALUES (1, ?) ON CONFLICT (only) DO UPDATE SET pid = excluded.pid", (pid,)
    )


def open_for_reading(path: str) -> sqlite3.Connection:
    """Connect without the right to write."""
    return sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, timeout=0.1, isolation_level=None)


def _owner(path: str) -> int | None:
    try:
        with closing(open_for_reading(path)) as database:
            row = database.execute("SELECT pid FROM owner").fetchone()
    except sqlite3.Error:
        # The owner has not come as far as making the table; that it owns the file is certain all the same.
        return None

    return None if row is None else int(row[0])
