"""Calls over several calls: `gather`, `map`, `first`, `as_completed`; and `now`.

Which of several calls came first is known to nobody afterwards, and what time it was neither. So each such choice is
recorded before the code sees it: a promise of its own, born resolved, whose param is the choice. A replay chooses the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from anyio import CancelScope, create_task_group, get_cancelled_exc_class

from .._errors import UsageError
from .._time import from_ms
from .._workflow._awaits import before_wait, deliver, end_again
from .._workflow._choices import RecordedChoice
from .._workflow._frame import Frame
from .._workflow._group import Group
from .._workflow._lanes import choice_place, lane_of
from .._workflow._node import Node, cancel_all
from .._workflow._reasons import CHOICE, Reason
from .._workflow._regions import reason_for
from .._workflow._started import Started
from ._builder import Builder
from ._calls import Call, DurableFuture
from ._task_group import DurableTaskGroup

if TYPE_CHECKING:
    from ._context import Context

T = TypeVar("T")


class GatherCall(Builder[T]):
    """`ctx.gather(...)` and `ctx.map(...)`: a task group whose results are wanted, in order."""

    __slots__ = ("_calls", "_collect", "_context", "_limit")

    def __init__(
        self, context: Context, label: str, calls: Sequence[Call[Any]], limit: int | None, collect: Any
    ) -> None:
        super().__init__(label, Any)
        for call in calls:
            if not isinstance(call, Call):
                _excuse(self, *calls)
                msg = f"{label} takes calls such as ctx.run(...), not {call!r}; a future is awaited by itself"
                raise UsageError(msg)
        self._context = context
        self._calls = calls
        self._limit = limit
        self._collect = collect

    async def _run(self) -> T:
        async with DurableTaskGroup(self._context, Group(self._context._frame, self._limit)) as group:
            futures = [group.start(call) for call in self._calls]
        return cast("T", self._collect(future.result() for future in futures))


def _excuse(*calls: object) -> None:
    """What they were made for was refused: nobody is expected to await them."""
    for call in calls:
        if isinstance(call, Builder):
            call.excuse()


class _Race:
    """Several calls, of which those are started here that were not yet."""

    def __init__(self, frame: Frame, label: str, entrants: Sequence[Call[Any] | DurableFuture[Any]]) -> None:
        if not entrants:
            msg = f"{label} needs at least one call or future"
            raise UsageError(msg)
        for entrant in entrants:
            if not isinstance(entrant, (Call, DurableFuture)):
                _excuse(*entrants)
                msg = f"{label} takes calls such as ctx.run(...) and futures, not {entrant!r}"
                raise UsageError(msg)
        self.frame = frame
        self._entrants = entrants
        self.runners: list[Started] = []
        self.own: list[Started] = []

    async def start(self) -> None:
        """Put on record and start what is not a future yet, all at once."""
        for entrant in self._entrants:
            if isinstance(entrant, DurableFuture):
                self.runners.append(entrant._started)
            else:
                self.runners.append(Started(entrant.begin()))
                self.own.append(self.runners[-1])
        # Here, and not in the tasks that open them: it is this code that may have to be cancelled.
        try:
            for started in self.own:
                await started.invocation.meet()
        finally:
            for started in self.own:
                started.invocation.follow()
        refused: list[Exception] = []
        async with create_task_group() as tasks:
            for started in self.own:
                tasks.start_soon(self._open, started, refused)
        if refused:
            # Raised outside of the task group, which would wrap it.
            raise refused[0]
        for started in self.own:
            if started.node is not None:
                await started.invocation.refuse_again(started.node)

    async def _open(self, started: Started, refused: list[Exception]) -> None:
        started.invocation.apart = True
        try:
            node = await started.open()
        except Exception as exc:  # noqa: BLE001 - whatever it is, it belongs to whoever makes the call
            refused.append(exc)
            return
        except BaseException as exc:
            self.frame.execution.interrupt(exc)
            raise
        if isinstance(node, Frame) and node.pending:
            self.frame.start(node)

    async def next(self, left: Sequence[int]) -> int:
        """Which of those that are left has ended first; wait for it if need be."""
        await self._end_here()
        if not self._ended(left):
            await before_wait(self.frame)
            async with create_task_group() as tasks:
                for index in left:
                    tasks.start_soon(self._watch, index, tasks.cancel_scope)
            await self._end_here()
        return min(self._ended(left))[1]

    async def _end_here(self) -> None:
        """End the running code, if what was started here has ended together with something around it.

        On a replay no choice is on record then. Live, the deadline of a scope may end a call a moment before the code.
        """
        for node in self.nodes():
            if not (node.pending or node.known):
                await end_again(self.frame, node)

    def _ended(self, left: Sequence[int]) -> list[tuple[int, int]]:
        runners = [(self.runners[index], index) for index in left]
        return [(_ended_at(runner), index) for runner, index in runners if _has_ended(runner)]

    async def _watch(self, index: int, scope: CancelScope) -> None:
        await self.runners[index].settled()
        scope.cancel()

    async def cancel(self, reason: Reason) -> None:
        """Cancel what was started here and has not ended."""
        with CancelScope(shield=True):
            await cancel_all(self.nodes(), reason)

    def nodes(self) -> list[Node]:
        """What was started here."""
        return [started.node for started in self.own if started.node is not None]

    async def outcome(self, index: int) -> Node:
        """The child that was chosen, once it has ended."""
        runner = self.runners[index]
        await runner.settled()
        if runner.node is None:
            assert runner.forgone is not None
            raise runner.forgone
        return runner.node


def _has_ended(runner: Started) -> bool:
    return runner.forgone is not None or (runner.node is not None and not runner.node.pending)


def _ended_at(runner: Started) -> int:
    node = runner.node
    return 0 if node is None else node.record.settled_at or 0


class FirstCall(Builder[tuple[int, T]]):
    """`ctx.first(...)`: the first of several calls to end."""

    __slots__ = ("_fact", "_race")

    def __init__(self, frame: Frame, entrants: Sequence[Call[T] | DurableFuture[T]]) -> None:
        self._race = _Race(frame, "ctx.first()", entrants)
        super().__init__("ctx.first()", Any)
        self._fact = choice_place(frame, "first")

    async def _run(self) -> tuple[int, T]:
        race = self._race
        race.frame.check_current("ctx.first()")
        fact = RecordedChoice.plan(race.frame, self._fact, "ctx.first")
        try:
            await race.start()
            every = range(len(race.runners))
            index = await fact.choose(partial(race.next, every), every)
        except get_cancelled_exc_class():
            fact.follow()
            if not race.frame.execution.interrupted():
                await race.cancel(reason_for(race.frame))
            raise
        winner = await race.outcome(index)
        await race.cancel(Reason(CHOICE))
        for node in race.nodes():
            race.frame.children.mark_seen(node)
        return index, cast("T", await deliver(race.frame, winner))


class AsCompleted(Generic[T]):
    """`ctx.as_completed(...)`: the futures of several calls, in the order in which they end."""

    def __init__(self, frame: Frame, entrants: Sequence[Call[T] | DurableFuture[T]]) -> None:
        self._race = _Race(frame, "ctx.as_completed()", entrants)
        self._frame = frame
        self._place = choice_place(frame, "completed")
        self._left = list(range(len(entrants)))
        self._count = 0

    def __aiter__(self) -> AsCompleted[T]:
        return self

    def __repr__(self) -> str:
        return f"<ctx.as_completed(), {len(self._left)} left>"

    async def __anext__(self) -> DurableFuture[T]:
        self._frame.check_current("ctx.as_completed()")
        if not self._race.runners:
            await self._race.start()
        if not self._left:
            raise StopAsyncIteration
        self._count += 1
        fact = RecordedChoice.plan(self._frame, self._place.below(self._count), "ctx.as_completed")
        index = await fact.choose(partial(self._race.next, self._left), self._left)
        self._left.remove(index)
        runner = self._race.runners[index]
        await runner.settled()
        if runner.node is not None:
            runner.node.known = True
        await self._frame.order.turn(lane_of(self._frame))
        return DurableFuture(self._frame, runner)


class NowCall(Builder[datetime]):
    """`ctx.now()`: what time it is, the first time."""

    __slots__ = ("_fact", "_frame")

    def __init__(self, frame: Frame) -> None:
        super().__init__("ctx.now()", datetime)
        self._frame = frame
        self._fact = choice_place(frame, "now")

    async def _run(self) -> datetime:
        self._frame.check_current("ctx.now()")
        fact = RecordedChoice.plan(self._frame, self._fact, "ctx.now")
        instant = await fact.choose(self._read)
        await self._frame.order.turn(lane_of(self._frame))
        return from_ms(instant)

    async def _read(self) -> int:
        return self._frame.execution.now()
