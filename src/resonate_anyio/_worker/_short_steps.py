"""`ShortSteps`: records leaves that run longer than a short step (docs/semantics.md 7.5). One timer serves them all."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

from anyio import Event, current_time, move_on_after
from attrs import define, field

from .._errors import NotRunning
from .._workflow._leaf import SHORT, ShortStep
from .._workflow._presence import Young

if TYPE_CHECKING:
    from .._execution._services import Services


@define(eq=False, repr=False)
class ShortSteps:
    """See the module's docstring.

    Attributes:
        begun: the leaves that have begun and were not recorded before.
    """

    _services: Services
    begun: Young = field(init=False)
    _woken: Event = field(factory=Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.begun = Young(SHORT, self._wake)

    async def run(self) -> None:
        """Record each leaf that takes long, until the worker begins to stop."""
        entries = self.begun.entries
        while not self._services.draining:
            now = current_time()
            while entries and entries[0][0] <= now:
                step = entries.popleft()[1]()
                if isinstance(step, ShortStep) and step.overdue:
                    self._services.background(step.record_overdue, name="resonate record")
            await self._sleep_until(entries[0][0] if entries else math.inf)

    async def _sleep_until(self, due: float) -> None:
        self._woken = Event()
        self.begun.sleep_until(due)
        with move_on_after(due - current_time()), suppress(NotRunning):
            await self._services.subscriptions.wait(self._woken)
        self.begun.sleep_until(-math.inf)

    def _wake(self) -> None:
        self._woken.set()
