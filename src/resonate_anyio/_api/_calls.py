"""The durable calls of a workflow: the builders that `Context` makes, and the futures that `spawn` returns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from attrs import define, evolve

from .._errors import InvalidArgument, UsageError
from .._functions._retry import RetryPolicy
from .._functions._signatures import Kind
from .._ids import check_name
from .._protocol import EMPTY, PromiseState, Value
from .._time import to_ms
from .._workflow._elsewhere import DetachedInvocation, PromiseInvocation, RemoteInvocation, SleepInvocation
from .._workflow._frame import Frame
from .._workflow._invocation import Invocation, LocalInvocation, invoke
from .._workflow._lanes import call_place, lane_of
from .._workflow._reasons import FUTURE, Reason, reason_of
from .._workflow._started import Started
from ._builder import Builder
from ._options import WithBareArgs, WithTimeout

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Self

    from typing_extensions import TypeForm

    from .._functions._function import Function
    from .._workflow._node import Node

T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")


@define(eq=False, repr=False)
class DurableFuture(Generic[T_co]):
    """A durable call that was started: it continues to run, and `await` returns its result.

    The calling function does not end before the call has ended, awaited or not. Cancelling an `await` of the future
    cancels the call; so does `cancel`, for a call that is not needed any more.
    """

    _frame: Frame
    _started: Started

    @property
    def id(self) -> str:
        """The id of its promise, by which it can be settled from outside."""
        return self._started.id

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self._wait().__await__()

    def result(self) -> T_co:
        """Return the result of a call that is known to have ended, or raise its failure.

        Raises:
            UsageError: the call was not awaited yet, and the task group that it was started in has not ended. Whether a
                result has arrived may differ on a replay, so it cannot be polled.
        """
        if self._started.forgone is not None:
            raise self._started.forgone
        return cast("T_co", self._ended("result()").value())

    def exception(self) -> Exception | None:
        """Return the failure of a call that is known to have ended, or None.

        Raises:
            UsageError: as for `result`.
        """
        return self._started.forgone or self._ended("exception()").failure()

    async def cancel(self) -> bool:
        """Cancel the call, durably and with everything below it, and return when it has ended.

        Use it for a call that is not needed any more. The cancelled call is not a failure, neither of the function nor
        of the task group that it was started in. Awaiting the future afterwards raises `DurableCancelledError`, or
        returns the outcome if the call had ended first. A detached call goes on: the future only waited for its id.

        Returns:
            True if this has ended the call; False if the call had ended before.

        Raises:
            WrongWorld: it is called from outside of the function that has started the call.
        """
        frame, started = self._frame, self._started
        frame.check_current(f"cancel() of {self.id!r}")
        if started.node is None or started.node.pending:
            await frame.execution.gate()
        node = await started.cancel(Reason(FUTURE))
        if node is None:
            return False
        frame.children.mark_seen(node)
        reason = reason_of(node.record, frame.execution.codec)
        return node.record.state is PromiseState.CANCELED and reason is not None and reason.by == FUTURE

    def done(self) -> NoReturn:
        """Refuse the question whether the call has ended: a replay might get another answer and take another way.

        Raises:
            UsageError: always; its message says what to do instead.
        """
        msg = (
            f"done() of {self.id!r}: whether it has ended may differ on a replay, so it cannot be polled. Wait for it "
            f"with a limit: index, value = await ctx.first(future, ctx.sleep(5)), which records which was first and "
            f"does not cancel the future"
        )
        raise UsageError(msg)

    async def _wait(self) -> T_co:
        self._frame.check_current(f"await of {self.id!r}")
        return cast("T_co", await self._started.result())

    def _ended(self, what: str) -> Node:
        node = self._started.node
        if node is not None and (node.seen or node.known):
            self._frame.children.mark_seen(node)
            return node
        msg = f"{what} of {self.id!r} was asked for before it was awaited; write: await future"
        raise UsageError(msg)

    def __repr__(self) -> str:
        node = self._started.node
        state = node.record.state.value if node is not None and (node.seen or node.known) else "started"
        return f"<DurableFuture {self.id} {state}>"


class Call(Builder[T_co]):
    """A durable call that a workflow is about to make. Awaiting it makes the call and waits for the result."""

    __slots__ = ("_frame", "_place")

    def __init__(self, frame: Frame, label: str, name: str, type_: Any) -> None:
        super().__init__(label, type_)
        self._frame = frame
        # The number is taken here and not when the call starts: ids follow the order of the program.
        self._place = call_place(frame, name)

    def named(self, name: str) -> Self:
        """Give the call an id of its own below the caller's, instead of a numbered one.

        Raises:
            InvalidId: the name is too long, or has characters other than A-Z a-z 0-9 _ -.
        """
        self._place = evolve(self._place, part=self._checked(check_name, name), named=True)
        return self

    def _excused(self) -> bool:
        # Its function was ended before it made the call; or, on the first run, before the builder was made.
        ended = self._frame.cancel_called or self._frame.execution.dropped is not None
        return ended or self._place.taken_back

    async def spawn(self) -> DurableFuture[T_co]:
        """Start the call and return as soon as it is on record; it runs beside its caller."""
        self._use()
        invocation = self._plan()
        invocation.set_apart()
        with self._frame.children.invoking():
            node = await invocation.open()
        await invocation.refuse_again(node)
        if isinstance(node, Frame) and node.pending:
            self._frame.start(node)
        await self._frame.order.turn(lane_of(self._frame))
        return DurableFuture(self._frame, Started(invocation, node=node))

    async def _run(self) -> T_co:
        return cast("T_co", await invoke(self._plan()))

    def begin(self) -> Invocation:
        """Determine the place of the call, and return it as planned, to be made later."""
        self._use()
        return self._plan()

    def _plan(self) -> Invocation:
        """Determine the place of the call in the call graph, and return it as planned."""
        self._frame.check_current(self._label)
        return self._invocation()

    def _invocation(self) -> Invocation:
        raise NotImplementedError


class TimedCall(Call[T_co], WithTimeout):
    """A durable call that can be given a deadline."""

    __slots__ = ("_timeout_ms",)

    def __init__(self, frame: Frame, label: str, name: str, type_: Any) -> None:
        super().__init__(frame, label, name, type_)
        self._timeout_ms: int | None = None


class RunCall(TimedCall[T_co]):
    """`ctx.run(...)`: a call that runs in this process."""

    __slots__ = ("_args", "_function", "_kwargs", "_retry")

    def __init__(self, frame: Frame, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        Call.__init__(self, frame, f"ctx.run({function.name}, ...)", function.name, function.returns)
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._retry = function.retry
        self._timeout_ms = function.timeout_ms

    def returns(self, type_: TypeForm[U]) -> RunCall[U]:
        """Set the type that the result is decoded as, live and on a replay. Default: the function's annotation."""
        return cast("RunCall[U]", self._typed(type_))

    def retry(self, policy: RetryPolicy | None) -> Self:
        """Set the policy of retries for a leaf that raises; None: do not retry. Workflows are not retried.

        Raises:
            InvalidArgument: the function is a workflow, or `policy` is not a retry policy.
        """
        self._retry = self._checked(self._check_retry, policy)
        return self

    def _check_retry(self, policy: RetryPolicy | None) -> RetryPolicy | None:
        if policy is not None and not isinstance(policy, RetryPolicy):
            msg = f"policy must be a retry policy, e.g. Retry(attempts=5), got {policy!r}"
            raise InvalidArgument(msg)
        if policy is not None and self._function.kind is Kind.WORKFLOW:
            msg = f"{self._function.name!r} is a workflow; retry the leaves that it calls instead"
            raise InvalidArgument(msg)
        return policy

    def _invocation(self) -> LocalInvocation:
        codec, function = self._frame.execution.codec, self._function
        # The first call of a plain task identifies its lane, and lanes are told apart by all of its arguments.
        whole = self._place.lane.label is None
        return LocalInvocation(
            certain=not self._frame.replaying and self._place.lane.certain,
            frame=self._frame,
            place=self._place,
            made_at=self._made_at,
            param=codec.encode_identity(function.name, function.version, self._args, self._kwargs, whole=whole),
            type=self._type,
            timeout_ms=self._timeout_ms,
            function=function,
            args=self._args,
            kwargs=self._kwargs,
            retry=self._retry,
        )


