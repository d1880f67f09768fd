"""When to call a failed function again.

A policy is an immutable value without a clock, randomness or state, so that all functions of a program can share one.
The worker counts the attempts, draws the random numbers and waits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias, final

from attrs import Attribute, field, frozen

from .._errors import InvalidArgument
from .._time import seconds
from .._values import ValueObject

Duration: TypeAlias = float | timedelta
"""Seconds, or a `timedelta`."""

ErrorFilter: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""The errors that are retried: a type, several types, or a function that decides."""


class RetryPolicy(ABC):
    """A rule that says whether, and after how long, a function that raised is called again.

    Subclass it to write your own rule. Keep the subclass free of state: several calls may use one policy concurrently.
    """

    @abstractmethod
    def delay(self, attempt: int, error: Exception, random: float) -> float | None:
        """Return the seconds to wait before the next attempt, or None to give up.

        Args:
            attempt: the number of attempts so far, the failed one included: 1 after the first failure.
            error: the exception that the last attempt raised.
            random: a random number in [0, 1) for jitter.
        """


@final
@frozen(eq=False, repr=False)
class Never(ValueObject, RetryPolicy):
    """Give up at the first failure."""

    def delay(self, attempt: int, error: Exception, random: float) -> float | None:  # noqa: ARG002 - the contract
        """Return None."""
        return None


def _attempts(_instance: object, _attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        msg = f"attempts counts all calls, the first included: an int of at least 1 or None for no limit, not {value!r}"
        raise InvalidArgument(msg)


def _fraction(_instance: object, _attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        msg = f"jitter is a fraction of the delay between 0 and 1, not {value!r}"
        raise InvalidArgument(msg)


def _factor(_instance: object, _attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value < math.inf:
        msg = f"factor multiplies the delay from attempt to attempt: a number of at least 1, not {value!r}"
        raise InvalidArgument(msg)


def _filter(_instance: object, _attribute: Attribute[Any], value: Any) -> None:
    kinds = value if isinstance(value, tuple) else (value,)
    if all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        return
    if isinstance(value, (type, tuple)) or not callable(value):
        msg = f"on is an exception type, a tuple of them, or a function that takes the error, not {value!r}"
        raise InvalidArgument(msg)


@frozen(kw_only=True, eq=False, repr=False)
class _Backoff(ValueObject, RetryPolicy, ABC):
    """The fields and rules that all policies with retries share."""

    attempts: int | None = field(default=None, validator=_attempts)
    jitter: float = field(default=0.0, validator=_fraction)
    on: ErrorFilter = field(default=Exception, validator=_filter)

    def delay(self, attempt: int, error: Exception, random: float) -> float | None:
        """Return the seconds until the next attempt, or None if this error or this attempt was the last."""
        if (self.attempts is not None and attempt >= self.attempts) or not self._retries(error):
            return None
        # Jitter only shortens a delay, so that `max_delay` remains an upper limit.
        return self._base(attempt) * (1 - self.jitter * random)

    def _retries(self, error: Exception) -> bool:
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return bool(self.on(error))

    @abstractmethod
    def _base(self, attempt: int) -> float:
        """Return the delay before jitter."""


@final
@frozen(kw_only=True, eq=False, repr=False)
class Constant(_Backoff):
    """Wait the same time before each retry.

    Attributes:
        wait: the delay before each retry.
        attempts: the maximum number of calls, the first included; None for no limit.
        jitter: the maximum fraction by which a delay is shortened at random.
        on: the errors that are retried.
    """

    wait: float = field(default=1.0, alias="delay", converter=seconds)

    def _base(self, attempt: int) -> float:  # noqa: ARG002 - the delay is constant
        return self.wait


@final
@frozen(kw_only=True, eq=False, repr=False)
class Linear(_Backoff):
    """Wait one step longer after each failure.

    Attributes:
        wait: the first delay, and the amount that is added after each failure.
        max_delay: the upper limit of the delay.
        attempts: the maximum number of calls, the first included; None for no limit.
        jitter: the maximum fraction by which a delay is shortened at random.
        on: the errors that are retried.
    """

    wait: float = field(default=1.0, alias="delay", converter=seconds)
    max_delay: float = field(default=30.0, converter=seconds)

    def _base(self, attempt: int) -> float:
        return min(self.wait * attempt, self.max_delay)


@final
@frozen(kw_only=True, eq=False, repr=False)
class Exponential(_Backoff):
    """Wait `factor` times longer after each failure.

    Attributes:
        wait: the first delay.
        factor: the number that the delay is multiplied by after each failure.
        max_delay: the upper limit of the delay.
        attempts: the maximum number of calls, the first included; None for no limit.
        jitter: the maximum fraction by which a delay is shortened at random.
        on: the errors that are retried.
    """

    wait: float = field(default=1.0, alias="delay", converter=seconds)
    factor: float = field(default=2.0, validator=_factor)
    max_delay: float = field(default=30.0, converter=seconds)
    jitter: float = field(default=0.1, validator=_fraction)

    def _base(self, attempt: int) -> float:
        return min(self.wait * self._growth(attempt), self.max_delay)

    def _growth(self, attempt: int) -> float:
        try:
            return float(self.factor ** (attempt - 1))
        except OverflowError:
            return math.inf if self.wait else 0.0


Retry = Exponential
"""The usual policy: `Retry(attempts=5)` waits 1, 2, 4 and 8 seconds, each shortened by up to a tenth."""
