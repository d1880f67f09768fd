"""The server's time, from the dates of its answers."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given, strategies as st

from resonate_anyio.networks._server_clock import ServerClock

NOON = 1_700_000_000_000


def date(instant_ms: int) -> str:
    return formatdate(instant_ms // 1000, usegmt=True)


class Hand:
    """A clock that is set by hand."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def test_a_clock_that_agrees_is_left_alone() -> None:
    """Dates have whole seconds: as long as they can be right, nothing is put right."""
    clock = ServerClock(Hand())

    for now in range(NOON, NOON + 5000, 333):
        clock.observe(date(now), sent=now, received=now + 20)

    assert 0 == clock.offset


@pytest.mark.parametrize("ahead", [-90_000, -3_000, 3_000, 3_600_000])
def test_a_clock_that_is_wrong_is_put_right(ahead: int) -> None:
    """Many answers tell the difference to within the time that they took, on the side of the smaller difference."""
    hand = Hand()
    clock = ServerClock(hand)

    for now in range(NOON, NOON + 60_000, 777):
        hand.now = now
        clock.observe(date(now + ahead), sent=now - 5, received=now + 5)

    assert abs(clock.offset - ahead) <= 20
    assert abs(clock.offset) <= abs(ahead)
    assert hand.now + clock.offset == clock.now()


@given(
    st.integers(-80_000_000, 80_000_000),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 2000), st.integers(0, 2000)), min_size=1, max_size=10),
)
def test_the_bounds_hold_whatever_the_network_does(ahead: int, exchanges: list[tuple[int, int, int]]) -> None:
    """The offset is never farther from 0 than the true one, however long requests and answers travel."""
    now = NOON
    clock = ServerClock(Hand())
    for pause, there, back in exchanges:
        now += pause
        clock.observe(date(now + there + ahead), sent=now, received=now + there + back)
        now += there + back

        assert min(0, ahead) <= clock.offset <= max(0, ahead)


@pytest.mark.parametrize(("first", "then", "offset"), [(60_000, -30_000, -29_001), (-60_000, 30_000, 30_000)])
def test_a_clock_that_was_set_is_learned_anew(first: int, then: int, offset: int) -> None:
    """Observations that contradict each other mean that a clock was set: the newest holds."""
    clock = ServerClock(Hand())

    clock.observe(date(NOON + first), sent=NOON, received=NOON)
    clock.observe(date(NOON + then), sent=NOON, received=NOON)

    assert offset == clock.offset


@pytest.mark.parametrize(
    "absurd",
    [
        None,
        "",
        "yesterday",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Sat, 99 Nov 2023 99:00:00 GMT",
        "Tue, 14 Nov 2023 22:13:21 -0000",
    ],
)
def test_an_absurd_date_is_passed_over(absurd: str | None) -> None:
    """What is no date, or one of another day, changes nothing."""
    clock = ServerClock(Hand())

    clock.observe(absurd, sent=NOON, received=NOON)

    assert 0 == clock.offset


def test_an_answer_before_its_request_says_nothing() -> None:
    """When the local clock was set back meanwhile, the bounds would be no bounds."""
    clock = ServerClock(Hand())

    clock.observe(date(NOON + 60_000), sent=NOON, received=NOON - 1)

    assert 0 == clock.offset


def test_time_never_goes_back() -> None:
    """Neither when the local clock is set back, nor when the server turns out to be behind."""
    hand = Hand()
    clock = ServerClock(hand)
    before = clock.now()

    hand.now -= 500
    clock.observe(date(NOON - 60_000), sent=NOON, received=NOON)

    assert clock.offset < 0
    assert before == clock.now()
