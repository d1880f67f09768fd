"""`Delays`: how long to wait before the next attempt, after attempts that failed."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import Final

from attrs import define, field

FIRST: Final = 1.0
LONGEST: Final = 30.0


@define
class Delays:
    """Delays in seconds between attempts, each twice as long as the one before, up to a maximum.

    Each is multiplied by a random factor from 0.5 on, so that clients that lost their server together do not all come
    back at the same moment.

    Attributes:
        first: the first delay.
        longest: the longest delay.
        largest_factor: the largest random factor.
        delay: the next delay, before it is multiplied.
    """

    _random: Callable[[], float] = random
    first: float = FIRST
    longest: float = LONGEST
    largest_factor: float = 1.0
    delay: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.delay = self.first

    def next(self) -> float:
        """Return the next delay."""
        delay, self.delay = self.delay, longer(self.delay, self.longest)
        return delay * (self.largest_factor - self._random() * (self.largest_factor - 0.5))

    def skip_to_longest(self) -> float:
        """Return the longest delay, after a failure that will not pass soon. The following delays are as long."""
        self.delay = self.longest
        return self.next()

    def reset(self) -> None:
        """Begin with the first delay again."""
        self.delay = self.first


def longer(delay: float, longest: float) -> float:
    """Return the delay after one of `delay` seconds."""
    return min(delay * 2, longest)
