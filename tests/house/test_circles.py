"""Circles of imports, with those that only type checkers follow: between rooms none, inside a room small ones."""

from __future__ import annotations

from collections.abc import Mapping, Set as AbstractSet
from functools import cache
from typing import Final, TypeAlias

import grimp
import pytest

from .source import PACKAGE, modules, room_of, rooms

Arrows: TypeAlias = Mapping[str, AbstractSet[str]]

SIZE: Final = 4
"""The size of the largest circle of a room."""


@cache
def imports() -> Arrows:
    """Of each module those that it imports, in functions and under `TYPE_CHECKING` as well."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=False)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def circles(arrows: Arrows) -> list[set[str]]:
    """The largest sets of names that can all be reached from each other, with more than one member each."""
    reached = {name: _reached_from(name, arrows) for name in arrows}
    found = {frozenset(other for other in reached[name] if name in reached[other]) for name in arrows}
    return [set(circle) for circle in found if len(circle) > 1]


def _reached_from(name: str, arrows: Arrows) -> set[str]:
    seen: set[str] = set()
    left = [name]
    while left:
        new = arrows[left.pop()] - seen
        seen |= new
        left += new
    return seen


def between_rooms(modules: Arrows) -> dict[str, set[str]]:
    """Of each room those that it imports from."""
    arrows: dict[str, set[str]] = {}
    for name, imported in modules.items():
        arrows.setdefault(room_of(name), set()).update(map(room_of, imported))
    return {room: to - {room} for room, to in arrows.items()}


def largest(room: str, modules: Arrows) -> set[str]:
    """The largest circle inside a room."""
    inside = {name: {to for to in imported if room_of(to) == room} for name, imported in modules.items()}
    return max((circle for circle in circles(inside) if {room} == set(map(room_of, circle))), key=len, default=set())


@pytest.mark.parametrize(
    ("arrows", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [{"a", "b", "c"}]),
        ({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}}, [{"a", "b"}, {"c", "d"}]),
    ],
    ids=["a chain", "a circle and what leads to it", "two circles"],
)
def test_circles_are_found(arrows: Arrows, expected: list[set[str]]) -> None:
    """What the tests below look for is found where it is."""
    assert sorted(expected, key=sorted) == sorted(circles(arrows), key=sorted)


def test_rooms_are_in_no_circle() -> None:
    """Two rooms do not import each other, neither directly nor by way of others."""
    assert [] == circles(between_rooms(imports()))


@pytest.mark.parametrize("room", sorted(rooms()))
def test_circles_inside_a_room_are_small(room: str) -> None:
    """Modules that import each other are few, so that they can be read together."""
    circle = largest(room, imports())
    assert SIZE >= len(circle), sorted(circle)


def test_every_import_counts() -> None:
    """Imports in functions and under `TYPE_CHECKING` are among those that are looked at."""
    missing = [
        (module.name, name)
        for module in modules().values()
        for name in module.imports.values()
        if name in modules() and name not in imports()[module.name] and name != module.name
    ]
    assert [] == missing
