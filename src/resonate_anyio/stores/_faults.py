"""SQLite's errors in words: what went wrong with which file, and what to do about it."""

from __future__ import annotations

import sqlite3
from typing import Final

from .._errors import StoreError

# Extended result codes keep the primary one in their lowest byte.
_PRIMARY: Final = 0xFF

_DAMAGED: Final = (
    "the file is damaged or no SQLite database; restore a backup, or save what can be saved with "
    "`sqlite3 FILE .recover`"
)
_FORBIDDEN: Final = "the file or its directory cannot be written; check that the directory exists and its permissions"
_BUSY: Final = (
    "another program holds the file's write lock; reading it with SQLite tools is fine, but end the other program's "
    "write transaction"
)

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "there is no room left on the disk or below the file's size limit; make room and try again",
    sqlite3.SQLITE_IOERR: "the disk failed; look into the system's log, and do not trust the disk",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_READONLY: _FORBIDDEN,
    sqlite3.SQLITE_PERM: _FORBIDDEN,
    sqlite3.SQLITE_CANTOPEN: _FORBIDDEN,
    sqlite3.SQLITE_TOOBIG: "a value is larger than SQLite can hold; keep large data elsewhere and record where",
}


class RowTooLarge(StoreError):
    """SQLite cannot hold a row that is so large; nothing was written. `LocalNetwork` says which request it was."""


def code_of(error: sqlite3.Error) -> int | None:
    """Give SQLite's primary result code, or None for an error that Python's module found by itself."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY


def named(path: str, error: sqlite3.Error) -> StoreError:
    """Make an error that says which file it is about and what to do."""
    advice = _ADVICE.get(code_of(error) or 0)
    if code_of(error) == sqlite3.SQLITE_TOOBIG:
        return RowTooLarge(f"{path}: {error}: {advice}")
    return StoreError(f"{path}: {error}" if advice is None else f"{path}: {error}: {advice}")
