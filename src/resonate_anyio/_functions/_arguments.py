"""How the arguments of a call are checked, written as JSON and read back, by the signature of the function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from .._codec import JSON, Call, Codec
from .._errors import DecodeError, InvalidArgument
from .._protocol import Value
from .._values import ValueObject
from ._function import Function, check_call


def encode_arguments(
    function: Function | None, codec: Codec, args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[list[JSON], dict[str, JSON]]:
    """Return the arguments of a call as JSON, converted by the function's annotations if the function is known.

    Keyword arguments become positional ones where the signature allows it: most other SDKs have no keywords.

    Raises:
        InvalidArgument: the function cannot take these arguments.
        EncodeError: an argument cannot be turned into JSON.
    """
    if function is None:
        return [codec.to_json(value) for value in args], {k: codec.to_json(v) for k, v in kwargs.items()}

    def convert(value: object, hint: object, where: str) -> object:
        # The worker will read it by the same annotation: an argument that does not fit is refused here, in the caller.
        return codec.checked_json(value, hint, what=f"argument {where} of {function.name!r}")

    return _converted(function, check_call(function, args, kwargs), convert)


@frozen(kw_only=True, eq=False, repr=False)
class RemoteCall(ValueObject):
    """The description of a call that any worker may run.

    Attributes:
        func: the function, or its name.
        args: the positional arguments.
        kwargs: the keyword arguments.
        version: the version that the caller asked for, or None.
        bare: whether the arguments are recorded as the Rust and Go SDKs record them.
    """

    func: Function | str
    args: Sequence[object]
    kwargs: Mapping[str, object]
    version: int | None = None
    bare: bool = False

    def encode(self, codec: Codec) -> Value:
        """Return the call as a payload.

        Raises:
            InvalidArgument: the function cannot take these arguments, or a bare call has keyword arguments.
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
    """Return the arguments of a recorded call as the function takes them, without its `Context` or `Info`.

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

    return _converted(function, check_call(function, _positional(function, call), call.kwargs), convert)


def _positional(function: Function, call: Call) -> tuple[JSON, ...]:
    if not function.single_arg:
        return call.positional
    (parameter,) = function.signature.parameters.values()
    # Null is an argument, except where the parameter has a default.
    omitted = call.args is None and parameter.default is not inspect.Parameter.empty
    return () if omitted else (call.args,)


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
