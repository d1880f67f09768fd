"""Drawings: parts of pages that are made by a program, each between two comments with its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

_BLOCK: Final = re.compile(
    r"(?P<begin><!-- drawn: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end of the drawing -->)", re.DOTALL
)

Arrow: TypeAlias = tuple[str | None, str, str]
"""The state before, or None at the beginning; the state after; the event."""


def drawn_diagram(arrows: Iterable[Arrow]) -> str:
    """Return a state diagram with one arrow for each pair of states."""
    labels: dict[tuple[str, str], list[str]] = {}
    for before, after, event in arrows:
        labels.setdefault((before or "[*]", after), []).append(event)

    lines = [f"    {before} --> {after}: {'<br/>'.join(events)}" for (before, after), events in labels.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def drawn_table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join([_line(columns), _line(["---"] * len(columns)), *map(_line, rows)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def drawn_into(page: str, drawings: Mapping[str, str]) -> str:
    """Return the text of a page with these drawings in it."""
    return _BLOCK.sub(lambda block: f"{block['begin']}{drawings[block['name']]}\n{block['end']}", page)


def write(path: Path, drawings: Mapping[str, str]) -> None:
    """Renew the drawings of a page."""
    path.write_text(drawn_into(path.read_text(encoding="utf-8"), drawings), encoding="utf-8")
