"""`Residency`: which executions stay in memory, and which of them keep their lease.

An execution that ends within half a second costs one entry in a queue. An older one listens to the promise of its root,
so that the worker learns when a request from outside settles it, and is examined from then on. It is parked once it has
waited long enough as a whole, or earlier if too many executions are hot. If too many are parked, the ones parked
longest are evicted.

Nothing runs periodically: one timer is set for the next thing that is due, and an execution that cannot be parked is
examined less and less often.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cache, partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from anyio import Event, current_time, move_on_after
from attrs import define, field

from .._concurrency._tasks import TaskSnapshot, sees_every_deadline
from .._errors import NotRunning
from .._execution._execution import Execution
from .._workflow._frame import Frame
from .._workflow._host import Drop
from .._workflow._lanes import execution_in
from .._workflow._presence import Young

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .._execution._services import Services
    from ._settings import Settings

_GROWN_UP: Final = 0.5
"""Age in seconds from which an execution listens to its root, and a local call to its promise."""

_SETTLING: Final = 0.5
"""Seconds between an event after which an execution may be parkable and its examination."""

_BLIND_WAIT_MS: Final = 600_000
"""How long a task may sleep at first if its code may have deadlines that this package cannot see."""


@define(eq=False, repr=False)
class _Watch:
    """The examinations of one execution.

    Attributes:
        execution: the execution; None once it has ended.
        delay: seconds from an examination that found running code until the next one.
        due: when it is examined next. Entries of the queue with another time are void.
        examined_at: when it was examined last.
    """

    execution: Execution | None
    delay: float
    due: float = math.inf
    examined_at: float = -math.inf


@define(eq=False, repr=False)
class Residency:
    """See the module's docstring.

    Attributes:
        young: executions and calls that are too young to have a listener.
        parked: the parked executions by id, the one parked longest first.
    """

    _services: Services
    _settings: Settings
    _executions: Mapping[str, Execution]
    young: Young = field(init=False)
    parked: dict[str, Execution] = field(factory=dict, init=False)
    _watches: dict[str, _Watch] = field(factory=dict, init=False)
    _queue: list[tuple[float, int, _Watch]] = field(factory=list, init=False)
    _numbers: Iterator[int] = field(factory=count, init=False)
    _waiting_tasks: int = field(default=0, init=False)
    _reduce_at: float = field(default=math.inf, init=False)
    _too_many_hot: bool = field(default=False, init=False)
    _woken: Event = field(factory=Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.young = Young(_GROWN_UP, self._wake)

    # Time

    async def run(self) -> None:
        """Do what is due, until the worker begins to stop."""
        while not self._services.draining:
            self._do_what_is_due(current_time())
            await self._sleep_until(self._next_due())

    async def _sleep_until(self, due: float) -> None:
        self._woken = Event()
        self.young.sleep_until(due)
        with move_on_after(due - current_time()), suppress(NotRunning):
            await self._services.subscriptions.wait(self._woken)
        self.young.sleep_until(-math.inf)

    def _next_due(self) -> float:
        entries = self.young.entries
        young = entries[0][0] if entries else math.inf
        return min(young, self._queue[0][0] if self._queue else math.inf, self._reduce_at)

    def _wake_for(self, due: float) -> None:
        if due < self.young.sleeps_until:
            self._wake()

    def _wake(self) -> None:
        self._woken.set()

    def _do_what_is_due(self, now: float) -> None:
        # All decisions are made at one instant: no other code runs in between, so one snapshot serves them all.
        self._services.facilities.observers.refresh()
        snapshot = _lazy_snapshot()
        entries = self.young.entries
        while entries and entries[0][0] <= now:
            grown_up = entries.popleft()[1]()
            if isinstance(grown_up, Frame):
                execution = _execution_of(grown_up)
                if execution.runs(grown_up):
                    name = f"resonate listen {grown_up.id}"
                    self._services.background(self._listen_to_call, grown_up, name=name)
            elif isinstance(grown_up, Execution) and _alive(grown_up):
                self._services.background(self._watch, grown_up, name=f"resonate listen {grown_up.id}")
        while self._queue and self._queue[0][0] <= now:
            due, _, watch = heappop(self._queue)
            if watch.due == due and watch.execution is not None and _alive(watch.execution):
                self._examine(watch, watch.execution, now, snapshot)
        if self._reduce_at <= now:
            self._reduce_hot(snapshot)

    # Events of executions

    def on_ended(self, execution: Execution) -> None:
        """Forget an execution that has ended."""
        if watch := self._watches.pop(execution.id, None):
            # The queue may keep the watch for hours; it must not keep the execution in memory.
            watch.execution = None
        self.parked.pop(execution.id, None)

    def on_wait(self) -> None:
        """Note that a task of some execution has begun to wait."""
        if self._too_many_hot:
            self._reduce_soon()

    def on_sleep(self, execution: Execution, due_ms: int) -> None:
        """Note that a task of an execution is about to sleep until `due_ms`: during a long sleep it may be parked."""
        if due_ms - execution.now() > self._settings.hot_for * 1000:
            self._schedule(execution, current_time() + _SETTLING)

    def on_resuming(self, execution: Execution) -> None:
        """Note that the task of a parked execution is being acquired again."""
        self._services.facilities.observers.refresh()
        self.parked.pop(execution.id, None)

    def on_resumed(self, execution: Execution) -> None:
        """Note that a parked execution is hot again."""
        self.on_resuming(execution)
        self._schedule(execution, current_time() + _SETTLING)
        if self._excess() > 0:
            self._reduce_soon()

    def on_not_parked(self, execution: Execution) -> None:
        """Note that an execution could not be parked, and try again later."""
        if watch := self._watches.get(execution.id):
            self._schedule(execution, current_time() + watch.delay)
            watch.delay *= 2

    def on_parked(self, execution: Execution) -> None:
        """Note that an execution is parked. Evict the ones that have been parked longest if there are too many."""
        self.parked[execution.id] = execution
        excess = len(self.parked) - self._settings.parked_limit
        # The code of a pinned execution was given results that a replay could not return at once.
        for longest in [each for each in self.parked.values() if not each.pinned][: max(excess, 0)]:
            del self.parked[longest.id]
            longest.drop(Drop.UNLOADED)

    # Examination

    async def _watch(self, execution: Execution) -> None:
        """Listen to the root of an execution, and examine the execution from now on."""
        self._services.subscriptions.subscribe(execution.id, execution.root_settled)
        await self._services.recheck(execution.id)
        if not _alive(execution):
            self._services.subscriptions.unsubscribe(execution.id, execution.root_settled)
            return
        self._watches[execution.id] = _Watch(execution, self._patience)
        self._schedule(execution, current_time())
        if self._excess() > 0:
            self._reduce_soon()

    async def _listen_to_call(self, frame: Frame) -> None:
        """Listen to the promise of a local call, in case a request from outside settles it."""
        execution = _execution_of(frame)
        # The call may have ended since this task was started.
        if execution.runs(frame):
            execution.listen_to_call(frame)
            await self._services.recheck(frame.id)

    @property
    def _patience(self) -> float:
        return max(self._settings.hot_for, _SETTLING)

    def _schedule(self, execution: Execution, due: float) -> None:
        if watch := self._watches.get(execution.id):
            watch.due = due
            heappush(self._queue, (due, next(self._numbers), watch))
            self._wake_for(due)

    def _examine(self, watch: _Watch, execution: Execution, now: float, snapshot: Callable[[], TaskSnapshot]) -> None:
        """Park an execution if its time has come; else schedule the next examination."""
        if not execution.suspension.hot:
            return
        if execution.externals and (due := self._parkable_from(execution, now)) > now:
            # Known without a look at its code: a snapshot costs time for each task of the process.
            self._schedule(execution, due)
        elif execution.blocked(snapshot()):
            self._park(execution)
        else:
            # Code that runs for a year is examined a dozen times; code that has begun to wait is examined soon.
            watch.delay = self._patience if execution.stirred_at > watch.examined_at else watch.delay * 2
            watch.examined_at = now
            self._schedule(execution, now + watch.delay)

    def _parkable_from(self, execution: Execution, now: float) -> float:
        """Return the time from which parking an execution that goes on waiting costs less than keeping it hot."""
        instants = [node.record.timeout_at for node in execution.externals]
        seconds_left = (min(execution.presence.next_deadline, *instants) - execution.now()) / 1000
        if seconds_left <= self._settings.hot_for:
            return now + self._patience
        if all(node.due is not None for node in execution.externals):
            return now
        return execution.stirred_at + self._settings.hot_for + execution.local_records

    def _park(self, execution: Execution) -> None:
        fires = self._services.timer_promises.fires
        without_timer = [node.record.timeout_at for node in execution.externals if not fires(node.record)]
        wake_at = min([execution.presence.next_deadline, *without_timer])
        if not sees_every_deadline():
            # A deadline that this package cannot see is late by its own length at most: each wait is at most twice as
            # long as the one before, also after a replay.
            waited_ms = execution.now() - execution.changed_at
            wake_at = min(wake_at, execution.now() + max(waited_ms, _BLIND_WAIT_MS))
        execution.suspension.suspend(wake_at)

    def park_all(self) -> None:
        """Begin to park every execution that can be parked."""
        snapshot = _lazy_snapshot()
        for execution in self._executions.values():
            if execution.suspension.hot and execution.blocked(snapshot()):
                self._park(execution)

    # Too many hot executions

    @property
    def hot_count(self) -> int:
        """The number of executions that have a lease, or are about to have one."""
        return len(self._executions) - len(self.parked)

    def make_room(self, waiting_tasks: int) -> None:
        """Park waiting executions earlier, since `waiting_tasks` tasks wait until an execution is parked or ends."""
        self._waiting_tasks = waiting_tasks
        if waiting_tasks:
            self._reduce_soon()

    def _excess(self) -> int:
        """Return how many executions should be parked early."""
        return max(self.hot_count - self._settings.hot_limit, self._waiting_tasks)

    def _reduce_soon(self) -> None:
        if self._reduce_at == math.inf:
            self._reduce_at = current_time() + _SETTLING
            self._wake_for(self._reduce_at)

    def _reduce_hot(self, snapshot: Callable[[], TaskSnapshot]) -> None:
        """Park as many waiting executions as needed, the ones that have waited longest first."""
        self._reduce_at = math.inf
        hot = [execution for execution in self._executions.values() if execution.suspension.hot]
        moving = self.hot_count - len(hot)
        excess = max(len(hot) - self._settings.hot_limit, self._waiting_tasks - moving)
        for execution in sorted(hot, key=lambda each: each.stirred_at):
            if excess <= 0:
                break
            if execution.id in self._watches and execution.blocked(snapshot()):
                self._park(execution)
                excess -= 1
        # If too few of them wait, the hot executions are counted again when another one begins to wait.
        self._too_many_hot = excess > 0


def _lazy_snapshot() -> Callable[[], TaskSnapshot]:
    """Return a function that takes a snapshot at its first call, and returns the same one at later calls."""
    return cache(partial(TaskSnapshot, execution_in))


def _alive(execution: Execution) -> bool:
    return execution.dropped is None and not execution.ended.is_set()


def _execution_of(frame: Frame) -> Execution:
    assert isinstance(frame.execution, Execution)
    return frame.execution
