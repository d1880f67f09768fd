"""`durable`: the decorator that leaves settings on a function."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar, overload

from attrs import frozen

from .._errors import InvalidArgument, InvalidFunction
from .._time import seconds
from .._values import ValueObject
from ._callables import check_callable, label_of
from ._retry import RetryPolicy
from ._signatures import Details, Kind, inspect_callable

F = TypeVar("F", bound=Callable[..., Any])

ATTRIBUTE: Final = "__durable__"
"""The attribute of a function that holds its settings. `functools.wraps` copies it to a wrapper."""


@frozen(eq=False, repr=False)
class Settings(ValueObject):
    """The settings that `durable` leaves on a function.

    Attributes:
        name: the name that the function is recorded and called under, or None.
        version: the version of the function, or None.
        retry: the retry policy of the function, or None.
        timeout: the timeout of a call in seconds, or None.
        single_arg: whether the recorded arguments of a call are its only argument, even if they are an array.
    """

    name: str | None = None
    version: int | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    single_arg: bool = False


NO_SETTINGS: Final = Settings()
"""The settings of a function that is not decorated."""


@overload
def durable(func: F, /) -> F: ...
@overload
def durable(
    *,
    name: str | None = None,
    version: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | timedelta | None = None,
    single_arg: bool = False,
) -> Callable[[F], F]: ...
def durable(
    func: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | timedelta | None = None,
    single_arg: bool = False,
) -> Any:
    """Give a function durable settings. It stays the same function and can be called as before.

    Args:
        func: the function, when used as `@durable` without parentheses.
        name: the name that the function is recorded and called under. Default: its own name.
        version: the version of the function; the first is 1.
        retry: when to call the function again after it raised. None: the caller decides. Only leaves are retried.
        timeout: the maximum duration of a call, retries included: seconds or a `timedelta`.
        single_arg: pass the recorded arguments of a call as one argument, even if they are an array. For functions that
            take an array and are called from Rust or Go: these SDKs send the only argument of a function by itself.

    Raises:
        InvalidFunction: the decorated object cannot be a durable function, or it is a workflow and has a retry policy.
        InvalidArgument: a setting is unusable.
    """
    if retry is not None and not isinstance(retry, RetryPolicy):
        msg = f"retry is a policy such as Retry(attempts=5), not {retry!r}"
        raise InvalidArgument(msg)
    limit = None if timeout is None else seconds(timeout)
    settings = Settings(
        None if name is None else check_function_name(name),
        None if version is None else check_version(version),
        retry,
        limit,
        single_arg,
    )
    if func is None:
        return partial(_mark, settings)
    if isinstance(func, str):
        msg = f"durable takes the name as a keyword: @durable(name={func!r})"
        raise InvalidArgument(msg)
    return _mark(settings, func)


def check_retry(func: object, details: Details, settings: Settings) -> None:
    """Refuse a retry policy of a workflow: its calls are recorded, and a second attempt would get the same outcomes.

    Raises:
        InvalidFunction: `func` is a workflow and has a retry policy.
    """
    if settings.retry is not None and details.kind is Kind.WORKFLOW:
        msg = (
            f"{label_of(func)} is a workflow and cannot have a retry policy: its calls are on record, and it would get "
            f"the same failure again. Give the policy to the leaves that it calls: @durable(retry=...) on a leaf, or "
            f"ctx.run(leaf, ...).retry(...)"
        )
        raise InvalidFunction(msg)


def check_function_name(name: str) -> str:
    """Return the name of a function as a user gave it.

    Raises:
        InvalidArgument: it is not a string, or empty.
    """
    if isinstance(name, str) and name:
        return name
    msg = f"the name of a durable function is a string that is not empty, not {name!r}"
    raise InvalidArgument(msg)


def check_version(version: int) -> int:
    """Return the version of a function as a user gave it.

    Raises:
        InvalidArgument: it is not an int, or less than 1.
    """
    if isinstance(version, int) and not isinstance(version, bool) and version >= 1:
        return version
    msg = f"the version of a durable function is an int of at least 1, not {version!r}"
    raise InvalidArgument(msg)


def _mark(settings: Settings, func: F) -> F:
    target = _inside_descriptor(func)
    check_callable(target)
    try:
        setattr(target, ATTRIBUTE, settings)
    except AttributeError:
        msg = f"{label_of(func)} cannot carry settings; wrap it in a function of your own and decorate that"
        raise InvalidFunction(msg) from None
    if settings.retry is not None or "<locals>" in getattr(target, "__qualname__", ""):
        # Its annotations may name local classes that are out of reach later, so they are resolved now and cached.
        # Annotations that name classes which are not defined yet are resolved when the function is used.
        details: Details | None = None
        with suppress(InvalidFunction):
            details = inspect_callable(target)
        if details is not None:
            check_retry(target, details, settings)
    return func


def _inside_descriptor(func: Any) -> Any:
    # Access through the class returns the function inside a static method, so the settings belong on that function.
    return func.__func__ if isinstance(func, (staticmethod, classmethod)) else func
