"""Reading a callable's signature: its kind, the types of its parameters, the type of its result.

Annotations may be strings, may name classes that were imported under `TYPE_CHECKING` only, and may name classes that
are local to the function in which the callable was defined. They are resolved here, once for each callable.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from attrs import frozen

from .._errors import InvalidFunction
from .._values import ValueObject

_PACKAGE: Final = __name__.partition(".")[0]
_MARKERS: Final = ("Context", "Info")
"""The classes of this package that a first parameter can be annotated with; the worker passes an instance."""
POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Kind(Enum):
    """The kinds of durable functions, distinguished by the first parameter."""

    WORKFLOW = "workflow"
    """Takes a `Context`, with which it makes durable calls."""
    INFO_LEAF = "info leaf"
    """A leaf that takes an `Info`, the metadata of its own call."""
    LEAF = "leaf"
    """A leaf that takes its arguments only."""


_KINDS: Final = {"Context": Kind.WORKFLOW, "Info": Kind.INFO_LEAF, None: Kind.LEAF}


@frozen(kw_only=True, eq=False, repr=False)
class Details(ValueObject):
    """The result of `inspect_callable`. It holds no reference to the callable, so that a cache can free both."""

    kind: Kind
    is_async: bool
    signature: inspect.Signature
    hints: Mapping[str, object]
    returns: object


@frozen(eq=False, repr=False)
class _Unresolved(ValueObject):
    """An annotation with a name that does not exist at run time."""

    text: str
    reason: str


_functions: Final[WeakKeyDictionary[types.FunctionType, Details]] = WeakKeyDictionary()
_methods: Final[WeakKeyDictionary[types.FunctionType, Details]] = WeakKeyDictionary()


def inspect_callable(func: Callable[..., Any]) -> Details:
    """Return the details of a callable's signature. Those of functions and methods are cached.

    Raises:
        InvalidFunction: a durable function cannot have this signature.
    """
    if isinstance(func, types.FunctionType):
        return _cached(_functions, func, func)
    if isinstance(func, types.MethodType) and isinstance(func.__func__, types.FunctionType):
        return _cached(_methods, func.__func__, func)
    return _inspect(func)


def _cached(
    cache: WeakKeyDictionary[types.FunctionType, Details], key: types.FunctionType, func: Callable[..., Any]
) -> Details:
    details = cache.get(key)
    if details is None:
        details = cache[key] = _inspect(func)
    return details


def is_context_or_info(type_: type) -> bool:
    """Return whether a type is the `Context` or the `Info` that the worker passes as the first argument."""
    return _marker(type_) is not None


def _marker(annotation: object) -> str | None:
    """Return "Context" or "Info" if an annotation is that class of this package or a subclass of it."""
    if isinstance(annotation, _Unresolved):
        parts = re.split(r"[.\[]", annotation.text.strip("'\" "))
        names = [part for part in parts if part in _MARKERS]
        return names[0] if names else None
    if typing.get_origin(annotation) is typing.Annotated:
        return _marker(typing.get_args(annotation)[0])
    for base in annotation.__mro__ if isinstance(annotation, type) else ():
        if base.__name__ in _MARKERS and base.__module__.partition(".")[0] == _PACKAGE:
            return base.__name__
    return None


def _inspect(func: Callable[..., Any]) -> Details:
    inner = _innermost(func)
    label = getattr(func, "__qualname__", None) or repr(func)
    signature = _signature(func)
    hints = _hints(inner)
    first = next(iter(signature.parameters.values()), None)
    marker = _marker(hints.get(first.name, Any)) if first is not None else None
    is_async = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(_outermost(func))
    _check_first(label, first, marker, hints, is_async=is_async)
    parameters = list(signature.parameters.values())[0 if marker is None else 1 :]
    _check_rest(label, [parameter.name for parameter in parameters], hints)
    return Details(
        kind=_KINDS[marker],
        is_async=is_async,
        signature=signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty),
        hints={parameter.name: hints[parameter.name] for parameter in parameters if parameter.name in hints},
        returns=hints.get("return", Any),
    )


def _innermost(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose annotations count: inside partials, methods, callable objects and decorators.

    A synchronous wrapper around an `async def` returns a coroutine when called, so the inner function also decides
    whether a callable is asynchronous.
    """
    while True:
        match func:
            case partial():
                func = func.func
            case types.MethodType() | staticmethod():
                func = func.__func__
            case _ if hasattr(func, "__wrapped__"):
                func = inspect.unwrap(func)
            case types.FunctionType() | types.BuiltinFunctionType():
                return func
            case _:
                call = type(func).__call__
                if not isinstance(call, types.FunctionType):
                    return func
                func = call


