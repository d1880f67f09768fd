"""The instant that requests are decided at, and the time that leases are judged by."""

from __future__ import annotations

import sys
import time
from threading import Lock
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

    From one reading to the next that of two clocks counts that has gone further: a lease that is doubted too early is
    looked at, one that is trusted for too long is run by two. It is read from several threads.
    """

    _clock: Clock
    _total: float = field(init=False, default=0.0)
    _wall: int = field(init=False)
    _boot: float = field(init=False)
    _lock: Lock = field(init=False, factory=Lock)

    def __attrs_post_init__(self) -> None:
        self._wall, self._boot = self._read()

    def __call__(self) -> float:
        with self._lock:
            wall, boot = self._read()
            self._total += max((wall - self._wall) / 1000, boot - self._boot, 0.0)
            self._wall, self._boot = wall, boot
            return self._total

    def _read(self) -> tuple[int, float]:
        # A clock that was injected is all the time there is.
        return self._clock(), _since_boot() if self._clock is system_clock else 0.0
