"""SQLite's errors in words: what went wrong with which file, and what to do about it."""

from __future__ import annotations

import sqlite3
from typing import Final

from .._errors import StoreError, StoreLost, StoreUnavailable

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


_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

# Faults that may pass, by themselves or when they are mended. Until then the file is as it was.
_PASSING: Final = _LOCKED | {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_INTERRUPT,
}
_LOST: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def code_of(error: sqlite3.Error) -> int | None:
    """Give SQLite's primary result code, or None for an error that Python's module found by itself."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY


def named(path: str, error: sqlite3.Error) -> StoreError:
    """Make an error that says which file it is about and what to do, while the file is being opened."""
    reason = _in_words(error)
    # Only a lock is worth waiting for: what else is wrong at the start is for the user to see.
    return StoreUnavailable(path, reason) if code_of(error) in _LOCKED else StoreError(f"{path}: {reason}")


def named_in_use(path: str, error: sqlite3.Error) -> StoreError:
    """The same while the file is in use: what passes is a `StoreUnavailable`, damage a `StoreLost`."""
    code, reason = code_of(error), _in_words(error)
    if code in _PASSING:
        return StoreUnavailable(path, reason)

    if code in _LOST:
        return StoreLost(path, reason)

    return (RowTooLarge if code == sqlite3.SQLITE_TOOBIG else StoreError)(f"{path}: {reason}")


def _in_words(error: sqlite3.Error) -> str:
    advice = _ADVICE.get(code_of(error) or 0)
    return str(error) if advice is None else f"{error}: {advice}"
