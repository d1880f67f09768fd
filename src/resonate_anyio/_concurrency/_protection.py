"""Ctrl-C on trio: where in this package's code it may be raised, and where not.

trio raises KeyboardInterrupt wherever the main thread happens to be, unless the code there is protected. In the middle
of the engine's bookkeeping it would leave that half done. So all code of this package is protected, and what functions
of the user's do below it is exposed again (`exposed`). A Ctrl-C that comes in protected code is raised in the program's
main task, at its next checkpoint.

asyncio does nothing of the kind: there the first Ctrl-C cancels the main task.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from types import CodeType, ModuleType
from typing import Any, Final, TypeVar

from attrs import frozen

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
"""Codecs are missing: they call code of the user's."""

_done: Final[set[str]] = set()


async def exposed(func: Callable[[], Awaitable[T]]) -> T:
    """Await code of the user's."""
    return await func()


def protect_package() -> None:
    """Protect the code of this package's modules that are loaded by now, if trio is what runs."""
    if on_asyncio():
        return
    protect = sys.modules["trio"].lowlevel.enable_ki_protection
    for name, module in tuple(sys.modules.items()):
        if name not in _done and name.startswith(_PROTECTED):
            for code in _code_in(module):
                protect(_Function(code))
            _done.add(name)
    sys.modules["trio"].lowlevel.disable_ki_protection(exposed)


@frozen
class _Function:
    """What trio takes for a function: it looks at the code only, and marks that."""

    code: CodeType

    @property
    def __code__(self) -> CodeType:
        return self.code


def _code_in(module: ModuleType) -> Iterator[CodeType]:
    """All code that is written in a module."""
    for member in tuple(vars(module).values()):
        if not str(getattr(member, "__module__", "")).startswith(NAME):
            continue
        for code in _code_of(member):
            if code.co_filename == module.__file__:
                yield from _with_nested(code)


def _code_of(member: Any) -> Iterator[CodeType]:
    """The code of a function, or of the members of a class."""
    if isinstance(member, type):
        members = [each for each in vars(member).values() if not isinstance(each, type)]
    else:
        members = [member]
    for each in members:
        # What properties, static and class methods and decorated functions are made from.
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
