"""What each kind of work costs. A change that makes work cheaper, or that has to make it dearer, edits this table."""

from __future__ import annotations

from typing import Final

from .counting import Costs

COSTS: Final[dict[tuple[str, str], Costs]] = {
    ("an empty run", "asyncio"): Costs(
        requests=2, transactions=2, turns=6, scopes=18, tasks=1, commits=2, statements=13, posts=2
    ),
    ("an empty run", "trio"): Costs(
        requests=2, transactions=2, turns=6, scopes=17, tasks=1, commits=2, statements=13, posts=2
    ),
    ("a step", "asyncio"): Costs(
        requests=1, transactions=1, turns=1, scopes=4, tasks=0, commits=1, statements=4, posts=2
    ),
    ("a step", "trio"): Costs(requests=1, transactions=1, turns=1, scopes=4, tasks=0, commits=1, statements=4, posts=2),
    ("a replayed step", "asyncio"): Costs(
        requests=0, transactions=0, turns=0, scopes=2, tasks=0, commits=0, statements=0, posts=0
    ),
    ("a replayed step", "trio"): Costs(
        requests=0, transactions=0, turns=0, scopes=2, tasks=0, commits=0, statements=0, posts=0
    ),
    ("a call of a fan-out", "asyncio"): Costs(
        requests=2, transactions=2, turns=1, scopes=6, tasks=1, commits=1, statements=7, posts=2
    ),
    ("a call of a fan-out", "trio"): Costs(
        requests=2, transactions=2, turns=1, scopes=6, tasks=1, commits=1, statements=7, posts=2
    ),
    ("a remote call", "asyncio"): Costs(
        requests=4, transactions=4, turns=8, scopes=16, tasks=2, commits=4, statements=27, posts=4
    ),
    ("a remote call", "trio"): Costs(
        requests=4, transactions=4, turns=8, scopes=16, tasks=2, commits=4, statements=27, posts=4
    ),
    ("a sleep", "asyncio"): Costs(
        requests=2, transactions=3, turns=6, scopes=3, tasks=0, commits=3, statements=23, posts=2.05
    ),
    ("a sleep", "trio"): Costs(
        requests=2, transactions=3, turns=5, scopes=3, tasks=0, commits=3, statements=23, posts=2.05
    ),
}
"""The costs of one unit of each kind of work, on each backend."""

INSTRUCTIONS: Final[dict[str, float]] = {
    "an empty run": 1_776_000,
    "a step": 910_000,
    "a replayed step": 386_000,
    "a call of a fan-out": 1_067_000,
    "a remote call": 2_614_000,
    "a sleep": 1_718_000,
}
"""The instructions of one unit of each kind of work on asyncio, by Python 3.11."""

YARDSTICK: Final = 581_380
"""The instructions of one round of `yardstick` by the build of Python that has given these numbers."""