class _TargetedCall(TimedCall[T_co], WithBareArgs):
    """A call that runs elsewhere."""

    __slots__ = ("_args", "_bare", "_func", "_kwargs", "_target", "_version")

    def __init__(
        self,
        frame: Frame,
        verb: str,
        func: Function | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        type_: Any,
    ) -> None:
        name = func if isinstance(func, str) else func.name
        super().__init__(frame, f"ctx.{verb}({name}, ...)", name, type_)
        self._describe(func, args, kwargs)
        self._timeout_ms = None if isinstance(func, str) else func.timeout_ms

    def _param(self) -> Value:
        return self._encoded(self._func, self._frame.execution.codec)

    def _address(self) -> str:
        return self._target or self._frame.execution.facilities.own_group


class RpcCall(_TargetedCall[T_co]):
    """`ctx.rpc(...)`: a call that a worker of its target runs, as an execution of its own."""

    __slots__ = ()

    def returns(self, type_: TypeForm[U]) -> RpcCall[U]:
        """Set the type that the result is decoded as, live and on a replay. Default: the function's annotation."""
        return cast("RpcCall[U]", self._typed(type_))

    def _invocation(self) -> RemoteInvocation:
        return RemoteInvocation(
            frame=self._frame,
            place=self._place,
            made_at=self._made_at,
            param=self._param(),
            type=self._type,
            timeout_ms=self._timeout_ms,
            target=self._address(),
        )


