"""Generated call graphs under a virtual clock: whatever goes wrong, they stay sound and their outcomes stay the same.

The seed of a run chooses some examples. `--campaigns all` takes a fixed set of them, and `--campaigns 20` twenty times
as many, other ones each time.
"""

from __future__ import annotations

import time
from typing import Any, Final

import pytest
from hypothesis import given, note, strategies as st

from ..chosen import CHOSEN
from .chaos import Failure, Mishap, Script
from .examples import examples
from .graphs import ROOT, External, Flow, Leaf, Plan, Sleep
from .play import Story, play
from .strategies import SETTINGS, failures, mishaps, plans

pytestmark = pytest.mark.timeout(120 * max(1, 4 * CHOSEN.campaigns))

_SHRINKING: Final = 25 * max(1, CHOSEN.campaigns)
"""Seconds in which a failing example is made smaller."""

ORDERS: Final = st.integers(0, 9)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the backend that examples run on."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _short_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else pytest ends the test for its length before it can show the example that fails.
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", _SHRINKING)


def told(story: Story) -> Story:
    """The story, shown if the example fails."""
    for line in story.happened:
        note(line)
    for id, result in story.outcomes.items():
        note(f"{id}: {result}")
    return story


def check_same(plan: Plan, backend: str, **troubles: Any) -> None:
    """See that a plan comes to the same, soundly, with and without troubles."""
    calm = play(plan, backend)
    story = told(play(plan, backend, calm.script(**troubles)))
    assert [] == story.faults
    assert calm.outcomes == story.outcomes


@examples(120)
@given(plan=plans(), order=ORDERS, settings=SETTINGS)
def test_calm(backend: str, plan: Plan, order: int, settings: dict[str, Any]) -> None:
    """When nothing goes wrong the call graph is sound at every instant, and everything ends before its time is up."""
    story = told(play(plan, backend, Script(order=order, settings=settings)))
    assert [] == story.faults
    assert "rejected_timedout" != story.outcomes[ROOT][0][0]


@examples(50)
@given(plan=plans(), order=ORDERS, settings=SETTINGS)
def test_settings(backend: str, plan: Plan, order: int, settings: dict[str, Any]) -> None:
    """However executions that wait are kept, and whoever's turn it is, every outcome is the same."""
    check_same(plan, backend, order=order, settings=settings)


@examples(150)
@given(plan=plans(), failures=failures(3), order=ORDERS, settings=SETTINGS)
def test_failures(backend: str, plan: Plan, failures: list[Failure], order: int, settings: dict[str, Any]) -> None:
    """When processes die and requests fail, the call graph is sound at every instant and every outcome is the same."""
    check_same(plan, backend, failures=failures, order=order, settings=settings)


@examples(80)
@given(plan=plans(waits=7), mishaps=mishaps(6), order=ORDERS, settings=SETTINGS)
def test_mishaps(backend: str, plan: Plan, mishaps: list[Mishap], order: int, settings: dict[str, Any]) -> None:
    """When messages are lost, late, repeated or untrue, the call graph is sound and every outcome is the same."""
    check_same(plan, backend, mishaps=mishaps, order=order, settings=settings)


@examples(100)
@given(plan=plans(waits=7), failures=failures(3), mishaps=mishaps(3), order=ORDERS, settings=SETTINGS)
def test_everything(
    backend: str,
    plan: Plan,
    failures: list[Failure],
    mishaps: list[Mishap],
    order: int,
    settings: dict[str, Any],
) -> None:
    """When everything goes wrong at once, the call graph is sound and every outcome is the same."""
    check_same(plan, backend, failures=failures, mishaps=mishaps, order=order, settings=settings)


def test_days_pass_at_once(backend: str) -> None:
    """An example of a year takes no time worth mentioning, also when it is put away and taken up again."""
    plan = Plan(flow=Flow((Sleep(length=10), Leaf(work=9), External(settled=8))))
    began = time.process_time()
    story = play(plan, backend, Script(settings={"hot_for": 0, "parked_limit": 0}))
    assert time.process_time() - began < 5
    assert [] == story.faults
    assert 365 < story.lasted / 86_400
