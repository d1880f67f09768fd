"""The bars: what each row has to cost at most. Some are ratios of one run, some are milliseconds of one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from attrs import Factory, frozen

from .participants import (
    FLOOR_IN_MEMORY,
    FLOOR_ON_POWER,
    FLOOR_ON_SQLITE,
    OFFICIAL_OVER_HTTP,
    OFFICIAL_SDK,
    OURS_IN_MEMORY,
    OURS_ON_POWER,
    OURS_ON_SQLITE,
    OURS_OVER_HTTP,
    UNHINGED_ON_SQLITE,
    Participant,
)


@frozen
class Work:
    """What is measured of each participant.

    Attributes:
        name: as in the tables.
        kind: the kind of work, as `peers.measuring` knows it.
        count: how many units.
        at_once: how many of them at once.
    """

    name: str
    kind: str
    count: int
    at_once: int = 1


STEPS: Final = tuple(Work(f"a step of a sequence of {count:,}", "steps", count) for count in (10, 50, 100, 300, 1000))
EMPTY: Final = tuple(
    Work(f"an empty workflow, {at_once} at once", "empty", max(60, 2 * at_once), at_once) for at_once in (1, 100)
)
RUNS: Final = tuple(
    Work(f"a workflow of one step, {at_once} at once", "runs", max(60, 2 * at_once), at_once)
    for at_once in (1, 10, 100)
)
MAP: Final = Work("a step of a fan-out of 1,000, by `map`", "fan-out", 1000)
SPAWN: Final = Work("a step of a fan-out of 1,000, each spawned", "spawn", 1000)
REMOTE: Final = Work("a remote call of a sequence of 100", "remote", 100)
REMOTE_FAN_OUT: Final = Work("a remote call of a fan-out of 200", "remote-fan-out", 200)

WORKS: Final = (*STEPS, *EMPTY, *RUNS, MAP, SPAWN, REMOTE, REMOTE_FAN_OUT)


@frozen
class Alone:
    """What is measured of this package alone.

    Attributes:
        key: as in `peers.alone`.
        count: how many, or how large.
    """

    key: str
    count: int


ALONE: Final = (
    Alone("kill", 1000),
    Alone("replay", 10_000),
    Alone("result-memory", 1_000_000),
    Alone("result-sqlite", 1_000_000),
    Alone("arguments", 1_000_000),
    Alone("parked", 2000),
    Alone("unloaded", 5000),
    Alone("children", 100),
    Alone("commits", 200),
    Alone("commits-1ms", 200),
    Alone("sleepers", 10_000),
)

Figures: TypeAlias = dict[tuple[Participant, Work], dict[str, float]]
"""The medians: `cpu` and `wall` milliseconds of a unit, `p50` and `p99` of workflows."""


@frozen
class Results:
    """What one run has found.

    Attributes:
        figures: by participant and work.
        alone: by key of `peers.alone`.
        imports: how many times the import takes as long as its floor.
        size: how many distributions are installed, and how many megabytes.
    """

    figures: Figures = Factory(dict)
    alone: Mapping[str, Mapping[str, float]] = Factory(dict)
    imports: float | None = None
    size: tuple[float, float] | None = None


@frozen
class Bar:
    """One bar.

    Attributes:
        row: what is measured.
        words: the bar in words.
        value: gives what was measured, or None.
        limit: the most that it may be; None if there is no bar.
        least: whether the limit is the least instead.
    """

    row: str
    words: str
    value: Callable[[Results], float | None]
    limit: float | None
    least: bool = False

    def verdict(self, results: Results) -> str:
        """Return whether the bar is met."""
        value = self.value(results)
        if value is None:
            return "not measured"
        if self.limit is None:
            return "no bar"
        return "met" if (value >= self.limit if self.least else value <= self.limit) else "**missed**"


def _cpu(who: Participant, work: Work, name: str = "cpu") -> Callable[[Results], float | None]:
    return lambda results: results.figures.get((who, work), {}).get(name)


def _ratio(ours: Participant, other: Participant, work: Work) -> Callable[[Results], float | None]:
    def ratio(results: Results) -> float | None:
        above, below = _cpu(ours, work)(results), _cpu(other, work)(results)
        return None if above is None or below is None else above / below

    return ratio


def _alone(key: str, name: str) -> Callable[[Results], float | None]:
    return lambda results: results.alone.get(key, {}).get(name)


def _cost(row: str, who: Participant, work: Work, limit: float) -> Bar:
    return Bar(f"{row}, {who.name}", f"at most {limit:g} ms of processor time", _cpu(who, work), limit)


def _against(row: str, who: Participant, other: Participant, work: Work, limit: float) -> Bar:
    words = f"at most {limit:g} x {other.name}" if limit != 1 else f"ahead of {other.name}"
    return Bar(f"{row}, {who.name}", words, _ratio(who, other, work), limit)


_STEP, _SHORT, _LONG = STEPS[-1], STEPS[1], STEPS[3]
_ONE_BY_ONE, _AT_ONCE = EMPTY
_ONE_STEP: Final = RUNS[0]

BARS: Final = (
    _against("sequential step, N = 1,000", OURS_IN_MEMORY, FLOOR_IN_MEMORY, _STEP, 4),
    _against("sequential step, N = 1,000", OURS_ON_SQLITE, FLOOR_ON_SQLITE, _STEP, 2.5),
    _against("sequential step, N = 1,000", OURS_ON_POWER, FLOOR_ON_POWER, _STEP, 2.5),
    _against("empty workflow, one by one", OURS_IN_MEMORY, OFFICIAL_SDK, _ONE_BY_ONE, 1),
    _against("empty workflow, 100 at once", OURS_IN_MEMORY, OFFICIAL_SDK, _AT_ONCE, 1),
    _cost("empty workflow, one by one", OURS_ON_SQLITE, _ONE_BY_ONE, 0.79),
    _cost("empty workflow, 100 at once", OURS_ON_SQLITE, _AT_ONCE, 0.56),
    _against("workflow of one step", OURS_IN_MEMORY, OFFICIAL_SDK, _ONE_STEP, 1),
    _against("workflow of one step", OURS_IN_MEMORY, UNHINGED_ON_SQLITE, _ONE_STEP, 1),
    _cost("workflow of one step", OURS_ON_SQLITE, _ONE_STEP, 0.8),
    *(
        Bar(f"workflow of one step, {name}, {who.name}", "ms of real time", _cpu(who, _ONE_STEP, name), None)
        for who in (OURS_IN_MEMORY, OURS_ON_SQLITE)
        for name in ("p50", "p99")
    ),
    _cost("fan-out of 1,000, spawned", OURS_IN_MEMORY, SPAWN, 0.2),
    _cost("fan-out of 1,000, `map`", OURS_IN_MEMORY, MAP, 0.165),
    _cost("fan-out of 1,000, spawned", OURS_ON_SQLITE, SPAWN, 0.38),
    _cost("fan-out of 1,000, `map`", OURS_ON_SQLITE, MAP, 0.255),
    _cost("fan-out of 1,000, `map`", OURS_ON_POWER, MAP, 0.245),
    _cost("remote calls, sequential", OURS_IN_MEMORY, REMOTE, 0.53),
    _cost("remote calls, fan-out", OURS_IN_MEMORY, REMOTE_FAN_OUT, 0.405),
    _cost("remote calls, sequential", OURS_ON_SQLITE, REMOTE, 0.92),
    _cost("remote calls, fan-out", OURS_ON_SQLITE, REMOTE_FAN_OUT, 0.765),
    _cost("step, N = 50", OURS_OVER_HTTP, _SHORT, 1),
    _cost("step, N = 300", OURS_OVER_HTTP, _LONG, 1),
    _against("step, N = 50", OURS_OVER_HTTP, OFFICIAL_OVER_HTTP, _SHORT, 1),
    _cost("empty workflow, one by one", OURS_OVER_HTTP, _ONE_BY_ONE, 1.5),
    _cost("remote calls, fan-out", OURS_OVER_HTTP, REMOTE_FAN_OUT, 2.4),
    Bar("kill -9 with 1,000 suspended, until all are done", "at most 5 s", _alone("kill", "wall"), 5),
    Bar("the same, processor time", "s", _alone("kill", "cpu"), None),
    Bar("replay of 10,000 finished steps", "at most 0.08 ms a step", _alone("replay", "cpu"), 0.08),
    Bar("result of 1 MB, memory", "at most 1.3 x JSON, base64", _alone("result-memory", "times"), 1.3),
    Bar("result of 1 MB, SQLite", "at most 1.3 x JSON, base64", _alone("result-sqlite", "times"), 1.3),
    Bar("1 MB of arguments of `ctx.run`", "at most 1 ms a call", _alone("arguments", "cpu"), 1),
    Bar("import", "at most 3 x `import anyio, attrs, cattrs`", lambda results: results.imports, 3),
    Bar("distributions", "at most 13", lambda results: results.size and results.size[0], 13),
    Bar("megabytes", "at most 8", lambda results: results.size and results.size[1], 8),
    Bar("parked, bytes each", "at most 16,000", _alone("parked", "bytes"), 16_000),
    Bar("a waiting task of bare anyio, bytes", "a floor", _alone("parked", "floor"), None),
    Bar("unloaded, bytes each", "at most 250", _alone("unloaded", "bytes"), 250),
    Bar("replay of 50 sub-workflows of 100 steps", "at most 1.5 x with 1 step", _alone("children", "times"), 1.5),
    Bar(
        "200 workflows at once, power, as fast as single FULL transactions",
        "at least 1 x", _alone("commits", "times"), 1, least=True,
    ),
    Bar(
        "the same, with a flush of 1 ms", "at least 1 x", _alone("commits-1ms", "times"), 1, least=True,
    ),
    Bar("10,000 fall asleep, each", "ms of processor time", _alone("sleepers", "start ms"), None),
    Bar("10,000 asleep", "% of one processor", _alone("sleepers", "idle"), None),
    Bar("10,000 due at once, until all are done", "s", _alone("sleepers", "due"), None),
    Bar("the same, processor time", "s", _alone("sleepers", "due cpu"), None),
)  # fmt: skip
"""The bars, in the order of the table."""
