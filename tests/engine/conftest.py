"""Fixtures of the engine's tests: an embedded engine in memory, processes to kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resonate_anyio import Resonate
from resonate_anyio.abc import Clock, Network
from resonate_anyio.stores import MemoryStore, SQLiteStore

from ..chosen import network_on
from .harness import Wire, World


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESONATE_URL", "RESONATE_HOST", "RESONATE_PORT", "RESONATE_PREFIX", "RESONATE_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def network(clock: Clock) -> Network:
    """An engine in memory, for several `Resonate` objects to share."""
    return network_on(MemoryStore(), clock)


@pytest.fixture
def wire(network: Network) -> Wire:
    """What the `resonate` fixture says to its engine."""
    return Wire(network)


@pytest.fixture
def resonate(wire: Wire) -> Resonate:
    """A `Resonate` object that has not been entered yet."""
    return Resonate(network=wire, pid="p")


@pytest.fixture
def world(clock: Clock) -> World:
    """A memory store on which processes start and die."""
    return World(MemoryStore(), clock)


@pytest.fixture
def file_world(clock: Clock, tmp_path: Path) -> Iterator[World]:
    """The same on an SQLite file."""
    store = SQLiteStore(tmp_path / "world.db")
    yield World(store, clock)
    store.close()
