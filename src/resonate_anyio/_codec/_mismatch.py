"""Messages for values that do not fit a type: the expected type, the value found, and its place.

A place is a path that begins at `$`, the whole value: `$.users[3].name`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from attrs import frozen
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    IterableValidationError,
    StructureHandlerNotFoundError,
)

from .._values import ValueObject
from ._guard import ends_program, text_of

_SHOWN: Final = 3
_LONGEST: Final = 500
_short: Final = reprlib.Repr()
_short.maxstring = _short.maxother = 60


@frozen(eq=False, repr=False)
class Fault(ValueObject):
    """The fault of one part of a value.

    Attributes:
        what: the fault, without its place.
        advice: the rest of the message, after the place: the reason, or what to do. It begins with its punctuation.
    """

    what: str
    advice: str = ""

    def at(self, path: str) -> str:
        """Return the message. The place precedes the advice, which may name other objects."""
        return f"{self.what} at {path}{self.advice}"


class Refused(ValueError):
    """A value cannot be written or read. Hooks raise it, and users get an `EncodeError` or a `DecodeError`."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what, advice)
        self.fault = Fault(what, advice)

    def faults(self, path: str) -> list[tuple[str, Fault]]:
        """Return the faults below `path`, each with its place."""
        return [(path, self.fault)]

    def __str__(self) -> str:
        return f"{self.fault.what}{self.fault.advice}"


class Mismatch(Refused):
    """A value does not fit a type."""

    def __init__(self, expected: object, found: object, hint: str = "") -> None:
        super().__init__(f"expected {type_name(expected)}, got {described(found)}", f" ({hint})" if hint else "")


def type_name(type_: Any) -> str:
    """Return the name of a type as a user writes it."""
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
    """Return the type of a value and the beginning of its text."""
    if value is None:
        return "None"
    name = type(value).__qualname__.rpartition("<locals>.")[2]
    try:
        text = _short.repr(value)
    except BaseException as exc:
        # A broken `__repr__` must not hide the error that is being reported.
        if ends_program(exc):
            raise
        return name
    return text if name in text.partition("(")[0] else f"{name} {text}"


def child(path: str, key: object) -> str:
    """Return the path of a member."""
    if isinstance(key, str) and key.isidentifier():
        return f"{path}.{key}"
    return f"{path}[{_short.repr(key)}]"


def explained(exc: BaseException, type_: object) -> str:
    """Return the first few faults that structuring found, each with its path."""
    try:
        reasons = [fault.at(path) for path, fault in _reasons(exc, "$", type_)]
    except BaseException as broken:
        # The error of a user's hook may be broken itself, or nested deeper than the stack of the interpreter allows.
        if ends_program(broken):
            raise
        return f"{type(exc).__name__} at $, which cannot be described"
    rest = len(reasons) - _SHOWN
    more = f"; and {rest} more" if rest > 0 else ""
    return "; ".join(reasons[:_SHOWN]) + more


def _reasons(exc: BaseException, path: str, type_: object) -> Iterator[tuple[str, Fault]]:
    if isinstance(exc, Refused):
        yield from exc.faults(path)
        return
    if not isinstance(exc, ClassValidationError | IterableValidationError):
        yield path, _fault(exc, type_)
        return
    with_notes, others = exc.group_exceptions()
    for inner, note in with_notes:
        key = note.name if isinstance(note, AttributeValidationNote) else note.index
        if isinstance(inner, KeyError) and inner.args == (key,):
            yield path, Fault(f"the required member {key!r} is missing")
        else:
            yield from _reasons(inner, child(path, key), note.type)
    for inner in others:
        yield from _reasons(inner, path, exc.cl)


def _fault(exc: BaseException, type_: object) -> Fault:
    match exc:
        case StructureHandlerNotFoundError():
            return Fault(
                f"nothing says how to make a {type_name(exc.type_)} from JSON",
                ": make it an attrs class, a dataclass or a Pydantic model, or register a structure hook for it on "
                "make_converter()",
            )
        case NameError():
            return unresolved(exc, type_)
        case RecursionError():
            return Fault("nested too deeply")
        case _:
            return Fault(f"{type_name(type_)} refused it with {type(exc).__name__}: {shortened(text_of(exc))}")


def unresolved(exc: NameError, type_: object) -> Fault:
    """Return the fault of an annotation with a name that does not exist at run time."""
    return Fault(
        f"an annotation of {type_name(type_)} cannot be resolved at run time ({exc})",
        ": import the name outside `if TYPE_CHECKING:`",
    )


def shortened(text: str) -> str:
    """Return the beginning of a text that may be long."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
