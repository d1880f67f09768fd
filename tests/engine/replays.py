"""`survives`: a workflow is killed before and after each of its requests, and comes out the same each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import pytest

from resonate_anyio._protocol import Promise
from tests.chosen import CHOSEN
from tests.crash.crashes import Trial, sample
from tests.crash.lives import Platform
from tests.crash.scenarios import ROOT, Ending, Scenario, content_of

Endings: TypeAlias = Mapping[str, Ending]

_POINTS: Final = 3
"""How many crash points of each workflow are tried in a run that does not try all of them."""


async def survives(
    workflow: Callable[..., Any], *, returns: object = None, fails: str | None = None, **more: Any
) -> Endings:
    """Run `workflow` as `w` with a crash at every point, and without. Its leaves are those of the crash corpus.

    If the run tries a sample only (`Chosen.whole`), it crashes at some of them.

    Args:
        workflow: the root function.
        returns: what it has to return, as JSON.
        fails: the error that it has to fail with instead, as `Type: message`; may be a pattern.
        more: see `Scenario`.

    Returns:
        How each promise ended, by its id without that of the root: its state, and its value or error as JSON.
    """
    ending = ("resolved", returns) if fails is None else ("rejected", fails)
    trial = Trial(Scenario(workflow=workflow, args=(), ending=ending, **more), Platform())
    life = await trial.without_crash()
    _no(trial.complaints)
    for point in life.points if CHOSEN.whole else sample(trial, life.points, _POINTS):
        await trial.crash_at(point)
    _no(trial.complaints)
    below = (promise for promise in life.final.promises.values() if promise.id != ROOT)
    return {promise.id.removeprefix(f"{ROOT}."): _ending(promise) for promise in below}


def _no(complaints: list[str]) -> None:
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def _ending(promise: Promise) -> Ending:
    return promise.state.value, content_of(promise)


def states(endings: Endings) -> dict[str, str]:
    """The states alone."""
    return {id: state for id, (state, _) in sorted(endings.items())}
