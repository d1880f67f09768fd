"""The stores of the embedded engine: its state is kept in memory, or in one SQLite file."""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from ._memory import MemoryStore as MemoryStore
    from ._sqlite import SQLiteStore as SQLiteStore

__all__ = ("MemoryStore", "SQLiteStore")

# Only programs that keep their state here wait for the import of what that takes.
_LATER: typing.Final = {"MemoryStore": "._memory", "SQLiteStore": "._sqlite"}


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name], __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
