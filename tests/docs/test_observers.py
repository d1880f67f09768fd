"""The table of `docs/observers.md` has every event, with its fields and with the place where it is made."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import pytest

from resonate_anyio import observe
from resonate_anyio.observe import Event, ExecutionEvent

from .pages import DOCS, TOP, table

PACKAGE: Final = TOP / "src" / "resonate_anyio"
BASES: Final = {Event, ExecutionEvent}


def events() -> list[type[Event]]:
    """Every class of events that is made."""
    found = (getattr(observe, name) for name in observe.__all__)
    return [each for each in found if isinstance(each, type) and issubclass(each, Event) and each not in BASES]


@cache
def rows() -> dict[str, dict[str, str]]:
    """The rows of the table, by the name of the event."""
    text = (DOCS / "observers.md").read_text(encoding="utf-8").partition("## The events")[2]
    return {row["event"].strip("`"): row for row in table(text)}


def _calls(path: Path) -> Iterator[tuple[str, str]]:
    """What is called in a module, by its last name, and the function or method that calls it."""

    def walk(node: ast.AST, within: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield from walk(child, (*within, child.name))
                continue
            if isinstance(child, ast.Call) and isinstance(child.func, (ast.Name, ast.Attribute)):
                name = child.func.id if isinstance(child.func, ast.Name) else child.func.attr
                yield name, f"{path.relative_to(PACKAGE).as_posix()}: {'.'.join(within)}"
            yield from walk(child, within)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), ())


@cache
def callers() -> dict[str, list[str]]:
    """Who calls each name."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, caller in _calls(path):
            found.setdefault(name, []).append(caller)
    return found


def places(cell: str) -> list[str]:
    """The places that a cell names."""
    return re.findall(r"`([^`]+)`", cell)


def test_every_event_is_in_the_table() -> None:
    """The table has every event, and nothing else."""
    assert {each.__name__ for each in events()} == set(rows())


@pytest.mark.parametrize("event", events(), ids=lambda event: event.__name__)
def test_fields(event: type[Event]) -> None:
    """The table names the fields of each event, in their order."""
    assert [each.name for each in attrs.fields(event)] == places(rows()[event.__name__]["fields"])


@pytest.mark.parametrize("event", events(), ids=lambda event: event.__name__)
def test_each_event_is_made_in_one_place(event: type[Event]) -> None:
    """Each class is constructed once in the source, in the function that the table names."""
    assert places(rows()[event.__name__]["made in"]) == callers()[event.__name__]


@pytest.mark.parametrize("event", events(), ids=lambda event: event.__name__)
def test_who_makes_it(event: type[Event]) -> None:
    """The table names every function that calls the one in which an event is made."""
    row = rows()[event.__name__]
    made_in = places(row["made in"])[0].rpartition(" ")[2].rpartition(".")[2]
    found = [each for each in callers()[made_in] if each.startswith("_")]
    assert sorted(places(row["by"])) == sorted(set(found))


@pytest.mark.parametrize("event", events(), ids=lambda event: event.__name__)
def test_events_are_frozen(event: type[Event]) -> None:
    """No observer can change what the next one is told."""
    made = event(**dict.fromkeys((each.name for each in attrs.fields(event)), 1))
    for each in attrs.fields(event):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(made, each.name, 2)
