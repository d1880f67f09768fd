"""Reading the pages under `docs/`: headings, tables, and the anchors of links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).parents[2]
DOCS: Final = TOP / "docs"

_HEADING: Final = re.compile(r"#+ +(.*?)\s*")
_NUMBER: Final = re.compile(r"(\d+(?:\.\d+)*)\.? ")


def prose(text: str) -> Iterator[str]:
    """The lines of a page that are not in a fenced block."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield line


def headings(text: str) -> list[str]:
    """The headings of a page, without their marks."""
    return [found[1] for line in prose(text) if (found := _HEADING.fullmatch(line)) is not None]


def numbers(text: str) -> list[str]:
    """The numbers of its headings: `3` of `## 3. Outcomes`, `3.4` of `### 3.4 A new call`."""
    return [found[1] for heading in headings(text) if (found := _NUMBER.match(heading)) is not None]


def anchors(text: str) -> set[str]:
    """What links to the headings of a page end in."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings(text))
    return {anchor.replace(" ", "-") for anchor in plain}


def table(text: str) -> list[dict[str, str]]:
    """The rows of the first table of a text, each by the names of its columns."""
    rows = [_cells(line) for line in text[text.index("\n|") :].splitlines()[1:] if line.startswith("|")]
    columns, _, *rest = rows
    assert all(len(row) == len(columns) for row in rest)
    return [dict(zip(columns, row, strict=True)) for row in rest]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
