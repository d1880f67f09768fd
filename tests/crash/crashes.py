"""Kill a scenario's program at points of its life, let the next one take over, and judge what comes of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from attrs import define, field

from ..chosen import CHOSEN
from .lives import Life, Mark, Platform, Point, live
from .scenarios import Scenario
from .states import EMPTY, State
from .verdicts import Past, stop_verdict, verdict


@define(eq=False)
class Trial:
    """All crashes of one scenario on one platform.

    Attributes:
        reference: the life without a crash, which all others are compared with.
        chance: chooses the points of a sample; by the seed of the run, if it is not given.
        complaints: what was wrong, and after which crashes.
    """

    scenario: Scenario
    platform: Platform = field(factory=Platform)
    reference: Life = field(init=False)
    complaints: list[str] = field(factory=list, init=False)
    chance: random.Random = field(factory=CHOSEN.chance)
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

    async def stop_at(self, mark: Mark) -> list[Point]:
        """Be told to stop there, and do so in order; then live on. Gives the points from there to the end."""
        life = await live(self.scenario, EMPTY, self.platform, stop_at=mark)
        self._complain(f"while it stopped {mark}", stop_verdict(life))
        await self.crash_at(Point(mark, life.runs, life.final, in_order=True))
        return [point for point in life.points if point.mark.number > mark.number]

    async def _live(self, state: State) -> Life:
        # Many points leave the same behind: what comes after them is the same, too.
        if state not in self._lived:
            self._lived[state] = await live(self.scenario, state, self.platform)
        return self._lived[state]

    def _judge(self, life: Life, past: Past) -> None:
        reference = self.reference if self.platform.exact else None
        self._complain(str(past), verdict(life, past, reference))

    def _complain(self, story: str, complaints: Sequence[str]) -> None:
        self.complaints += [f"{self.scenario.name}, {story}: {text}" for text in complaints]


async def crash_everywhere(trial: Trial) -> None:
    """Die once, at every point."""
    life = await trial.without_crash()
    for point in life.points:
        await trial.crash_at(point)


async def crash_somewhere(trial: Trial, *, count: int) -> None:
    """Die once, at a sample of the points."""
    life = await trial.without_crash()
    for point in sample(trial, life.points, count):
        await trial.crash_at(point)


async def stop_somewhere(trial: Trial, *, count: int) -> None:
    """Be stopped in order at a sample of the points, and die at some of those that the stop itself has."""
    life = await trial.without_crash()
    for point in sample(trial, life.points, count):
        for last in sample(trial, await trial.stop_at(point.mark), 2):
            await trial.crash_at(last)


async def crash_twice(trial: Trial, *, count: int) -> None:
    """Die at a sample of the points, and once more at some points of the life after that."""
    life = await trial.without_crash()
    for point in sample(trial, life.points, count):
        second = await trial.crash_at(point)
        for again in sample(trial, second.points, 2):
            await trial.crash_at(point, again)


def sample(trial: Trial, points: Sequence[Point], count: int) -> list[Point]:
    """So many of the points: the same ones whenever the test runs with the same seed."""
    return trial.chance.sample(points, min(count, len(points)))
