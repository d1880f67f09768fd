"""Fixtures of the table: two workers on one engine, and a diary of what runs on them."""

from __future__ import annotations

from typing import Any

import pytest

from resonate_anyio import Resonate

from ..harness import Wire
from .cast import Diary, Start, knowing


@pytest.fixture
def diary() -> Diary:
    """What the code of the workflows and of their calls has done."""
    return Diary()


@pytest.fixture
def resonate(wire: Wire, diary: Diary) -> Resonate:
    """The worker that runs the workflow."""
    return knowing(Resonate(network=wire, pid="p"), diary)


@pytest.fixture
def elsewhere(wire: Wire, diary: Diary) -> Resonate:
    """A worker of another group, which remote calls go to."""
    return knowing(Resonate(network=wire, pid="q", group="elsewhere"), diary)


@pytest.fixture(params=["awaited", "spawned"])
def start(request: pytest.FixtureRequest) -> Start:
    """How a workflow makes its call: it waits for it, or it spawns it and returns, to be joined."""

    async def start(call: Any) -> object:
        return await call if request.param == "awaited" else await call.spawn()

    return start
