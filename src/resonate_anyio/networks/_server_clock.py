"""An estimate of the server's clock from its answers."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

from attrs import define, field

from .._embedded._clock import MonotoneClock
from ..abc import Clock

_SECOND: Final = 1000
# If two clocks are a day apart, one of them is wrong, and it is unknown which one.
_FARTHEST: Final = 24 * 3600 * _SECOND


@define(eq=False, repr=False)
class ServerClock:
    """The local wall clock, corrected by the `Date` header of the server's answers.

    A date is cut to whole seconds, and was made at some instant between the sending of the request and the arrival of
    the answer. So each answer gives bounds for how far the server's clock is ahead; many answers give narrow bounds. As
    long as 0 is within the bounds nothing is corrected: clocks that are synchronised by NTP need no correction.
    """

    _clock: Clock
    _least: int = field(init=False, default=-_FARTHEST)
    _most: int = field(init=False, default=_FARTHEST)
    _monotone: MonotoneClock = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._monotone = MonotoneClock(lambda: self._clock() + self.offset)

    def now(self) -> int:
        """Return the server's present instant in milliseconds. It never goes back."""
        return self._monotone()

    def local(self) -> int:
        """Return the present instant of the local clock, for `observe`."""
        return self._clock()

    @property
    def offset(self) -> int:
        """The smallest lead of the server's clock that agrees with the observations, in milliseconds."""
        return min(max(0, self._least), self._most)

    def observe(self, date: str | None, *, sent: int, received: int) -> None:
        """Use the `Date` header of an answer.

        Args:
            date: the header; it is ignored if it is not a plausible date.
            sent: the local instant before the request was sent.
            received: the local instant after the answer had arrived.
        """
        instant = None if date is None else _parse(date)
        if instant is None or received < sent:
            return

        least, most = instant - received, instant + _SECOND - 1 - sent
        if least > _FARTHEST or most < -_FARTHEST:
            return

        self._least, self._most = max(self._least, least), min(self._most, most)
        if self._least > self._most:
            # One of the clocks was set, so the earlier bounds do not hold any more.
            self._least, self._most = least, most


@lru_cache(maxsize=4)
def _parse(date: str) -> int | None:
    """Return the instant in milliseconds. Many answers have the same date."""
    try:
        parsed = parsedate_to_datetime(date)
        return None if parsed.tzinfo is None else int(parsed.timestamp()) * _SECOND
    except (ValueError, OverflowError):
        return None
