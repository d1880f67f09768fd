"""Rules for values that are one JSON scalar: numbers, text, instants, identifiers, enumerations.

Values are not converted: "5" is not an int and 1 is not a bool. Only an int is accepted as a float.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from math import inf
from pathlib import Path, PurePath
from typing import Any, Final, Literal, get_args, get_origin
from uuid import UUID

from cattrs import Converter

from ._mismatch import Mismatch

# The texts that the TypeScript SDK records, since JSON has no such numbers.
_INFINITIES: Final = {"__INF__": inf, "__NEG_INF__": -inf}

_FRACTION: Final = re.compile(r"[+-]?[0-9]+(/[0-9]+)?")

SCALARS: Final = (str, int, float, bool, type(None))


def configure_scalars(converter: Converter) -> None:
    """Register the rules.

    * str, int, float, bool, None: exact types; a subclass is made from the exact type. TypeScript's infinities: floats.
    * bytes: base64. Path, UUID, Decimal: text.
    * datetime, date, time: ISO 8601; aware datetimes become UTC, naive ones stay naive. timedelta: seconds.
    * Fraction, addresses, networks and interfaces of ipaddress: text. complex: an array of its two parts.
    * Enum members: their value if all values of the class are scalars, else their name.
    """
    for exact in (str, int, float, bool):
        converter.register_structure_hook(exact, READERS[exact])
    # Not for None itself, which in cattrs means an attribute without an annotation.
    converter.register_structure_hook_func(lambda t: t is type(None), _structure_none)
    converter.register_structure_hook_func(is_enum, structure_enum)
    converter.register_structure_hook_func(is_literal, _structure_literal)
    converter.register_unstructure_hook_func(is_enum, _unstructure_enum)
    converter.register_unstructure_hook_factory(is_literal, lambda _, converter: converter.unstructure)
    converter.register_unstructure_hook(bytes, WRITES_BYTES)
    converter.register_structure_hook(bytes, READS_BYTES)
    for type_, (write, parse) in _TEXTS.items():
        converter.register_unstructure_hook(type_, _written(type_, write))
        converter.register_structure_hook(type_, _text(parse))
    converter.register_unstructure_hook(Decimal, _written(Decimal, Decimal.__str__))
    converter.register_structure_hook(Decimal, _structure_decimal)
    converter.register_unstructure_hook(timedelta, _written(timedelta, timedelta.total_seconds))
    converter.register_structure_hook(timedelta, _structure_timedelta)
    converter.register_unstructure_hook_func(is_ip, str)
    converter.register_structure_hook_func(is_ip, _text(_parse_by_calling))
    converter.register_unstructure_hook_func(is_fraction, _unstructure_fraction)
    converter.register_structure_hook_func(is_fraction, _structure_fraction)
    converter.register_unstructure_hook_func(is_complex, unstructure_complex)
    converter.register_structure_hook_func(is_complex, structure_complex)


def is_enum(type_: Any) -> bool:
    """Return whether a type is an enumeration."""
    return isinstance(type_, type) and issubclass(type_, Enum)


def is_literal(type_: Any) -> bool:
    """Return whether a type is a `Literal`."""
    return get_origin(type_) is Literal


def descends(type_: Any, module: str, name: str) -> bool:
    """Return whether a type is a class, or has a base, of that name and module. No module is imported."""
    bases = type_.__mro__ if isinstance(type_, type) else ()
    return any(base.__name__ == name and base.__module__ == module for base in bases)


def is_ip(type_: Any) -> bool:
    """Return whether a type is one of the six of `ipaddress`: addresses, networks and interfaces of IPv4 and IPv6."""
    return descends(type_, "ipaddress", "_BaseAddress") or descends(type_, "ipaddress", "_BaseNetwork")


def is_fraction(type_: Any) -> bool:
    """Return whether a type is `Fraction`."""
    return descends(type_, "fractions", "Fraction")


def is_complex(type_: Any) -> bool:
    """Return whether a type is `complex`, or numpy's subclass of it."""
    return isinstance(type_, type) and issubclass(type_, complex)


def by_value(cls: type[Enum]) -> bool:
    """Return whether members of an enumeration are recorded by value. Otherwise they are recorded by name."""
    return all(isinstance(member.value, SCALARS) for member in cls)


def _primitive(exact: type) -> Callable[[Any, Any], Any]:
    accepted = (int, float) if exact is float else (exact,)

    def structure(raw: Any, type_: Any) -> Any:
        if exact is float and isinstance(raw, str):
            raw = _INFINITIES.get(raw, raw)
        # A JSON reader returns the exact types, so a bool is never accepted as an int.
        if type_ is not exact and is_enum(type_):
            return structure_enum(raw, type_)
        if type(raw) not in accepted:
            raise Mismatch(type_, raw)
        if type_ is exact and exact is not float:
            return raw
        return _called(exact if type_ is exact else type_, raw)

    return structure


def _called(type_: Any, raw: Any) -> Any:
    try:
        return type_(raw)
    except (ValueError, OverflowError, TypeError) as exc:
        raise Mismatch(type_, raw, str(exc)) from exc


def _structure_none(raw: Any, _: Any) -> None:
    if raw is not None:
        raise Mismatch(type(None), raw)


READERS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    **{exact: _primitive(exact) for exact in (str, int, float, bool)},
    type(None): _structure_none,
}
"""The rules by which the types of JSON are read. They return a value of exactly that type as it is."""


