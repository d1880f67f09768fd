"""An embedded engine in memory, and who connects to it."""

from __future__ import annotations

import pytest

from resonate_anyio.abc import Clock
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.stores import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    """Where the engine keeps its state."""
    return MemoryStore()


@pytest.fixture
def network(store: MemoryStore, clock: Clock) -> LocalNetwork:
    """A network that nobody has connected to."""
    return LocalNetwork(store, clock=clock, safety_sweep=60)
