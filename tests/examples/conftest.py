"""The programs in `examples/`, as the tests see them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from resonate_anyio.abc import Clock, Network
from resonate_anyio.stores import MemoryStore

from ..chosen import network_on

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def network(clock: Clock) -> Network:
    """An engine in memory, in the time of the test."""
    return network_on(MemoryStore(), clock)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import an example by its name, anew for each test, as running it does."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(EXAMPLES)
    yield import_module
    for name in set(sys.modules) - before:
        if (EXAMPLES / f"{name}.py").exists():
            del sys.modules[name]
