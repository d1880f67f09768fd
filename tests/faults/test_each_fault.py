"""Each fault by itself, at each kind of request that the job makes."""

from __future__ import annotations

import pytest

from resonate_anyio.abc import Clock

from .play import play, told
from .weather import STREAM, Effect, Trick, Trouble

KINDS = (
    "task.create",
    "task.acquire",
    "task.heartbeat",
    "task.fence",
    "task.suspend",
    "task.fulfill",
    "promise.create",
    "promise.settle",
    "promise.register_listener",
)
"""What the job says when nothing goes wrong."""

CALM = 109.0
"""Seconds that the job takes at most when nothing goes wrong."""

DELAY = 20.0
"""Seconds that one fault delays it by at most: a request's timeout, and the first pauses before it is sent again."""

LATE = 70.0
"""Seconds: more than a lease lasts."""


async def test_calm(clock: Clock) -> None:
    """Without trouble the job comes to its result, runs each step once, and says each of the kinds of request."""
    story = await play(clock)
    assert [] == story.faults
    assert [] == story.errors
    assert {} == story.site.runs.repeated()
    assert story.took < CALM
    assert {*KINDS, STREAM} <= set(story.site.meter.kinds)
    assert 12 == len(story.site.runs.counts)


@pytest.mark.parametrize(("kind", "nth"), [*((kind, 0) for kind in KINDS), ("promise.create", 5), ("task.acquire", 2)])
@pytest.mark.parametrize("effect", Effect)
async def test_one_request_fails(clock: Clock, effect: Effect, kind: str, nth: int) -> None:
    """Whatever becomes of a request or of its answer, nothing is lost, nothing runs twice, and soon all goes on."""
    story = await play(clock, Trouble(what=effect, kind=kind, nth=nth, seconds=LATE if effect.takes_time else 0))
    assert [] == story.faults, told(story)
    assert [] == story.errors
    assert {} == story.site.runs.repeated(), told(story)
    assert 1 == len(story.site.weather.happened)
    assert story.took < CALM + DELAY, told(story)


@pytest.mark.parametrize("trick", Trick)
async def test_one_stream_fails(clock: Clock, trick: Trick) -> None:
    """Whatever becomes of a stream of messages, nothing is lost and nothing runs twice."""
    story = await play(clock, *(Trouble(what=trick, who=who, seconds=45) for who in ("near", "far")))
    assert [] == story.faults, told(story)
    assert {} == story.site.runs.repeated(), told(story)
    assert 2 == len(story.site.weather.happened)
