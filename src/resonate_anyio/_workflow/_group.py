"""Durable task groups: anyio's task group over durable calls, which gives the same on a replay (docs/semantics.md 4).

The first failure cancels the rest; the block ends when all have ended and are on record; then the failures are raised
together. A failure that a replay finds in the history cancels the body where it did the first time at the earliest: at
the first durable await that has no outcome.
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


@define(eq=False)
class _Member:
    """One thing that a group has started: a durable call, or plain code with durable calls in it."""

    started: Started | None = None
    error: Exception | None = None


@define(eq=False)
class _Slots:
    """How many members may run at once, and those who wait for their turn, in the order in which they were started."""

    _execution: Host
    _free: int
    _queue: deque[Event] = field(factory=deque, init=False)

    def reserve(self) -> Event:
        """A turn that is set once it has come. Whoever has reserved one has to use it, with `hold`."""
        turn = Event()
        if self._free > 0:
            self._free -= 1
            turn.set()
        else:
            self._queue.append(turn)
        return turn

    @asynccontextmanager
    async def hold(self, turn: Event) -> AsyncIterator[None]:
        """Wait for the turn, and let the next one have it after the block."""
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


@define(eq=False)
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
    _one_ended: Event = field(factory=Event, init=False)

    @property
    def _own(self) -> Frame:
        """The frame, with all that only a group needs of it."""
        return cast("Frame", self.frame)

    @property
    def entered_once(self) -> bool:
        """Whether its block has begun, and may have ended."""
        return self._tasks is not None

    @property
    def size(self) -> int:
        """How much was started in it."""
        return len(self._members)

    def start(self, begin: Callable[[], Invocation]) -> Started:
        """Start a durable call and return at once. Of an open group only (see `check_open`).

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
        """Run a coroutine function of the frame's in a task of its own, in a lane that is numbered now.

        Of an open group only (see `check_open`).
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
            UsageError: it has been entered before.
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
        """End the block, whose body has ended with `exc`: wait for all members, and raise what has failed.

        Returns whether the body's exception was the cancellation of this group.
        """
        assert self._tasks is not None
        # Before anything is cancelled because of an interrupt: nothing that it causes is recorded.
        self.frame.execution.interrupt(exc)
        failure, rest = _parted(exc)
        if failure is not None:
            self.end()
        else:
            # The end of the body is where a replay has come to whatever is on record.
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
        # The backend's group cancels itself now. Unless that is done, something around it has asked for it.
        self.passes_on = self.passes_on or not self.scope.cancel_called
        return bool(await self._tasks.__aexit__(type(exc), exc, exc.__traceback__))

    async def _all_ended(self) -> None:
        while self._running:
            self._one_ended = Event()
            await self.frame.execution.wait(self._one_ended)

    async def _forgo_rest(self) -> None:
        """End those whose turn has not come. What an earlier run has put on record must not stay pending."""
        for member in self._members:
            started = member.started
            if started is None or started.node is not None or started.forgone is not None:
                continue
            if started.invocation.unfinished:
                await started.open_cancelled()
            else:
                started.forgo(DurableCancelledError(started.id, GROUP))

    def _raise_failures(self, failure: Exception | None, cancellation: BaseException | None) -> None:
        """Raise what has failed, unless the execution is put away."""
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
        # Who has awaited a call that failed, and did not catch it, fails with the same.
        return list({id(error): error for error in found if error is not None}.values())

    def _error(self, member: _Member) -> Exception | None:
        node = member.started.node if member.started is not None else None
        return member.error if node is None or not self._counts(node) else node.failure()

    def _nodes(self) -> list[Node]:
        started = [member.started for member in self._members if member.started is not None]
        return [one.node for one in started if one.node is not None and not one.node.pending]

    def _counts(self, node: Node) -> bool:
        """Whether a settled call is a failure of the group's; not, if the group or something around it has ended it."""
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
        """Refuse to start something outside of the block.

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
        # In the order of the program's text: tasks may be started in any.
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
        # What is around the group is around its tasks, and nothing else is.
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
    # In a coroutine of its own: what the call itself raises is a failure as well.
    return await exposed(partial(func, *args))


def _parted(exc: BaseException | None) -> tuple[Exception | None, BaseException | None]:
    """What ended a body, in two parts: a failure of its own; and a cancellation, or the end of the program."""
    if isinstance(exc, BaseExceptionGroup):
        exc = without_cancellations(exc)
    return (exc, None) if isinstance(exc, Exception) else (None, exc)


def check_limit(limit: int | None) -> int | None:
    """How many members of a group may run at once.

    Raises:
        InvalidArgument: it is no positive number.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        msg = f"limit is how many may run at once, at least 1, or None for as many as there are, not {limit!r}"
        raise InvalidArgument(msg)
    return limit
