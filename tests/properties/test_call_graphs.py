"""Generated call graphs under a virtual clock: whatever goes wrong, they stay sound and their outcomes stay the same.

A run has a fixed set of examples. `RESONATE_EXAMPLES=20` takes twenty times as many, other ones each time; pytest needs
`--timeout=0 -o faulthandler_timeout=0` then.
"""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import Phase, given, note, settings

from .chaos import Failure, Mishap
from .graphs import ROOT, Plan
from .play import Story, play
from .strategies import failures, mishaps, plans

_FACTOR: Final = int(os.environ.get("RESONATE_EXAMPLES", "1"))


def examples(count: int) -> settings:
    """Settings for about `count` examples."""
    return settings(
        max_examples=count * _FACTOR,
        derandomize=_FACTOR == 1,
        print_blob=True,
        # The phase that explains a failure takes longer than all others.
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the backend that examples run on."""
    name: str = request.param
    return name


def told(story: Story) -> Story:
    """The story, shown if the example fails."""
    for line in story.happened:
        note(line)
    for id, result in story.outcomes.items():
        note(f"{id}: {result}")
    return story


@examples(400)
@given(plan=plans())
def test_calm(backend: str, plan: Plan) -> None:
    """When nothing goes wrong the call graph is sound at every instant, and everything ends before its time is up."""
    story = told(play(plan, backend))
    assert [] == story.faults
    assert "rejected_timedout" != story.outcomes[ROOT][0]


@examples(400)
@given(plan=plans(), happening=failures(3))
def test_failures(backend: str, plan: Plan, happening: list[Failure]) -> None:
    """When processes die and requests fail, the call graph is sound at every instant and every outcome is the same."""
    calm = play(plan, backend)
    story = told(play(plan, backend, calm.script(failures=happening)))
    assert [] == story.faults
    assert calm.outcomes == story.outcomes


@examples(200)
@given(plan=plans(), happening=mishaps(6))
def test_mishaps(backend: str, plan: Plan, happening: list[Mishap]) -> None:
    """When messages are lost, late, repeated or untrue, the call graph is sound and every outcome is the same."""
    calm = play(plan, backend)
    story = told(play(plan, backend, calm.script(mishaps=happening)))
    assert [] == story.faults
    assert calm.outcomes == story.outcomes


@examples(200)
@given(plan=plans(), failing=failures(4), happening=mishaps(4))
def test_everything(backend: str, plan: Plan, failing: list[Failure], happening: list[Mishap]) -> None:
    """When everything goes wrong at once, the call graph is sound and every outcome is the same."""
    calm = play(plan, backend)
    story = told(play(plan, backend, calm.script(failures=failing, mishaps=happening)))
    assert [] == story.faults
    assert calm.outcomes == story.outcomes
