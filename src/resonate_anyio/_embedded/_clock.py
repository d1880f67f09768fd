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

_logger: Final = logging.getLogger("resonate_anyio")


def system_clock() -> int:
    """Give the machine's wall clock in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


_LAST: Final = 253_402_300_799_999
"""The last instant of the year 9999, where Python's calendar ends."""


@define
class MonotoneClock:
    """A clock that stands still while the one below it goes back, or is past the end of the calendar."""

    _clock: Clock
    _latest: int = field(init=False, default=0)
    _told: bool = field(init=False, default=False)

    def __call__(self) -> int:
        now = self._clock()
        if now <= _LAST:
            self._latest = max(self._latest, now)
        elif not self._told:
            self._told = True
            _logger.error(
                "clock.unusable it says %d ms after 1970, which is past the year 9999. It is not followed: until it is "
                "set right, the engine's time stands still and nothing falls due",
                now,
            )

        return self._latest

    def check(self) -> None:
        """See that the clock can be used to begin with.

        Raises:
            UsageError: it cannot.
        """
        now = self._clock()
        if now > _LAST:
            msg = (
                f"the clock says {now} ms after 1970, which is past the year 9999: deadlines could not be told from "
                f"it. Set the computer's clock (or mend the clock that was given), then start again"
            )
            raise UsageError(msg)


# On macOS and Windows the monotonic clock itself goes on while the computer sleeps.
_BOOT_TIME: Final = getattr(time, "CLOCK_BOOTTIME", None) if sys.platform == "linux" else None


def _since_boot() -> float:
    return time.monotonic() if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)


# What the wall clock may gain on the other without having been set: it is coarser, and is read a little later.
_TOLERANCE: Final = 0.05


@define
class ElapsedClock:
    """Seconds since it was made, for leases: the computer's sleep counts, and nobody can set it back.

    It goes by the time since boot. Whenever the wall clock is set forward, it goes forward by as much, because the
    boot clock may not have counted that time: a lease that is doubted too early is looked at, one that is trusted for
    too long is run by two. It is read from several threads.
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
        # A clock that was injected is all the time there is.
        return _since_boot() if self._clock is system_clock else 0.0
