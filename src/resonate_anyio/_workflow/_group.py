"""Durable task groups: anyio's task group over durable calls, with the same results on a replay (docs/semantics.md 4).

The first failure cancels the other members and the body. The block ends when all members have ended and are on record;
then their failures are raised together. A failure that a replay finds in the history does not cancel the body before
the place where it did the first time: the first durable await without an outcome.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, TypeVarTuple, cast

from anyio import Event, create_task_group, current_effective_deadline, get_cancelled_exc_class
from attrs import define, field

from .._concurrency._protection import exposed
from .._errors import DurableCancelledError, InvalidArgument, UsageError
from .._protocol import PromiseState
from ._awaits import expired_scope, outcome, rejoin
from ._frame import Frame
from ._lanes import Lane, current_lane, lane_of
from ._outcomes import Raised, without_cancellations
from ._positions import LaneStart
from ._reasons import GROUP, OUTSIDE, Reason, reason_of
from ._regions import Region, regions_around
from ._started import Started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

    from ._host import Host
    from ._invocation import Invocation
    from ._node import Node

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")


@define(eq=False, repr=False)
class _Member:
    """One member of a group: a durable call, or plain code that makes durable calls."""

    started: Started | None = None
    error: Exception | None = None


@define(eq=False, repr=False)
class _Slots:
    """The slots for members that run at once, and the queue of members that wait for one, in order of their start."""

    _execution: Host
    _free: int
    _queue: deque[Event] = field(factory=deque, init=False)

    def reserve(self) -> Event:
        """Return a turn, an event that is set when the turn has come. Each turn has to be used, with `hold`."""
        turn = Event()
        if self._free > 0:
            self._free -= 1
            turn.set()
        else:
            self._queue.append(turn)
        return turn

    @asynccontextmanager
    async def hold(self, turn: Event) -> AsyncIterator[None]:
        """Wait for the turn, and give the slot to the next turn after the block."""
        try:
            if not turn.is_set():
                await self._execution.wait(turn)
            yield
        finally:
            self._give_up(turn)

    def _give_up(self, turn: Event) -> None:
        if turn in self._queue:
            self._queue.remove(turn)
        elif self._queue:
            self._queue.popleft().set()
        else:
            self._free += 1


@define(eq=False, repr=False)
class Group(Region):
    """One durable task group (see the module's docstring); users hold a `DurableTaskGroup`."""

    _limit: int | None = None
    _tasks: TaskGroup | None = field(default=None, init=False)
    _members: list[_Member] = field(factory=list, init=False)
    _slots: _Slots | None = field(default=None, init=False)
    _stack: tuple[Region, ...] = field(default=(), init=False)
    _block: ExitStack = field(factory=ExitStack, init=False)
    _open: bool = field(default=False, init=False)
    _running: int = field(default=0, init=False)
    _one_ended: Event | None = field(default=None, init=False)

    @property
    def _own(self) -> Frame:
        """The frame, by its full type."""
        return cast("Frame", self.frame)

    @property
    def entered_once(self) -> bool:
        """Whether its block has begun, and may have ended."""
        return self._tasks is not None

    @property
    def size(self) -> int:
        """The number of members that were started."""
        return len(self._members)

    def start(self, begin: Callable[[], Invocation]) -> Started:
        """Start a durable call and return at once. Call `check_open` first.

        Args:
            begin: plans the call.
        """
        started = Started(begin(), group=self)
        member = _Member(started)
        self._members.append(member)
        started.invocation.cancel_here()
        if started.invocation.replayed and self._counts(node := started.invocation.preview()):
            self.condemn(node.record.settled_at)
        turn = None if started.invocation.replayed else self._turn()
        self._spawn(turn, self._run_call, member, started, name=started.id)
        return started

    def start_soon(self, func: Callable[..., Awaitable[object]], args: tuple[Any, ...], name: object) -> None:
        """Run a coroutine function of the frame in a task of its own, in a lane that gets its number now.

        Call `check_open` first.
        """
        start = LaneStart.plan(self._own)
        start.cancel_here()
        member = _Member()
        self._members.append(member)
        self._spawn(self._turn(), self._run_code, member, start, func, args, name=name or func, lane=start.lane)

    # Life

    async def enter(self) -> None:
        """Begin the block.

        Raises:
            UsageError: the group was entered before.
        """
        if self._tasks is not None:
            msg = "a durable task group is entered once; make another one for each block"
            raise UsageError(msg)
        self.frame.check_current("entering a task group")
        self._tasks = create_task_group()
        await self._tasks.__aenter__()
        self.scope = self._tasks.cancel_scope
        self._block.enter_context(self.entered())
        if self._limit is not None:
            self._slots = _Slots(self.frame.execution, self._limit)
        self._open = True

    async def leave(self, exc: BaseException | None) -> bool:
        """End the block, whose body has ended with `exc`: wait for all members, and raise their failures.

        Returns:
            Whether `exc` was the cancellation of this group.
        """
        assert self._tasks is not None
        # First of all, since effects of an interrupt are not recorded.
        self.frame.execution.interrupt(exc)
        failure, rest = _split(exc)
        if failure is not None:
            self.end()
        else:
            # At the end of the body a replay has reached everything that is on record.
            self.catch_up()
        cancellation: BaseException | None = None
        swallowed = False
        try:
            swallowed = await self._join(rest)
        except get_cancelled_exc_class() as caught:
            cancellation = caught
        finally:
            self._open = False
            self._block.close()
        await self._forgo_rest()
        self._raise_failures(failure, cancellation)
        if cancellation is not None:
            raise cancellation
        for node in self._nodes():
            await rejoin(self._own, node)
        await self.frame.order.turn(lane_of(self.frame))
        return swallowed

    async def _join(self, exc: BaseException | None) -> bool:
        assert self._tasks is not None
        try:
            if exc is None:
                await self._all_ended()
        except BaseException as caught:  # noqa: BLE001 - a cancellation or an interrupt: it is handed to the backend's group
            self.frame.execution.interrupt(caught)
            exc = caught
        if exc is None:
            return bool(await self._tasks.__aexit__(None, None, None))
        # `__aexit__` cancels the backend's group. If it was not cancelled before, the cancellation came from around it.
        self.passes_on = self.passes_on or not self.scope.cancel_called
        return bool(await self._tasks.__aexit__(type(exc), exc, exc.__traceback__))

    async def _all_ended(self) -> None:
        while self._running:
            self._one_ended = Event()
            await self.frame.execution.wait(self._one_ended)

    async def _forgo_rest(self) -> None:
        """End the members whose turn has not come. A call that an earlier run has recorded must not stay pending."""
        for member in self._members:
            started = member.started
            if started is None or started.node is not None or started.forgone is not None:
                continue
            if started.invocation.unfinished:
                await started.open_cancelled()
            else:
                started.forgo(DurableCancelledError(started.id, GROUP))

    def _raise_failures(self, failure: Exception | None, cancellation: BaseException | None) -> None:
        """Raise the failures, unless the execution was dropped."""
        if self.frame.execution.dropped is not None:
            return
        errors = self._errors(failure)
        for node in self._nodes():
            if errors or cancellation is not None or node.record.state is not PromiseState.CANCELED:
                self._own.children.mark_seen(node)
        if errors:
            msg = f"{len(errors)} of what a task group of {self.frame.id!r} has started failed"
            raise ExceptionGroup(msg, errors) from None

    def _errors(self, failure: Exception | None) -> list[Exception]:
        found = [self._error(member) for member in self._members] + [failure]
        # A body that awaits a failed call and does not catch the failure fails with the same exception.
        return list({id(error): error for error in found if error is not None}.values())

    def _error(self, member: _Member) -> Exception | None:
        node = member.started.node if member.started is not None else None
        return member.error if node is None or not self._counts(node) else node.failure()

    def _nodes(self) -> list[Node]:
        started = [member.started for member in self._members if member.started is not None]
        return [one.node for one in started if one.node is not None and not one.node.pending]

    def _counts(self, node: Node) -> bool:
        """Return whether a settled call is a failure of the group; a call that the group has cancelled is not."""
        match node.record.state:
            case PromiseState.REJECTED:
                return True
            case PromiseState.CANCELED:
                reason = reason_of(node.record, self.frame.execution.codec)
                return reason is None or reason.by == OUTSIDE
            case _:
                return node.failure() is not None and self._expired(node) is None

    def _expired(self, node: Node) -> Region | None:
        token = regions_around.set(self.stack)
        try:
            return expired_scope(self._own, node)
        finally:
            regions_around.reset(token)

    def reason(self) -> Reason:
        return Reason(GROUP, self.depth)

    def check_open(self, what: str) -> None:
        """Refuse to start a member outside of the block.

        Raises:
            UsageError: the group has not been entered, or has ended.
        """
        if not self._open:
            state = (
                "has ended" if self._tasks is not None else "has not been entered: async with ctx.task_group() as tg"
            )
            msg = f"tg.{what}: this task group {state}"
            raise UsageError(msg)
        self.frame.check_current(f"tg.{what}")

    # Members

    def _turn(self) -> Event | None:
        # Reserved here, in the order of the program, since the backend may start the tasks in any order.
        return None if self._slots is None else self._slots.reserve()

    def _spawn(
        self,
        turn: Event | None,
        func: Callable[..., Coroutine[Any, Any, None]],
        *args: Any,
        name: object,
        lane: Lane | None = None,
    ) -> None:
        tasks = self._tasks
        assert tasks is not None
        context = copy_context()
        # The regions around a member are those of the group, not those of the code that starts it.
        context.run(regions_around.set, self.stack)
        if lane is not None:
            context.run(current_lane.set, lane)
        self._running += 1
        context.run(lambda: tasks.start_soon(self._run, turn, func, args, name=name))

    async def _run(
        self, turn: Event | None, func: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]
    ) -> None:
        try:
            if turn is None or self._slots is None:
                await func(*args)
            else:
                async with self._slots.hold(turn):
                    await func(*args)
        except get_cancelled_exc_class():
            if not self.scope.cancel_called and current_effective_deadline() == -math.inf:
                self.passes_on = True
            raise
        except BaseException as exc:
            self.frame.execution.interrupt(exc)
            raise
        finally:
            self._running -= 1
            if self._one_ended is not None:
                self._one_ended.set()

    async def _run_call(self, member: _Member, started: Started) -> None:
        try:
            await self._make_call(started)
        except Exception as exc:  # noqa: BLE001 - the call was refused: that is a failure like any other
            member.error = exc
            self._failed(history=False)

    async def _make_call(self, started: Started) -> None:
        node = started.node or await started.open()
        if node is None:
            return
        if not isinstance(node, Frame):
            await outcome(self._own, node)
        elif node.pending:
            await node.run(self._own.depth + 1)
        if self._counts(node):
            self._failed(history=node.replayed, at=node.record.settled_at)

    async def _run_code(
        self, member: _Member, start: LaneStart, func: Callable[..., Awaitable[object]], args: tuple[Any, ...]
    ) -> None:
        await start.meet()
        if start.void:
            return
        order, lane = self.frame.order, lane_of(self.frame)
        await order.turn(lane)
        try:
            ending = await self._own.outcome_of(_called(func, args))
        finally:
            order.rest(lane)
        if isinstance(ending, Raised):
            member.error = ending.error
            self._failed(history=self.frame.replaying)

    def _failed(self, *, history: bool, at: int | None = None) -> None:
        if history:
            self.condemn(at)
        else:
            self.end()


async def _called(func: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> object:
    # A coroutine of its own, so that an exception of the call itself is a failure as well.
    return await exposed(partial(func, *args))


def _split(exc: BaseException | None) -> tuple[Exception | None, BaseException | None]:
    """Return two parts of a body's exception: a failure of the body; and a cancellation or an interrupt."""
    if isinstance(exc, BaseExceptionGroup):
        exc = without_cancellations(exc)
    return (exc, None) if isinstance(exc, Exception) else (None, exc)


def check_limit(limit: int | None) -> int | None:
    """Return the limit of a group: the largest number of members that run at once, or None.

    Raises:
        InvalidArgument: the limit is not a positive number.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        msg = f"limit must be an int of at least 1, or None for no limit, got {limit!r}"
        raise InvalidArgument(msg)
    return limit
