"""`Context`: what a workflow orchestrates with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from attrs import define

from .._time import from_ms
from ._calls import DetachedCall, PromiseCall, RpcCall, RunCall, SleepCall
from ._functions import Function, check_call
from ._info import Info

if TYPE_CHECKING:
    from ._frame import Frame

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


@define(eq=False, repr=False)
class Context:
    """The durable world, seen from one run of one workflow.

    A function that annotates its first parameter with `Context` is a workflow: it may call other functions durably. Its
    code runs again from the top after a crash, and every durable call that had finished then gives back what is
    recorded instead of running again. Whatever else it does (reading a clock, a file, a random number) has to go into a
    leaf that is called with `run`.

    Each call gives a builder: `await` makes the call and waits; `await call.spawn()` starts it and gives a
    `DurableFuture`. The function does not end before everything it has called has ended.

    Tasks that make durable calls belong into task groups that are opened inside of the function: when it is put away,
    whatever group such a task runs in is cancelled.
    """

    _frame: Frame

    @property
    def id(self) -> str:
        """The id of this function's promise."""
        return self._frame.id

    @property
    def parent_id(self) -> str | None:
        """The id of the function that called this one; None for a root."""
        return self._frame.info.parent_id

    @property
    def origin_id(self) -> str:
        """The id of the root of the lineage, across workers."""
        return self._frame.info.origin_id

    @property
    def func_name(self) -> str:
        """The name of this function."""
        return self._frame.function.name

    @property
    def timeout_at(self) -> datetime:
        """The deadline of this function, in UTC. Nothing that it calls lives longer."""
        return from_ms(self._frame.record.timeout_at)

    @property
    def info(self) -> Info:
        """All metadata of this run in one value."""
        return self._frame.info

    def get_dependency(self, kind: type[D]) -> D:
        """Return the object that was given to `Resonate.with_dependency` for this type.

        Raises:
            UsageError: none was given.
        """
        return self._frame.info.get_dependency(kind)

    @overload
    def run(
        self, func: Callable[Concatenate[Context, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunCall[T]: ...
    @overload
    def run(
        self, func: Callable[Concatenate[Info, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunCall[T]: ...
    @overload
    def run(self, func: Callable[Concatenate[Info, P], T], /, *args: P.args, **kwargs: P.kwargs) -> RunCall[T]: ...
    @overload
    def run(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> RunCall[T]: ...
    @overload
    def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> RunCall[T]: ...
    def run(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> RunCall[Any]:
        """Call a function in this process. It needs no registration, and its arguments are passed as they are.

        A plain `def` runs in a worker thread.

        Raises:
            InvalidFunction: it cannot be a durable function.
            InvalidArgument: it cannot be called with these arguments.
        """
        self._frame.check_current("ctx.run()")
        function = Function.of(func)
        check_call(function, args, kwargs)
        return RunCall(self._frame, function, args, kwargs)

    @overload
    def rpc(
        self, func: Callable[Concatenate[Context, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RpcCall[T]: ...
    @overload
    def rpc(
        self, func: Callable[Concatenate[Info, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> RpcCall[T]: ...
    @overload
    def rpc(self, func: Callable[Concatenate[Info, P], T], /, *args: P.args, **kwargs: P.kwargs) -> RpcCall[T]: ...
    @overload
    def rpc(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> RpcCall[T]: ...
    @overload
    def rpc(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> RpcCall[T]: ...
    @overload
    def rpc(self, func: str, /, *args: Any, **kwargs: Any) -> RpcCall[Any]: ...
    def rpc(self, func: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> RpcCall[Any]:
        """Call a function on whichever worker of the target has it registered, by name or by function.

        Raises:
            InvalidFunction: it cannot be a durable function.
            InvalidArgument: it cannot be called with these arguments.
        """
        self._frame.check_current("ctx.rpc()")
        callee = self._callee(func, args, kwargs)
        returns = Any if isinstance(callee, str) else callee.returns
        return RpcCall(self._frame, "rpc", callee, args, kwargs, returns)

    def sleep(self, duration: float | timedelta) -> SleepCall:
        """Wait for so many seconds, or a `timedelta`. Hours or weeks are fine, and a restart does not extend them.

        Raises:
            InvalidArgument: it is negative or no duration.
        """
        self._frame.check_current("ctx.sleep()")
        return SleepCall(self._frame, duration)

    def promise(self, *, param: object = None) -> PromiseCall[Any]:
        """Make a promise that somebody outside settles: a person, a webhook, another program.

        Spawn it to learn its id; it is settled with `resonate.promises.resolve(id, value)` or its like.

        Args:
            param: recorded with the promise, for whoever is to settle it.

        Raises:
            EncodeError: `param` cannot be turned into JSON.
        """
        self._frame.check_current("ctx.promise()")
        return PromiseCall(self._frame, param)

    @overload
    def detached(
        self, func: Callable[Concatenate[Context, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> DetachedCall: ...
    @overload
    def detached(
        self, func: Callable[Concatenate[Info, P], Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> DetachedCall: ...
    @overload
    def detached(self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> DetachedCall: ...
    @overload
    def detached(self, func: str, /, *args: Any, **kwargs: Any) -> DetachedCall: ...
    def detached(self, func: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> DetachedCall:
        """Start a function, by name or by function, that neither this one nor its end has a hold on.

        Awaiting the call starts it and gives its id, with which others can wait for it: `resonate.get(id, T)`.

        Raises:
            InvalidFunction: it cannot be a durable function.
            InvalidArgument: it cannot be called with these arguments.
        """
        self._frame.check_current("ctx.detached()")
        return DetachedCall(self._frame, self._callee(func, args, kwargs), args, kwargs)

    def _callee(self, func: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Function | str:
        if isinstance(func, str):
            return func
        # What it is registered as here names it better than the callable alone: register(func, name=..., version=...).
        function = self._frame.execution.worker.registry.find(func) or Function.of(func)
        check_call(function, args, kwargs)
        return function

    def __repr__(self) -> str:
        return f"<Context {self.id} of {self.func_name}>"
