"""Conversion of durations and instants, as users write them, to seconds and milliseconds.

A duration is a number of seconds or a `timedelta`; an instant is an aware `datetime` or an integer of milliseconds
since the Unix epoch. This module does not read a clock.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

from ._errors import InvalidArgument

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Sums of instants and durations must fit into 64 bits in files, and into 53 bits in the JSON of other SDKs.
_LONGEST_MS: Final = 10_000 * 365 * 24 * 3600 * 1000
_LAST_INSTANT: Final = 2**53
_MILLISECOND: Final = timedelta(milliseconds=1)


def seconds(value: float | timedelta) -> float:
    """Return a duration in seconds.

    Raises:
        InvalidArgument: it is negative, infinite, NaN, longer than 10,000 years, or neither a number nor a `timedelta`.
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = f"a duration is a number of seconds or a timedelta, not {type(value).__name__} {value!r}"
        raise InvalidArgument(msg)
    else:
        number = _as_float(value)
    if not 0 <= number < math.inf:
        msg = f"a duration is finite and not negative, not {value!r}"
        raise InvalidArgument(msg)
    if number > _LONGEST_MS / 1000:
        msg = f"a duration is at most {_LONGEST_MS // 1000} seconds, which is 10,000 years, not {value!r}"
        raise InvalidArgument(msg)
    return number


def to_ms(value: float | timedelta) -> int:
    """Return a duration in whole milliseconds, rounded up, so that no wait ends early.

    Raises:
        InvalidArgument: as `seconds`.
    """
    number = seconds(value) * 1000
    # 0.07 * 1000 is 70.00000000000001 in binary, but the user means 70.
    nearest = round(number)
    return nearest if math.isclose(number, nearest, rel_tol=1e-12) else math.ceil(number)


def instant_ms(value: datetime | int) -> int:
    """Return an instant in milliseconds since the Unix epoch, rounded down.

    Raises:
        InvalidArgument: it is a `datetime` without a time zone, too far away, or neither a `datetime` nor an integer.
    """
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            msg = (
                f"{value!r} has no time zone, so it is not an instant; use an aware datetime, "
                f"e.g. datetime.now(timezone.utc)"
            )
            raise InvalidArgument(msg)
        return (value - _EPOCH) // _MILLISECOND
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"an instant is an aware datetime or an int of epoch milliseconds, not {type(value).__name__} {value!r}"
        raise InvalidArgument(msg)
    if value > _LAST_INSTANT:
        msg = f"an instant is at most 2**53 milliseconds after 1970, in the year 287396, not {value!r}"
        raise InvalidArgument(msg)
    return value


def from_ms(ms: int) -> datetime:
    """Return an instant as an aware `datetime` in UTC: the last moment of the year 9999 for any later one."""
    # Servers accept deadlines up to the largest 64-bit integer, which a datetime cannot hold.
    try:
        return _EPOCH + ms * _MILLISECOND
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
