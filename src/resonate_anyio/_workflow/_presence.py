"""`Presence`: the parts of an execution that are in memory: running frames, deadlines, waits, leaves."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from weakref import ReferenceType, ref

from anyio import Event
from attrs import define, field

from .._concurrency._tasks import Task, joins, loop_time

if TYPE_CHECKING:
    from .._protocol import Promise
    from ._reasons import Reason


class Deadline(Protocol):
    """A deadline of something in an execution."""

    @property
    def instant(self) -> int:
        """The deadline, in milliseconds of the server's time."""
        ...

    def map_deadline(self, now: int) -> None:
        """Map the deadline to the loop's clock, which may run apart from the server's. `now` is the server's time."""
        ...


class RunningFrame(Deadline, Protocol):
    """A frame, as `Presence` sees it."""

    @property
    def id(self) -> str: ...
    @property
    def parent(self) -> object: ...
    @property
    def record(self) -> Promise: ...
    @property
    def unwinding(self) -> bool: ...
    def end_code(self) -> None: ...
    def request_cancel(self, reason: Reason) -> None: ...


@define(eq=False, repr=False)
class Wait:
    """A task that waits in this package's code.

    Attributes:
        task: the task.
        event: the event that it waits for.
        patient: whether only this event can end the wait, as far as this package sees.
        held: whether its outcome is known, and it waits for the turn of its lane.
    """

    task: Task
    event: Event
    patient: bool
    held: bool = False


@define(eq=False, repr=False)
class LeafRunning:
    """A block in which a leaf runs or is recorded. It may be entered several times at once.

    Meanwhile the execution stays hot, and a worker that stops gives it grace. A class instead of
    `contextlib.contextmanager`, which sets the traceback of an error that passes through: a frozen dataclass refuses
    that, and another error would replace it.

    Attributes:
        count: the number of entered blocks.
        ended: a function that is called when a block is left, or None.
    """

    count: int = field(default=0, init=False)
    ended: Callable[[], None] | None = field(default=None, init=False)

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if self.ended is not None:
            self.ended()


@define(eq=False, repr=False)
class Young:
    """Objects that began a short time ago, in the order of their beginnings.

    Attributes:
        age: the seconds after which an object is no longer young.
        wake: a function that is called when the first entry is due before `sleeps_until`.
        entries: for each object, the instant at which it stops being young, by the loop's clock, and a weak reference.
            Most objects have ended by then, and are not kept in memory for this.
        sleeps_until: the instant of the next look at the entries.
    """

    age: float
    wake: Callable[[], None]
    entries: deque[tuple[float, ReferenceType[object]]] = field(factory=deque, init=False)
    sleeps_until: float = field(default=-math.inf, init=False)

    def add(self, young: object) -> None:
        """Add an object that has just begun."""
        due = loop_time() + self.age
        self.entries.append((due, ref(young)))
        if due < self.sleeps_until:
            self.wake()

    def sleep_until(self, due: float) -> None:
        """Note the instant of the next look at the entries; minus infinity for now."""
        self.sleeps_until = due


@define(eq=False, repr=False)
class Presence:
    """The parts of one execution that are in memory.

    Attributes:
        now: a function that returns the server's time, in milliseconds.
        young: frames whose code began to run a short time ago.
        unlisten: a function that is called with a frame whose code has ended, and the listener of its promise.
        emptied: an event that is set when the code of the last frame has ended; None if it is not waited for.
        frames: the frames whose code runs, each with the listener of its promise, or None.
        waits: the tasks that wait in this package's code.
        leaf_running: the block in which a leaf runs or is recorded.
        pins: the number of outcomes of unfinished frames that a replay could not deliver at once, because they came
            from a scope that is not on record. While it is not zero, the execution is not evicted to save memory.
        stirred: the events that doubtful calls wait for.
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
        """Add a frame whose code begins to run, and its deadline."""
        self.frames[frame] = None
        self._deadlines.add(frame)
        frame.map_deadline(self.now())
        if frame.parent is not None:
            self.young.add(frame)

    def leave(self, frame: RunningFrame) -> None:
        """Remove a frame whose code has ended."""
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
        """Note the listener of the promise of a running frame."""
        self.frames[frame] = listener

    def tell_leaf_ended(self, func: Callable[[], None]) -> None:
        """Call `func` from now on whenever a leaf has ended."""
        self.leaf_running.ended = func

    @contextmanager
    def deadline(self, deadline: Deadline) -> Iterator[None]:
        """Keep a deadline mapped to the loop's clock during the block, even if that runs apart from the server's."""
        self._deadlines.add(deadline)
        deadline.map_deadline(self.now())
        try:
            yield
        finally:
            self._deadlines.remove(deadline)

    def map_deadlines(self) -> None:
        """Map all deadlines to the loop's clock again."""
        now = self.now()
        for deadline in self._deadlines:
            deadline.map_deadline(now)

    @property
    def next_deadline(self) -> int:
        """The earliest deadline of running code, in milliseconds of the server's time."""
        return min(deadline.instant for deadline in self._deadlines)

    def waits_here(self, task: Task) -> bool:
        """Return whether `task` waits in this package's code, or for other tasks to end."""
        return any(wait.task is task and not wait.held for wait in self.waits) or joins(task)

    def pin(self, count: int = 1) -> None:
        """Change the number of pins by `count`."""
        self.pins += count

    # Doubtful calls

    @contextmanager
    def watching(self, changed: Event) -> Iterator[None]:
        """Set `changed` during the block whenever something changes that may decide a doubt."""
        self.stirred.add(changed)
        try:
            yield
        finally:
            self.stirred.discard(changed)

    def stir(self) -> None:
        """Let doubtful calls look again."""
        for event in self.stirred:
            event.set()
