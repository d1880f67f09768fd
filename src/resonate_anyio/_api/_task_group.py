"""`DurableTaskGroup`: what `ctx.task_group()` gives to users. What it does is in `_groups`."""

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
    """A task group of durable calls, made by `ctx.task_group()` and used in an `async with` statement, once.

    What it starts begins at once and runs beside the body. The first that fails cancels the others and the body. The
    block ends when everything in it has ended, and then raises an `ExceptionGroup` of all failures, in the order in
    which they were started, that of the body last. Calls that the group has cancelled are none.
    """

    _context: Context
    _group: Group

    @property
    def cancel_scope(self) -> CancelScope:
        """What cancels the whole group, body included. A group that was cancelled so does not raise.

        Raises:
            UsageError: the group has not been entered yet.
        """
        if not self._group.entered_once:
            msg = "a task group has a cancel scope once it has been entered: async with ctx.task_group() as tg"
            raise UsageError(msg)
        return self._group.scope

    def start(self, call: Call[T]) -> DurableFuture[T]:
        """Start a durable call and return at once: `ctx.run(...)`, `ctx.rpc(...)`, `ctx.sleep(...)` and their like.

        Its id is known at once. Its result is there when the block has ended, or when the future is awaited.

        Raises:
            UsageError: the group has not been entered, or has ended; or this is no such call.
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

        It is code of this function: it runs again on a replay, and what it returns is dropped. Its calls are counted by
        themselves, so that their ids do not depend on the order in which tasks run.

        Raises:
            UsageError: the group has not been entered, or has ended; or this is no function.
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
        # As in anyio: to a type checker, what the body has assigned is there after the block.
        return await self._group.leave(exc)

    def __repr__(self) -> str:
        return f"<DurableTaskGroup of {self._context.id}, {self._group.size} started>"
