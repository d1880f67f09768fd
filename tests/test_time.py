"""Durations and instants as users write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies as st

from resonate_anyio._errors import InvalidArgument
from resonate_anyio._time import from_ms, instant_ms, seconds, to_ms


@pytest.mark.parametrize(("value", "expected"), [(0, 0.0), (1, 1.0), (1.5, 1.5), (timedelta(minutes=2), 120.0)])
def test_durations_are_seconds(value: float | timedelta, expected: float) -> None:
    """Numbers are seconds already; a timedelta is turned into them."""
    assert expected == seconds(value)


@pytest.mark.parametrize(
    "value", [-1, -0.001, float("nan"), float("inf"), True, "1", None, timedelta(seconds=-1), 10**400]
)
def test_unusable_durations_are_refused(value: object) -> None:
    """Negative, infinite, NaN and things that are no numbers are refused; True is no number of seconds."""
    with pytest.raises(InvalidArgument):
        seconds(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1000), (0.07, 70), (0.0001, 1), (1.0001, 1001), (timedelta(microseconds=1), 1), (0, 0), (1.1, 1100)],
)
def test_durations_in_ms_are_rounded_up(value: float | timedelta, expected: int) -> None:
    """A wait is never cut short, and what is a whole number of milliseconds on paper stays one."""
    assert expected == to_ms(value)


@given(st.integers(0, 10**12))
def test_whole_milliseconds_survive_floats(ms: int) -> None:
    """Any whole number of milliseconds, divided by 1000, comes back."""
    assert ms == to_ms(ms / 1000)


@given(st.integers(-(10**12), 10**13))
def test_instants_round_trip(ms: int) -> None:
    """An instant in milliseconds survives the way through a datetime, which is aware and in UTC."""
    instant = from_ms(ms)

    assert ms == instant_ms(instant)
    assert UTC is instant.tzinfo


def test_an_instant_in_another_zone_is_the_same_instant() -> None:
    """The zone of a datetime changes nothing of the instant it names."""
    there = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))

    assert instant_ms(datetime(2026, 1, 1, tzinfo=UTC)) == instant_ms(there)


def test_integers_are_epoch_milliseconds() -> None:
    """An int is taken as it is."""
    assert instant_ms(1234) == 1234


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), True, 1.5, "2026-01-01", None])  # noqa: DTZ001 - the point
def test_what_names_no_instant_is_refused(value: object) -> None:
    """A naive datetime would be read in whatever zone the machine has; it is refused."""
    with pytest.raises(InvalidArgument):
        instant_ms(value)  # type: ignore[arg-type]


def test_instants_beyond_the_calendar_are_its_end() -> None:
    """Servers accept deadlines up to 2**63 - 1, which no datetime can hold."""
    assert from_ms(2**63 - 1).year == 9999
