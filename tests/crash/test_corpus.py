"""Whatever the instant at which a process is killed, what comes of its workflow is the same.

A failure names the workflow, the request before or after which its process was killed, and what differs.
`--campaigns all` tries each crash point of each workflow. Otherwise the seed chooses some, and in which other ways a
workflow is tried.
"""

from __future__ import annotations

from itertools import count
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
each_once = pytest.mark.sampled(one_in=1, elsewhere=4)
each_in_one_way = pytest.mark.sampled(one_in=6, elsewhere=24)

POINTS: Final = 4
"""At how many points a workflow is killed in a run that does not try all of them."""


@each_once
@each_scenario
async def test_every_crash(scenario: Scenario) -> None:
    """Killed before or after any of its requests, a workflow ends as it does otherwise, and leaves nothing behind."""
    trial = Trial(scenario)
    await (crash_everywhere(trial) if CHOSEN.whole else crash_somewhere(trial, count=POINTS))
    assert "" == "\n".join(trial.complaints)


@each_in_one_way
@each_scenario
@pytest.mark.parametrize("settings", [{"hot_for": 0}, {"hot_for": 0, "parked_limit": 0}], ids=["parked", "unloaded"])
async def test_crash_while_put_away(scenario: Scenario, settings: dict[str, Any]) -> None:
    """It makes no difference whether what waits is hot, parked at once, or not even kept in memory."""
    trial = Trial(scenario, Platform(settings=settings))
    await crash_somewhere(trial, count=3)
    assert "" == "\n".join(trial.complaints)


@each_in_one_way
@each_scenario
async def test_second_crash(scenario: Scenario) -> None:
    """The same holds when the process that takes over is killed as well."""
    trial = Trial(scenario)
    await crash_twice(trial, count=1)
    assert "" == "\n".join(trial.complaints)


@each_in_one_way
@each_scenario
async def test_crash_and_downtime(scenario: Scenario) -> None:
    """If nobody runs for a while, deadlines pass; but all comes to an end, and what is on record is not done again."""
    trial = Trial(scenario, Platform(downtime=7))
    await crash_somewhere(trial, count=2)
    assert "" == "\n".join(trial.complaints)


@each_in_one_way
@each_scenario
async def test_crash_that_the_server_outlives(scenario: Scenario) -> None:
    """If the leases of the dead have to lapse first, the next process takes over all the same."""
    trial = Trial(scenario, Platform(outlived=True))
    await crash_somewhere(trial, count=2)
    assert "" == "\n".join(trial.complaints)


@each_in_one_way
@each_scenario
async def test_stop(scenario: Scenario) -> None:
    """An orderly stop loses nothing and leaves no lease, and neither does dying over a request of the stop itself."""
    trial = Trial(scenario)
    await stop_somewhere(trial, count=1)
    assert "" == "\n".join(trial.complaints)


@pytest.mark.sampled(one_in=2, elsewhere=8)
@pytest.mark.parametrize("name", ["sequence", "failure_cancels", "group_failing", "rpc_to_another_group"])
async def test_crash_over_a_file(name: str, tmp_path: Path) -> None:
    """The store makes no difference."""
    files = count()
    trial = Trial(CORPUS[name], Platform(store=lambda: SQLiteStore(tmp_path / f"{next(files)}.db")))
    await crash_somewhere(trial, count=12 if CHOSEN.whole else POINTS)
    assert "" == "\n".join(trial.complaints)
