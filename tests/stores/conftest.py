"""Stores and changes to write into them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resonate_anyio.stores import SQLiteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database file may be made."""
    return tmp_path / "engine.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    """An open store in a file."""
    store = SQLiteStore(path)
    store.open()
    yield store
    store.close()
