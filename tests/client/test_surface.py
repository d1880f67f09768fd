"""The public names: complete, sorted, at home, documented."""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

import pytest

import resonate_anyio
from resonate_anyio import _errors
from resonate_anyio._errors import ResonateError

MODULES = [
    "resonate_anyio",
    "resonate_anyio.networks",
    "resonate_anyio.observe",
    "resonate_anyio.protocol",
    "resonate_anyio.stores",
    "resonate_anyio.testing",
]
CONTRACTS = "resonate_anyio.abc"
FROM_ELSEWHERE = {"ClassVar", "FunctionType", "Literal", "Mapping"}
"""What a public module imports for its own use."""


def public(module: ModuleType) -> set[str]:
    """The names that a user sees, submodules and what comes from the standard library aside."""
    return {
        name
        for name, value in ((name, getattr(module, name)) for name in dir(module))
        if not name.startswith("_") and not inspect.ismodule(value) and name not in {"annotations", *FROM_ELSEWHERE}
    }


@pytest.mark.parametrize("name", MODULES)
def test_all_names_what_is_public(name: str) -> None:
    """`__all__` has every public name, once, in order: constants first."""
    module = importlib.import_module(name)

    assert list(module.__all__) == sorted(public(module), key=lambda name: (not name.isupper(), name))


@pytest.mark.parametrize("name", resonate_anyio.__all__)
def test_public_names_are_at_home_in_the_package(name: str) -> None:
    """Tracebacks, reprs and records show the names that users import."""
    thing = getattr(resonate_anyio, name)

    assert thing.__module__ == "resonate_anyio"
    assert getattr(importlib.import_module(thing.__module__), thing.__qualname__) is thing


def own_members(kind: type) -> list[tuple[str, Any]]:
    """The members that a class has from this package, inherited ones too."""
    bases = [base for base in kind.__mro__ if base.__module__.startswith("resonate_anyio")]
    return [member for base in bases for member in vars(base).items()]


def documented() -> list[Any]:
    """Every public class and function, with the public methods and properties that are its own."""
    found = []
    for module in map(importlib.import_module, [*MODULES, CONTRACTS]):
        for name in module.__all__:
            thing = getattr(module, name)
            if not inspect.isclass(thing) and not inspect.isroutine(thing):
                # An alias or a constant has no docstring of its own.
                continue
            found.append(pytest.param(thing, id=name))
            members = own_members(thing) if isinstance(thing, type) else ()
            found += [
                pytest.param(
                    inspect.unwrap(getattr(thing, member)) if callable(value) else value, id=f"{name}.{member}"
                )
                for member, value in members
                if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property))
            ]
    return found


@pytest.mark.parametrize("thing", documented())
def test_public_names_are_documented(thing: Any) -> None:
    """Each says in its first line, in one sentence, what it is; what attrs generates does not count."""
    text = thing.__doc__ or ""
    first = text.strip().partition("\n\n")[0]

    assert first.rstrip().endswith((".", ":"))
    assert not first.startswith("Method generated")


@pytest.mark.parametrize(
    "name", ["Resonate", "Promises", "Schedules", "Context", "Handle", "DurableFuture", "DurableTaskGroup"]
)
def test_parameters_that_need_it_are_annotated(name: str) -> None:
    """Every parameter and result of a public method has an annotation."""
    for member, value in own_members(getattr(resonate_anyio, name)):
        if member.startswith("_") or not inspect.isfunction(value):
            continue
        signature = inspect.signature(value)
        missing = [p.name for p in list(signature.parameters.values())[1:] if p.annotation is p.empty]

        assert (member, []) == (member, missing)
        assert signature.return_annotation is not signature.empty


def drawn_tree() -> dict[str, tuple[str | None, set[str]]]:
    """The tree in the docstring of `_errors`: each exception with its parent and what else it is."""
    tree: dict[str, tuple[str | None, set[str]]] = {}
    path: list[str] = []
    for line in (_errors.__doc__ or "").splitlines():
        match = re.match(r"( *)\* (\w+)(?: \(also (\w+)\))?", line)
        if match is None:
            continue
        depth = len(match[1]) // 2
        path[depth:] = [match[2]]
        tree[match[2]] = (path[depth - 1] if depth else None, {match[3]} if match[3] else set())
    return tree


def real_tree() -> dict[str, tuple[str | None, set[str]]]:
    """The exceptions of the package, in the same form."""
    errors = [value for value in vars(_errors).values() if isinstance(value, type) and issubclass(value, ResonateError)]
    tree: dict[str, tuple[str | None, set[str]]] = {}
    for error in errors:
        parent = next((base.__name__ for base in error.__bases__ if issubclass(base, ResonateError)), None)
        tree[error.__name__] = (parent, {base.__name__ for base in error.__bases__} - {parent, "Exception"})
    return tree


def test_the_exception_tree_is_drawn_as_it_is() -> None:
    """The docstring of `_errors` shows every exception in its place."""
    assert drawn_tree() == real_tree()


def test_every_exception_is_public() -> None:
    """Whatever is raised can be caught by a public name."""
    assert set(real_tree()) <= set(resonate_anyio.__all__)


@pytest.mark.parametrize("name", sorted(real_tree()))
def test_exceptions_survive_a_copy(name: str) -> None:
    """Every exception can be made again from its arguments: it crosses processes, and is recorded by them."""
    error = getattr(resonate_anyio, name)
    parameters = list(inspect.signature(error).parameters.values()) if "__init__" in vars(error) else []
    samples = {"id": "an-id", "name": "a-name", "status": 400, "pid": 7, "version": 1}
    made = error(*[samples.get(parameter.name, parameter.name) for parameter in parameters])
    kind, arguments = made.__reduce__()[:2]

    again = kind(*arguments)

    assert (type(made), str(made)) == (type(again), str(again))
