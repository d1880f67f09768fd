"""Options that calls inside durable functions and calls from outside have in common.

The classes are mixed into a `Builder`. They add no attributes of their own, because builder classes have slots: they
only declare the attributes that they use, for type checkers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from .._codec import Codec
from .._functions._arguments import RemoteCall
from .._functions._durable import check_version
from .._protocol import Value
from .._requests._addresses import address
from .._time import to_ms

if TYPE_CHECKING:
    from types import MappingProxyType
    from typing import Self

    from .._functions._function import Function

U = TypeVar("U")
V = TypeVar("V")


class _Option:
    """The parts of a builder that an option uses."""

    if TYPE_CHECKING:

        def _checked(self, convert: Callable[[V], U], value: V) -> U: ...
        def _configure(self) -> Self: ...
    else:
        __slots__ = ()


class WithTimeout(_Option):
    """A call that can be given a deadline."""

    if TYPE_CHECKING:
        _timeout_ms: int | None = None
    else:
        __slots__ = ()

    def timeout(self, timeout: float | timedelta) -> Self:
        """Give the call a deadline: so many seconds from its start, but never after its caller's deadline.

        Default: the timeout in `@durable`. Without that it is the caller's deadline; for a call whose caller does not
        wait for it (`ctx.detached` and calls from outside) it is one year from the start.

        Raises:
            InvalidArgument: `timeout` is negative, or not a duration.
        """
        self._timeout_ms = self._checked(to_ms, timeout)
        return self


class WithTarget(_Option):
    """A call that any worker of a target may run, described by a function or its name, and arguments."""

    if TYPE_CHECKING:
        _args: tuple[Any, ...] = ()
        _bare: bool = False
        _func: Function | str = ""
        _kwargs: Mapping[str, Any] = MappingProxyType({})
        _target: str | None = None
        _version: int | None = None
    else:
        __slots__ = ()

    def _describe(self, func: Function | str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Set the function and the arguments, and reset the options."""
        self._func = func
        self._args = args
        self._kwargs = kwargs
        self._target = None
        self._version = None
        self._bare = False

    def target(self, target: str) -> Self:
        """Set where the call runs: a worker group, or an address such as `poll://any@group`. Default: the own group.

        Raises:
            InvalidArgument: `target` is neither.
        """
        self._target = self._checked(address, target)
        return self

    def version(self, version: int) -> Self:
        """Set the version of the function that runs.

        Default: the version of the given function. For a name it is 1, and for `resonate.run` the latest version that
        is registered here.

        Raises:
            InvalidArgument: `version` is not a version.
        """
        self._version = self._checked(check_version, version)
        return self

    def _encoded(self, func: Function | str, codec: Codec) -> Value:
        """Return the call as it is recorded."""
        call = RemoteCall(func=func, args=self._args, kwargs=self._kwargs, version=self._version, bare=self._bare)
        return call.encode(codec)


class WithBareArgs(WithTarget):
    """A call that may be meant for a function of the Rust or Go SDK."""

    if not TYPE_CHECKING:
        __slots__ = ()

    def bare_args(self) -> Self:
        """Record the arguments as functions of the Rust and Go SDKs expect them.

        Without arguments, null is recorded; a single argument is recorded by itself instead of in an array; several are
        recorded in an array as always. A Rust function without parameters needs this too: it does not accept an empty
        array.
        """
        self._configure()._bare = True
        return self
