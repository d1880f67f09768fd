"""The stores of the embedded engine: its state is kept in memory, or in one SQLite file."""

from __future__ import annotations

import typing

from ._memory import MemoryStore as MemoryStore

if typing.TYPE_CHECKING:
    from ._sqlite import SQLiteStore as SQLiteStore

__all__ = ("MemoryStore", "SQLiteStore")


def __getattr__(name: str) -> object:
    # Only programs that keep their state in a file wait for the import of what that takes.
    if name == "SQLiteStore":
        from ._sqlite import SQLiteStore  # noqa: PLC0415

        return SQLiteStore
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
