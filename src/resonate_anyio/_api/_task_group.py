"""`DurableTaskGroup`: the task group that `ctx.task_group()` returns. `Group` in `_workflow._group` implements it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, TypeVarTuple, overload

from anyio import CancelScope
from attrs import define

from .._errors import UsageError
from .._functions._info import Info
from .._workflow._group import Group
from ._builder import Builder
from ._calls import Call, DurableFuture

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from ._context import Context

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")


@define(eq=False, repr=False)
class DurableTaskGroup:
    """A task group of durable calls, made by `ctx.task_group()` and used in one `async with` statement.

    Each member begins at once and runs beside the body. The first failure cancels the other members and the body. The
    block ends when all members have ended, and then raises an `ExceptionGroup` of all failures, in the order in which
    the members were started, that of the body last. Calls that the group has cancelled are not failures.
    """

    _context: Context
    _group: Group

    @property
    def cancel_scope(self) -> CancelScope:
        """The cancel scope of the whole group, body included. A group that was cancelled by it does not raise.

        Raises:
            UsageError: the group has not been entered yet.
        """
        if not self._group.entered_once:
            msg = "a task group has a cancel scope once it has been entered: async with ctx.task_group() as tg"
            raise UsageError(msg)
        return self._group.scope

    def start(self, call: Call[T]) -> DurableFuture[T]:
        """Start a durable call and return at once: `ctx.run(...)`, `ctx.rpc(...)`, `ctx.sleep(...)` and so on.

        Its id is known at once. Its result is known when the block has ended, or when the future was awaited.

        Raises:
            UsageError: the group has not been entered, or has ended; or `call` is not a durable call.
        """
        self._group.check_open("start()")
        if not isinstance(call, Call):
            msg = (
                f"tg.start() takes a call such as ctx.run(...) or ctx.rpc(...), not {call!r}; other code is started "
                f"with tg.start_soon(func, *args)"
            )
            raise UsageError(msg)
        return DurableFuture(self._context._frame, self._group.start(call.begin))

    @overload
    def run(
        self, func: Callable[Concatenate[Context, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...
    @overload
    def run(
        self, func: Callable[Concatenate[Info, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...
    @overload
    def run(
        self, func: Callable[Concatenate[Info, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...
    @overload
    def run(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> DurableFuture[T]: ...
    @overload
    def run(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> DurableFuture[T]: ...
    def run(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> DurableFuture[Any]:
        """Short for `tg.start(ctx.run(func, ...))`."""
        return self.start(self._context.run(func, *args, **kwargs))

    @overload
    def rpc(
        self, func: Callable[Concatenate[Context, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...
    @overload
    def rpc(
        self, func: Callable[Concatenate[Info, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...
    @overload
    def rpc(
        self, func: Callable[Concatenate[Info, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> DurableFuture[T]: ...
    @overload
    def rpc(self, func: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> DurableFuture[T]: ...
    @overload
    def rpc(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> DurableFuture[T]: ...
    @overload
    def rpc(self, func: str, /, *args: Any, **kwargs: Any) -> DurableFuture[Any]: ...
    def rpc(self, func: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> DurableFuture[Any]:
        """Short for `tg.start(ctx.rpc(func, ...))`."""
        return self.start(self._context.rpc(func, *args, **kwargs))

    def sleep(self, duration: float | timedelta) -> DurableFuture[None]:
        """Short for `tg.start(ctx.sleep(duration))`."""
        return self.start(self._context.sleep(duration))

    def promise(self, *, param: object = None) -> DurableFuture[Any]:
        """Short for `tg.start(ctx.promise(param=param))`."""
        return self.start(self._context.promise(param=param))

    def start_soon(self, func: Callable[[*Ts], Awaitable[object]], *args: *Ts, name: object = None) -> None:
        """Run a coroutine function of this workflow, which may make durable calls, in a task of its own.

        The function is code of this workflow: it runs again on a replay, and its return value is ignored. Its calls are
        counted by themselves, so that their ids do not depend on the order in which tasks run.

        Raises:
            UsageError: the group has not been entered, or has ended; or `func` is not a function.
        """
        self._group.check_open("start_soon()")
        if not callable(func) or isinstance(func, Builder):
            msg = (
                f"tg.start_soon() takes a coroutine function and its arguments, not {func!r}; a durable call is "
                f"started with tg.start(call)"
            )
            raise UsageError(msg)
        self._group.start_soon(func, args, name)

    async def __aenter__(self) -> Self:
        await self._group.enter()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        # The same return type as in anyio: a type checker then knows that names assigned in the body are bound
        # afterwards.
        return await self._group.leave(exc)

    def __repr__(self) -> str:
        return f"<DurableTaskGroup of {self._context.id}, {self._group.size} started>"
