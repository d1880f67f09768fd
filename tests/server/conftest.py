"""The application on stores of every sort."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from resonate_anyio._protocol import EMBEDDED, Rules
from resonate_anyio.abc import Clock, Store
from resonate_anyio.networks import LocalNetwork
from resonate_anyio.server import App, make_app
from resonate_anyio.stores import MemoryStore, SQLiteStore

from ..asgi_transport import asgi_transport

Start: TypeAlias = Callable[..., AbstractAsyncContextManager[App]]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "engine.db")


@pytest.fixture
def network(store: Store, clock: Clock) -> Callable[[Rules], LocalNetwork]:
    """An engine under the given rules, whose leases are of other processes."""
    return lambda rules: LocalNetwork(store, rules=rules, clock=clock, keep_leases=True)


@pytest.fixture
def start(network: Callable[[Rules], LocalNetwork]) -> Start:
    """Start an application under the given rules."""

    @asynccontextmanager
    async def started(rules: Rules = EMBEDDED, **options: Any) -> AsyncIterator[App]:
        app = make_app(network(rules), **options)
        async with asgi_transport(app):
            yield app

    return started
