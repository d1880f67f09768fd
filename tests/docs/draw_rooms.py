"""The parts of `docs/architecture.md` that are made from the code: the rooms, their imports, and the two ports.

`python -m tests.docs.draw_rooms` writes them into the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set as AbstractSet
from inspect import getdoc, isfunction
from math import ceil
from typing import Final

from resonate_anyio._execution._services import Services
from resonate_anyio._workflow._host import Host
from tests.house.source import modules, order
from tests.house.test_circles import between_rooms, imports, largest

from .drawing import drawn_table, write
from .pages import DOCS

PAGE: Final = DOCS / "architecture.md"

_STEP: Final = 100
"""Lines are rounded up to this, so that the page does not change with every line of code."""

_ATTRIBUTE: Final = re.compile(r"^    (?P<name>\w+): (?P<text>.+(?:\n {8}.+)*)", re.MULTILINE)


def rooms() -> list[str]:
    """Return all rooms, the highest first."""
    return [room for row in order() for room in row if any(module.room == room for module in modules().values())]


def without_implied(arrows: Mapping[str, AbstractSet[str]]) -> dict[str, set[str]]:
    """Return the arrows of a graph without circles, but for those that a path over others implies."""
    return {
        source: {to for to in targets if not any(to in _reached(other, arrows) for other in targets - {to})}
        for source, targets in arrows.items()
    }


def _reached(start: str, arrows: Mapping[str, AbstractSet[str]]) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        new = arrows[left.pop()] - found
        found |= new
        left += new
    return found


def _graph() -> str:
    arrows = between_rooms(imports())
    # What the package exports is imported from everywhere, and is not a room.
    del arrows[""]
    drawn = without_implied(arrows)
    lines = [f"    {source} --> {to}" for source in rooms() for to in rooms() if to in drawn[source]]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def _rows() -> Iterator[list[str]]:
    for room in rooms():
        inside = [module for module in modules().values() if module.room == room]
        lines = sum(len(module.path.read_text(encoding="utf-8").splitlines()) for module in inside)
        circle = len(largest(room, imports()))
        yield [f"`{room}`", str(len(inside)), str(_STEP * ceil(lines / _STEP)), str(circle) if circle else "-"]


def _members(port: type) -> Iterator[list[str]]:
    found = _ATTRIBUTE.finditer(getdoc(port) or "")
    texts = {match["name"]: " ".join(match["text"].split()) for match in found}
    for name, member in vars(port).items():
        if isinstance(member, property):
            yield [f"`{name}`", texts[name]]
        elif isfunction(member) and not name.startswith("_"):
            first, _, _ = (getdoc(member) or "").partition("\n")
            yield [f"`{name}()`", first]


def drawings() -> dict[str, str]:
    """Return everything that is drawn, by its name in the page."""
    return {
        "rooms": _graph(),
        "room-table": drawn_table(["room", "modules", "lines, at most", "largest circle of imports"], _rows()),
        "host": drawn_table(["member", "meaning"], _members(Host)),
        "services": drawn_table(["member", "meaning"], _members(Services)),
    }


if __name__ == "__main__":
    write(PAGE, drawings())
