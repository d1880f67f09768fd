"""Who may touch whose attributes, on the syntax trees.

A room uses of another only names without an underscore. No attribute of an object is assigned from outside the room of
its class, and inside that room from at most one module besides the one of the class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from . import source
from .source import is_private, modules, room_of, rooms
from .whose import Access, Class, accesses, classes

FROM_OUTSIDE: Final[Mapping[str, str]] = {}
"""Rooms whose modules still assign attributes of objects of other rooms, and which."""

FROM_ALL_SIDES: Final[Mapping[str, str]] = {}
"""Rooms with objects that more than one other module assigns to."""


def each_room(left: Mapping[str, str]) -> list[Any]:
    """Parameters of a test of each room; of those in `left` it is known to fail."""
    return [
        pytest.param(room, marks=[pytest.mark.xfail(reason=left[room])] if room in left else [], id=room)
        for room in sorted(rooms())
    ]


def places() -> list[Access]:
    """Every place where an attribute of an object other than `self` is named, and its class is of the package."""
    return [access for access in accesses() if access.owners]


def from_outside(places: Iterable[Access]) -> list[str]:
    """Those where an object of another room is assigned to."""
    return [
        str(place)
        for place in places
        if place.assigned and place.module.room not in {owner.module.room for owner in place.owners}
    ]


def from_all_sides(places: Iterable[Access]) -> dict[Class, list[str]]:
    """Those inside one room, by class, of classes that more than one other module assigns to."""
    found: dict[Class, list[Access]] = {}
    for place in places:
        homes = {owner.module for owner in place.owners}
        if place.assigned and place.module not in homes and len(place.owners) == 1:
            [owner] = place.owners
            if owner.module.room == place.module.room:
                found.setdefault(owner, []).append(place)
    return {
        owner: [str(each) for each in inside]
        for owner, inside in found.items()
        if len({each.module.name for each in inside}) > 1
    }


def private_names() -> Iterator[tuple[str, str]]:
    """Each use of another room's name with an underscore: the room that uses it, and where."""
    for module in modules().values():
        for name in module.imports.values():
            parent, _, last = name.rpartition(".")
            if parent in modules() and name not in modules() and is_private(last) and room_of(name) != module.room:
                yield module.room, f"{module.short} imports {name}"
    for place in accesses():
        homes = {room_of(place.of)} if place.of else {owner.module.room for owner in place.owners}
        is_module = f"{place.of}.{place.attribute}" in modules()
        if is_private(place.attribute) and homes and place.module.room not in homes and not is_module:
            yield place.module.room, str(place)


PLANTED: Final = {
    "_low/__init__.py": "",
    "_low/_a.py": """
class A:
    def __init__(self):
        self.x = self._y = 0

class B:
    a: A

_hidden = 1

class P(Protocol):
    only: int

class Q:
    only: int

def touch(b: B):
    b.a.x = 1
""",
    "_low/_c.py": """
from ._a import A, _hidden

def touch(a: A):
    a.x = 2
    del a._y
""",
    "_low/_d.py": """
from ._a import B

def touch(b: "B | None"):
    setattr(b.a, "x", 3)
""",
    "_high.py": """
from anyio import Event
from ._low import _a
from ._low._a import A, _hidden

class Like(Protocol):
    only: int

def touch(a: A, event: Event, unknown, like: Like):
    like.only = 9
    a.x = 4
    event.x = 5
    unknown.x += 6
    made = A()
    made._y, _a._hidden = 7, 8
    return lambda: a._y
""",
}


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A small package in the place of the real one, which breaks the rules."""
    caches = (modules, classes, accesses)
    for name, text in PLANTED.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(source, "SOURCE", tmp_path)
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


@pytest.mark.usefixtures("planted")
def test_what_breaks_a_rule_is_found() -> None:
    """What the tests below look for is found where it is, and nothing else is."""
    assert [
        "_high:10 like.only",
        "_high:11 a.x",
        "_high:13 unknown.x",
        "_high:15 made._y",
    ] == from_outside(places())
    assert {"A": ["_low._c:5 a.x", "_low._c:6 a._y", "_low._d:5 setattr(b.a, 'x', 3)"]} == {
        owner.name.rpartition(".")[2]: found for owner, found in from_all_sides(places()).items()
    }
    assert {
        ("_high", "_high imports resonate_anyio._low._a._hidden"),
        ("_high", "_high:15 made._y"),
        ("_high", "_high:15 _a._hidden"),
        ("_high", "_high:16 a._y"),
    } == set(private_names())


def test_the_walk_knows_classes() -> None:
    """Mostly it can be told whose an attribute is: from annotations of parameters, fields and properties."""
    known = [place for place in places() if len(place.owners) == 1]
    assert len(known) > 0.6 * len(places()) > 1000


@pytest.mark.parametrize("room", sorted(rooms()))
def test_private_names_stay_in_their_room(room: str) -> None:
    """A room imports nothing with an underscore from another, and reads no such attribute of its objects."""
    assert [] == [text for user, text in private_names() if user == room]


@pytest.mark.parametrize("room", each_room(FROM_OUTSIDE))
def test_no_object_of_another_room_is_assigned_to(room: str) -> None:
    """What another room's object holds is that room's to change: it has a method for what others may ask of it."""
    assert [] == from_outside(place for place in places() if place.module.room == room)


@pytest.mark.parametrize("room", each_room(FROM_ALL_SIDES))
def test_an_object_is_assigned_to_from_one_other_module(room: str) -> None:
    """Inside a room at most one module besides the one of its class assigns to an object."""
    assert {} == from_all_sides(place for place in places() if place.module.room == room)
