"""Readers of JSON members, as strict as the servers: no conversions, 64-bit integers, strings of valid Unicode.

Every reader raises `ValueError` for a value of another type. `required`, `optional` and `defaulted` add the name of the
member to the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, Never, TypeAlias, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

Json: TypeAlias = Mapping[str, Any]

_ABSENT: Final = object()
_INT64: Final = range(-(2**63), 2**63)


class Members(dict[str, Any]):
    """A JSON object that records whether a name occurred twice in its text. The last value of a name counts."""

    __slots__ = ("duplicated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.duplicated = len(pairs) != len(self)


def loads(text: str | bytes, *, note_duplicates: bool = True) -> Any:
    """Parse JSON text in UTF-8, without a byte-order mark. NaN and Infinity are refused.

    Args:
        text: the document.
        note_duplicates: return objects as `Members`. Parsing then takes four times as long.

    Raises:
        ValueError: `text` is not JSON.
    """
    if isinstance(text, bytes):
        text = text.decode()

    try:
        hook = Members if note_duplicates else None
        return json.loads(text, object_pairs_hook=hook, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def required(data: Json, name: str, read: Callable[[object], T]) -> T:
    """Read a member that must be present."""
    value = data.get(name, _ABSENT)
    if value is _ABSENT:
        raise ValueError(f"missing field `{name}`")

    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def optional(data: Json, name: str, read: Callable[[object], T]) -> T | None:
    """Read a member that may be absent or null."""
    return None if data.get(name) is None else required(data, name, read)


def defaulted(data: Json, name: str, read: Callable[[object], T], default: T) -> T:
    """Read a member that may be absent, but not null."""
    return required(data, name, read) if name in data else default


def text(value: object) -> str:
    if not isinstance(value, str):
        raise _not("a string", value)

    try:
        value.encode()
    except UnicodeEncodeError:
        # A JSON escape can denote half of a surrogate pair, which can be neither stored nor sent as UTF-8.
        raise ValueError("a string with an unpaired surrogate") from None

    return value


def integer(value: object) -> int:
    # In Python bool is a subclass of int; in JSON true is not an integer.
    if type(value) is not int or value not in _INT64:
        raise _not("a 64-bit integer", value)

    return value


def members(value: object) -> Json:
    if not isinstance(value, dict):
        raise _not("an object", value)

    return value


def array(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _not("an array", value)

    return value


def texts(value: object) -> Mapping[str, str]:
    """Read an object whose values are all strings."""
    return {text(name): text(one) for name, one in members(value).items()}


def one_of(states: type[E]) -> Callable[[object], E]:
    """Return a reader of the values of an enumeration."""
    return lambda value: states(text(value))


def anything(value: Any) -> Any:
    return value


def _not(wanted: str, value: object) -> ValueError:
    match value:
        case dict():
            shown = "an object"
        case list():
            shown = "an array"
        case str():
            shown = "a string"
        case _:
            shown = "null" if value is None else str(value)[:30]

    return ValueError(f"expected {wanted}, not {shown}")
