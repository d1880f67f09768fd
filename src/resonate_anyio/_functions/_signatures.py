"""What a callable's signature says: its kind, its parameters' types, the type of its result.

Annotations may be strings, may name classes that were imported under `TYPE_CHECKING` only, and may name classes that
are local to the function in which the callable was defined. All of that is settled here, once for each callable.
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

_PACKAGE: Final = __name__.partition(".")[0]
_GIVEN: Final = ("Context", "Info")
POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Kind(Enum):
    """What a durable function may do, as its first parameter says."""

    WORKFLOW = "workflow"
    """Takes a `Context`: it may make durable calls of its own."""
    INFO_LEAF = "info leaf"
    """Takes an `Info`: a leaf that is told of its own call."""
    LEAF = "leaf"
    """Takes its arguments only."""


_KINDS: Final = {"Context": Kind.WORKFLOW, "Info": Kind.INFO_LEAF, None: Kind.LEAF}


@frozen(kw_only=True)
class Details:
    """What `inspect_callable` finds. It holds no reference to the callable, so that it can be cached by it."""

    kind: Kind
    is_async: bool
    signature: inspect.Signature
    hints: Mapping[str, object]
    returns: object


@frozen
class _Unresolved:
    """An annotation that names something which does not exist at run time."""

    text: str
    reason: str


_functions: Final[WeakKeyDictionary[types.FunctionType, Details]] = WeakKeyDictionary()
_methods: Final[WeakKeyDictionary[types.FunctionType, Details]] = WeakKeyDictionary()


def inspect_callable(func: Callable[..., Any]) -> Details:
    """Look at a callable's signature. Functions and methods are looked at once.

    Raises:
        InvalidFunction: the signature cannot be a durable function's.
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


def is_given_by_engine(annotation: object) -> bool:
    """Whether a type is the `Context` or the `Info` that the engine passes as the first argument."""
    return _given(annotation) is not None


def _given(annotation: object) -> str | None:
    if isinstance(annotation, _Unresolved):
        last = re.split(r"[.\[]", annotation.text.strip("'\" "))
        names = [part for part in last if part in _GIVEN]
        return names[0] if names else None
    if typing.get_origin(annotation) is typing.Annotated:
        return _given(typing.get_args(annotation)[0])
    mro = annotation.__mro__ if isinstance(annotation, type) else ()
    ours = (base.__name__ for base in mro if base.__module__.partition(".")[0] == _PACKAGE)
    return next((name for name in ours if name in _GIVEN), None)


def _inspect(func: Callable[..., Any]) -> Details:
    inner = _innermost(func)
    label = getattr(func, "__qualname__", None) or repr(func)
    signature = _signature(func)
    hints = _hints(inner)
    first = next(iter(signature.parameters.values()), None)
    given = _given(hints.get(first.name, Any)) if first is not None else None
    is_async = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(_outermost(func))
    _check_first(label, first, given, hints, is_async=is_async)
    parameters = list(signature.parameters.values())[0 if given is None else 1 :]
    _check_rest(label, [parameter.name for parameter in parameters], hints)
    return Details(
        kind=_KINDS[given],
        is_async=is_async,
        signature=signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty),
        hints={parameter.name: hints[parameter.name] for parameter in parameters if parameter.name in hints},
        returns=hints.get("return", Any),
    )


def _innermost(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose annotations count: inside partials, methods, callable objects, decorators.

    A plain wrapper around an `async def` gives a coroutine when called, hence what is inside decides that too.
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
        # Some builtins do not tell; they take what they are given.
        return inspect.signature(lambda *args, **kwargs: (args, kwargs))


def _check_first(
    label: str,
    first: inspect.Parameter | None,
    given: str | None,
    hints: Mapping[str, object],
    *,
    is_async: bool,
) -> None:
    if first is None:
        return
    if given is not None and first.kind not in POSITIONAL:
        msg = f"{label}: the {given} is passed by position, so {first.name!r} must be a plain first parameter"
        raise InvalidFunction(msg)
    if given == "Context" and not is_async:
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
        misplaced = _given(hint)
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
    except Exception:  # noqa: BLE001 - an annotation is any expression; each is looked at on its own now
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
    """Return what the annotations name among the locals of the function that defines `inner`, if it still runs.

    Classes that are local to a test or to a `main` are found there; nothing else keeps them for an annotation.
    """
    if "<locals>" not in inner.__qualname__:
        return {}
    texts = [text for text in _raw_annotations(inner).values() if isinstance(text, str)]
    names = {name for text in texts for name in re.findall(r"[^\W\d]\w*", text)}
    for frame in _stack():
        code = frame.f_code
        if any(inner.__code__ is constant for constant in code.co_consts):
            # Asking for the locals of a frame can keep them alive as long as it runs: only if need be.
            wanted = names.intersection(code.co_varnames + code.co_cellvars)
            return {name: frame.f_locals[name] for name in wanted if name in frame.f_locals}
    return {}


def _stack() -> Iterator[types.FrameType]:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
