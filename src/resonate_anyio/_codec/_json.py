"""Strict JSON in base64: what a payload is made of, below all types."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from math import isfinite
from typing import Any, Final, NoReturn, TypeAlias

from .._errors import DecodeError, EncodeError
from .._protocol import Value
from ._guard import ends_program
from ._mismatch import Fault, child, described

JSON: TypeAlias = Any
"""What the `json` module reads and writes: None, bool, int, float, str, list, and dict with str keys."""

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
    """Return 22 characters that equal values share: a hash of `canonical(plain)`. None if a part of it is not JSON."""
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
    """Read strict JSON.

    Raises:
        DecodeError: it is not JSON in UTF-8.
    """
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError, MemoryError) as exc:
        msg = f"the recorded payload is not JSON: {exc}"
        raise DecodeError(msg) from exc


def pack(text: bytes) -> Value:
    """Put JSON into a payload."""
    return Value(b64encode(text).decode("ascii"))


def unpack(value: Value) -> JSON:
    """Read the JSON of a payload; a missing or empty one is None.

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
            for key, item in plain.items():
                yield from _faults(key, child(path, key))
                yield from _faults(item, child(path, key))
        case list() | tuple():
            for index, item in enumerate(plain):
                yield from _faults(item, child(path, index))
        case _:
            fault = _fault(plain)
            if fault is not None:
                yield path, fault


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
    """Say that a value has no JSON form, and what to do."""
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
