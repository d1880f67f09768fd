"""`Backoff`: how long to wait between attempts that fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import random
from typing import Final

import anyio
from attrs import define, field

FIRST: Final = 1.0
MAXIMUM: Final = 60.0


@define(eq=False, repr=False)
class Backoff:
    """Delays in seconds between attempts. Each is twice as long as the one before, up to a maximum.

    Each delay is shortened by up to a half at random, so that processes that lost their server at the same time do not
    all return at the same time.

    Attributes:
        first: the first delay.
        maximum: the upper limit of the delays.
        delay: the next delay, before it is shortened.
    """

    first: float = FIRST
    maximum: float = MAXIMUM
    _random: Callable[[], float] = field(default=random, alias="random")
    _sleep: Callable[[float], Awaitable[object]] = field(default=anyio.sleep, alias="sleep")
    delay: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.delay = self.first

    def next(self) -> float:
        """Return the next delay. The one after it is twice as long."""
        delay, self.delay = self.delay, min(self.delay * 2, self.maximum)
        return delay * (1 - self._random() / 2)

    def longest(self) -> float:
        """Return the longest delay, for a failure that will last. The delays after it are as long."""
        self.delay = self.maximum
        return self.next()

    def reset(self) -> None:
        """Begin again with the first delay."""
        self.delay = self.first

    async def pause(self) -> None:
        """Wait for the next delay."""
        await self._sleep(self.next())
