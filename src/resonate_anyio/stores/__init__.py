"""The stores of the embedded engine: its state is kept in memory, or in one SQLite file."""

from ._memory import MemoryStore as MemoryStore
from ._sqlite import SQLiteStore as SQLiteStore

__all__ = ("MemoryStore", "SQLiteStore")
