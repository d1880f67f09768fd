"""The instant that requests are decided at."""

from __future__ import annotations

import time

from attrs import define, field

from ..abc import Clock


def system_clock() -> int:
    """Give the machine's wall clock in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


@define
class MonotoneClock:
    """A clock that stands still while the one below it goes back."""

    _clock: Clock
    _latest: int = field(init=False, default=0)

    def __call__(self) -> int:
        self._latest = max(self._latest, self._clock())
        return self._latest
