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
        """The object for `kind`.

        Raises:
            UsageError: there is none.
        """
        try:
            return cast("T", self._objects[kind])
        except KeyError:
            known = ", ".join(sorted(t.__qualname__ for t in self._objects)) or "none"
            msg = (
                f"no dependency of type {kind.__qualname__}; give it with resonate.with_dependency(value) before "
                f"entering the Resonate object. Known: {known}"
            )
            raise UsageError(msg) from None
