"""Whatever the instant at which a process is killed, what comes of its workflow is the same."""

from __future__ import annotations

import pytest

from . import corpus  # noqa: F401 - fills it
from .crashes import Trial
from .lives import Platform
from .scenarios import CORPUS, Scenario


@pytest.mark.parametrize("scenario", CORPUS.values(), ids=CORPUS)
async def test_every_crash(scenario: Scenario) -> None:
    """Killed before and after each of its requests, a workflow ends as it does without, and leaves nothing behind."""
    trial = Trial(scenario, Platform())
    life = await trial.without_crash()
    for point in life.points:
        await trial.crash_at(point)
    assert "" == "\n".join(trial.complaints)
