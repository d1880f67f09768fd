"""Stores to run the machine on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from resonate_anyio._protocol import Rules
from resonate_anyio.abc import Store
from resonate_anyio.stores import MemoryStore, SQLiteStore

from .server import Server


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """A factory of new, empty stores of every sort."""
    numbers = count()
    if request.param == "memory":
        return MemoryStore

    return lambda: SQLiteStore(tmp_path / f"{next(numbers)}.db")


@pytest.fixture
def serve(make_store: Callable[[], Store]) -> Iterator[Callable[[Rules], Server]]:
    """Start a server under the given rules."""
    started: list[Server] = []

    def start(rules: Rules) -> Server:
        started.append(Server(make_store, rules))
        return started[-1]

    yield start
    for server in started:
        server.close()
