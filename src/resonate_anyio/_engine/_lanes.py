"""Lanes: how the calls of one function are numbered when several of its tasks make them (semantics 2).

Numbers have to be the same on a replay. Within one task they are, since its code runs in order; between tasks there is
no order. So every task of a frame counts by itself, in a lane of its own, and the lane is part of the ids:

* the function's own code is lane 0, whose ids show no lane: `fetch-2`;
* what `start_soon` of a durable group starts is numbered in the order of the program's text: `fetch-2t1`;
* any other task (of a plain group, say) gets its lane with its first call: a recorded one that began with the same
  call, or a new one: `fetch-2tp1`.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, TypeVar

from attrs import define, evolve, field, frozen

from .._graph import LANE_TAG, Counter
from .._protocol import Promise
from ._cancellation import unbroken
from ._tasks import current_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._cancellation import Owed
    from ._execution import Execution
    from ._frame import Frame

T = TypeVar("T")

current_lane: ContextVar[Lane | None] = ContextVar("resonate_anyio.current_lane", default=None)
"""The lane of the code that is running, or of the task that has started it; None in the ephemeral world."""


@define(eq=False)
class Lane:
    """One task of one frame, which counts its calls by itself.

    Attributes:
        frame: whose code runs in it.
        task: the task, as the backend knows it; None until it runs.
        label: how ids show it; None as long as no call has been made in it that tells which one it is.
        owed: a cancellation that was held back because the call that it met had an outcome (semantics 3.3).
    """

    frame: Frame
    task: object = None
    label: str | None = None
    owed: Owed | None = None
    counter: Counter = field(factory=Counter, init=False)
    _opened: int = field(default=0, init=False)

    def open(self) -> Lane:
        """A lane for a task that this one starts; its number follows from the order of the program's text."""
        if self.label is None:
            self.label = self.frame.next_unmatched_lane()
        self._opened += 1
        return Lane(self.frame, label=f"{self.label}-{self._opened}" if self.label else str(self._opened))


def current_frame() -> Frame | None:
    """The frame whose code is running, or None in the ephemeral world."""
    lane = current_lane.get()
    return None if lane is None else lane.frame


def execution_in(context: Context) -> Execution | None:
    """Whom a task with this context works for."""
    lane = context.get(current_lane)
    # What has outlived the function that started it can make no durable call any more.
    return None if lane is None or lane.frame.ended else lane.frame.execution


def own_place(frame: Frame, name: str) -> Place:
    """The place of the next thing of the engine's own."""
    lane = lane_of(frame)
    return Place(lane, lane.counter.number_own(name))


def lane_of(frame: Frame) -> Lane:
    """The lane of the task that is running code of `frame`."""
    lane, task = current_lane.get(), current_task()
    if lane is None or lane.frame is not frame or (lane.task is not None and lane.task is not task):
        lane = Lane(frame, task)
        current_lane.set(lane)
    lane.task = task
    return lane


async def insist(step: Callable[[], Awaitable[T]]) -> T:
    """Do a step to its end, again if need be; a cancellation that has come meanwhile stays owed to the code."""
    lane = current_lane.get()
    result, owed = await unbroken(step, unless=lambda: lane is None or lane.frame.execution.interrupted())
    if owed is not None and lane is not None:
        lane.owed = owed
    return result


@frozen
class Place:
    """Where a call stands in the text of the program.

    Attributes:
        lane: the task that makes it.
        part: its segment, without the lane; or the name that was chosen for it.
        named: whether that is so: such a name says it all.
    """

    lane: Lane
    part: str
    named: bool = False

    def resolve(self, id_of: Callable[[str], str], same_call: Callable[[Promise], bool]) -> tuple[str, dict[str, str]]:
        """The segment of the call, and what its promise has to be tagged with on account of its lane.

        Args:
            id_of: the id that the call has with a given segment.
            same_call: whether a record is one of such a call.
        """
        tags: dict[str, str] = {}
        if self.lane.label is None:
            number = self._recorded_lane(id_of, same_call) or self.lane.frame.next_lane()
            self.lane.label = f"p{number}"
            tags[LANE_TAG] = str(number)
        return self._segment(self.lane.label), tags

    def below(self, number: int) -> Place:
        """The place of one of several things that belong to this one."""
        return evolve(self, part=f"{self.part}-{number}")

    def alone(self) -> str:
        """The segment of something that is no call."""
        if self.lane.label is None:
            self.lane.label = self.lane.frame.next_unmatched_lane()
        return self._segment(self.lane.label)

    def _segment(self, label: str) -> str:
        return f"{self.part}t{label}" if label and not self.named else self.part

    def _recorded_lane(self, id_of: Callable[[str], str], same_call: Callable[[Promise], bool]) -> int | None:
        frame = self.lane.frame
        for number, first in frame.recorded_lanes().items():
            if first.id == id_of(self._segment(f"p{number}")) and same_call(first):
                frame.execution.history.take_lane(frame.id, number)
                return number
        return None
