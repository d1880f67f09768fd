"""Lanes: how the calls of one function are numbered when several of its tasks make them (docs/semantics.md 2.2).

Numbers have to be the same on a replay. Within one task they are, since its code runs in order; between tasks there is
no order. So every task of a frame counts by itself, in a lane of its own, and the lane is part of the ids:

* the function's own code is lane 0, whose ids show no lane: `fetch-2`;
* what `start_soon` of a durable group starts is numbered in the order of the program's text: `fetch-2t1`;
* any other task (of a plain group, say) gets its lane with its first call: a recorded one that began with the same
  call, or a new one: `fetch-2tp1`. Every record of such a lane says what its first call was: that call itself need not
  be on record any more.

A lane also numbers all its calls and choices, whatever they call: that is their position (see `_positions`).
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Protocol, TypeVar

from anyio import CancelScope, get_cancelled_exc_class
from attrs import define, evolve, field, frozen

from .._concurrency._cancellation import Owed
from .._concurrency._tasks import cancelling, current_task
from .._history import LANE_TAG, History, Position, RecordedLane, lane_tag
from .._ids import Counter, Mark, hashed
from .._protocol import Promise

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._host import Host
    from ._run import Run

T = TypeVar("T")

current_lane: ContextVar[Lane | None] = ContextVar("resonate_anyio.current_lane", default=None)
"""The lane of the code that is running, or of the task that has started it; None in the ephemeral world."""


class Doubt(Protocol):
    """A call of a lane that is not what is on record at its position (see `_positions`)."""

    @property
    def resolved(self) -> bool:
        """Whether it is known what becomes of it."""
        ...

    def withdraw(self) -> None:
        """Do not make it."""
        ...


@define(eq=False)
class Lanes:
    """The numbers of the lanes of plain tasks of one frame, and what is on record of such lanes."""

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
        """Return the number of a lane that is not on record."""
        self._last = (self._last or 0) + 1
        return self._last

    def next_unmatched(self) -> str:
        """Return the label of a lane whose first call is not known yet."""
        self._unmatched += 1
        return f"q{self._unmatched}"


@define(eq=False)
class Lane:
    """One task of one frame, which counts its calls by itself.

    Attributes:
        frame: whose code runs in it.
        task: the task, as the backend knows it; None until it runs.
        label: how ids show it; None as long as no call has been made in it that tells which one it is.
        owed: a cancellation that was held back because the call that it met had an outcome (docs/semantics.md 3.3).
        returns: how many calls have returned to it (see `_order`).
        tags: what every record of the lane is tagged with.
        opener: the lane whose task has started that of this one, as far as is known.
        start: the number that its start has in that lane; 0 if it has none.
        rewound: how far its numbers were given back, each time.
        doubt: the first call of the lane that is not what is on record at its position, until it is made, or is not.
             Later calls of the lane wait for that.
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
    _recorded: tuple[int, RecordedLane] | None = field(default=None, init=False)

    def open(self, number: int) -> Lane:
        """A lane for a task that this one starts; its label follows from the order of the program's text.

        Args:
            number: the number that its start has in this lane.
        """
        if self.label is None:
            self.label = self.frame.lanes.next_unmatched()
        opened = self.counter.open_lane()
        self.frame.order.share()
        label = f"{self.label}-{opened}" if self.label else str(opened)
        # The start of its task is the first of its returns, and has the number 0.
        return Lane(self.frame, label=label, opener=self, start=number, returns=-1)

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
        """Whether a call of this lane may turn out not to be made, because an earlier one was not."""
        return self.doubt is not None or bool(self.rewound)

    def count_return(self) -> None:
        """A call has returned to the code of this lane."""
        self.returns += 1

    def begin(self, number: int, identity: str, recorded: RecordedLane | None) -> None:
        """The first call of a plain task tells which lane it is."""
        self.label = f"p{number}"
        self.tags = {LANE_TAG: lane_tag(number, identity)}
        self._recorded = None if recorded is None else (number, recorded)
        self.frame.order.share()

    def forget(self) -> None:
        """The first call of a plain task is not made after all: the next one tells which lane it is."""
        if not self.tags:
            return
        self.label, self.tags = None, {}
        if self._recorded is not None:
            self.frame.execution.history.return_lane(self.frame.id, *self._recorded)


def current_frame() -> Run | None:
    """The frame whose code is running, or None in the ephemeral world."""
    lane = current_lane.get()
    return None if lane is None else lane.frame


def execution_in(context: Context) -> Host | None:
    """Whom a task with this context works for."""
    lane = context.get(current_lane)
    # What has outlived the function that started it can make no durable call any more.
    return None if lane is None or lane.frame.ended else lane.frame.execution


def call_place(frame: Run, name: str) -> Place:
    """Return the place of a call of `name` whose builder is being made; it gets the next number."""
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
    """The place of something of the engine's own that is not put on record."""
    lane = lane_of(frame)
    return Place(lane, lane.counter.number_own(name))


def lane_of(frame: Run) -> Lane:
    """The lane of the task that is running code of `frame`."""
    lane, task = current_lane.get(), current_task()
    if lane is None or lane.frame is not frame or (lane.task is not None and lane.task is not task):
        lane = Lane(frame, task, opener=lane if lane is not None and lane.frame is frame else None)
        current_lane.set(lane)
    lane.task = task
    return lane


async def insist(step: Callable[[], Awaitable[T]]) -> T:
    """Do a step to its end, again if need be; a cancellation that has come meanwhile stays owed to the code.

    A shield holds up the scopes of anyio and of trio. What asyncio itself cancels (`asyncio.timeout`, `wait_for`, a
    `TaskGroup`, `Task.cancel`) comes through, each once, and the step is done again: it has to be one that may be.
    """
    lane, owed = current_lane.get(), None
    while True:
        count = cancelling()
        try:
            with CancelScope(shield=True):
                result = await step()
        except get_cancelled_exc_class() as exc:
            if lane is None or cancelling() <= count or lane.frame.execution.interrupted():
                raise
            owed = Owed.of(exc)
        else:
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
        number: counts the calls and choices of the lane.
        item: which of several things that belong to one it is.
        before: the counts of the lane before it, if the builder was made in a replay.
        age: how often numbers of the lane had been given back by then.
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
        """The segment of the call, and what its promise has to be tagged with on account of its lane.

        Args:
            id_of: the id that the call has with a given segment.
            same_call: whether a record is one of such a call.
            content: what the call is, its place aside.
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
        """Whether an earlier call of the lane was not made the first time, and so this one was not either."""
        rewound = self.lane.rewound
        return bool(rewound) and any(number < self.number for number in rewound[self.age :])

    def position(self, blocks: str) -> Position:
        """Return the position of a call that is made here, inside of these blocks."""
        lane = self.lane
        label = lane.label or "0"
        number = str(self.number) if self.item is None else f"{self.number}.{self.item}"
        return Position(f"{label}@{lane.start}" if lane.start else label, number, blocks)

    def below(self, number: int) -> Place:
        """The place of one of several things that belong to this one."""
        return evolve(self, part=f"{self.part}-{number}", item=number)

    def give_back(self) -> None:
        """The call is not made: the next one of the lane gets its number."""
        counter = self.lane.counter
        if self.item is None and self.before is not None and not self.taken_back:
            counter.rewind(self.before)
            self.lane.rewound.append(counter.numbered)
            if self.number == 1:
                self.lane.forget()

    def alone(self) -> str:
        """The segment of something that is no call."""
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
                # A record of the first version.
                return number
        return None
