"""Kill a scenario's program at points of its life, let the next one take over, and judge what comes of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from attrs import define, field

from .lives import Life, Platform, Point, live
from .scenarios import Scenario
from .states import EMPTY, State
from .verdicts import Past, verdict


@define(eq=False)
class Trial:
    """All crashes of one scenario on one platform.

    Attributes:
        reference: the life without a crash, which all others are compared with.
        complaints: what was wrong, and after which crashes.
    """

    scenario: Scenario
    platform: Platform = field(factory=Platform)
    reference: Life = field(init=False)
    complaints: list[str] = field(factory=list, init=False)
    _lived: dict[State, Life] = field(factory=dict, init=False)

    async def without_crash(self) -> Life:
        """Live without a crash. That has to be right in itself."""
        self.reference = await self._live(EMPTY)
        self._judge(self.reference, Past())
        return self.reference

    async def crash_at(self, *points: Point) -> Life:
        """Die at the last of these points, having died at those before it; then live on."""
        life = await self._live(points[-1].state)
        self._judge(life, Past(points))
        return life

    async def _live(self, state: State) -> Life:
        # Many points leave the same behind: what comes after them is the same, too.
        if state not in self._lived:
            self._lived[state] = await live(self.scenario, state, self.platform)
        return self._lived[state]

    def _judge(self, life: Life, past: Past) -> None:
        reference = self.reference if self.platform.exact else None
        crashes = f"killed {past}" if past.points else "not killed"
        self.complaints += [f"{self.scenario.name}, {crashes}: {text}" for text in verdict(life, past, reference)]


async def crash_everywhere(trial: Trial) -> None:
    """Die once, at every point."""
    life = await trial.without_crash()
    for point in life.points:
        await trial.crash_at(point)


async def crash_somewhere(trial: Trial, *, count: int) -> None:
    """Die once, at a sample of the points: the same in every run of the tests."""
    life = await trial.without_crash()
    for point in _sample(trial, life.points, count):
        await trial.crash_at(point)


async def crash_twice(trial: Trial, *, count: int) -> None:
    """Die at a sample of the points, and once more at some points of the life after that."""
    life = await trial.without_crash()
    for point in _sample(trial, life.points, count):
        second = await trial.crash_at(point)
        for again in _sample(trial, second.points, 2):
            await trial.crash_at(point, again)


def _sample(trial: Trial, points: Sequence[Point], count: int) -> list[Point]:
    choice = random.Random(trial.scenario.name)  # noqa: S311 - nothing here is secret
    return choice.sample(points, min(count, len(points)))