def _outermost(func: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(func, partial):
        func = func.func
    return func if inspect.isroutine(func) else type(func).__call__


def _signature(func: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(func)
    except ValueError:
        # Some builtins have no signature. Any arguments are passed to them.
        return inspect.signature(lambda *args, **kwargs: (args, kwargs))


def _check_first(
    label: str,
    first: inspect.Parameter | None,
    marker: str | None,
    hints: Mapping[str, object],
    *,
    is_async: bool,
) -> None:
    if first is None:
        return
    if marker is not None and first.kind not in POSITIONAL:
        msg = f"{label}: the {marker} is passed by position, so {first.name!r} must be a plain first parameter"
        raise InvalidFunction(msg)
    if marker == "Context" and not is_async:
        msg = (
            f"{label} takes a Context, so it must be `async def`: its durable calls are awaited. "
            f"A plain function is a leaf: drop the Context, or take an Info"
        )
        raise InvalidFunction(msg)
    if first.name in ("ctx", "info") and first.name not in hints:
        known = "Context" if first.name == "ctx" else "Info"
        msg = (
            f"{label}: its first parameter {first.name!r} has no annotation, and the kind of a durable function is "
            f"decided by it. Write `{first.name}: {known}`, or give an ordinary parameter another name"
        )
        raise InvalidFunction(msg)


def _check_rest(label: str, names: list[str], hints: Mapping[str, object]) -> None:
    for name in [*names, "return"]:
        hint = hints.get(name, Any)
        misplaced = _marker(hint)
        if misplaced is not None:
            msg = (
                f"{label}: {name!r} is annotated with {misplaced}, which only the first parameter can be "
                f"(of a method: the first after self; pass the bound method)"
            )
            raise InvalidFunction(msg)
        if isinstance(hint, _Unresolved):
            msg = (
                f"{label}: the annotation {hint.text!r} of {name!r} cannot be resolved at run time ({hint.reason}). "
                f"Values are decoded by their annotations: import the name outside `if TYPE_CHECKING:`"
            )
            raise InvalidFunction(msg)


def _hints(inner: Callable[..., Any]) -> dict[str, object]:
    if not isinstance(inner, types.FunctionType):
        return {}
    local = _local_names(inner)
    try:
        return typing.get_type_hints(inner, localns=local, include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation is any expression; each is resolved by itself now
        scope = {**inner.__globals__, **local}
        return {name: _resolve(annotation, scope) for name, annotation in _raw_annotations(inner).items()}


def _raw_annotations(inner: types.FunctionType) -> Mapping[str, object]:
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 - does not exist before

        return annotationlib.get_annotations(inner, format=annotationlib.Format.STRING)
    return inspect.get_annotations(inner)


def _resolve(annotation: object, scope: dict[str, Any]) -> object:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=scope, include_extras=True)["it"]
    except Exception as exc:  # noqa: BLE001 - see above
        return _Unresolved(annotation if isinstance(annotation, str) else repr(annotation), str(exc))


def _local_names(inner: types.FunctionType) -> dict[str, Any]:
    """Return the locals that the annotations name, of the function that defines `inner`, if it is still running.

    Classes that are local to a test or to a `main` function can be found only there.
    """
    if "<locals>" not in inner.__qualname__:
        return {}
    texts = [text for text in _raw_annotations(inner).values() if isinstance(text, str)]
    names = {name for text in texts for name in re.findall(r"[^\W\d]\w*", text)}
    for frame in _stack():
        code = frame.f_code
        if any(inner.__code__ is constant for constant in code.co_consts):
            # Reading `f_locals` can keep the locals alive as long as the frame runs, so it is read only for these.
            wanted = names.intersection(code.co_varnames + code.co_cellvars)
            return {name: frame.f_locals[name] for name in wanted if name in frame.f_locals}
    return {}


def _stack() -> Iterator[types.FrameType]:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
