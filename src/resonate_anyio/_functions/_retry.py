"""When to call a failed function again.

A policy is a value: it knows neither clock nor randomness and keeps no state, so that one may be shared by every
function of a program. The engine counts the attempts, rolls the dice and waits.
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

Duration: TypeAlias = float | timedelta
"""Seconds, or a `timedelta`."""

ErrorFilter: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which errors are worth another attempt: a type, several, or a function that decides."""


class RetryPolicy(ABC):
    """Says whether, and after how long, a function that raised is called again.

    Subclass it for a rule of your own; keep it free of state, because one policy may serve many calls at once.
    """

    @abstractmethod
    def delay(self, attempt: int, error: Exception, random: float) -> float | None:
        """Return the seconds to wait before the next attempt, or None to give up.

        Args:
            attempt: how many attempts were made so far, the failed one included: 1 after the first failure.
            error: what the last attempt raised.
            random: a number in [0, 1) for jitter, so that the policy itself needs no source of randomness.
        """


@final
@frozen
class Never(RetryPolicy):
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


@frozen(kw_only=True)
class _Backoff(RetryPolicy, ABC):
    """What the policies that do retry have in common."""

    attempts: int | None = field(default=None, validator=_attempts)
    jitter: float = field(default=0.0, validator=_fraction)
    on: ErrorFilter = field(default=Exception, validator=_filter)

    def delay(self, attempt: int, error: Exception, random: float) -> float | None:
        """Return the seconds until the next attempt, or None if this error or this attempt was the last."""
        if (self.attempts is not None and attempt >= self.attempts) or not self._retries(error):
            return None
        # Jitter only ever shortens a delay: the cap stays a cap.
        return self._base(attempt) * (1 - self.jitter * random)

    def _retries(self, error: Exception) -> bool:
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return bool(self.on(error))

    @abstractmethod
    def _base(self, attempt: int) -> float:
        """Return the delay before jitter."""


@final
@frozen(kw_only=True)
class Constant(_Backoff):
    """Wait the same time before every further attempt.

    Attributes:
        wait: the time between attempts.
        attempts: how often the function is called in all; None for no limit.
        jitter: by which fraction, at most, a delay is shortened at random.
        on: which errors are worth another attempt.
    """

    wait: float = field(default=1.0, alias="delay", converter=seconds)

    def _base(self, attempt: int) -> float:  # noqa: ARG002 - every attempt waits alike
        return self.wait


@final
@frozen(kw_only=True)
class Linear(_Backoff):
    """Wait one step longer after every failure.

    Attributes:
        wait: the first delay, and by how much it grows.
        max_delay: no delay is longer than this.
        attempts: how often the function is called in all; None for no limit.
        jitter: by which fraction, at most, a delay is shortened at random.
        on: which errors are worth another attempt.
    """

    wait: float = field(default=1.0, alias="delay", converter=seconds)
    max_delay: float = field(default=30.0, converter=seconds)

    def _base(self, attempt: int) -> float:
        return min(self.wait * attempt, self.max_delay)


@final
@frozen(kw_only=True)
class Exponential(_Backoff):
    """Wait `factor` times longer after every failure.

    Attributes:
        wait: the first delay.
        factor: by what it is multiplied from attempt to attempt.
        max_delay: no delay is longer than this.
        attempts: how often the function is called in all; None for no limit.
        jitter: by which fraction, at most, a delay is shortened at random.
        on: which errors are worth another attempt.
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
"""The policy to reach for: `Retry(attempts=5)` waits 1, 2, 4, 8 seconds, each up to a tenth less."""
