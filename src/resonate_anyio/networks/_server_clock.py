"""What time it is at the server, as far as its answers tell."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

from attrs import define, field

from .._embedded._clock import MonotoneClock
from ..abc import Clock

_SECOND: Final = 1000
# Clocks that are a day apart are no longer two readings of one time: one of them is wrong, and who knows which.
_FARTHEST: Final = 24 * 3600 * _SECOND


@define
class ServerClock:
    """The local wall clock, put right by the `Date` of the server's answers.

    A date is cut to whole seconds, and made at some instant between the sending of the request and the arrival of the
    answer. So each answer gives bounds for how far the server is ahead, and many of them give narrow ones. As long as
    0 is within the bounds nothing is put right: clocks that NTP keeps need no help.
    """

    _clock: Clock
    _least: int = field(init=False, default=-_FARTHEST)
    _most: int = field(init=False, default=_FARTHEST)
    _monotone: MonotoneClock = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._monotone = MonotoneClock(lambda: self._clock() + self.offset)

    def now(self) -> int:
        """The server's instant in milliseconds. It never goes back."""
        return self._monotone()

    def local(self) -> int:
        """The instant by the local clock, for `observe`."""
        return self._clock()

    @property
    def offset(self) -> int:
        """How far the server is ahead, in milliseconds, at the least that agrees with what was observed."""
        return min(max(0, self._least), self._most)

    def observe(self, date: str | None, *, sent: int, received: int) -> None:
        """Take note of the `Date` of an answer.

        Args:
            date: the header; anything that is no plausible date is passed over.
            sent: the local instant before the request was sent.
            received: the local instant after its answer had come.
        """
        instant = None if date is None else _parse(date)
        if instant is None or received < sent:
            return

        least, most = instant - received, instant + _SECOND - 1 - sent
        if least > _FARTHEST or most < -_FARTHEST:
            return

        self._least, self._most = max(self._least, least), min(self._most, most)
        if self._least > self._most:
            # One of the clocks was set: what was known holds no more.
            self._least, self._most = least, most


@lru_cache(maxsize=4)
def _parse(date: str) -> int | None:
    """The instant in milliseconds. Many answers come with the same date."""
    try:
        parsed = parsedate_to_datetime(date)
        return None if parsed.tzinfo is None else int(parsed.timestamp()) * _SECOND
    except (ValueError, OverflowError):
        return None
