"""Retry policies: pure values that say how long to wait, or to give up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, strategies as st

from resonate_anyio._errors import InvalidArgument
from resonate_anyio._functions._retry import Constant, Exponential, Linear, Never, Retry, RetryPolicy

BOOM = ValueError("boom")


def delays(policy: RetryPolicy, count: int, random: float = 0.0) -> list[float | None]:
    return [policy.delay(attempt, BOOM, random) for attempt in range(1, count + 1)]


def test_never_gives_up_at_once() -> None:
    """Never is the end after the first failure."""
    assert [None, None] == delays(Never(), 2)


def test_constant_waits_the_same_time() -> None:
    """Every delay of Constant is alike, and there is no end unless one is given."""
    assert [2.0, 2.0, 2.0] == delays(Constant(delay=2), 3)


def test_linear_grows_by_its_first_delay_up_to_the_cap() -> None:
    """Linear adds one step for each failure and stops growing at max_delay."""
    assert [2.0, 4.0, 5.0, 5.0] == delays(Linear(delay=2, max_delay=5), 4)


def test_exponential_multiplies_up_to_the_cap() -> None:
    """Exponential multiplies by its factor and stops growing at max_delay."""
    assert [1.0, 3.0, 9.0, 10.0] == delays(Exponential(delay=1, factor=3, max_delay=10), 4)


def test_attempts_count_every_call() -> None:
    """With attempts=3 a function is called three times, so there are two delays."""
    assert [1.0, 2.0, None, None] == delays(Retry(attempts=3), 4)


def test_retry_is_the_exponential_policy() -> None:
    """The friendly name is the exponential policy itself, so that isinstance works with either."""
    assert isinstance(Retry(), Exponential)


def test_durations_may_be_timedeltas() -> None:
    """A timedelta and the seconds it stands for make equal policies."""
    spelled = Retry(delay=timedelta(milliseconds=500), max_delay=timedelta(minutes=1))

    assert Retry(delay=0.5, max_delay=60) == spelled


def test_jitter_only_shortens() -> None:
    """Jitter takes up to its fraction off a delay; the cap stays a cap."""
    policy = Constant(delay=10, jitter=0.5)

    assert [10.0, 7.5] == [policy.delay(1, BOOM, 0.0), policy.delay(1, BOOM, 0.5)]


def test_huge_attempts_do_not_overflow() -> None:
    """An exponential policy that has retried for years still answers with its cap."""
    assert Exponential(jitter=0).delay(1_000_000, BOOM, 0.0) == 30.0
    assert Exponential(delay=0, jitter=0).delay(1_000_000, BOOM, 0.0) == 0.0


@given(
    attempt=st.integers(1, 10_000),
    random=st.floats(0, 1, exclude_max=True),
    delay=st.floats(0, 1e6),
    cap=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)
def test_delays_stay_between_zero_and_the_cap(
    attempt: int, random: float, delay: float, cap: float, jitter: float
) -> None:
    """No attempt, number or setting leads out of [0, max_delay]."""
    for policy in (
        Exponential(delay=delay, max_delay=cap, jitter=jitter),
        Linear(delay=delay, max_delay=cap, jitter=jitter),
    ):
        result = policy.delay(attempt, BOOM, random)

        assert result is not None
        assert 0 <= result <= cap


@pytest.mark.parametrize(
    ("on", "retried"),
    [
        (ValueError, True),
        (KeyError, False),
        ((KeyError, ValueError), True),
        ((), False),
        (lambda error: "boom" in str(error), True),
        (lambda error: "bang" in str(error), False),
    ],
)
def test_only_chosen_errors_are_retried(on: object, retried: bool) -> None:
    """`on` chooses by type, by several types, or by asking a function."""
    assert retried is (Retry(on=on).delay(1, BOOM, 0.0) is not None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"attempts": 1.5},
        {"attempts": True},
        {"delay": -1},
        {"delay": float("nan")},
        {"delay": "1"},
        {"max_delay": float("inf")},
        {"factor": 0.5},
        {"factor": float("inf")},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"jitter": True},
        {"on": "ValueError"},
        {"on": BaseException},
        {"on": (ValueError, 3)},
        {"on": int},
    ],
)
def test_nonsense_is_refused(settings: dict[str, object]) -> None:
    """A policy that could not work is refused when it is made, not when a function has failed."""
    with pytest.raises(InvalidArgument):
        Retry(**settings)  # type: ignore[arg-type]


def test_policies_are_values() -> None:
    """Equal settings make equal, hashable policies."""
    assert hash(Linear(delay=3)) == hash(Linear(delay=3))
    assert Linear(delay=3) == Linear(delay=3)
    assert Linear(delay=3) != Linear(delay=4)


def test_a_policy_of_ones_own() -> None:
    """Whatever implements `delay` is a policy."""

    class Twice(RetryPolicy):
        def delay(self, attempt: int, error: Exception, random: float) -> float | None:
            return 0.0 if attempt < 2 else None

    assert [0.0, None] == delays(Twice(), 2)
