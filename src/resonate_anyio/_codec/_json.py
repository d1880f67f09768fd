"""JSON text and payloads, and the values that are JSON already.

None, bools, numbers, text, and lists, tuples and dicts of them are JSON already, and most recorded values are such. The
rules of the converter copy these values part by part, with about ten calls for each part. `PlainData` recognizes them
in one loop, so that they are written without the rules. The recorded bytes are the same.

Users can register hooks for these types as well. If a converter has such a hook, none of its values is plain.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from math import isfinite
from types import NoneType
from typing import Any, Final, NoReturn, TypeAlias, TypeVar
from weakref import WeakKeyDictionary, ref

from attrs import define, field
from cattrs import Converter
from cattrs.fns import identity

from .._errors import DecodeError, EncodeError
from .._protocol import Value
from ._guard import ends_program
from ._mismatch import Fault, child, described
from ._scalars import READERS

Rule = TypeVar("Rule", bound=Callable[..., Any])

_DEEPEST: Final = 20
"""The number of levels that plain data may have. Deeper values are left to the rules, which have their own limit."""

_SCALARS: Final = (str, int, bool, NoneType, float)
_CONTAINERS: Final = (list, tuple, dict)

# By id, since a hash or a comparison of a type can run code of its metaclass.
_READERS: Final = {id(type_): READERS[type_] for type_ in _SCALARS}

_copying: Final[WeakKeyDictionary[Callable[..., Any], ref[Converter]]] = WeakKeyDictionary()


_STATE: Final = object()
"""Stands for a type. A converter makes a new hook for it after each registration, since that clears all caches."""


def configure_plain(converter: Converter) -> None:
    """Register the hook by which `PlainData` notices a registration."""
    converter.register_unstructure_hook_factory(lambda type_: type_ is _STATE, lambda _: partial(identity))


def copies_plain_data(rule: Rule, converter: Converter) -> Rule:
    """Mark a rule that this package has made for a converter as one that changes nothing in plain data, and return it.

    A rule asks the hooks of its own converter for the parts of a value, so the mark holds for that converter only.
    """
    _copying[rule] = ref(converter)
    return rule


@define(eq=False)
class PlainData:
    """The values that one converter writes and reads unchanged.

    The converter's hooks are examined once after each registration of a hook.
    """

    _converter: Converter
    _seen: object = field(default=None, init=False)
    _unchanged: bool = field(default=False, init=False)

    def includes(self, value: object, type_: Any = Any) -> bool:
        """Return whether a value is written unchanged, and whether the text of it is read as `type_` unchanged.

        The answer may be False for such a value too, for example if it is nested deeply.
        """
        try:
            state = self._converter.get_unstructure_hook(_STATE)
            if state is not self._seen:
                self._unchanged = _leaves_plain_data(self._converter)
                self._seen = state
            if not self._unchanged or type_ is Any:
                return self._unchanged and is_json(value)
            reader = _READERS.get(id(type_))
            return type(value) is type_ and reader is not None and self._converter.get_structure_hook(type_) is reader
        except BaseException as exc:
            # A hook factory of a user fails for one of these types.
            if ends_program(exc):
                raise
            return False


def is_json(value: object) -> bool:
    """Return whether a value consists of the exact types of JSON and of tuples, and is not nested deeply."""
    # One iterator for each level, so that a list that contains itself soon ends at the deepest one.
    levels: list[Iterator[Any]] = [iter((value,))]
    while levels:
        for part in levels[-1]:
            # By identity, since a comparison of types can run code of a metaclass.
            kind = type(part)
            if kind is str or kind is int or kind is bool or kind is NoneType or kind is float:
                continue
            if len(levels) > _DEEPEST or not (kind is list or kind is tuple or kind is dict):
                return False
            if kind is dict:
                # Copies, since another thread may change the dict.
                for key in tuple(part):
                    if type(key) is not str:
                        return False
                part = tuple(part.values())  # noqa: PLW2901 - what is inside of it
            levels.append(iter(part))
            break
        else:
            levels.pop()
    return True


def _leaves_plain_data(converter: Converter) -> bool:
    """Return whether no hook of a user is asked when plain data is written."""
    scalars = all(converter.get_unstructure_hook(type_) is identity for type_ in _SCALARS)
    containers = all(_is_own_rule(converter.get_unstructure_hook(type_), converter) for type_ in (*_CONTAINERS, Any))
    # A subclass may have its own method.
    return scalars and containers and getattr(converter.unstructure, "__func__", None) is Converter.unstructure


def _is_own_rule(hook: Callable[..., Any], converter: Converter) -> bool:
    owner = _copying.get(hook)
    return owner is not None and owner() is converter


JSON: TypeAlias = Any
"""The values that the `json` module reads and writes: None, bool, int, float, str, list, and dict with str keys."""

TOO_DEEP: Final = "the value contains itself or is nested too deeply for JSON"

_STRICT: Final[dict[str, Any]] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
_encoder: Final = json.JSONEncoder(**_STRICT)
_canonical: Final = json.JSONEncoder(**_STRICT, sort_keys=True)


def dumps(plain: JSON, encoder: json.JSONEncoder = _encoder) -> bytes:
    """Return compact JSON in UTF-8.

    Raises:
        EncodeError: a part of it is not JSON; the message names the place and the value.
    """
    try:
        return encoder.encode(plain).encode()
    except BaseException as exc:
        # A dict or list of a user's class runs the user's code while it is written.
        if ends_program(exc):
            raise
        # The encoder does not say where the fault is, so the data is walked once more.
        raise EncodeError(_located(plain, exc)) from None


canonical: Final = partial(dumps, encoder=_canonical)
"""Return the text that equal values share: `dumps` with sorted keys."""


def digest_of(plain: JSON) -> str | None:
    """Return a hash of `canonical(plain)`, 22 characters. None if a part of the data is not JSON."""
    try:
        text = _canonical.encode(plain).encode()
    except BaseException as exc:
        if ends_program(exc):
            raise
        return None
    return urlsafe_b64encode(blake2b(text, digest_size=16).digest()).rstrip(b"=").decode("ascii")


def packed(plain: JSON) -> Value:
    """Return plain data as a payload: `pack(dumps(plain))` in one call.

    Raises:
        EncodeError: as `dumps`.
    """
    try:
        return Value(b64encode(_encoder.encode(plain).encode()).decode("ascii"))
    except BaseException as exc:
        if ends_program(exc):
            raise
        raise EncodeError(_located(plain, exc)) from None


def _located(plain: JSON, error: BaseException) -> str:
    try:
        path, fault = next(_faults(plain, "$"), ("$", Fault(f"{type(error).__name__}: {error}")))
    except RecursionError:
        return TOO_DEEP
    except BaseException as exc:
        if ends_program(exc):
            raise
        path, fault = "$", Fault(f"{described(plain)} cannot be read ({type(exc).__name__} is raised)")
    return fault.at(path)


def loads(text: bytes) -> JSON:
    """Return the value of strict JSON.

    Raises:
        DecodeError: it is not JSON in UTF-8.
    """
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError, MemoryError) as exc:
        msg = f"the recorded payload is not JSON: {exc}"
        raise DecodeError(msg) from exc


def pack(text: bytes) -> Value:
    """Return JSON as a payload."""
    return Value(b64encode(text).decode("ascii"))


def unpack(value: Value) -> JSON:
    """Return the value in a payload: None if the payload is missing or empty.

    Raises:
        DecodeError: it is not base64 of JSON in UTF-8.
    """
    if not value.data:
        return None
    try:
        text = b64decode(value.data, validate=True)
    except ValueError as exc:
        msg = f"the recorded payload is not base64: {exc}"
        raise DecodeError(msg) from exc
    return loads(text)


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _faults(plain: object, path: str) -> Iterator[tuple[str, Fault]]:
    match plain:
        case dict():
            # A subclass may have methods of its own, which need not end.
            for key, item in dict.items(plain):
                yield from _faults(key, child(path, key))
                yield from _faults(item, child(path, key))
        case list() | tuple():
            for index, item in enumerate(_items(plain)):
                yield from _faults(item, child(path, index))
        case _:
            fault = _fault(plain)
            if fault is not None:
                yield path, fault


def _items(plain: list[object] | tuple[object, ...]) -> Iterator[object]:
    return list.__iter__(plain) if isinstance(plain, list) else tuple.__iter__(plain)


def _fault(scalar: object) -> Fault | None:
    match scalar:
        case None | bool():
            return None
        case str():
            fault = Fault("text with a lone surrogate is not UTF-8", ": decode the bytes it came from properly")
            return None if _is_utf8(scalar) else fault
        case int():
            fault = Fault("an integer has more digits than Python writes", " (sys.set_int_max_str_digits)")
            return None if _is_printable(scalar) else fault
        case float():
            return None if isfinite(scalar) else _no_number(scalar)
        case _:
            return foreign(scalar)


def _no_number(scalar: float) -> Fault:
    return Fault(
        f"JSON has no {scalar!r}",
        ": record None instead (annotated float | None) or a text such as 'nan'; arrays of numpy keep theirs",
    )


def foreign(value: object) -> Fault:
    """Return the fault of a value without a JSON form, with advice."""
    return Fault(
        f"{described(value)} cannot be turned into JSON",
        f": pass plain data, an attrs class, a dataclass or a Pydantic model, or register an unstructure hook for "
        f"{type(value).__qualname__} on make_converter()",
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_printable(number: int) -> bool:
    try:
        str(number)
    except ValueError:
        return False
    return True
