"""How long to wait before the next attempt to connect."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import Final

from attrs import define, field

FIRST: Final = 1.0
LONGEST: Final = 30.0


@define
class Backoff:
    """Delays in seconds, each up to twice the one before, from a second to half a minute.

    Each is cut by up to a half at random, so that clients that lost their server together do not come back together.
    """

    _random: Callable[[], float] = random
    _next: float = field(default=FIRST, init=False)

    def delay(self) -> float:
        """The next delay."""
        delay, self._next = self._next, min(self._next * 2, LONGEST)
        return delay * (1 - self._random() / 2)

    def longest(self) -> float:
        """The longest delay, for what will not pass soon. Those that follow are as long."""
        self._next = LONGEST
        return self.delay()

    def reset(self) -> None:
        """Begin anew with the shortest."""
        self._next = FIRST
