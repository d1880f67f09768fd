"""The servers' cron dialect (docs/protocol.md 10.4), always in UTC. Only this module imports the cron library.

The dialect differs from Unix cron: days of the week count from 1 = Sunday to 7 = Saturday, and if both the day of the
month and the day of the week are restricted, both must match. Therefore this module parses each field itself, and the
library only searches the calendar for plain lists of numbers. It is imported at the first search, because that takes as
long as a fifth of the rest of this package, and few programs have schedules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from .._values import ValueObject

if TYPE_CHECKING:
    from croniter import croniter

NEVER_INTERVAL: Final = 60_000
"""Interval, in milliseconds, at which an expression without a future occurrence fires."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)

_MACROS: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 1",
    "@daily": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_MONTHS: Final = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")

_RANGE: Final = re.compile(r"(?P<first>\w+)-(?P<last>\w+)", re.ASCII)
_STEP: Final = re.compile(r"(?P<base>[^/]+)/(?P<step>[0-9]+)", re.ASCII)


@frozen(eq=False, repr=False)
class _Field(ValueObject):
    """One field: its name, its range, the names of its values, and whether `?` is accepted in place of `*`."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(factory=dict)
    question: bool = False

    def read(self, text: str) -> frozenset[int] | None:
        """Return the numbers that `text` matches, or None if it matches all.

        Raises:
            ValueError: `text` is not valid in this dialect.
        """
        if text == "*" or (self.question and text == "?"):
            return None

        return frozenset(number for item in text.split(",") for number in self._item(item))

    def _item(self, item: str) -> range:
        if step := _STEP.fullmatch(item):
            return self._stepped(step["base"], int(step["step"]))

        if item == "*":
            return range(self.low, self.high + 1)

        if span := _RANGE.fullmatch(item):
            return self._span(span["first"], span["last"])

        number = self._number(item)
        return range(number, number + 1)

    def _stepped(self, base: str, step: int) -> range:
        if step < 1:
            raise self._error(f"a step of {step}")

        if base != "*" and "-" not in base:
            # `n/s` counts from n to the end of the field. A name is not allowed in place of n.
            if not base.isdigit():
                raise self._error(repr(base))
            return range(self._number(base), self.high + 1, step)

        return self._item(base)[::step]

    def _span(self, first: str, last: str) -> range:
        if first.isdigit() is not last.isdigit():
            raise self._error(f"{first}-{last}")

        span = range(self._number(first), self._number(last) + 1)
        if not span:
            raise self._error(f"the descending range {first}-{last}")

        return span

    def _number(self, text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else self.names.get(text.lower())
        if number is None or not self.low <= number <= self.high:
            raise self._error(repr(text))

        return number

    def _error(self, what: str) -> ValueError:
        return ValueError(f"{what} is not possible in the {self.name} field of a cron expression")


def _named(words: Sequence[str], *extra: tuple[str, int]) -> dict[str, int]:
    """Map each full name and its first three letters to a number, counting from 1."""
    return {name: n for n, word in enumerate(words, 1) for name in (word, word[:3])} | dict(extra)


_FIELDS: Final = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31, question=True),
    _Field("month", 1, 12, _named(_MONTHS)),
    _Field("day-of-week", 1, 7, _named(_DAYS, ("tues", 3), ("thurs", 5)), question=True),
    _Field("year", 1970, 2100),
)


@frozen(eq=False, repr=False)
class Cron(ValueObject):
    """A parsed expression.

    Attributes:
        text: the original expression.
        calendar: the fields from second to day of week, in the library's notation.
        years: the listed years, or None for every year.
    """

    text: str
    calendar: str
    years: frozenset[int] | None


@lru_cache(maxsize=256)
def parse_cron(text: str) -> Cron:
    """Parse a macro, or an expression of five fields, six (seconds first) or seven (years last).

    Raises:
        ValueError: the expression is not valid in this dialect; the text names the field.
    """
    *calendar, weekdays, years = (one.read(word) for one, word in zip(_FIELDS, _split(text), strict=True))
    if weekdays is not None:
        # The library counts days of the week from 0 = Sunday.
        weekdays = frozenset(day - 1 for day in weekdays)

    return Cron(text, " ".join(map(_spell, [*calendar, weekdays])), years)


def _split(text: str) -> list[str]:
    words = _MACROS.get(text.strip(), text).split()
    match len(words):
        case 5:
            return ["0", *words, "*"]
        case 6:
            return [*words, "*"]
        case 7:
            return words
        case count:
            raise ValueError(f"a cron expression has 5, 6 or 7 fields, {text!r} has {count}")


def _spell(numbers: frozenset[int] | None) -> str:
    return "*" if numbers is None else ",".join(map(str, sorted(numbers)))


def counts_weekdays(text: str) -> bool:
    """Return whether a valid expression names days of the week by number.

    Unix cron counts them differently, so users may get other days than they expect.
    """
    if text.strip().startswith("@"):
        return False

    return any(char.isdigit() for item in _split(text)[5].split(",") for char in item.partition("/")[0])


def occurrences(cron: Cron, first: int) -> Iterator[int]:
    """Yield `first`, which must be an occurrence, and then every later one that `next_after` would return."""
    yield first
    if cron.years is None:
        # Continuing one search takes a third of the time of starting a new search for each occurrence.
        with suppress(OverflowError, ValueError):  # CroniterBadDateError is one
            search = _search_from(cron, _EPOCH + timedelta(seconds=first // 1000))
            while True:
                found: datetime = search.get_next()
                first = (found - _EPOCH) // _SECOND * 1000
                yield first

    while True:
        first = next_after(cron, first)
        yield first


def last_before(cron: Cron, instant: int, since: int) -> int:
    """Return the last occurrence before `instant` and not before `since`; both must be occurrences."""
    found, low, high = since, since, instant - 1000
    # A bisection, because the library's backward search does not support the whole dialect.
    while high - low > 1000:
        middle = (low + high) // 2
        coming = next_after(cron, middle)
        if coming < instant:
            found = low = coming
        else:
            high = middle

    while (coming := next_after(cron, found)) < instant:
        found = coming

    return found


def next_after(cron: Cron, instant: int) -> int:
    """Return the first occurrence after `instant`, in milliseconds since the epoch; it is a whole second.

    If there is none, return the instant one minute later, as the servers do.
    """
    reference = instant // 1000
    try:
        occurrence = _search(cron, _EPOCH + timedelta(seconds=reference))
    except (OverflowError, ValueError):  # the calendar ends with the year 9999
        occurrence = None

    if occurrence is None:
        return instant + NEVER_INTERVAL

    return (occurrence - _EPOCH) // _SECOND * 1000


def _search(cron: Cron, reference: datetime) -> datetime | None:
    if cron.years is None:
        return _match(cron, reference)

    for year, start in _year_starts(cron.years, reference):
        occurrence = _match(cron, start)
        if occurrence is not None and occurrence.year == year:
            return occurrence

    return None


def _year_starts(years: frozenset[int], reference: datetime) -> Iterator[tuple[int, datetime]]:
    """Yield each listed year that has not ended, with the instant after which to search it.

    This reproduces a quirk of the servers: they search the first of these years from the month, day and time of the
    reference on, even if it is a later year than that of the reference.
    """
    coming = [year for year in sorted(years) if year >= reference.year]
    if coming:
        leap_day = timedelta(days=(reference.month, reference.day) == (2, 29))
        yield coming[0], (reference - leap_day).replace(year=coming[0]) + leap_day

    for year in coming[1:]:
        yield year, datetime(year, 1, 1, tzinfo=UTC) - _SECOND


def _match(cron: Cron, reference: datetime) -> datetime | None:
    from croniter import CroniterBadDateError  # noqa: PLC0415 - see above

    try:
        found: datetime = _search_from(cron, reference).get_next()
    except CroniterBadDateError:
        return None

    return found


def _search_from(cron: Cron, reference: datetime) -> croniter[datetime]:
    from croniter import croniter  # noqa: PLC0415 - see above

    return croniter(cron.calendar, reference, ret_type=datetime, day_or=False, second_at_beginning=True)