def structure_enum(raw: Any, cls: Any) -> Any:
    """Return the recorded member of an enumeration."""
    try:
        member = cls(raw) if by_value(cls) else cls[raw]
    except (ValueError, KeyError, TypeError) as exc:
        known = ", ".join(repr(m.value if by_value(cls) else m.name) for m in list(cls)[:8])
        raise Mismatch(cls, raw, f"known: {known}") from exc
    # True == 1, but a member that is True was not recorded as 1.
    if by_value(cls) and isinstance(raw, bool) != isinstance(member.value, bool):
        raise Mismatch(cls, raw)
    return member


def _unstructure_enum(member: Any) -> Any:
    if not isinstance(member, Enum):
        return member
    return member.value if by_value(type(member)) else member.name


def _structure_literal(raw: Any, type_: Any) -> Any:
    for literal in get_args(type_):
        plain = _unstructure_enum(literal)
        if type(plain) is type(raw) and plain == raw:
            return literal
    raise Mismatch(type_, raw)


def _written(type_: type, write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def unstructure(value: Any) -> Any:
        if not isinstance(value, type_):
            raise Mismatch(type_, value)
        return write(value)

    return unstructure


def _text(parse: Callable[[str, Any], Any]) -> Callable[[Any, Any], Any]:
    def structure(raw: Any, type_: Any) -> Any:
        if not isinstance(raw, str):
            raise Mismatch(type_, raw)
        try:
            return parse(raw, type_)
        except (ValueError, OverflowError) as exc:
            raise Mismatch(type_, raw, str(exc)) from exc

    return structure


def _structure_decimal(raw: Any, type_: Any) -> Any:
    if isinstance(raw, bool) or not isinstance(raw, (str, int)):
        raise Mismatch(type_, raw, "a float has lost what a Decimal keeps: send text")
    try:
        return type_(raw)
    except InvalidOperation as exc:
        raise Mismatch(type_, raw) from exc


def _unstructure_fraction(value: Any) -> str:
    return f"{value.numerator}/{value.denominator}"


def _structure_fraction(raw: Any, type_: Any) -> Any:
    if isinstance(raw, bool) or not isinstance(raw, (str, int)):
        raise Mismatch(type_, raw, "a float has lost what a Fraction keeps: send text such as '1/3'")
    # Fraction accepts more: it would make a number of a billion digits of "1e999999999".
    if isinstance(raw, str) and not _FRACTION.fullmatch(raw):
        raise Mismatch(type_, raw, "text such as '1/3' is expected")
    try:
        return type_(raw)
    except (ValueError, ZeroDivisionError) as exc:
        raise Mismatch(type_, raw, str(exc)) from exc


def unstructure_complex(value: Any) -> list[float]:
    """Return the real and the imaginary part."""
    exact = complex(value)
    return [exact.real, exact.imag]


def structure_complex(raw: Any, type_: Any) -> Any:
    """Return the complex number that was recorded as its two parts, or as a real number."""
    parts = raw if isinstance(raw, list) else [raw]
    if not 1 <= len(parts) <= 2 or any(isinstance(part, bool) or not isinstance(part, (int, float)) for part in parts):
        raise Mismatch(type_, raw, "a complex number is [real, imaginary]")
    try:
        return type_(complex(*parts))
    except OverflowError as exc:
        raise Mismatch(type_, raw, str(exc)) from exc


def _structure_timedelta(raw: Any, type_: Any) -> Any:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise Mismatch(type_, raw, "a duration is a number of seconds")
    try:
        return type_(seconds=raw)
    except (OverflowError, ValueError) as exc:
        raise Mismatch(type_, raw, str(exc)) from exc


def _in_utc(value: datetime) -> datetime:
    return value if value.utcoffset() is None else value.astimezone(UTC)


def _unstructure_datetime(value: datetime) -> str:
    return _in_utc(value).isoformat()


def _parse_datetime(raw: str, type_: Any) -> Any:
    return _in_utc(type_.fromisoformat(raw))


def _unstructure_bytes(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _parse_bytes(raw: str, type_: Any) -> Any:
    try:
        return type_(b64decode(raw, validate=True))
    except binascii.Error as exc:
        msg = f"not base64: {exc}"
        raise ValueError(msg) from exc


WRITES_BYTES: Final = _written(bytes, _unstructure_bytes)
"""The rule by which `bytes` are written."""

READS_BYTES: Final = _text(_parse_bytes)
"""The rule by which `bytes` are read."""


def _parse_by_calling(raw: str, type_: Any) -> Any:
    return type_(raw)


def _parse_iso(raw: str, type_: Any) -> Any:
    return type_.fromisoformat(raw)


_TEXTS: Final[dict[type, tuple[Callable[[Any], str], Callable[[str, Any], Any]]]] = {
    bytearray: (_unstructure_bytes, _parse_bytes),
    datetime: (_unstructure_datetime, _parse_datetime),
    date: (date.isoformat, _parse_iso),
    time: (time.isoformat, _parse_iso),
    UUID: (UUID.__str__, _parse_by_calling),
    PurePath: (PurePath.__str__, _parse_by_calling),
    # cattrs has its own, lenient rule for this type.
    Path: (PurePath.__str__, _parse_by_calling),
}
TEXT_TYPES: Final = (bytes, *_TEXTS, Decimal)
"""Types that are recorded as text; so are their subclasses."""
