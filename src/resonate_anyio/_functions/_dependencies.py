"""Objects that durable functions need and that are no arguments: connection pools, clients, settings."""

from __future__ import annotations

from typing import TypeVar, cast

from attrs import Factory, define

from .._errors import UsageError

T = TypeVar("T")


@define
class Dependencies:
    """One object for each type."""

    _objects: dict[type, object] = Factory(dict)

    def add(self, value: object, kind: type) -> None:
        """Give out `value` for `kind` from now on.

        Raises:
            UsageError: `value` is no `kind`.
        """
        if not isinstance(value, kind):
            msg = f"{value!r} is given as the dependency {kind.__qualname__}, but is none"
            raise UsageError(msg)
        self._objects[kind] = value

    def get(self, kind: type[T]) -> T:
        """The object for `kind`, or the only one that is an instance of it.

        Raises:
            UsageError: there is none, or more than one.
        """
        if kind in self._objects:
            return cast("T", self._objects[kind])
        # An object is often of a private subclass of what its users know it as.
        fitting = [value for value in self._objects.values() if isinstance(value, kind)]
        if len(fitting) == 1:
            return fitting[0]
        known = ", ".join(sorted(_full_name(t) for t in self._objects)) or "none"
        problem = "no dependency is" if not fitting else f"{len(fitting)} dependencies are"
        msg = (
            f"{problem} of type {_full_name(kind)}; give one for it with resonate.with_dependency(value, "
            f"{kind.__qualname__}). Known: {known}"
        )
        raise UsageError(msg)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
