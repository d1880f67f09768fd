"""`ValueObject`: how values are compared, hashed and shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import Attribute, fields


class ValueObject:
    """A value: two of the same class are equal if their fields are.

    attrs would write these methods for each class, and compile them when the package is imported. With more than a
    hundred classes, that was a quarter of the import. So a value derives from this class, and is decorated with
    `@frozen(eq=False, repr=False)`.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, each.name) == getattr(other, each.name) for each in _compared(self))

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, each.name) for each in _compared(self))))

    def __repr__(self) -> str:
        shown = [f"{each.name}={getattr(self, each.name)!r}" for each in _fields(self) if each.repr]
        return f"{type(self).__name__}({', '.join(shown)})"


def _fields(value: Any) -> tuple[Attribute[Any], ...]:
    found: tuple[Attribute[Any], ...] = fields(type(value))
    return found


def _compared(value: object) -> Iterator[Attribute[Any]]:
    return (each for each in _fields(value) if each.eq)
