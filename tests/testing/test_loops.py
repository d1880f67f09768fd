"""The loops that `--asyncio` chooses from keep virtual time as the usual one does."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import anyio
import pytest
from anyio import to_thread

from ..loops import KINDS, options

pytestmark = pytest.mark.embedded("no network is used")


@pytest.fixture(params=[*KINDS])
def given(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options for a run in virtual time."""
    kind: str = request.param
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    if kind == "eager" and sys.version_info < (3, 12):
        pytest.skip("asyncio has eager tasks from Python 3.12 on")
    return options(kind, virtual=True)


def test_timers_fire_in_their_order(given: dict[str, Any]) -> None:
    """A year takes no time, and each timer fires at its instant, also one that is set by what another has started."""
    fired: list[tuple[str, float]] = []

    async def tick(name: str, seconds: float) -> None:
        for _ in range(2):
            await anyio.sleep(seconds)
            fired.append((name, anyio.current_time()))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick, "a", 1)
            tasks.start_soon(tick, "b", 1.5)
            tasks.start_soon(tick, "c", 365 * 86_400)
            with anyio.move_on_after(2.5):
                await anyio.sleep_forever()
            fired.append(("moved on", anyio.current_time()))

    anyio.run(main, backend_options=given)
    year = 365 * 86_400
    assert [("a", 1), ("b", 1.5), ("a", 2), ("moved on", 2.5), ("b", 3), ("c", year), ("c", 2 * year)] == fired


def test_threads_are_waited_for(given: dict[str, Any]) -> None:
    """While a thread works, time passes as on the wall: a timer does not fire before it is due."""

    async def main() -> None:
        with anyio.fail_after(60):
            await to_thread.run_sync(time.sleep, 0.05)
        assert 0.04 < anyio.current_time() < 30

    anyio.run(main, backend_options=given)


def test_the_loop_is_what_was_chosen() -> None:
    """Debug mode and eager tasks are on where they were asked for."""

    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        return loop.get_debug(), loop.get_task_factory() is not None

    assert (False, False) == anyio.run(main, backend_options=options("plain", virtual=True))
    assert (True, False) == anyio.run(main, backend_options=options("debug", virtual=True))
    if sys.version_info >= (3, 12):
        assert (False, True) == anyio.run(main, backend_options=options("eager", virtual=True))
