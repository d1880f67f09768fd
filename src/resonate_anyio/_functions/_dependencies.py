"""Objects that durable functions need and that are not arguments: connection pools, clients, settings."""

from __future__ import annotations

from typing import TypeVar, cast

from attrs import Factory, define

from .._errors import UsageError

T = TypeVar("T")


@define(eq=False, repr=False)
class Dependencies:
    """The dependencies of a program: one object for each type."""

    _objects: dict[type, object] = Factory(dict)

    def add(self, value: object, kind: type) -> None:
        """Make `value` the dependency for `kind`.

        Raises:
            UsageError: `value` is not an instance of `kind`.
        """
        if not isinstance(value, kind):
            msg = f"{value!r} is given as the dependency {kind.__qualname__}, but is not an instance of it"
            raise UsageError(msg)
        self._objects[kind] = value

    def get(self, kind: type[T]) -> T:
        """Return the dependency for `kind`, or the only one that is an instance of `kind`.

        Raises:
            UsageError: no dependency, or more than one, is an instance of `kind`.
        """
        if kind in self._objects:
            return cast("T", self._objects[kind])
        # The class of an object is often a private subclass of the class that its users name.
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
