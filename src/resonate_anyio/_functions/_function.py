"""Durable functions: what the engine knows of a callable, and how calls of it are written and read.

A `Function` is a callable looked at once: its name and version, what kind it is, and the types of its parameters and of
its result. `durable` only leaves settings on a function; nothing here runs one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar, final, overload

from attrs import define, field, frozen

from .._api._builder import Builder
from .._codec import JSON, Call, Codec
from .._errors import AlreadyRegistered, DecodeError, InvalidArgument, InvalidFunction, NotRegistered
from .._protocol import Value
from .._time import seconds, to_ms
from ._retry import RetryPolicy
from ._signatures import POSITIONAL, Details, Kind, inspect_callable, is_given_by_engine

__all__ = [
    "Function",
    "Kind",
    "Registry",
    "RemoteCall",
    "bind",
    "check_call",
    "check_callable",
    "durable",
    "encode_arguments",
]

F = TypeVar("F", bound=Callable[..., Any])

_SETTINGS: Final = "__durable__"


@frozen
class _Settings:
    """What `durable` leaves on a function."""

    name: str | None = None
    version: int | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    single_arg: bool = False


@final
@frozen(kw_only=True, eq=False)
class Function:
    """A callable as the engine sees it.

    Attributes:
        name: the name it is recorded and called under.
        version: counts from 1; one program may hold several versions of a name.
        func: the callable itself.
        retry: its own retry policy, or None.
        timeout: its own timeout in seconds, or None.
        single_arg: whether what is recorded as the arguments of a call is its one argument, also if that is an array.
        kind: what its first parameter says it is.
        is_async: whether calling it gives an awaitable.
        signature: its parameters as callers see them: without the `Context` or `Info` that the engine passes.
        hints: the types of those parameters by name; those without an annotation are absent.
        returns: the type of its result; `Any` if it has no annotation.
    """

    name: str
    version: int = 1
    func: Callable[..., Any]
    retry: RetryPolicy | None = None
    timeout: float | None = None
    single_arg: bool = False
    kind: Kind
    is_async: bool
    signature: inspect.Signature
    hints: Mapping[str, object]
    returns: object

    @property
    def timeout_ms(self) -> int | None:
        """Its own timeout in milliseconds, or None."""
        return None if self.timeout is None else to_ms(self.timeout)

    @classmethod
    def of(
        cls,
        func: Callable[..., Any],
        *,
        name: str | None = None,
        version: int | None = None,
        single_arg: bool | None = None,
    ) -> Function:
        """Look at a callable.

        Args:
            func: a function, a bound method, or (with a name) a partial or an object with `__call__`.
            name: overrides the name that `durable` gave, and the callable's own.
            version: overrides the version that `durable` gave.
            single_arg: overrides what `durable` said.

        Raises:
            InvalidFunction: it cannot be a durable function; the message says what to write instead.
            InvalidArgument: name or version is unusable.
        """
        details = _details(func)
        settings: _Settings = getattr(func, _SETTINGS, _NO_SETTINGS)
        _check_retry(func, details, settings)
        single_arg = settings.single_arg if single_arg is None else single_arg
        if single_arg:
            _check_single(func, details.signature)
        return cls(
            name=_checked_name(name) or settings.name or _own_name(func),
            version=_checked_version(version) or settings.version or 1,
            func=func,
            retry=settings.retry,
            timeout=settings.timeout,
            single_arg=single_arg,
            kind=details.kind,
            is_async=details.is_async,
            signature=details.signature,
            hints=details.hints,
            returns=details.returns,
        )


_NO_SETTINGS: Final = _Settings()


def _details(func: Callable[..., Any]) -> Details:
    check_callable(func)
    return inspect_callable(func)


def check_callable(func: object) -> None:
    """Refuse what is no function at all, without looking at its annotations.

    Raises:
        InvalidFunction: with what to write instead.
    """
    if isinstance(func, Builder):
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
    inner = inspect.unwrap(func)
    if any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in (func, inner)):
        msg = (
            f"{_label(func)} is a generator function: the values that it yields cannot be recorded. "
            f"Return one value instead, e.g. a list"
        )
        raise InvalidFunction(msg)


def _check_single(func: Callable[..., Any], signature: inspect.Signature) -> None:
    """Refuse a function that has not the one parameter that is filled with whatever is recorded."""
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if len(kinds) != 1 or kinds[0] not in POSITIONAL:
        msg = f"{_label(func)} takes {signature}; with single_arg=True it takes one argument, by position"
        raise InvalidFunction(msg)


def _check_retry(func: object, details: Details, settings: _Settings) -> None:
    """Refuse a retry policy of a workflow: what it has done is on record, and a second attempt would get it again."""
    if settings.retry is not None and details.kind is Kind.WORKFLOW:
        msg = (
            f"{_label(func)} is a workflow and cannot have a retry policy: its calls are on record, and it would get "
            f"the same failure again. Give the policy to the leaves that it calls: @durable(retry=...) on a leaf, or "
            f"ctx.run(leaf, ...).retry(...)"
        )
        raise InvalidFunction(msg)


def _called_already(coroutine: Coroutine[Any, Any, Any]) -> str:
    name = getattr(coroutine, "__name__", "func")
    # It will never be awaited; closing it spares the user a second, misleading warning.
    coroutine.close()
    return (
        f"expected a function, but got a coroutine: pass the function and its arguments separately, do not call it\n"
        f"    ctx.run({name}(x, y))  # incorrect!\n"
        f"    ctx.run({name}, x, y)  # correct"
    )


def _label(func: object) -> str:
    return getattr(func, "__qualname__", None) or repr(func)


def _own_name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", None)
    if isinstance(name, str) and name != "<lambda>":
        return name
    what = "a lambda" if name == "<lambda>" else f"{type(func).__name__} {func!r}"
    instead = "call a function"
    if isinstance(func, partial):
        arguments = [*map(repr, func.args), *(f"{key}={value!r}" for key, value in func.keywords.items())]
        instead = f"pass the arguments to the call: ctx.run({', '.join([_label(func.func), *arguments, '...'])})"
    msg = (
        f"{what} has no name to record it under; {instead}. Or give it a name: durable(name=...)(func), and for "
        f"resonate.run() register(func, name=...)"
    )
    raise InvalidFunction(msg)


def _checked_name(name: object) -> str | None:
    if name is None or (isinstance(name, str) and name):
        return name
    msg = f"the name of a durable function is a string that is not empty, not {name!r}"
    raise InvalidArgument(msg)


def check_version(version: int) -> int:
    """The version of a function, as users give it.

    Raises:
        InvalidArgument: it is no int of at least 1.
    """
    if isinstance(version, int) and not isinstance(version, bool) and version >= 1:
        return version
    msg = f"the version of a durable function is an int of at least 1, not {version!r}"
    raise InvalidArgument(msg)


def _checked_version(version: int | None) -> int | None:
    return None if version is None else check_version(version)


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
        name: the name it is recorded and called under; its own name by default.
        version: counts from 1.
        retry: when to call it again after it raised; None leaves it to the caller. Only leaves are retried.
        timeout: seconds or a `timedelta`; how long a call may take, retries included.
        single_arg: what is recorded as the arguments of a call is its one argument, as it is: for functions that take
            an array from Rust or Go, whose SDKs send the argument of a function with one parameter by itself.

    Raises:
        InvalidFunction: what is decorated cannot be a durable function, or is a workflow and has a retry policy.
        InvalidArgument: a setting is unusable.
    """
    if retry is not None and not isinstance(retry, RetryPolicy):
        msg = f"retry is a policy such as Retry(attempts=5), not {retry!r}"
        raise InvalidArgument(msg)
    limit = None if timeout is None else seconds(timeout)
    settings = _Settings(_checked_name(name), _checked_version(version), retry, limit, single_arg)
    if func is None:
        return partial(_mark, settings)
    if isinstance(func, str):
        msg = f"durable takes the name as a keyword: @durable(name={func!r})"
        raise InvalidArgument(msg)
    return _mark(settings, func)


