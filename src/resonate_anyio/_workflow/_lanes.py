"""Lanes: how calls are numbered when several tasks of one function make them (docs/semantics.md 2.2).

The numbers have to be the same on a replay. Within one task the calls have an order; calls of different tasks have
none. So every task of a frame counts its calls by itself, in a lane of its own, and the ids contain the lane:

* the function's own code is lane 0, whose ids do not show the lane: `fetch-2`;
* a task started with `start_soon` of a durable group is numbered in the order of the program: `fetch-2t1`;
* any other task (of a plain group, for example) gets its lane with its first call: a recorded lane that began with the
  same call, or a new one: `fetch-2tp1`. Every record of such a lane identifies the first call of the lane, since the
  first call itself need not be on record any more.

A lane also numbers all its calls and choices in one sequence: that is their position (see `_positions`).
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from anyio import CancelScope, get_cancelled_exc_class
from attrs import define, evolve, field, frozen

from .._concurrency._cancellation import Owed
from .._concurrency._tasks import cancelling, current_task, loop_time
from .._history import LANE_TAG, History, Position, RecordedLane, lane_tag
from .._ids import Counter, Mark, hashed
from .._protocol import Promise
from .._values import ValueObject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._host import Host
    from ._run import Run

_AT_ONCE: Final = 0.01
"""Seconds that code may take from the return of a call to the next call, if it does not wait."""

T = TypeVar("T")

current_lane: ContextVar[Lane | None] = ContextVar("resonate_anyio.current_lane", default=None)
"""The lane of the running code, or of the task that started its task; None outside of durable functions."""


class Doubt(Protocol):
    """A doubtful call of a lane: another call is on record at its position (see `_positions`)."""

    @property
    def resolved(self) -> bool:
        """Whether it is decided whether the call is made."""
        ...

    def withdraw(self) -> None:
        """Give up the call without making it."""
        ...


@define(eq=False, repr=False)
class Lanes:
    """The numbers of the lanes of plain tasks of one frame, and the recorded lanes."""

    _history: History
    _frame: str
    _last: int | None = field(default=None, init=False)
    _unmatched: int = field(default=0, init=False)

    def recorded(self) -> dict[int, RecordedLane]:
        """Return the lanes of earlier runs that no task has taken yet."""
        lanes = self._history.lanes(self._frame)
        if self._last is None:
            self._last = max(lanes, default=0)
        return lanes

    def next(self) -> int:
        """Return the number of a new lane."""
        self._last = (self._last or 0) + 1
        return self._last

    def next_unmatched(self) -> str:
        """Return the label of a lane whose first call is not known yet."""
        self._unmatched += 1
        return f"q{self._unmatched}"


@define(eq=False, repr=False)
class Lane:
    """One task of one frame, which counts its calls by itself.

    Attributes:
        frame: the frame whose code runs in it.
        task: the backend's task; None until it runs.
        label: the name of the lane in ids; None until a first call identifies the lane.
        owed: a cancellation that was held back because the call that it met had an outcome (docs/semantics.md 3.3).
        returns: the number of calls that have returned to it (see `_order`).
        tags: the tags of every record of the lane.
        opener: the lane whose task has started the task of this one, as far as is known.
        start: the number of its start in that lane; 0 if its start has no number.
        rewound: the number that the counter was set back to, for each time.
        doubt: the first doubtful call of the lane, until it is made or withdrawn. Later calls of the lane wait for that
            decision.
        returned_at: when a call last returned to it, or it began, by the loop's clock.
    """

    frame: Run
    task: object = None
    label: str | None = None
    owed: Owed | None = None
    returns: int = 0
    opener: Lane | None = None
    start: int = 0
    counter: Counter = field(factory=Counter, init=False)
    rewound: list[int] = field(factory=list, init=False)
    tags: dict[str, str] = field(factory=dict, init=False)
    doubt: Doubt | None = field(default=None, init=False)
    returned_at: float = field(factory=loop_time)
    _recorded: tuple[int, RecordedLane] | None = field(default=None, init=False)

    def open(self, number: int) -> Lane:
        """Return a lane for a task that this lane starts; its label follows the order of the program.

        Args:
            number: the number of the start in this lane.
        """
        if self.label is None:
            self.label = self.frame.lanes.next_unmatched()
        opened = self.counter.open_lane()
        self.frame.order.share()
        label = f"{self.label}-{opened}" if self.label else str(opened)
        # The start of the task counts as its first return, and has the count 0.
        return Lane(self.frame, label=label, opener=self, start=number, returns=-1)

    def opened_before(self, task: object) -> Lane:
        """Return a lane for a plain task that was started in this lane, at a time that is not known."""
        return Lane(self.frame, task, opener=self, returned_at=self.returned_at)

    def owe(self, owed: Owed | None) -> None:
        """Hold back a cancellation, if there is one: see `owed`."""
        self.owed = owed

    def collect(self) -> None:
        """Raise a cancellation that was held back."""
        if self.owed is not None:
            owed, self.owed = self.owed, None
            owed.collect()

    @property
    def unsure(self) -> bool:
        """Whether a call of this lane may turn out void, because an earlier one was."""
        return self.doubt is not None or bool(self.rewound)

    def count_return(self) -> None:
        """Count a return of a call to the code of this lane."""
        self.returns += 1
        self.returned_at = loop_time()

    @property
    def certain(self) -> bool:
        """Whether the code has come here from its last call without a wait that is not on record.

        A deadline that had passed in such a wait would not be on record, and a replay might take another path. If the
        code was not suspended since the return, hardly any time has passed.
        """
        return loop_time() - self.returned_at <= _AT_ONCE

    def begin(self, number: int, identity: str, recorded: RecordedLane | None) -> None:
        """Identify the lane of a plain task by its first call."""
        self.label = f"p{number}"
        self.tags = {LANE_TAG: lane_tag(number, identity)}
        self._recorded = None if recorded is None else (number, recorded)
        self.frame.order.share()

    def forget(self) -> None:
        """Forget the identity of the lane, because the first call is void: the next call identifies it."""
        if not self.tags:
            return
        self.label, self.tags = None, {}
        if self._recorded is not None:
            self.frame.execution.history.return_lane(self.frame.id, *self._recorded)


def current_frame() -> Run | None:
    """Return the frame whose code is running, or None outside of durable functions."""
    lane = current_lane.get()
    return None if lane is None else lane.frame


def execution_in(context: Context) -> Host | None:
    """Return the execution that a task with this context belongs to, or None."""
    lane = context.get(current_lane)
    # A task that has outlived its function cannot make durable calls any more.
    return None if lane is None or lane.frame.ended else lane.frame.execution


def call_place(frame: Run, name: str) -> Place:
    """Return the place of a call of `name` whose builder is being made, with the next number of the lane."""
    lane = lane_of(frame)
    counter = lane.counter
    before = counter.mark() if frame.replaying else None
    part = counter.number(name)
    return Place(lane, part, number=counter.numbered, before=before, age=len(lane.rewound))


def choice_place(frame: Run, name: str) -> Place:
    """Return the place of a choice whose builder is being made."""
    lane = lane_of(frame)
    before = lane.counter.mark() if frame.replaying else None
    part = lane.counter.number_choice(name)
    return Place(lane, part, number=lane.counter.numbered, before=before, age=len(lane.rewound))


def lane_place(frame: Run) -> Place:
    """Return the place of the start of a lane."""
    lane = lane_of(frame)
    before = lane.counter.mark() if frame.replaying else None
    return Place(lane, "", number=lane.counter.number_lane(), before=before, age=len(lane.rewound))


def own_place(frame: Run, name: str) -> Place:
    """Return the place of a value of this package that is not put on record."""
    lane = lane_of(frame)
    return Place(lane, lane.counter.number_own(name))


def lane_of(frame: Run) -> Lane:
    """Return the lane of the task that is running code of `frame`."""
    lane, task = current_lane.get(), current_task()
    if lane is None or lane.frame is not frame or (lane.task is not None and lane.task is not task):
        opener = lane if lane is not None and lane.frame is frame else None
        # The task was started before this, its first call. Its code may have waited meanwhile.
        lane = Lane(frame, task, opener=opener) if opener is None else opener.opened_before(task)
        current_lane.set(lane)
    lane.task = task
    return lane


async def insist(step: Callable[[], Awaitable[T]]) -> T:
    """Run a step to its end, again if necessary, and return its result.

    A cancellation that arrives meanwhile stays owed to the code. A shield delays cancellations by scopes of anyio and
    trio. A cancellation by asyncio itself (`asyncio.timeout`, `wait_for`, a `TaskGroup`, `Task.cancel`) passes the
    shield, once each; then the step runs again, so it must be repeatable.
    """
    lane, owed = current_lane.get(), None
    while True:
        count = cancelling()
        try:
            with CancelScope(shield=True):
                result = await step()
                if owed is not None and lane is not None:
                    lane.owed = owed
                return result
        except get_cancelled_exc_class() as exc:
            if lane is None or cancelling() <= count or lane.frame.execution.interrupted():
                raise
            owed = Owed.of(exc)


@frozen(eq=False, repr=False)
class Place(ValueObject):
    """The place of a call in the text of the program.

    Attributes:
        lane: the lane of the task that makes the call.
        part: the segment without the lane, or the name that was chosen for the call.
        named: whether a name was chosen: the segment is the name alone.
        number: the number of the call among the calls and choices of the lane.
        item: the number of one of several things that share a place, or None.
        before: the counts of the lane before the call, if the builder was made in a replay.
        age: the number of times that the counter of the lane had been set back before.
    """

    lane: Lane
    part: str
    named: bool = False
    number: int = 0
    item: int | None = None
    before: Mark | None = None
    age: int = 0

    def resolve(
        self, id_of: Callable[[str], str], same_call: Callable[[Promise], bool], content: Callable[[], str]
    ) -> tuple[str, dict[str, str]]:
        """Return the segment of the call, and the tags of its promise that come from its lane.

        Args:
            id_of: returns the id of the call with a given segment.
            same_call: returns whether a record is of such a call.
            content: returns a text that describes the call apart from its place.
        """
        lane = self.lane
        if lane.label is None:
            identity = f"1:{hashed(self.part, content())}"
            number = self._recorded_lane(id_of, same_call, identity)
            recorded = None if number is None else lane.frame.execution.history.take_lane(lane.frame.id, number)
            lane.begin(number or lane.frame.lanes.next(), identity, recorded)
        label = lane.label
        assert label is not None
        return f"{self.part}t{label}" if label and not self.named else self.part, lane.tags

    @property
    def taken_back(self) -> bool:
        """Whether an earlier call of the lane was void, and so this call was not made the first time either."""
        rewound = self.lane.rewound
        return bool(rewound) and any(number < self.number for number in rewound[self.age :])

    def position(self, blocks: str) -> Position:
        """Return the position of a call that is made here, inside of these regions."""
        lane = self.lane
        label = lane.label or "0"
        number = str(self.number) if self.item is None else f"{self.number}.{self.item}"
        return Position(f"{label}@{lane.start}" if lane.start else label, number, blocks)

    def below(self, number: int) -> Place:
        """Return the place of one of several things that share this place."""
        return evolve(self, part=f"{self.part}-{number}", item=number)

    def give_back(self) -> None:
        """Give the number of a void call to the next call of the lane."""
        counter = self.lane.counter
        if self.item is None and self.before is not None and not self.taken_back:
            counter.rewind(self.before)
            self.lane.rewound.append(counter.numbered)
            if self.number == 1:
                self.lane.forget()

    def alone(self) -> str:
        """Return the segment of a value that is not a call."""
        if self.lane.label is None:
            self.lane.label = self.lane.frame.lanes.next_unmatched()
        return self._segment(self.lane.label)

    def _segment(self, label: str) -> str:
        return f"{self.part}t{label}" if label and not self.named else self.part

    def _recorded_lane(
        self, id_of: Callable[[str], str], same_call: Callable[[Promise], bool], identity: str
    ) -> int | None:
        for number, lane in self.lane.frame.lanes.recorded().items():
            if lane.identity is not None:
                if lane.identity == identity:
                    return number
            elif (
                lane.first is not None and lane.first.id == id_of(self._segment(f"p{number}")) and same_call(lane.first)
            ):
                # A record of version 0.1.0.
                return number
        return None
