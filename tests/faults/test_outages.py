"""The server is away for longer than leases last, or a worker is cut off from it, at any moment of a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import create_task_group, current_time

from resonate_anyio import NetworkError, Resonate
from resonate_anyio.abc import Clock

from .job import FAR, RESULT, job, pair
from .play import play, told
from .site import Site

AWAY = 300.0
"""Seconds that the server is away: five times as long as a lease."""

SOON = 120.0
"""Seconds after which everything goes on again: the longest pause between two attempts is one minute."""

MOMENTS = {
    "while a step runs": 1.0,
    "while steps run side by side": 5.0,
    "while another worker has something to do": 9.0,
    "while it sleeps, parked": 50.0,
    "while it waits for somebody outside": 100.0,
    "while another worker has the last to do": 104.5,
}
"""When things happen in the job, in seconds from its start."""


@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_server_is_away(clock: Clock, moment: str) -> None:
    """Everything waits and goes on after that; nothing is lost, nothing runs twice, and nobody is told."""

    async def meanwhile(site: Site) -> None:
        await anyio.sleep(MOMENTS[moment])
        async with site.down():
            await anyio.sleep(AWAY)

    story = await play(clock, meanwhile=meanwhile)
    print(story.site.meter.busiest(1), story.site.meter.busiest(60), story.site.meter.most_repeated(60), story.took)
    assert [] == story.faults, told(story)
    assert {} == story.site.runs.repeated(), told(story)
    assert story.took < 110 + AWAY + SOON
