"""Which objects can be durable functions, judged without a look at their annotations."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from typing import Any

from .._errors import InvalidFunction


class UnmadeCall:
    """Base class of builders: a builder describes a durable call, which is made when the builder is awaited.

    The builders are defined in higher layers. `check_callable` recognizes them by this class.
    """

    __slots__ = ()

    def excuse(self) -> None:
        """Do not warn when the call is never made."""
        raise NotImplementedError


def check_callable(func: object) -> None:
    """Refuse an object that cannot be a durable function. Annotations are not read.

    Raises:
        InvalidFunction: `func` is not a function; the message says what to write instead.
    """
    if isinstance(func, UnmadeCall):
        msg = f"expected a function, but got the call {func!r}; await it, or pass its function and arguments"
        func.excuse()
        raise InvalidFunction(msg)
    if isinstance(func, Coroutine):
        raise InvalidFunction(_called_already(func))
    if isinstance(func, type):
        msg = f"{func.__name__} is a class; a durable function is a function: wrap the class in one that returns JSON"
        raise InvalidFunction(msg)
    if not callable(func):
        msg = f"a durable function must be callable, not {type(func).__name__} {func!r}"
        raise InvalidFunction(msg)
    for candidate in (func, inspect.unwrap(func)):
        if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
            msg = (
                f"{label_of(func)} is a generator function: the values that it yields cannot be recorded. "
                f"Return one value instead, e.g. a list"
            )
            raise InvalidFunction(msg)


def label_of(func: object) -> str:
    """Return the name of a callable for error messages."""
    return getattr(func, "__qualname__", None) or repr(func)


def _called_already(coroutine: Coroutine[Any, Any, Any]) -> str:
    name = getattr(coroutine, "__name__", "func")
    # The coroutine is never awaited. Closing it suppresses a second, misleading warning.
    coroutine.close()
    return (
        f"expected a function, but got a coroutine: pass the function and its arguments separately, do not call it\n"
        f"    ctx.run({name}(x, y))  # incorrect!\n"
        f"    ctx.run({name}, x, y)  # correct"
    )
