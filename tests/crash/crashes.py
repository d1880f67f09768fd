"""Kill a scenario's program at every point of its life, let the next one take over, and judge what comes of it."""

from __future__ import annotations

from attrs import define, field

from .lives import Life, Platform, Point, live
from .scenarios import Scenario
from .states import EMPTY, State
from .verdicts import Past, verdict


@define(eq=False)
class Trial:
    """All crashes of one scenario on one platform.

    Attributes:
        complaints: what was wrong, and after which crashes.
        lives: how many lives were lived.
    """

    scenario: Scenario
    platform: Platform
    reference: Life = field(init=False)
    complaints: list[str] = field(factory=list, init=False)
    lives: int = field(default=0, init=False)
    _lived: dict[str, Life] = field(factory=dict, init=False)

    async def without_crash(self) -> Life:
        """The life that all others are compared with. It has to be right in itself."""
        self.reference = life = await self._live(EMPTY)
        self._judge(life, Past())
        return life

    async def crash_at(self, *points: Point) -> Life:
        """Die at the last of these points, having died at those before it; then live on."""
        life = await self._live(points[-1].state)
        self._judge(life, Past(points))
        return life

    async def _live(self, state: State) -> Life:
        # Many points leave the same behind: what comes after them is the same, too.
        key = repr((state.instant, state.records))
        if key not in self._lived:
            self._lived[key] = await live(self.scenario, state, self.platform)
            self.lives += 1
        return self._lived[key]

    def _judge(self, life: Life, past: Past) -> None:
        reference = self.reference if self.platform.exact else None
        where = f"{self.scenario.name}, " + (f"killed {past}" if past.points else "not killed")
        self.complaints += [f"{where}: {text}" for text in verdict(self.scenario, life, past, reference)]
