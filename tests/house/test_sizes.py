"""How long a function and a module may be, so that either can be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from .source import Module, modules, rooms

FUNCTION: Final = 60
"""Lines of a function, from `def` to its end, without its docstring."""

MODULE: Final = 500
"""Lines of a module, with everything."""


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines a function has, without its decorators and its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    match function.body[0]:
        case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
            return lines - (last - first + 1)
        case _:
            return lines


def functions(module: Module) -> Iterator[tuple[str, int]]:
    """Each function of a module, and its length."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{module.short}:{node.lineno} {node.name}", length(node)


MODULES_LEFT: Final[Mapping[str, str]] = {}
"""Rooms with modules that are still longer, and how many lines these had at last."""

FUNCTIONS_LEFT: Final[Mapping[str, str]] = {}
"""Rooms with functions that are still longer, and which these are."""


def each_room(left: Mapping[str, str]) -> list[Any]:
    """Parameters of a test of each room and of the package's `__init__`; of those in `left` it is known to fail."""
    return [
        pytest.param(room, marks=[pytest.mark.xfail(reason=left[room])] if room in left else [], id=room or "__init__")
        for room in sorted({*rooms(), ""})
    ]


def of_room(room: str) -> list[Module]:
    """Its modules."""
    return [module for module in modules().values() if module.room == room]


def test_docstrings_are_not_counted() -> None:
    """The length of a function is that of its code, with the functions inside of it."""
    tree = ast.parse('@mark\ndef f():\n    """One\n\n    two."""\n    def g():\n        pass\n\n    return g\n')
    inside = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert [("f", 5), ("g", 2)] == [(each.name, length(each)) for each in inside]


@pytest.mark.parametrize("room", each_room(MODULES_LEFT))
def test_modules_are_short(room: str) -> None:
    """No module is longer than can be kept in mind."""
    lengths = {each.short: len(each.path.read_text(encoding="utf-8").splitlines()) for each in of_room(room)}
    assert {} == {name: lines for name, lines in lengths.items() if lines > MODULE}


@pytest.mark.parametrize("room", each_room(FUNCTIONS_LEFT))
def test_functions_are_short(room: str) -> None:
    """No function is longer than a screen."""
    lengths = dict(each for module in of_room(room) for each in functions(module))
    assert {} == {name: lines for name, lines in lengths.items() if lines > FUNCTION}
