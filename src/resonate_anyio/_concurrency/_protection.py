"""Ctrl-C on trio: in which code KeyboardInterrupt may be raised.

trio raises KeyboardInterrupt in whatever code the main thread runs, unless that code is protected. In the bookkeeping
of this package it would leave an operation half done. So all code of this package is protected, and the functions of
the user that it calls are exposed again (`exposed`). If Ctrl-C is pressed while protected code runs, KeyboardInterrupt
is raised in the main task of the program, at its next checkpoint.

On asyncio nothing has to be protected: the first Ctrl-C cancels the main task.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from types import CodeType, ModuleType
from typing import Any, Final, TypeVar

from attrs import frozen

from .._values import ValueObject
from ._package import NAME
from ._tasks import on_asyncio

T = TypeVar("T")

_PROTECTED: Final = tuple(
    f"{NAME}.{room}"
    for room in (
        "_api",
        "_client",
        "_concurrency",
        "_embedded",
        "_execution",
        "_functions",
        "_protocol",
        "_requests",
        "_worker",
        "_workflow",
        "networks",
        "stores",
    )
)
"""The packages that are protected. Codecs are not among them, because they call code of the user."""

_done: Final[set[str]] = set()


async def exposed(func: Callable[[], Awaitable[T]]) -> T:
    """Await a function of the user."""
    return await func()


def protect_package() -> None:
    """Protect the code of this package's modules that are loaded by now, if the backend is trio."""
    if on_asyncio():
        return
    protect = sys.modules["trio"].lowlevel.enable_ki_protection
    for name, module in tuple(sys.modules.items()):
        if name not in _done and name.startswith(_PROTECTED):
            for code in _code_in(module):
                protect(_Function(code))
            _done.add(name)
    sys.modules["trio"].lowlevel.disable_ki_protection(exposed)


@frozen(eq=False, repr=False)
class _Function(ValueObject):
    """An object that trio accepts as a function: it only reads the code, and marks it."""

    code: CodeType

    @property
    def __code__(self) -> CodeType:
        return self.code


def _code_in(module: ModuleType) -> Iterator[CodeType]:
    """Return all code that is defined in a module."""
    for member in tuple(vars(module).values()):
        if not str(getattr(member, "__module__", "")).startswith(NAME):
            continue
        for code in _code_of(member):
            if code.co_filename == module.__file__:
                yield from _with_nested(code)


def _code_of(member: Any) -> Iterator[CodeType]:
    """Return the code of a function, or of the members of a class."""
    if isinstance(member, type):
        members = [each for each in vars(member).values() if not isinstance(each, type)]
    else:
        members = [member]
    for each in members:
        # The functions inside properties, static and class methods, and decorated functions.
        for name in ("fget", "fset", "__func__", "__wrapped__"):
            if inner := getattr(each, name, None):
                yield from _code_of(inner)
        if isinstance(code := getattr(each, "__code__", None), CodeType):
            yield code


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_nested(constant)
