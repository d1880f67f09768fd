"""How the codec says that a value does not fit a type: what was expected, what was found, and where.

Paths start at `$`, the whole value: `$.users[3].name`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    IterableValidationError,
    StructureHandlerNotFoundError,
)

_SHOWN: Final = 3
_short: Final = reprlib.Repr()
_short.maxstring = _short.maxother = 60


class Mismatch(ValueError):
    """A value does not fit a type. Raised by hooks; users see it as `EncodeError` or `DecodeError`."""

    def __init__(self, expected: object, found: object, hint: str = "") -> None:
        super().__init__(expected, found, hint)
        self.expected = expected
        self.found = found
        self.hint = hint

    def __str__(self) -> str:
        reason = f" ({self.hint})" if self.hint else ""
        return f"expected {type_name(self.expected)}, got {described(self.found)}{reason}"


def type_name(type_: Any) -> str:
    """Return a type as a user writes it."""
    if type_ is None or type_ is type(None):
        return "None"
    arguments = get_args(type_)
    if get_origin(type_) in (Union, UnionType):
        return " | ".join(type_name(argument) for argument in arguments)
    # list[int] is an instance of type as well, on Python 3.11.
    if arguments and isinstance(get_origin(type_), type):
        return f"{type_name(get_origin(type_))}[{', '.join(type_name(argument) for argument in arguments)}]"
    if isinstance(type_, type):
        return type_.__qualname__.rpartition("<locals>.")[2]
    return "..." if type_ is ... else str(type_).replace("typing.", "")


def described(value: object) -> str:
    """Return a value's type and the beginning of its text."""
    if value is None:
        return "None"
    name = type(value).__qualname__.rpartition("<locals>.")[2]
    try:
        text = _short.repr(value)
    except Exception:  # noqa: BLE001 - a broken __repr__ must not hide the error that is being told
        return name
    return text if name in text.partition("(")[0] else f"{name} {text}"


def child(path: str, key: object) -> str:
    """Return the path of a member."""
    if isinstance(key, str) and key.isidentifier():
        return f"{path}.{key}"
    return f"{path}[{_short.repr(key)}]"


def explained(exc: Exception, type_: object) -> str:
    """Return what structuring found wrong: every reason with its path, the first few of them."""
    reasons = [f"{reason} at {path}" for path, reason in _reasons(exc, "$", type_)]
    rest = len(reasons) - _SHOWN
    more = f"; and {rest} more" if rest > 0 else ""
    return "; ".join(reasons[:_SHOWN]) + more


def _reasons(exc: Exception, path: str, type_: object) -> Iterator[tuple[str, str]]:
    if not isinstance(exc, ClassValidationError | IterableValidationError):
        yield path, _reason(exc, type_)
        return
    with_notes, others = exc.group_exceptions()
    for inner, note in with_notes:
        key = note.name if isinstance(note, AttributeValidationNote) else note.index
        if isinstance(inner, KeyError) and inner.args == (key,):
            yield path, f"the required member {key!r} is missing"
        else:
            yield from _reasons(inner, child(path, key), note.type)
    for inner in others:
        yield from _reasons(inner, path, exc.cl)


def _reason(exc: Exception, type_: object) -> str:
    match exc:
        case Mismatch():
            return str(exc)
        case StructureHandlerNotFoundError():
            name = type_name(exc.type_)
            return (
                f"nothing says how to make a {name} from JSON: make it an attrs class or a dataclass, "
                f"or register a structure hook for it on the converter"
            )
        case NameError():
            return (
                f"an annotation of {type_name(type_)} cannot be resolved at run time ({exc}): "
                f"import the name outside `if TYPE_CHECKING:`"
            )
        case RecursionError():
            return "nested too deeply"
        case _:
            return f"{type_name(type_)} refused it with {type(exc).__name__}: {exc}"
