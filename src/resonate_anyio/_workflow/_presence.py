"""`Presence`: what of an execution is in memory: running frames, deadlines, waits, leaves."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from weakref import ReferenceType, ref

from anyio import Event, current_time
from attrs import define, field

from .._concurrency._tasks import Task, joins

if TYPE_CHECKING:
    from .._protocol import Promise
    from ._reasons import Reason


class Deadline(Protocol):
    """An instant at which something in an execution ends."""

    @property
    def instant(self) -> int:
        """The instant, in the server's milliseconds."""
        ...

    def map_deadline(self, now: int) -> None:
        """Map it to the loop's clock, which may have parted from the server's. `now` is the server's time."""
        ...


class RunningFrame(Deadline, Protocol):
    """A frame, as `Presence` knows it."""

    @property
    def id(self) -> str: ...
    @property
    def parent(self) -> object: ...
    @property
    def record(self) -> Promise: ...
    @property
    def unwinding(self) -> bool: ...
    def put_away(self) -> None: ...
    def request_cancel(self, reason: Reason) -> None: ...
    def expire(self) -> None: ...


@define(eq=False)
class Wait:
    """A task that waits in this package's code.

    Attributes:
        task: the task.
        event: what it waits for.
        patient: whether nothing but this event ends the wait, as far as can be seen.
        held: whether it has an outcome already, and waits for other tasks of the execution to come as far.
    """

    task: Task
    event: Event
    patient: bool
    held: bool = False


@define(eq=False)
class LeafRunning:
    """A block in which a leaf runs or is put on record. Several may be entered at once.

    Meanwhile shutdown gives grace, and the execution stays hot. Not made by contextlib, which sets the traceback of an
    error that passes through: an error of a frozen dataclass refuses that, and another error would take its place.

    Attributes:
        count: how many blocks are entered.
        ended: called when one is left, if somebody waits for that.
    """

    count: int = field(default=0, init=False)
    ended: Callable[[], None] | None = field(default=None, init=False)

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if self.ended is not None:
            self.ended()


@define(eq=False)
class Young:
    """What has begun not long ago, in the order in which it has begun.

    Attributes:
        entries: when each is old enough to be looked at, by the loop's clock, and a reference to it. Most of them have
            ended by then, and do not stay in memory for this.
        wake: called when the first entry is due before `sleeps_until`.
        sleeps_until: when the entries are looked at next.
    """

    age: float
    wake: Callable[[], None]
    entries: deque[tuple[float, ReferenceType[object]]] = field(factory=deque, init=False)
    sleeps_until: float = field(default=-math.inf, init=False)

    def add(self, young: object) -> None:
        """Have something looked at when it is old enough."""
        due = current_time() + self.age
        self.entries.append((due, ref(young)))
        if due < self.sleeps_until:
            self.wake()

    def sleep_until(self, due: float) -> None:
        """Note when the entries are looked at next; minus infinity if that is now."""
        self.sleeps_until = due


@define(eq=False)
class Presence:
    """What of one execution is in memory.

    Attributes:
        now: the server's time, in milliseconds.
        young: frames whose code has begun to run not long ago.
        unlisten: called with a frame whose code has ended, and with what listens to its promise.
        emptied: set when the code of the last frame has ended, if somebody waits for that.
        frames: the frames whose code runs; each with what listens to its promise, if anything does.
        waits: the tasks that wait in this package's code.
        leaf_running: the block in which a leaf runs, or is being recorded.
        pins: how many outcomes of unfinished frames a replay could not give back at once, because they came from a
            scope that is not on record. While there are any, the execution is not evicted for economy.
        stirred: what calls wait for that are not what is on record at their positions.
    """

    now: Callable[[], int]
    young: Young
    unlisten: Callable[[RunningFrame, Callable[[Promise], None]], None]
    emptied: Event | None = field(default=None, init=False)
    frames: dict[RunningFrame, Callable[[Promise], None] | None] = field(factory=dict, init=False)
    waits: set[Wait] = field(factory=set, init=False)
    leaf_running: LeafRunning = field(factory=LeafRunning, init=False)
    pins: int = field(default=0, init=False)
    _deadlines: set[Deadline] = field(factory=set, init=False)
    stirred: set[Event] = field(factory=set, init=False)

    def enter(self, frame: RunningFrame) -> None:
        """Know of a frame whose code begins to run, and keep its deadline."""
        self.frames[frame] = None
        self._deadlines.add(frame)
        frame.map_deadline(self.now())
        if frame.parent is not None:
            self.young.add(frame)

    def leave(self, frame: RunningFrame) -> None:
        """The code of a frame has ended."""
        listener = self.frames.pop(frame)
        self._deadlines.discard(frame)
        if listener is not None:
            self.unlisten(frame, listener)
        if self.emptied is not None and not self.frames:
            self.emptied.set()

    async def empty(self) -> None:
        """Wait until no code of any frame runs."""
        while self.frames:
            self.emptied = Event()
            await self.emptied.wait()

    def listen(self, frame: RunningFrame, listener: Callable[[Promise], None]) -> None:
        """Keep what listens to the promise of a running frame."""
        self.frames[frame] = listener

    def tell_leaf_ended(self, func: Callable[[], None]) -> None:
        """Call `func` whenever a leaf has ended from now on."""
        self.leaf_running.ended = func

    @contextmanager
    def deadline(self, deadline: Deadline) -> Iterator[None]:
        """Keep a deadline where the server has it, although the loop's clock may part from it."""
        self._deadlines.add(deadline)
        deadline.map_deadline(self.now())
        try:
            yield
        finally:
            self._deadlines.remove(deadline)

    def map_deadlines(self) -> None:
        """Map all deadlines to the loop's clock anew."""
        now = self.now()
        for deadline in self._deadlines:
            deadline.map_deadline(now)

    @property
    def next_deadline(self) -> int:
        """The earliest instant, in the server's milliseconds, at which a deadline of running code passes."""
        return min(deadline.instant for deadline in self._deadlines)

    def waits_here(self, task: Task) -> bool:
        """Return whether `task` waits in this package's code, or for other tasks to end."""
        return any(wait.task is task and not wait.held for wait in self.waits) or joins(task)

    def pin(self, count: int = 1) -> None:
        """Change the number of pins by `count`."""
        self.pins += count

    # Calls that are not what is on record at their positions

    @contextmanager
    def watching(self, changed: Event) -> Iterator[None]:
        """Set `changed` when something may have changed for calls in doubt, while the block lasts."""
        self.stirred.add(changed)
        try:
            yield
        finally:
            self.stirred.discard(changed)

    def stir(self) -> None:
        """Let calls that are in doubt look again."""
        for event in self.stirred:
            event.set()
