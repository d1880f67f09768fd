"""The instant that requests are decided at, and the time that leases are judged by."""

from __future__ import annotations

import sys
import time
from typing import Final

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


# On macOS and Windows the monotonic clock itself goes on while the computer sleeps.
_BOOT_TIME: Final = getattr(time, "CLOCK_BOOTTIME", None) if sys.platform == "linux" else None


def _since_boot() -> float:
    return time.monotonic() if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)


@define
class ElapsedClock:
    """Seconds since it was made, for leases: the computer's sleep counts, and nobody can set it back.

    Of two clocks the one counts that has gone further: a lease that is doubted too early is looked at, one that is
    trusted for too long is run by two.
    """

    _clock: Clock
    _began: int = field(init=False)
    _booted: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self._clock()
        self._booted = _since_boot()

    def __call__(self) -> float:
        by_the_wall = (self._clock() - self._began) / 1000
        # A clock that was injected is all the time there is.
        return max(by_the_wall, _since_boot() - self._booted) if self._clock is system_clock else by_the_wall
