"""`Context`: the first argument of a workflow, through which it makes durable calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload
from uuid import UUID

from attrs import define

from .._functions._function import Function, check_call
from .._functions._info import Info
from .._hashes import blake2b
from .._time import from_ms, to_ms
from .._workflow._group import Group, check_limit
from .._workflow._lanes import own_place
from .._workflow._scopes import DurableScope, MoveOnScope, Scope
from ._calls import Call, DetachedCall, DurableFuture, PromiseCall, RpcCall, RunCall, SleepCall
from ._combinators import AsCompleted, FirstCall, GatherCall, NowCall
from ._task_group import DurableTaskGroup

if TYPE_CHECKING:
    from .._workflow._frame import Frame

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")
A = TypeVar("A")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


@define(eq=False, repr=False)
class Context:
    """The durable calls of one run of one workflow.

    A function that annotates its first parameter with `Context` is a workflow: it may call other functions durably. Its
    code runs again from the top after a crash, and each durable call that had finished then returns its recorded
    outcome instead of running again. Anything else (reading a clock, a file, a random number) has to be done in a leaf
    that is called with `run`.

    Each call returns a builder: `await` makes the call and waits; `await call.spawn()` starts it and returns a
    `DurableFuture`. The function does not end before everything that it has called has ended.

    Start tasks that make durable calls in task groups that the function itself opens: unloading the function cancels
    the group of each such task.
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
        """The deadline of this function, in UTC. Its calls cannot outlive it, detached calls excepted."""
        return from_ms(self._frame.record.timeout_at)

    @property
    def info(self) -> Info:
        """All metadata of this run in one value."""
        return self._frame.info

    def get_dependency(self, kind: type[D]) -> D:
        """Return the object that `Resonate.with_dependency` was given for this type.

        Raises:
            UsageError: it was not given one.
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

        A function without `async` runs in a worker thread.

        Raises:
            InvalidFunction: `func` cannot be a durable function.
            InvalidArgument: `func` cannot be called with these arguments.
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
        """Call a function, given by itself or by name, on a worker of the target that has it registered.

        Raises:
            InvalidFunction: `func` cannot be a durable function.
            InvalidArgument: `func` cannot be called with these arguments.
        """
        self._frame.check_current("ctx.rpc()")
        callee = self._callee(func, args, kwargs)
        returns = Any if isinstance(callee, str) else callee.returns
        return RpcCall(self._frame, "rpc", callee, args, kwargs, returns)

    def sleep(self, duration: float | timedelta) -> SleepCall:
        """Wait for a number of seconds or a `timedelta`: hours or weeks are fine. A restart does not extend the wait.

        Raises:
            InvalidArgument: `duration` is negative, or not a duration.
        """
        self._frame.check_current("ctx.sleep()")
        return SleepCall(self._frame, duration)

    def promise(self, *, param: object = None) -> PromiseCall[Any]:
        """Make a promise that is settled from outside: by a person, a webhook, another program.

        Spawn it to get its id; `resonate.promises.resolve(id, value)` and similar methods settle it. A promise that was
        created ahead under this id with `resonate.promises.create`, pending or settled, is used as it is: its own
        deadline and `param` stand, and those of this call are not recorded.

        Args:
            param: a value that is recorded with the promise, for the program that settles it.

        Raises:
            EncodeError: `param` cannot be turned into JSON.
        """
        self._frame.check_current("ctx.promise()")
        return PromiseCall(self._frame, param)

    # Several calls

    def task_group(self, *, limit: int | None = None) -> DurableTaskGroup:
        """Return a durable task group: `async with ctx.task_group() as tg`, then `tg.run(func, ...)` and so on.

        The first failure cancels the other members, durably. The block ends when all members have ended, and raises
        their failures in an `ExceptionGroup`.

        Args:
            limit: the largest number of members that run at once; None: no limit.

        Raises:
            InvalidArgument: `limit` is not a positive number.
        """
        self._frame.check_current("ctx.task_group()")
        return DurableTaskGroup(self, Group(self._frame, check_limit(limit)))

    @overload
    def gather(self, c1: Call[T1], c2: Call[T2], /, *, limit: int | None = None) -> GatherCall[tuple[T1, T2]]: ...
    @overload
    def gather(
        self, c1: Call[T1], c2: Call[T2], c3: Call[T3], /, *, limit: int | None = None
    ) -> GatherCall[tuple[T1, T2, T3]]: ...
    @overload
    def gather(
        self, c1: Call[T1], c2: Call[T2], c3: Call[T3], c4: Call[T4], /, *, limit: int | None = None
    ) -> GatherCall[tuple[T1, T2, T3, T4]]: ...
    @overload
    def gather(self, *calls: Call[T], limit: int | None = None) -> GatherCall[tuple[T, ...]]: ...
    def gather(self, *calls: Call[Any], limit: int | None = None) -> GatherCall[Any]:
        """Make several calls at once and return their results, in the order of the calls.

        It is a task group: the first failure cancels the other calls, and failures are raised in an `ExceptionGroup`.

        Args:
            calls: calls such as `ctx.run(...)` that were not made yet.
            limit: the largest number of calls that run at once; None: no limit.

        Raises:
            InvalidArgument: `limit` is not a positive number.
            UsageError: an argument is not a call.
        """
        self._frame.check_current("ctx.gather()")
        return GatherCall(self, "ctx.gather()", calls, check_limit(limit), tuple)

    @overload
    def map(
        self, func: Callable[[Context, A], Awaitable[T]], items: Iterable[A], /, *, limit: int | None = None
    ) -> GatherCall[list[T]]: ...
    @overload
    def map(
        self, func: Callable[[Info, A], Awaitable[T]], items: Iterable[A], /, *, limit: int | None = None
    ) -> GatherCall[list[T]]: ...
    @overload
    def map(
        self, func: Callable[[Info, A], T], items: Iterable[A], /, *, limit: int | None = None
    ) -> GatherCall[list[T]]: ...
    @overload
    def map(
        self, func: Callable[[A], Awaitable[T]], items: Iterable[A], /, *, limit: int | None = None
    ) -> GatherCall[list[T]]: ...
    @overload
    def map(
        self, func: Callable[[A], T], items: Iterable[A], /, *, limit: int | None = None
    ) -> GatherCall[list[T]]: ...
    def map(
        self, func: Callable[..., Any], items: Iterable[Any], /, *, limit: int | None = None
    ) -> GatherCall[list[Any]]:
        """Call a function in this process for each item, all at once, and return the results in order. See `gather`.

        Args:
            func: the function, called with one item.
            items: the items; a replay has to produce the same ones.
            limit: the largest number of calls that run at once; None: no limit.

        Raises:
            InvalidArgument: `limit` is not a positive number, or `func` cannot be called with an item.
            InvalidFunction: `func` cannot be a durable function.
        """
        self._frame.check_current("ctx.map()")
        checked = check_limit(limit)
        # All items are checked before the first builder is made, so that a refusal leaves no builder unused.
        function, todo = Function.of(func), tuple(items)
        for item in todo:
            check_call(function, (item,), {})
        return GatherCall(self, "ctx.map()", [self.run(func, item) for item in todo], checked, list)

    def first(self, *entrants: Call[T] | DurableFuture[T]) -> FirstCall[T]:
        """Wait for the first of several calls to end, and return its index among them and its result.

        `index, value = await ctx.first(...)`. If the first has failed, its failure is raised. The other calls are
        cancelled; futures are not, so `await ctx.first(future, ctx.sleep(5))` waits for 5 seconds at most and keeps the
        future. Which call was the first is recorded.

        Raises:
            UsageError: `entrants` is empty, or contains something that is neither a call nor a future.
        """
        self._frame.check_current("ctx.first()")
        return FirstCall(self._frame, entrants)

    def as_completed(self, *entrants: Call[T] | DurableFuture[T]) -> AsCompleted[T]:
        """Return the futures of several calls in the order in which they end; the order is recorded.

        `async for future in ctx.as_completed(...)`: `future.result()` returns at once. Calls are started when the loop
        begins, and go on if the loop is left.

        Raises:
            UsageError: `entrants` is empty, or contains something that is neither a call nor a future.
        """
        self._frame.check_current("ctx.as_completed()")
        return AsCompleted(self._frame, entrants)

    # Deadlines

    def fail_after(self, delay: float | timedelta, *, shield: bool = False) -> DurableScope:
        """Return a deadline for a block: `with ctx.fail_after(5): ...` raises `TimeoutError` when it passes.

        Unlike `anyio.fail_after`, it is a fixed instant that a restart does not move. Calls that are made inside end
        with it.

        Args:
            delay: the time from now until the deadline: seconds, or a `timedelta`.
            shield: whether to keep cancellations from around the block out of it, as `anyio.CancelScope` does.

        Raises:
            InvalidArgument: `delay` is negative, or not a duration.
        """
        self._frame.check_current("ctx.fail_after()")
        return DurableScope(Scope(self._frame, to_ms(delay), shield=shield))

    def move_on_after(self, delay: float | timedelta, *, shield: bool = False) -> MoveOnScope:
        """Return a deadline for a block, which ends without an exception when it passes. See `fail_after`.

        Raises:
            InvalidArgument: `delay` is negative, or not a duration.
        """
        self._frame.check_current("ctx.move_on_after()")
        return MoveOnScope(Scope(self._frame, to_ms(delay), shield=shield))

    # Values that are the same on a replay

    def now(self) -> NowCall:
        """Return the present time in UTC, to the millisecond. It is recorded: a replay gets the same."""
        self._frame.check_current("ctx.now()")
        return NowCall(self._frame)

    def random(self) -> Random:
        """Return a random number generator whose seed follows from the place of this call in the program.

        Nothing is recorded. The generator is a `random.Random`, which is not fit for secrets.
        """
        self._frame.check_current("ctx.random()")
        return Random(self._seed("random"))  # noqa: S311 - for numbers that a replay repeats, not for secrets

    def uuid(self) -> UUID:
        """Return a UUID that follows from the place of this call in the program. Nothing is recorded."""
        self._frame.check_current("ctx.uuid()")
        return UUID(bytes=blake2b(self._seed("uuid").encode(), digest_size=16).digest(), version=4)

    def _seed(self, what: str) -> str:
        # The creation instant is part of the seed, since an id may have been used before, on another server.
        place = own_place(self._frame, what)
        return f"{self._frame.id}.{place.alone()}@{self._frame.record.created_at}"

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
        """Start a function, given by itself or by name, that does not end with this one.

        Awaiting the call starts it and returns its id, by which others can wait for it: `resonate.get(id, T)`.

        Raises:
            InvalidFunction: `func` cannot be a durable function.
            InvalidArgument: `func` cannot be called with these arguments.
        """
        self._frame.check_current("ctx.detached()")
        return DetachedCall(self._frame, self._callee(func, args, kwargs), args, kwargs)

    def _callee(self, func: Callable[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Function | str:
        if isinstance(func, str):
            return func
        # The registered name and version, `register(func, name=..., version=...)`, take precedence over those of the
        # callable.
        function = self._frame.execution.facilities.find_function(func) or Function.of(func)
        check_call(function, args, kwargs)
        return function

    def __repr__(self) -> str:
        return f"<Context {self.id} of {self.func_name}>"
