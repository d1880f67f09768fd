"""What the comparison writes, from figures that are made up: nothing is measured here."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

from .chart import chart
from .compare import STEPS, WORKS, Figures, ratios
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
    rows = ratios(figures).splitlines()

    nothing = " | -" * (len(WORKS) - 1)
    assert "| ours, in memory / floor: asyncio, JSON | 0.50" + nothing + " |" in rows
    assert not any("official" in row for row in rows)
