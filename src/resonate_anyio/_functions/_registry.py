"""`Registry`: the functions that a program offers to callers, by name and version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from attrs import define, field

from .._errors import AlreadyRegistered, NotRegistered
from ._function import Function


@final
@define(eq=False, repr=False)
class Registry:
    """The functions that other programs can ask this one to run, by name and version."""

    _functions: dict[str, dict[int, Function]] = field(factory=dict, init=False)

    def add(
        self,
        func: Callable[..., Any],
        name: str | None = None,
        version: int | None = None,
        *,
        single_arg: bool | None = None,
        replace: bool = False,
    ) -> Function:
        """Register a function and return its description. The same function may be registered again.

        Raises:
            AlreadyRegistered: another function has that name and version, and `replace` is false.
            InvalidFunction: `func` cannot be a durable function.
            InvalidArgument: name or version is unusable.
        """
        function = Function.of(func, name=name, version=version, single_arg=single_arg)
        versions = self._functions.setdefault(function.name, {})
        if replace:
            versions[function.version] = function
        if versions.setdefault(function.version, function).func != func:
            raise AlreadyRegistered(function.name, function.version)
        return versions[function.version]

    def has(self, name: str) -> bool:
        """Return whether any version of that name is registered."""
        return name in self._functions

    def get(self, name: str, version: int | None = None) -> Function:
        """Return the function of that name and version: the latest one for None, for 0, and for 1 if there is no 1.

        Raises:
            NotRegistered: there is none.
        """
        versions = self._functions.get(name)
        if not versions:
            raise NotRegistered(name, version=version, known=self.names)
        if version and version in versions:
            return versions[version]
        # SDKs without versions send 1, or no version.
        if not version or version == 1:
            return versions[max(versions)]
        raise NotRegistered(name, version=version, known=self.names)

    def find(self, func: Callable[..., Any]) -> Function | None:
        """Return the registration of a callable: the latest version if there are several, or None."""
        # Copies, since another thread may register a function at the same time.
        known = [function for versions in list(self._functions.values()) for function in list(versions.values())]
        found = [function for function in known if function.func == func]
        return max(found, key=lambda function: function.version, default=None)

    @property
    def names(self) -> list[str]:
        """Every registered name, with its version where that is not 1: `crawl`, `crawl (version 2)`."""
        return [
            name if version == 1 else f"{name} (version {version})"
            for name, versions in list(self._functions.items())
            for version in list(versions)
        ]

    @property
    def bare_names(self) -> list[str]:
        """Every registered name, without versions."""
        return list(self._functions)
