"""Many faults mixed at random, with outages between them.

The seed of a run chooses some of 25 mixtures. `--campaigns 20` takes twenty times as many.
"""

from __future__ import annotations

import random
from typing import Final

import anyio
import pytest

from resonate_anyio.abc import Clock

from ..chosen import CHOSEN
from .play import play, told
from .site import Site
from .test_each_fault import KINDS
from .weather import mixed

_MIXTURES: Final = 25 * max(1, CHOSEN.campaigns)
"""How many on each backend."""

_PATIENCE: Final = 1800.0
"""Seconds that the job, of less than two minutes, may take when everything comes together."""


@pytest.mark.sampled(one_in=3, elsewhere=10)
@pytest.mark.parametrize("seed", range(_MIXTURES))
async def test_many_faults(clock: Clock, seed: int) -> None:
    """Whatever comes together, nothing is lost, nothing that was finished runs again, nobody asks without a pause."""
    rng = random.Random(seed)  # noqa: S311 - the same in every run
    troubles = mixed(seed, (*KINDS, "task.get", "promise.get", "promise.search"), rng.randint(2, 10), longest=90)

    async def meanwhile(site: Site) -> None:
        for _ in range(rng.randint(0, 2)):
            await anyio.sleep(rng.uniform(0, 60))
            if rng.random() < 0.5:
                async with site.down():
                    await anyio.sleep(rng.choice((1, 10, 100)))
            else:
                cable = site.cables[rng.choice(("near", "far"))]
                cable.unplug()
                await anyio.sleep(rng.choice((1, 10, 100)))
                cable.plug_in()

    story = await play(clock, *troubles, meanwhile=meanwhile)
    assert [] == story.faults, told(story)
    assert story.took < _PATIENCE, told(story)
    # A step runs twice only if its worker lost the lease while it ran.
    assert 2 >= max(story.site.runs.counts.values()), told(story)