def _mark(settings: _Settings, func: F) -> F:
    target = _inside_descriptor(func)
    check_callable(target)
    try:
        setattr(target, _SETTINGS, settings)
    except AttributeError:
        msg = f"{_label(func)} cannot carry settings; wrap it in a function of your own and decorate that"
        raise InvalidFunction(msg) from None
    if settings.retry is not None or "<locals>" in getattr(target, "__qualname__", ""):
        # Classes that its annotations name may be local too, and out of reach later; others may not be defined yet.
        details: Details | None = None
        with suppress(InvalidFunction):
            details = inspect_callable(target)
        if details is not None:
            _check_retry(target, details, settings)
    return func


def _inside_descriptor(func: Any) -> Any:
    # A class keeps the static method but hands out the function inside it.
    return func.__func__ if isinstance(func, (staticmethod, classmethod)) else func


def check_call(function: Function, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Refuse a call whose arguments the function cannot take, before anything is sent.

    Raises:
        InvalidArgument: an argument is missing, too many, unknown, or one that the engine itself passes.
    """
    _bound(function, args, kwargs)


def encode_arguments(
    function: Function | None, codec: Codec, args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[list[JSON], dict[str, JSON]]:
    """Turn arguments into JSON, by the function's annotations where it is known.

    Keyword arguments become positional ones where the signature allows it: most other SDKs have no keywords.

    Raises:
        InvalidArgument: the function cannot take these arguments.
        EncodeError: an argument cannot be turned into JSON.
    """
    if function is None:
        return [codec.to_json(value) for value in args], {k: codec.to_json(v) for k, v in kwargs.items()}

    def convert(value: object, hint: object, where: str) -> object:
        # As the worker will read it: what does not fit is told to the caller, not to a log elsewhere.
        return codec.checked_json(value, hint, what=f"argument {where} of {function.name!r}")

    return _converted(function, _bound(function, args, kwargs), convert)


@frozen(kw_only=True)
class RemoteCall:
    """A call that any worker may run, as it is described before it is made.

    Attributes:
        func: the function, or its name.
        version: the version that was asked for, or None.
        bare: whether the arguments are recorded as Rust and Go do it.
    """

    func: Function | str
    args: Sequence[object]
    kwargs: Mapping[str, object]
    version: int | None = None
    bare: bool = False

    def encode(self, codec: Codec) -> Value:
        """What is recorded with it.

        Raises:
            InvalidArgument: the function cannot take these arguments, or keywords were given for a bare call.
            EncodeError: an argument cannot be turned into JSON.
        """
        function = None if isinstance(self.func, str) else self.func
        name = self.func if isinstance(self.func, str) else self.func.name
        version = self.version or (1 if function is None else function.version)
        args, kwargs = encode_arguments(function, codec, self.args, self.kwargs)
        if not self.bare and not (function is not None and function.single_arg):
            return codec.encode_call(name, version, args, kwargs)
        if kwargs:
            msg = f"{name!r} is called with bare arguments, for which there are no keywords ({', '.join(kwargs)})"
            raise InvalidArgument(msg)
        return codec.encode_bare_call(name, version, args)


def bind(function: Function, codec: Codec, call: Call) -> tuple[list[Any], dict[str, Any]]:
    """Turn the recorded arguments of a call into what the function takes, without its `Context` or `Info`.

    Raises:
        InvalidArgument: the function cannot take these arguments.
        DecodeError: an argument does not fit its annotation.
    """

    def convert(raw: object, hint: object, where: str) -> object:
        try:
            return codec.from_json(raw, hint)
        except DecodeError as exc:
            msg = f"argument {where} of {function.name!r}: {exc}"
            raise DecodeError(msg) from exc

    return _converted(function, _bound(function, _positional(function, call), call.kwargs), convert)


def _positional(function: Function, call: Call) -> tuple[JSON, ...]:
    if not function.single_arg:
        return call.positional
    (parameter,) = function.signature.parameters.values()
    # Null is an argument, unless there is another default.
    optional = call.args is None and parameter.default is not inspect.Parameter.empty
    return () if optional else (call.args,)


def _bound(function: Function, args: Sequence[object], kwargs: Mapping[str, object]) -> inspect.BoundArguments:
    if args and is_given_by_engine(type(args[0])):
        msg = (
            f"the engine passes the {type(args[0]).__name__} itself\n"
            f"    run({function.name}, ctx, ...)  # incorrect!\n"
            f"    run({function.name}, ...)       # correct"
        )
        raise InvalidArgument(msg)
    try:
        return function.signature.bind(*args, **kwargs)
    except TypeError as exc:
        msg = f"{function.name!r} cannot be called like this: {exc}. It takes {function.signature}"
        raise InvalidArgument(msg) from None


def _converted(
    function: Function, bound: inspect.BoundArguments, convert: Callable[[object, object, str], Any]
) -> tuple[list[Any], dict[str, Any]]:
    for name, value in bound.arguments.items():
        hint = function.hints.get(name, Any)
        match function.signature.parameters[name].kind:
            case inspect.Parameter.VAR_POSITIONAL:
                result: object = [convert(item, hint, f"{name}[{index}]") for index, item in enumerate(value)]
            case inspect.Parameter.VAR_KEYWORD:
                result = {key: convert(item, hint, repr(key)) for key, item in value.items()}
            case _:
                result = convert(value, hint, repr(name))
        bound.arguments[name] = result
    return list(bound.args), dict(bound.kwargs)


@final
@define
class Registry:
    """The functions that this program can be asked to run, by name and version."""

    _functions: dict[str, dict[int, Function]] = field(factory=dict, init=False)

    def add(
        self,
        func: Callable[..., Any],
        name: str | None = None,
        version: int | None = None,
        *,
        single_arg: bool | None = None,
        replace: bool = False,
    ) -> Function:
        """Make a function known; doing so twice is fine.

        Raises:
            AlreadyRegistered: another function has that name and version, and is not to be replaced.
            InvalidFunction: it cannot be a durable function.
            InvalidArgument: name or version is unusable.
        """
        function = Function.of(func, name=name, version=version, single_arg=single_arg)
        versions = self._functions.setdefault(function.name, {})
        if replace:
            versions[function.version] = function
        if versions.setdefault(function.version, function).func != func:
            raise AlreadyRegistered(function.name, function.version)
        return versions[function.version]

    def has(self, name: str) -> bool:
        """Whether any version of that name is known."""
        return name in self._functions

    def get(self, name: str, version: int | None = None) -> Function:
        """Return the function of that name and version: the latest one for None, for 0, and for 1 if there is no 1.

        Raises:
            NotRegistered: there is none.
        """
        versions = self._functions.get(name)
        if not versions:
            raise NotRegistered(name, version=version, known=self.names)
        if version and version in versions:
            return versions[version]
        # Callers that know nothing of versions send 1, or nothing at all.
        if not version or version == 1:
            return versions[max(versions)]
        raise NotRegistered(name, version=version, known=self.names)

    def find(self, func: Callable[..., Any]) -> Function | None:
        """Return what a callable was registered as, its latest version if there are several, or None."""
        # A copy, since other threads may register functions meanwhile.
        known = [function for versions in list(self._functions.values()) for function in list(versions.values())]
        found = [function for function in known if function.func == func]
        return max(found, key=lambda function: function.version, default=None)

    @property
    def names(self) -> list[str]:
        """Every name that is registered, with the versions beyond the first: `crawl`, `crawl (version 2)`."""
        return [
            name if version == 1 else f"{name} (version {version})"
            for name, versions in list(self._functions.items())
            for version in list(versions)
        ]

    @property
    def bare_names(self) -> list[str]:
        """Every name that is registered, without versions."""
        return list(self._functions)
