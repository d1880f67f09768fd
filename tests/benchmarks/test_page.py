"""What the comparison writes, from figures that are made up: nothing is measured here."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

import pytest

from .bars import ALONE, BARS, STEPS, WORKS, Bar, Figures, Results
from .chart import chart
from .compare import ratios
from .participants import OFFICIAL_SDK, OURS_IN_MEMORY, PARTICIPANTS

NAMESPACE: Final = "{http://www.w3.org/2000/svg}"


def test_chart() -> None:
    """A chart is well-formed, and has a line with its name for each series that has points."""
    drawn = chart("a < b", "x", "y", {"one": [(1, 0.1), (10, 2)], "two": [(1, 30)], "none": []})
    tree = ET.fromstring(drawn)  # noqa: S314 - it was made here
    texts = [each.text for each in tree.iter(f"{NAMESPACE}text")]

    assert 2 == len(list(tree.iter(f"{NAMESPACE}polyline")))
    assert {"a < b", "one", "two"} <= {*texts}
    assert "none" not in texts


def test_ratios() -> None:
    """The cost of this package is divided by that of each rival, and what was not measured has no ratio."""
    figures: Figures = {(each, STEPS[0]): {"cpu": 2.0} for each in PARTICIPANTS if each != OFFICIAL_SDK}
    figures[OURS_IN_MEMORY, STEPS[0]] = {"cpu": 1.0}
    head, _, *rows = ratios(figures).splitlines()

    assert "| ours, in memory / floor: anyio, JSON |" in head
    assert f"| {STEPS[0].name} | 0.50 | 1.00 |" in rows[0]
    assert f"| {STEPS[1].name} | - | - |" in rows[1]
    assert "ours, in memory / official" not in head
    assert len(WORKS) == len(rows)


@pytest.mark.parametrize(
    ("imports", "limit", "least", "verdict"),
    [
        (3.0, 3.0, False, "met"),
        (3.1, 3.0, False, "**missed**"),
        (3.1, 3.0, True, "met"),
        (2.9, 3.0, True, "**missed**"),
        (2.9, None, False, "no bar"),
        (None, 3.0, False, "not measured"),
    ],
)
def test_verdict(imports: float | None, limit: float | None, least: bool, verdict: str) -> None:
    """A bar is met or missed, unless it has no limit or nothing was measured."""
    bar = Bar("import", "some", lambda results: results.imports, limit, least=least)

    assert verdict == bar.verdict(Results(imports=imports))


def test_each_bar_is_of_something_that_is_measured() -> None:
    """Every bar has a value if every participant and every other measurement has its figures."""
    every = {"cpu": 1.0, "wall": 1.0, "p50": 1.0, "p99": 1.0}
    figures: Figures = {(who, work): every for who in PARTICIPANTS for work in WORKS if work.kind not in who.without}
    alone = {
        each.key: dict.fromkeys([*every, "times", "bytes", "floor", "start ms", "idle", "due", "due cpu"], 1.0)
        for each in ALONE
    }
    results = Results(figures=figures, alone=alone, imports=1, size=(1, 1))

    assert [] == [bar.row for bar in BARS if bar.value(results) is None]
