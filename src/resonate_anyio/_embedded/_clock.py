"""The instant that requests are decided at, and the time that leases are judged by."""

from __future__ import annotations

import logging
import sys
import time
from threading import Lock
from typing import Final

from attrs import define, field

from .._errors import UsageError
from ..abc import Clock

logger: Final = logging.getLogger("resonate_anyio")


def system_clock() -> int:
    """Return the time of the machine's wall clock in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


_LAST: Final = 253_402_300_799_999
"""The last instant of the year 9999, where Python's calendar ends."""


@define(eq=False, repr=False)
class MonotoneClock:
    """A clock that stands still while the clock below it goes back, or is past the end of the calendar."""

    _clock: Clock
    _latest: int = field(init=False, default=0)
    _logged: bool = field(init=False, default=False)

    def __call__(self) -> int:
        now = self._clock()
        if now <= _LAST:
            self._latest = max(self._latest, now)
        elif not self._logged:
            self._logged = True
            logger.error(
                "clock.unusable it says %d ms after 1970, which is past the year 9999. It is not followed: until it is "
                "set right, the engine's time stands still and nothing falls due",
                now,
            )

        return self._latest

    def check(self) -> None:
        """Check that the clock can be used.

        Raises:
            UsageError: the clock is past the year 9999.
        """
        now = self._clock()
        if now > _LAST:
            msg = (
                f"the clock says {now} ms after 1970, which is past the year 9999: deadlines could not be told from "
                f"it. Set the computer's clock (or mend the clock that was given), then start again"
            )
            raise UsageError(msg)


# On macOS and Windows the monotonic clock itself runs while the computer sleeps.
_BOOT_TIME: Final = getattr(time, "CLOCK_BOOTTIME", None) if sys.platform == "linux" else None


def _since_boot() -> float:
    return time.monotonic() if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)


# Seconds that the wall clock may gain on the boot clock without having been set: it is coarser, and is read later.
_TOLERANCE: Final = 0.05


@define(eq=False, repr=False)
class ElapsedClock:
    """A clock for leases: seconds since it was made. It counts the time that the computer sleeps, and never goes back.

    It follows the time since boot. When the wall clock is set forward, this clock goes forward by as much, because the
    boot clock may not have counted that time. A lease that is doubted too early is only checked; a lease that is
    trusted for too long lets two workers run one task. The clock is read from several threads.
    """

    _clock: Clock
    _began: float = field(init=False)
    _booted: float = field(init=False)
    _lead: float = field(init=False, default=0.0)
    _gained: float = field(init=False, default=0.0)
    _lock: Lock = field(init=False, factory=Lock)

    def __attrs_post_init__(self) -> None:
        self._began, self._booted = self._wall(), self._boot()

    def __call__(self) -> float:
        with self._lock:
            boot = self._boot() - self._booted
            lead = self._wall() - self._began - boot
            if lead > self._lead + self._tolerance:
                self._gained += lead - self._lead
                self._lead = lead
            elif lead < self._lead - self._tolerance:
                self._lead = lead
            return boot + self._gained

    @property
    def _tolerance(self) -> float:
        return _TOLERANCE if self._clock is system_clock else 0.0

    def _wall(self) -> float:
        return time.time() if self._clock is system_clock else self._clock() / 1000

    def _boot(self) -> float:
        # There is no other time than that of an injected clock.
        return _since_boot() if self._clock is system_clock else 0.0
