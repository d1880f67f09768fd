"""Whatever the instant at which a process is killed, what comes of its workflow is the same.

A failure names the workflow, the request before or after which its process was killed, and what differs.
"""

from __future__ import annotations

import asyncio
import random
import sys
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

import pytest

from resonate_anyio.stores import SQLiteStore

from ..chosen import CHOSEN
from .corpus import CORPUS
from .crashes import Trial, crash_everywhere, crash_somewhere, crash_twice, stop_somewhere
from .lives import Platform
from .scenarios import Scenario

each_scenario = pytest.mark.parametrize("scenario", CORPUS.values(), ids=CORPUS)
all_of_them = pytest.mark.skipif(not CHOSEN.exhaustive, reason="a sample is taken instead: test_sample")

WAYS: Final = {
    "hot": Platform(),
    "parked": Platform(settings={"hot_for": 0}),
    "unloaded": Platform(settings={"hot_for": 0, "parked_limit": 0}),
    "downtime": Platform(downtime=7),
    "outlived": Platform(outlived=True),
}

SAMPLE: Final = list(zip(random.Random("resonate").sample(sorted(CORPUS), 50), cycle(WAYS), strict=False))  # noqa: S311
"""Fifty crashes, for where not all are tried: of which workflow, and in which way it goes on."""


@pytest.mark.parametrize(("name", "way"), SAMPLE)
async def test_sample(name: str, way: str) -> None:
    """Killed before or after one of its requests, a workflow ends as it does otherwise, over any network."""
    trial = Trial(CORPUS[name], WAYS[way])
    await crash_somewhere(trial, count=1)
    assert "" == "\n".join(trial.complaints)


@all_of_them
@each_scenario
async def test_every_crash(scenario: Scenario) -> None:
    """Killed before or after any of its requests, a workflow ends as it does otherwise, and leaves nothing behind."""
    trial = Trial(scenario)
    await crash_everywhere(trial)
    assert "" == "\n".join(trial.complaints)


@all_of_them
@each_scenario
@pytest.mark.parametrize("settings", [{"hot_for": 0}, {"hot_for": 0, "parked_limit": 0}], ids=["parked", "unloaded"])
async def test_crash_while_put_away(scenario: Scenario, settings: dict[str, Any]) -> None:
    """It makes no difference whether what waits is hot, parked at once, or not even kept in memory."""
    trial = Trial(scenario, Platform(settings=settings))
    await crash_somewhere(trial, count=3)
    assert "" == "\n".join(trial.complaints)


@all_of_them
@each_scenario
async def test_second_crash(scenario: Scenario) -> None:
    """The same holds when the process that takes over is killed as well."""
    trial = Trial(scenario)
    await crash_twice(trial, count=1)
    assert "" == "\n".join(trial.complaints)


@all_of_them
@each_scenario
async def test_crash_and_downtime(scenario: Scenario) -> None:
    """If nobody runs for a while, deadlines pass; but all comes to an end, and what is on record is not done again."""
    trial = Trial(scenario, Platform(downtime=7))
    await crash_somewhere(trial, count=2)
    assert "" == "\n".join(trial.complaints)


@all_of_them
@each_scenario
async def test_crash_that_the_server_outlives(scenario: Scenario) -> None:
    """If the leases of the dead have to lapse first, the next process takes over all the same."""
    trial = Trial(scenario, Platform(outlived=True))
    await crash_somewhere(trial, count=2)
    assert "" == "\n".join(trial.complaints)


@all_of_them
@each_scenario
async def test_stop(scenario: Scenario) -> None:
    """An orderly stop loses nothing and leaves no lease, and neither does dying over a request of the stop itself."""
    trial = Trial(scenario)
    await stop_somewhere(trial, count=1)
    assert "" == "\n".join(trial.complaints)


@all_of_them
@each_scenario
@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has eager tasks from Python 3.12 on")
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_crash_under_eager_tasks(scenario: Scenario) -> None:
    """The same holds if tasks begin to run at once, before whoever starts them goes on."""
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    asyncio.get_running_loop().set_task_factory(factory)
    trial = Trial(scenario)
    await crash_somewhere(trial, count=4)
    assert "" == "\n".join(trial.complaints)


@all_of_them
@pytest.mark.parametrize("name", ["sequence", "failure_cancels", "group_failing", "rpc_to_another_group"])
async def test_crash_over_a_file(name: str, tmp_path: Path) -> None:
    """The store makes no difference."""
    files = count()
    trial = Trial(CORPUS[name], Platform(store=lambda: SQLiteStore(tmp_path / f"{next(files)}.db")))
    await crash_somewhere(trial, count=12)
    assert "" == "\n".join(trial.complaints)