class DetachedCall(_TargetedCall[str]):
    """`ctx.detached(...)`: a call that does not end with its caller. Its result is its id, once it is on record.

    Its deadline is set by `timeout` or `@durable`, or else is one year from now. It does not depend on the caller's
    deadline.
    """

    __slots__ = ()

    def __init__(self, frame: Frame, func: Function | str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__(frame, "detached", func, args, kwargs, str)

    def _invocation(self) -> DetachedInvocation:
        return DetachedInvocation(
            frame=self._frame,
            place=self._place,
            made_at=self._made_at,
            param=self._param(),
            type=str,
            timeout_ms=self._timeout_ms,
            target=self._address(),
        )


class SleepCall(Call[None]):
    """`ctx.sleep(...)`: waits durably."""

    __slots__ = ("_duration_ms",)

    def __init__(self, frame: Frame, duration: float | timedelta) -> None:
        self._duration_ms = to_ms(duration)
        super().__init__(frame, f"ctx.sleep({duration!r})", "sleep", type(None))

    def _invocation(self) -> SleepInvocation:
        return SleepInvocation(
            frame=self._frame,
            place=self._place,
            made_at=self._made_at,
            param=EMPTY,
            type=type(None),
            duration_ms=self._duration_ms,
        )


class PromiseCall(TimedCall[T_co]):
    """`ctx.promise()`: a promise that is settled from outside. Spawn it to get its id first."""

    __slots__ = ("_param",)

    def __init__(self, frame: Frame, param: object) -> None:
        self._param = frame.execution.codec.encode(param)
        super().__init__(frame, "ctx.promise()", "promise", Any)

    def returns(self, type_: TypeForm[U]) -> PromiseCall[U]:
        """Set the type that the promise is settled with: the value is checked, and decoded as this type."""
        return cast("PromiseCall[U]", self._typed(type_))

    def _invocation(self) -> PromiseInvocation:
        return PromiseInvocation(
            frame=self._frame,
            place=self._place,
            made_at=self._made_at,
            param=self._param,
            type=self._type,
            timeout_ms=self._timeout_ms,
        )
