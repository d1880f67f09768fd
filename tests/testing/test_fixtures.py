"""What tests/conftest.py promises to every other test."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from resonate_anyio.abc import Clock
from resonate_anyio.testing import VirtualClock
from tests.conftest import WALL_LIMIT, leaving_no_tasks


async def test_time_is_virtual(clock: Clock) -> None:
    """An async test has a fresh loop whose time is virtual, and a clock that follows it."""
    assert isinstance(clock, VirtualClock)
    assert anyio.current_time() < 1


@pytest.mark.wall
async def test_wall_time_is_real(clock: Clock) -> None:
    """A test marked `wall` reads the machine's clock."""
    assert time.time() * 1000 == pytest.approx(clock(), abs=10_000)


@pytest.mark.wall
def test_a_wall_test_has_a_limit(request: pytest.FixtureRequest) -> None:
    """A test marked `wall` is ended after a while even if it does not say when."""
    marker = request.node.get_closest_marker("timeout")

    assert marker is not None
    assert (WALL_LIMIT,) == marker.args


@pytest.mark.wall(limit=7)
def test_a_wall_test_says_its_limit(request: pytest.FixtureRequest) -> None:
    """The limit of a test marked `wall` is the one that it names."""
    marker = request.node.get_closest_marker("timeout")

    assert marker is not None
    assert (7,) == marker.args


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_left_behind_fails_its_test() -> None:
    """A test that ends before a task that it started is not a good one."""
    event = asyncio.Event()
    tasks: list[asyncio.Task[bool]] = []

    async def leave_a_task() -> None:
        tasks.append(asyncio.create_task(event.wait()))

    with pytest.raises(AssertionError):
        await leaving_no_tasks(leave_a_task)()

    event.set()
    await tasks[0]


async def test_a_task_of_a_fixture_is_not_left_behind() -> None:
    """A task that has an owner is no leak, even if it outlives the test."""
    async with anyio.create_task_group() as owner:

        async def start_a_task() -> None:
            owner.start_soon(anyio.sleep, 1)

        await leaving_no_tasks(start_a_task)()
