"""Treatment of errors in code that the codec calls: hooks, constructors, properties, `__str__`, `__iter__`."""

from __future__ import annotations

from typing import Final

_ENDING: Final = (KeyboardInterrupt, SystemExit)


def ends_program(exc: BaseException) -> bool:
    """Return whether an exception ends the program. Any other means only that a value cannot be written or read.

    The code that the codec calls does not await anything. So a cancellation or a GeneratorExit that it raises is an
    error of that code like any other, and so is the exception that Pydantic raises for a panic.
    """
    return issubclass(type(exc), _ENDING)


def text_of(value: object) -> str:
    """Return `str(value)` as a str that can be written as UTF-8, or a placeholder if that fails."""
    try:
        return clean(str(value))
    except BaseException as exc:
        if ends_program(exc):
            raise
        return UNPRINTABLE


def clean(text: str) -> str:
    """Return a text with every lone surrogate escaped."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


UNPRINTABLE: Final = "<its text cannot be made>"
