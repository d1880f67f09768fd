"""A client on an embedded engine in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from resonate_anyio import Resonate
from resonate_anyio.abc import Clock, Network
from resonate_anyio.stores import MemoryStore

from ..chosen import network_on

Make: TypeAlias = Callable[..., Resonate]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "HOST", "PORT", "TOKEN", "PREFIX"):
        monkeypatch.delenv(f"RESONATE_{name}", raising=False)


@pytest.fixture
def network(clock: Clock) -> Network:
    """An engine in memory that several clients may share."""
    # Without the sweep that hides forgotten timers, and that takes long where years pass in no time.
    return network_on(MemoryStore(), clock, safety_sweep=math.inf)


@pytest.fixture
def make(network: Network) -> Make:
    """Make a client on the test's engine, with any further settings."""

    def make(**settings: Any) -> Resonate:
        return Resonate(network=network, **settings)

    return make


@pytest.fixture
def resonate(make: Make) -> Resonate:
    """A client, not started."""
    return make()
