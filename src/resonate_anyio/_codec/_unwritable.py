"""Search for the part of plain data that is not JSON. It runs only after the data could not be written."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Final

from ._guard import ends_program
from ._mismatch import Fault, child, described

TOO_DEEP: Final = "the value contains itself or is nested too deeply for JSON"


def located(plain: object, error: BaseException) -> str:
    """Return the first part that is not JSON, with its place."""
    try:
        path, fault = next(_faults(plain, "$"), ("$", Fault(f"{type(error).__name__}: {error}")))
    except RecursionError:
        return TOO_DEEP
    except BaseException as exc:
        if ends_program(exc):
            raise
        path, fault = "$", Fault(f"{described(plain)} cannot be read ({type(exc).__name__} is raised)")
    return fault.at(path)


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
            return _foreign(scalar)


def _no_number(scalar: float) -> Fault:
    return Fault(
        f"JSON has no {scalar!r}",
        ": record None instead (annotated float | None) or a text such as 'nan'; arrays of numpy keep theirs",
    )


def _foreign(value: object) -> Fault:
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
