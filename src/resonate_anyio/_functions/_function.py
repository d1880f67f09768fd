"""`Function`: what this package knows about a callable, and how that is found out.

A `Function` holds the callable's name and version, its kind, and the types of its parameters and of its result. Nothing
here calls it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CodeType, FunctionType
from typing import Any, Final, final
from weakref import WeakKeyDictionary, ref

from attrs import frozen

from .._errors import InvalidArgument, InvalidFunction
from .._time import to_ms
from .._values import ValueObject
from ._callables import check_callable, label_of
from ._durable import ATTRIBUTE, NO_SETTINGS, Settings, check_function_name, check_retry, check_version
from ._retry import RetryPolicy
from ._signatures import POSITIONAL, Kind, inspect_callable, is_context_or_info


@final
@frozen(kw_only=True, eq=False, repr=False)
class Function:
    """A callable and its description.

    Attributes:
        name: the name that it is recorded and called under.
        version: the version; the first is 1. One program may have several versions under one name.
        func: the callable itself.
        retry: the retry policy of the function, or None.
        timeout: the timeout of the function in seconds, or None.
        timeout_ms: the timeout in milliseconds, or None.
        single_arg: whether the recorded arguments of a call are its only argument, even if they are an array.
        kind: the kind, decided by the first parameter.
        is_async: whether calling it returns an awaitable.
        signature: the parameters that callers see: without the `Context` or `Info` that the worker passes.
        hints: the types of those parameters by name; parameters without an annotation are absent.
        returns: the type of the result; `Any` without an annotation.
    """

    name: str
    version: int = 1
    func: Callable[..., Any]
    retry: RetryPolicy | None = None
    timeout: float | None = None
    timeout_ms: int | None = None
    single_arg: bool = False
    kind: Kind
    is_async: bool
    signature: inspect.Signature
    hints: Mapping[str, object]
    returns: object

    @classmethod
    def of(
        cls,
        func: Callable[..., Any],
        *,
        name: str | None = None,
        version: int | None = None,
        single_arg: bool | None = None,
    ) -> Function:
        """Return the description of a callable.

        Args:
            func: a function, a bound method, or (with a name) a partial or an object with `__call__`.
            name: overrides the name given to `durable`, and the callable's own name.
            version: overrides the version given to `durable`.
            single_arg: overrides the setting given to `durable`.

        Raises:
            InvalidFunction: `func` cannot be a durable function; the message says what to write instead.
            InvalidArgument: name or version is unusable.
        """
        settings: Settings = getattr(func, ATTRIBUTE, NO_SETTINGS)
        if not isinstance(func, FunctionType) or name is not None or version is not None or single_arg is not None:
            description = _describe(func, settings, name, version, single_arg=single_arg)
            return cls(func=func, retry=settings.retry, **description)

        # Nearly every call of a program is of a function that was described before.
        found = _found.get(func)
        if (
            found is None
            or found.settings() is not settings
            or found.name != func.__name__
            or found.code is not func.__code__
        ):
            description = _describe(func, settings)
            found = _found[func] = _Found(ref(settings), func.__name__, func.__code__, description)
        return cls(func=func, retry=settings.retry, **found.description)


@frozen(eq=False, repr=False)
class _Found(ValueObject):
    """The description of a function, with the attributes that it was made from.

    It holds no reference to the function, nor to the settings, which may refer to the function: a cache by function
    would never be freed then.

    Attributes:
        settings: the settings that `durable` had left on the function.
        name: the `__name__` of the function.
        code: the `__code__` of the function.
        description: the fields of the `Function`, without `func` and `retry`.
    """

    settings: ref[Settings]
    name: str
    code: CodeType
    description: Mapping[str, Any]


_found: Final[WeakKeyDictionary[FunctionType, _Found]] = WeakKeyDictionary()


def _describe(
    func: Callable[..., Any],
    settings: Settings,
    name: str | None = None,
    version: int | None = None,
    *,
    single_arg: bool | None = None,
) -> dict[str, Any]:
    """Return the fields of a `Function`, without `func` and `retry`."""
    check_callable(func)
    details = inspect_callable(func)
    check_retry(func, details, settings)
    single_arg = settings.single_arg if single_arg is None else single_arg
    if single_arg:
        _check_single(func, details.signature)
    return {
        "name": settings.name or _own_name(func) if name is None else check_function_name(name),
        "version": settings.version or 1 if version is None else check_version(version),
        "timeout": settings.timeout,
        "timeout_ms": None if settings.timeout is None else to_ms(settings.timeout),
        "single_arg": single_arg,
        "kind": details.kind,
        "is_async": details.is_async,
        "signature": details.signature,
        "hints": details.hints,
        "returns": details.returns,
    }


def _check_single(func: Callable[..., Any], signature: inspect.Signature) -> None:
    """Refuse a function that does not take exactly one argument by position."""
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if len(kinds) != 1 or kinds[0] not in POSITIONAL:
        msg = f"{label_of(func)} takes {signature}; with single_arg=True it takes one argument, by position"
        raise InvalidFunction(msg)


def _own_name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", None)
    if isinstance(name, str) and name != "<lambda>":
        return name
    what = "a lambda" if name == "<lambda>" else f"{type(func).__name__} {func!r}"
    instead = "call a function"
    if isinstance(func, partial):
        arguments = [*map(repr, func.args), *(f"{key}={value!r}" for key, value in func.keywords.items())]
        instead = f"pass the arguments to the call: ctx.run({', '.join([label_of(func.func), *arguments, '...'])})"
    msg = (
        f"{what} has no name to record it under; {instead}. Or give it a name: durable(name=...)(func), and for "
        f"resonate.run() register(func, name=...)"
    )
    raise InvalidFunction(msg)


def check_call(function: Function, args: Sequence[object], kwargs: Mapping[str, object]) -> inspect.BoundArguments:
    """Return the arguments of a call by parameter. A call that cannot work is refused before anything is sent.

    Raises:
        InvalidArgument: an argument is missing, surplus or unknown, or is the `Context` that the worker passes.
    """
    if args and is_context_or_info(type(args[0])):
        msg = (
            f"the worker passes the {type(args[0]).__name__} itself\n"
            f"    run({function.name}, ctx, ...)  # incorrect!\n"
            f"    run({function.name}, ...)       # correct"
        )
        raise InvalidArgument(msg)
    try:
        return function.signature.bind(*args, **kwargs)
    except TypeError as exc:
        msg = f"{function.name!r} cannot be called like this: {exc}. It takes {function.signature}"
        raise InvalidArgument(msg) from None
