"""The wait for the next instant at which something is due."""

from __future__ import annotations

import math

from anyio import Event, move_on_after
from attrs import define, field

from ..abc import Clock


@define(eq=False, repr=False)
class Timer:
    """The earliest instant at which something is due, and the wait for this instant.

    Attributes:
        instant: the instant; infinite if nothing is due.
    """

    _clock: Clock
    instant: float = field(init=False, default=math.inf)
    _moved: Event = field(init=False, factory=Event)

    @property
    def due(self) -> bool:
        """Whether something is due now."""
        return self._delay() <= 0

    def clear(self) -> None:
        """Forget the instant."""
        self.instant = math.inf

    def earlier(self, due: int | None) -> None:
        """Wait until `due` if that is earlier than the present instant of the timer; None means never."""
        if due is not None and due < self.instant:
            self.instant = due
            self._moved.set()

    async def wait(self, at_most: float) -> None:
        """Wait until something is due, for at most `at_most` seconds."""
        with move_on_after(at_most):
            while (delay := self._delay()) > 0:
                self._moved = Event()
                with move_on_after(delay):
                    await self._moved.wait()

    def _delay(self) -> float:
        return (self.instant - self._clock()) / 1000
