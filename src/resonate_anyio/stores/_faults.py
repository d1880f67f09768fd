"""SQLite's errors as errors of this package: they name the file, the problem and what to do about it."""

from __future__ import annotations

import sqlite3
from typing import Final

from .._errors import StoreError, StoreLost, StoreUnavailable
from ._too_large import RowTooLarge

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


_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

# Faults that may pass by themselves, or when a person removes their cause. Until then the file does not change.
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
    """Return SQLite's primary result code, or None for an error that Python's module raised by itself."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY


def error_on_open(path: str, error: sqlite3.Error) -> StoreError:
    """Return the error to raise for an error of SQLite while the file is being opened."""
    reason = _reason(error)
    # Only a lock is waited for: the user has to see any other fault at the start.
    return StoreUnavailable(path, reason) if code_of(error) in _LOCKED else StoreError(f"{path}: {reason}")


def error_in_use(path: str, error: sqlite3.Error) -> StoreError:
    """Return the error to raise while the file is in use: `StoreUnavailable` if it may pass, `StoreLost` for damage."""
    code, reason = code_of(error), _reason(error)
    if code in _PASSING:
        return StoreUnavailable(path, reason)

    if code in _LOST:
        return StoreLost(path, reason)

    return (RowTooLarge if code == sqlite3.SQLITE_TOOBIG else StoreError)(f"{path}: {reason}")


def _reason(error: sqlite3.Error) -> str:
    advice = _ADVICE.get(code_of(error) or 0)
    return str(error) if advice is None else f"{error}: {advice}"
