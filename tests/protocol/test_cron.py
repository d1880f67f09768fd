"""The cron dialect. What the servers accept and compute is in the transcript `op-schedule-cron`."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest

from resonate_anyio._protocol import counts_weekdays, next_after, parse_cron
from resonate_anyio._protocol._cron import last_before, occurrences


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def following(expression: str, after: str) -> str:
    """The occurrence after an instant, as text."""
    moment = datetime.fromtimestamp(next_after(parse_cron(expression), instant(after)) / 1000, UTC)
    return moment.replace(tzinfo=None).isoformat(sep=" ")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 * * 1", "2023-11-19 00:00:00"),  # a Sunday
        ("0 0 * * tues", "2023-11-21 00:00:00"),
        ("0 0 * * Thurs", "2023-11-16 00:00:00"),
        ("0 0 * * mon-fri/2", "2023-11-15 00:00:00"),
        ("0 0 13 * 6", "2024-09-13 00:00:00"),  # both must match
        ("0 0 * september *", "2024-09-01 00:00:00"),
        ("0 0 1-10/4 * *", "2023-12-01 00:00:00"),
        ("0 0 1-10/4,25 * ?", "2023-11-25 00:00:00"),
        ("*/7,5 * * * *", "2023-11-14 22:14:00"),
        ("*,5 * * * *", "2023-11-14 22:14:00"),
        ("30/100 * * * *", "2023-11-14 22:30:00"),
        (" @daily ", "2023-11-15 00:00:00"),
        ("0 0 0 1 1 * 2025/5", "2030-01-01 00:00:00"),
    ],
)
def test_next(expression: str, expected: str) -> None:
    """An expression means what it means on the servers."""
    assert expected == following(expression, "2023-11-14 22:13:20")


@pytest.mark.parametrize(
    "expression",
    [
        "MON/2 * * * * *",
        "0 0 * * MON/2",
        "0 0 * * MON-6",
        "0 0 * * sat-sun",
        "0 0 * * 0",
        "0 0 * * mo",
        "0 0 ?/2 * *",
        "0 ? * * *",
        "0 0 5- * *",
        "0 0 -5/2 * *",
        "*/x * * * *",
        "*/1/2 * * * *",
        "1.5 * * * *",
        "² * * * *",
        "0 0 0 * * * 1969",
        "0 0 0 * * * 2101",
        "@Daily",
        "@annually",
        "1 2 3",
    ],
)
def test_not_the_dialect(expression: str) -> None:
    """What the servers refuse is refused, with a text that says where."""
    with pytest.raises(ValueError, match=r"cron expression"):
        parse_cron(expression)


def test_never() -> None:
    """Without a future occurrence an expression fires every minute, as on the servers."""
    assert 1_700_000_060_123 == next_after(parse_cron("0 0 30 2 *"), 1_700_000_000_123)
    assert 1_700_000_060_000 == next_after(parse_cron("0 0 0 * * * 1999"), 1_700_000_000_000)


def test_years() -> None:
    """The first year of a search is entered at the present day of the year, a quirk of the servers."""
    assert "2031-01-01 00:00:00" == following("0 0 0 1 1 * 2030,2031", "2023-11-14 00:00:00")
    assert "2030-12-01 00:00:00" == following("0 0 0 1 12 * 2030", "2023-11-14 00:00:00")
    assert "2023-12-01 00:00:00" == following("0 0 0 1 12 * 2023-2025", "2023-11-14 00:00:00")
    assert "2025-03-02 00:00:00" == following("0 0 0 * * * 2025", "2024-02-29 12:00:00")


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("2023-11-14 22:13:59.999", "2023-11-14 22:14:00"),
        ("2023-11-14 22:14:00.500", "2023-11-14 22:15:00"),
        ("1969-12-31 23:59:59.995", "1970-01-01 00:00:00"),
    ],
)
def test_fractions(after: str, expected: str) -> None:
    """The reference is cut to whole seconds, before and after 1970."""
    assert expected == following("* * * * *", after)


def test_end_of_the_calendar() -> None:
    """An instant at or beyond the end of the calendar is no error."""
    hourly = parse_cron("@hourly")

    assert 253_402_300_859_000 == next_after(hourly, 253_402_300_799_000)
    assert 10**18 + 60_000 == next_after(hourly, 10**18)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 * * 1", True),
        ("0 0 0 * * 2-6", True),
        ("0 0 0 * * mon,3 2030", True),
        ("0 0 * * mon-fri", False),
        ("0 0 * * */2", False),
        ("5 4 3 2 *", False),
        ("@weekly", False),
    ],
)
def test_counts_weekdays(expression: str, expected: bool) -> None:
    """Numbers in the day-of-week field are told from numbers elsewhere."""
    assert expected is counts_weekdays(expression)


CHAINS = [
    ("* * * * * *", "2023-11-14 22:13:20"),
    ("* * * * *", "2023-11-14 22:13:20"),
    ("*/7 3-5 * * *", "2024-02-28 05:50:00"),
    ("30 0 0 29 2 *", "2023-11-14 22:13:20"),
    ("0 9 * * mon-fri", "2023-12-30 00:00:00"),
    ("0 0 0 1 1 * 2025,2027", "2023-11-14 22:13:20"),  # after the second: every minute, as the servers do
    ("0 0 31 2 *", "2023-11-14 22:13:20"),
]


@pytest.mark.parametrize(("expression", "after"), CHAINS)
def test_occurrences_are_those_of_a_search_for_each(expression: str, after: str) -> None:
    """One search that goes on finds what a new one for each finds."""
    cron = parse_cron(expression)
    expected = [next_after(cron, instant(after))]
    while len(expected) < 40:
        expected.append(next_after(cron, expected[-1]))

    assert expected == list(islice(occurrences(cron, expected[0]), 40))


@pytest.mark.parametrize(("expression", "after"), CHAINS[:-2])
@pytest.mark.parametrize("number", [1, 2, 3, 17, 39])
def test_the_last_before(expression: str, after: str, number: int) -> None:
    """The last occurrence before another is the one that the search forward passes just before it."""
    cron = parse_cron(expression)
    chain = list(islice(occurrences(cron, next_after(cron, instant(after))), number + 1))
    assert chain[-2] == last_before(cron, chain[-1], chain[0])


@pytest.mark.parametrize("expression", ["* * * * *", "0 9 29 2 *", "* * * * * *", "0 0 1 1 *", "0 0 0 1 1 * 2099"])
def test_the_calendar_ends(expression: str) -> None:
    """Up to the last instant of the year 9999, and past it, there is a next occurrence and no error."""
    cron, end = parse_cron(expression), 253_402_300_799_000
    for now in (end - 400 * 86_400_000, end - 60_000, end, end + 1000, 10**15, 2**62, 2**63 - 1):
        assert now < next_after(cron, now)
        assert 3 == len(list(islice(occurrences(cron, now), 3)))
