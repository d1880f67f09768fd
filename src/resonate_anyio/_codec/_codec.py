"""`Codec`: the conversion of values, calls and errors to payloads and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import Factory, field, frozen
from cattrs import Converter

from .._errors import ApplicationError, DecodeError, EncodeError
from .._protocol import Value
from .._values import ValueObject
from ._converter import make_converter
from ._digest import sampled
from ._exceptions import bare_error, error_from_json, error_to_json
from ._faults import locate
from ._guard import ends_program
from ._json import (
    JSON,
    PlainData,
    digest_of,
    dumps,
    fits,
    fits_read,
    is_small,
    loads,
    pack,
    packed,
    packed_bytes,
    packed_identity,
    unpack,
    unpack_bytes,
)
from ._mismatch import explained, type_name
from ._plain import layout_of
from ._unwritable import TOO_DEEP

_NOTHING: Final[Mapping[str, JSON]] = {}


@frozen(eq=False, repr=False)
class Call(ValueObject):
    """A recorded call of a function, its arguments still JSON.

    Attributes:
        func: the name of the function.
        version: the version of the function; None if the SDK of the caller has no versions.
        args: the recorded arguments: an array, a value by itself, or None.
        kwargs: the keyword arguments. Only the Python and Java SDKs send any.
    """

    func: str
    version: int | None = None
    args: JSON = None
    kwargs: Mapping[str, JSON] = _NOTHING

    @property
    def positional(self) -> tuple[JSON, ...]:
        """The positional arguments. Rust and Go send the argument of a function with one parameter by itself."""
        if self.args is None:
            return ()
        return tuple(self.args) if isinstance(self.args, list) else (self.args,)


@frozen(eq=False, repr=False)
class Codec(ValueObject):
    """The conversion of values, calls and errors to payloads and back.

    Attributes:
        converter: the cattrs converter with the rules; see `make_converter`.
    """

    converter: Converter = Factory(make_converter)
    _plain: PlainData = field(
        default=Factory(lambda self: PlainData(self.converter, layout_of), takes_self=True),
        init=False,
        eq=False,
        repr=False,
    )

    def encode(self, value: object, type_: Any = Any) -> Value:
        """Return a value as a payload.

        Args:
            value: the value.
            type_: the annotation of the value; with `Any` its own type decides.

        Raises:
            EncodeError: it has no JSON form; the message names the place, the type, and what to do.
        """
        return packed(value if type_ is Any and fits(value, self._plain.layout(Any)) else self.to_json(value, type_))

    def decode(self, value: Value, type_: Any = Any) -> Any:
        """Return the value in a payload as a value of a type; with `Any` as plain JSON. A missing payload is None.

        Raises:
            DecodeError: it does not fit the type; the message names the place, the expected type and the value found.
        """
        if type_ is Any:
            return unpack(value)
        layout = self._plain.layout(type_)
        if layout is None:
            return self.from_json(unpack(value), type_)
        if layout.bytes and (data := unpack_bytes(value)) is not None:
            return data
        raw = unpack(value)
        if type(raw) in layout.scalars or layout.remembers(value) or fits_read(raw, layout):
            return raw
        return self.from_json(raw, type_)

    def encode_result(self, value: object, type_: Any, *, function: str) -> Value:
        """Return the result of a function as a payload, after a check that it can be read as `type_`.

        Raises:
            EncodeError: it has no JSON form, or cannot be read as `type_`.
        """
        layout = self._plain.layout(type_)
        if layout is not None and layout.bytes and type(value) is bytes:
            return packed_bytes(value)
        if layout is not None and fits(value, layout):
            try:
                payload = packed(value)
            except EncodeError:
                # A value that fails, such as NaN, fails again below, where the message is made.
                pass
            else:
                layout.remember(payload)
                return payload
        return pack(self._checked(value, type_, f"the result of function {function!r}"))

    def checked_json(self, value: object, type_: Any, *, what: str) -> JSON:
        """Return a value as JSON data, after a check that the data can be read as `type_`.

        Raises:
            EncodeError: it has no JSON form, or cannot be read; the message begins with `what`.
        """
        if fits(value, self._plain.layout(type_)):
            try:
                return loads(dumps(value))
            except EncodeError:
                # It fails again below, where the message is made.
                pass
        return loads(self._checked(value, type_, what))

    def _checked(self, value: object, type_: Any, what: str) -> bytes:
        try:
            text = dumps(self.to_json(value, type_))
            self.from_json(loads(text), type_)
        except EncodeError as exc:
            msg = f"{what} cannot be recorded: {exc}"
            raise EncodeError(msg) from exc
        except DecodeError as exc:
            reason = str(exc) if exc.__cause__ is None else explained(exc.__cause__, type_)
            msg = f"{what} does not fit its annotation {type_name(type_)}: {reason}"
            raise EncodeError(msg) from exc
        return text

    def to_json(self, value: object, type_: Any = Any) -> JSON:
        """Return a value as the data that `encode` writes. A part that is not JSON is found only when it is written.

        Raises:
            EncodeError: it does not fit `type_`.
        """
        try:
            return self.converter.unstructure(value, None if type_ is Any else type_)
        except RecursionError:
            raise EncodeError(TOO_DEEP) from None
        except BaseException as exc:
            # Hooks and values of users can raise any error, and the error does not name the place.
            if ends_program(exc):
                raise
            raise EncodeError(locate(self.converter, value, type_, exc)) from exc

    def from_json(self, raw: JSON, type_: Any = Any) -> Any:
        """Return JSON data as a value of a type, as `decode` does.

        Raises:
            DecodeError: it does not fit `type_`.
        """
        if type_ is Any:
            return raw
        try:
            return self.converter.structure(raw, type(None) if type_ is None else type_)
        except BaseException as exc:
            if ends_program(exc):
                raise
            msg = f"the recorded value does not fit {type_name(type_)}: {explained(exc, type_)}"
            raise DecodeError(msg) from exc

    def encode_call(
        self, func: str, version: int = 1, args: Sequence[JSON] = (), kwargs: Mapping[str, JSON] = _NOTHING
    ) -> Value:
        """Return a call as a payload. The arguments are JSON data: see `to_json`.

        Raises:
            EncodeError: a part of an argument is not JSON.
        """
        return self._pack_call(Call(func, version, list(args), kwargs))

    def encode_bare_call(self, func: str, version: int, args: Sequence[JSON]) -> Value:
        """Return a call as the Rust and Go SDKs record it: null without an argument, and one argument by itself.

        Raises:
            EncodeError: a part of an argument is not JSON.
        """
        bare = list(args) if len(args) > 1 else next(iter(args), None)
        return self._pack_call(Call(func, version, bare))

    @staticmethod
    def _pack_call(call: Call) -> Value:
        plain: dict[str, JSON] = {"func": call.func, "args": call.args, "version": call.version}
        if call.kwargs:
            plain["kwargs"] = dict(call.kwargs)
        try:
            return packed(plain)
        except EncodeError as exc:
            msg = f"the call of {call.func!r} cannot be recorded: {exc}"
            raise EncodeError(msg) from exc

    def encode_identity(
        self, func: str, version: int, args: Sequence[object], kwargs: Mapping[str, object], *, whole: bool = False
    ) -> Value:
        """Return the payload of a call in this process: its function and the digest of its arguments.

        The payload has no digest if the arguments cannot be recorded.

        Args:
            func: the name of the function.
            version: the version of the function.
            args: the positional arguments.
            kwargs: the keyword arguments.
            whole: as for `digest`.
        """
        digest = self.digest(args, kwargs, whole=whole)
        if digest is None or type(func) is not str or type(version) is not int or self._plain.layout(Any) is None:
            identity: dict[str, JSON] = {"func": func, "version": version}
            return self.encode(identity if digest is None else {**identity, "digest": digest})
        return packed_identity(func, version, digest)

    def decode_call(self, value: Value) -> Call:
        """Return the call in a payload of any SDK.

        Raises:
            DecodeError: the payload is not a call.
        """
        raw = unpack(value)
        if not isinstance(raw, dict) or not isinstance(raw.get("func"), str):
            msg = "the recorded parameter is not the call of a function: an object with a string member 'func'"
            raise DecodeError(msg)
        return Call(raw["func"], _version(raw.get("version")), raw.get("args"), _kwargs(raw.get("kwargs")))

    def encode_error(self, exc: Exception) -> Value:
        """Return any `Exception` as a payload that every SDK can show and this one can rebuild.

        Raises:
            TypeError: it is not an `Exception`.
        """
        record = error_to_json(exc, self.to_json)
        try:
            return packed(record)
        except EncodeError:
            return packed(bare_error(exc))

    def decode_error(self, value: Value, *, elsewhere: bool = False) -> Exception:
        """Return the error in a payload: with its own type if that is known here, else as `ApplicationError`.

        It does not raise, for any payload.

        Args:
            value: the payload.
            elsewhere: whether the error was raised in another process or an earlier run. Then the recorded traceback is
                added as a note. An error that was recorded with such a note has it in any case.
        """
        try:
            raw = unpack(value)
        except DecodeError as exc:
            return ApplicationError("Error", str(exc), None, value.data)
        return error_from_json(raw, self.to_json, elsewhere=elsewhere)

    def digest(self, args: Sequence[object], kwargs: Mapping[str, object], *, whole: bool = False) -> str | None:
        """Return a hash of arguments, the same for equal ones. None if they cannot be recorded.

        Args:
            args: the positional arguments.
            kwargs: the keyword arguments.
            whole: whether to hash all of the arguments even if they are large, so that the hash differs for different
                arguments.
        """
        layout = self._plain.layout(Any)
        if layout is not None and not whole and not is_small((*args, *kwargs.values())):
            return sampled(args, kwargs, self.to_json)
        plain: list[Any] = [list(args), dict(kwargs)]
        if not fits(plain, layout):
            try:
                plain = [self.to_json(part) for part in plain]
            except EncodeError:
                return None
            if not whole and not is_small(plain):
                return sampled(plain[0], plain[1], self.to_json)
        return digest_of(plain)


def _version(raw: JSON) -> int | None:
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 0:
        msg = f"the version of a recorded call is an integer from 0, not {raw!r}"
        raise DecodeError(msg)
    return raw


def _kwargs(raw: JSON) -> Mapping[str, JSON]:
    if raw is None:
        return _NOTHING
    if not isinstance(raw, dict):
        msg = f"the keyword arguments of a recorded call are an object, not {type(raw).__name__}"
        raise DecodeError(msg)
    return raw
