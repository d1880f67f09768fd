"""Calls over several calls: `gather`, `map`, `first`, `as_completed`; and `now`.

The order in which calls ended, and the present time, cannot be found out afterwards. So each such choice is recorded
before the code sees it: as a promise of its own, born resolved, whose param is the choice. A replay gets the same
choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from .._errors import UsageError
from .._time import from_ms
from .._workflow._choices import RecordedChoice
from .._workflow._frame import Frame
from .._workflow._group import Group
from .._workflow._lanes import choice_place, lane_of
from .._workflow._race import Race
from ._builder import Builder
from ._calls import Call, DurableFuture
from ._task_group import DurableTaskGroup

if TYPE_CHECKING:
    from ._context import Context

T = TypeVar("T")


class GatherCall(Builder[T]):
    """`ctx.gather(...)` and `ctx.map(...)`: a task group that returns the results of its calls, in order."""

    __slots__ = ("_calls", "_collect", "_context", "_limit")

    def __init__(
        self, context: Context, label: str, calls: Sequence[Call[Any]], limit: int | None, collect: Any
    ) -> None:
        super().__init__(label, Any)
        for call in calls:
            if not isinstance(call, Call):
                _excuse(self, *calls)
                msg = f"{label} takes calls such as ctx.run(...), not {call!r}; await a future directly"
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
    """Let the builders among `calls` not warn: the call that they were made for was refused."""
    for call in calls:
        if isinstance(call, Builder):
            call.excuse()


def _race(frame: Frame, label: str, entrants: Sequence[Call[Any] | DurableFuture[Any]]) -> Race:
    """Return a race of these entrants.

    Raises:
        UsageError: `entrants` is empty, or one of them is neither a call nor a future.
    """
    if not entrants:
        msg = f"{label} needs at least one call or future"
        raise UsageError(msg)
    for entrant in entrants:
        if not isinstance(entrant, (Call, DurableFuture)):
            _excuse(*entrants)
            msg = f"{label} takes calls such as ctx.run(...) and futures, not {entrant!r}"
            raise UsageError(msg)
    return Race(
        frame, [entrant._started if isinstance(entrant, DurableFuture) else entrant.begin for entrant in entrants]
    )


class FirstCall(Builder[tuple[int, T]]):
    """`ctx.first(...)`: the first of several calls to end."""

    __slots__ = ("_place", "_race")

    def __init__(self, frame: Frame, entrants: Sequence[Call[T] | DurableFuture[T]]) -> None:
        self._race = _race(frame, "ctx.first()", entrants)
        super().__init__("ctx.first()", Any)
        self._place = choice_place(frame, "first")

    async def _run(self) -> tuple[int, T]:
        race = self._race
        race.frame.check_current("ctx.first()")
        index, value = await race.first(self._place)
        return index, cast("T", value)


class AsCompleted(Generic[T]):
    """`ctx.as_completed(...)`: the futures of several calls, in the order in which the calls end."""

    def __init__(self, frame: Frame, entrants: Sequence[Call[T] | DurableFuture[T]]) -> None:
        self._race = _race(frame, "ctx.as_completed()", entrants)
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
        index = await self._race.next_completed(self._place.below(self._count), self._left)
        self._left.remove(index)
        return DurableFuture(self._frame, self._race.runners[index])


class NowCall(Builder[datetime]):
    """`ctx.now()`: the time at which it was first called."""

    __slots__ = ("_frame", "_place")

    def __init__(self, frame: Frame) -> None:
        super().__init__("ctx.now()", datetime)
        self._frame = frame
        self._place = choice_place(frame, "now")

    async def _run(self) -> datetime:
        self._frame.check_current("ctx.now()")
        choice = RecordedChoice.plan(self._frame, self._place, "ctx.now")
        instant = await choice.choose(self._read)
        await self._frame.order.turn(lane_of(self._frame))
        return from_ms(instant)

    async def _read(self) -> int:
        return self._frame.execution.now()
