"""`Residency`: what a worker looks after while time passes: who is to be parked, who to be unloaded, whether clocks part.

An execution that is over within half a second costs one entry in a queue. One that is older listens to its own root,
so that it hears when somebody else settles it, and is looked at from then on: parked when it has waited long enough as
a whole, or sooner when too many are hot. Nothing ticks: there is one timer, for what is due next, and an execution that
cannot be parked is looked at less and less often.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from contextlib import suppress
from functools import cache, partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from anyio import Event, current_time, move_on_after
from attrs import define, field

from .._concurrency._tasks import Census, sees_every_deadline
from .._errors import NotRunning
from .._execution._execution import Execution
from .._workflow._frame import Frame
from .._workflow._host import Drop
from .._workflow._lanes import execution_in
from .._workflow._presence import Young
from ._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._worker import Worker

_GROWN_UP: Final = 0.5
"""Seconds after which an execution is worth a listener on its own root, and a local call one on its promise."""

_SETTLING: Final = 0.5
"""Seconds between what may make a look worth while and the look."""

_BLIND_WAIT_MS: Final = 600_000
"""How long a task may sleep at first while its code may have deadlines that cannot be seen."""

_CLOCKS_PARTED: Final = 1.0

_ASK_AGAIN: Final = 1.0
_SPARE_ENTRIES: Final = 100

_ASKED_A_ROUND: Final = 600


@define(eq=False)
class _Watch:
    """One execution that is looked at.

    Attributes:
        execution: which; None once it has ended.
        due: when it is looked at next; other entries in the queue are void.
        delay: how long until the look after one that found code at work.
    """

    execution: Execution | None
    delay: float
    due: float = math.inf
    looked_at: float = -math.inf


@define(eq=False)
class Residency:
    """See the module's docstring.

    Attributes:
        young: executions and calls that are not worth a listener yet.
    """

    _worker: Worker
    _settings: Settings
    young: Young = field(init=False)
    _watches: dict[str, _Watch] = field(factory=dict, init=False)
    _queue: list[tuple[float, int, _Watch]] = field(factory=list, init=False)
    _numbers: Iterator[int] = field(factory=count, init=False)
    _parked: dict[str, Execution] = field(factory=dict, init=False)
    _deadlines: list[tuple[float, str]] = field(factory=list, init=False)
    _expected: dict[str, float] = field(factory=dict, init=False)
    _pressed_at: float = field(default=math.inf, init=False)
    _crowded: bool = field(default=False, init=False)
    _nudged: Event = field(factory=Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.young = Young(_GROWN_UP, self._wake)

    # Time

    async def run(self) -> None:
        """Do what is due until the worker begins to stop."""
        while not self._worker.draining:
            self._do_what_is_due(current_time())
            await self._sleep_until(self._next_due())

    async def _sleep_until(self, due: float) -> None:
        self._nudged = Event()
        self.young.sleep_until(due)
        with move_on_after(due - current_time()), suppress(NotRunning):
            await self._worker.subscriptions.wait(self._nudged)
        self.young.sleep_until(-math.inf)

    def _next_due(self) -> float:
        entries = self.young.entries
        young = entries[0][0] if entries else math.inf
        deadline = self._deadlines[0][0] if self._deadlines else math.inf
        return min(young, self._queue[0][0] if self._queue else math.inf, self._pressed_at, deadline)

    def _wake_for(self, due: float) -> None:
        if due < self.young.sleeps_until:
            self._nudged.set()

    def _wake(self) -> None:
        self._nudged.set()

    def _do_what_is_due(self, now: float) -> None:
        # Everything that is parked in one go is decided on at one instant: nothing else runs in between.
        census = _lazy_census()
        entries = self.young.entries
        while entries and entries[0][0] <= now:
            young = entries.popleft()[1]()
            if isinstance(young, Frame):
                if _execution_of(young).runs(young):
                    self._worker.background(self._watch_call, young, name=f"resonate watch {young.id}")
            elif isinstance(young, Execution) and _alive(young):
                self._worker.background(self._watch, young, name=f"resonate watch {young.id}")
        while self._queue and self._queue[0][0] <= now:
            due, _, watch = heappop(self._queue)
            if watch.due == due and watch.execution is not None and _alive(watch.execution):
                self._look(watch, watch.execution, now, census)
        if self._pressed_at <= now:
            self._press(census)
        self._ask_for_expired(now)

    # What others tell

    def forget(self, execution: Execution) -> None:
        """An execution is over."""
        if watch := self._watches.pop(execution.id, None):
            # The queue still has it, maybe for hours.
            watch.execution = None
        self._parked.pop(execution.id, None)

    def stirred(self) -> None:
        """Some execution has begun to wait."""
        if self._crowded:
            self._press_soon()

    def falls_asleep(self, execution: Execution, due_ms: int) -> None:
        """A task of an execution is about to sleep until `due_ms`: if that is long, it need not be hot meanwhile."""
        if due_ms - execution.now() > self._settings.hot_for * 1000:
            self._schedule(execution, current_time() + _SETTLING)

    def resuming(self, execution: Execution) -> None:
        """A parked execution is wanted again."""
        self._parked.pop(execution.id, None)

    def resumed(self, execution: Execution) -> None:
        """A parked execution is hot again."""
        self.resuming(execution)
        self._schedule(execution, current_time() + _SETTLING)
        if self._excess() > 0:
            self._press_soon()

    def not_parked(self, execution: Execution) -> None:
        """An execution could not be parked."""
        if watch := self._watches.get(execution.id):
            self._schedule(execution, current_time() + watch.delay)
            watch.delay *= 2

    def parked(self, execution: Execution) -> None:
        """An execution is parked. If there are too many of them now, the longest parked are given up."""
        self._parked[execution.id] = execution
        excess = len(self._parked) - self._settings.parked_limit
        # What is pinned has awaits that a replay could not give back at once.
        for longest in [each for each in self._parked.values() if not each.pinned][: max(excess, 0)]:
            del self._parked[longest.id]
            longest.drop(Drop.UNLOADED)
        self._worker.acquisition.stir()

    # Looking

    async def _watch(self, execution: Execution) -> None:
        self._worker.subscriptions.subscribe(execution.id, execution.root_settled)
        await self._worker.recheck(execution.id)
        if not _alive(execution):
            self._worker.subscriptions.unsubscribe(execution.id, execution.root_settled)
            return
        self._watches[execution.id] = _Watch(execution, self._patience)
        self._schedule(execution, current_time())
        if self._excess() > 0:
            self._press_soon()

    async def _watch_call(self, frame: Frame) -> None:
        """Hear of it if somebody elsewhere settles a local call that runs here."""
        # It may have ended since it was looked at.
        execution = _execution_of(frame)
        if execution.runs(frame):
            execution.listen_to_call(frame)
            await self._worker.recheck(frame.id)

    @property
    def _patience(self) -> float:
        return max(self._settings.hot_for, _SETTLING)

    def _schedule(self, execution: Execution, due: float) -> None:
        if watch := self._watches.get(execution.id):
            watch.due = due
            heappush(self._queue, (due, next(self._numbers), watch))
            self._wake_for(due)

    def _look(self, watch: _Watch, execution: Execution, now: float, census: Callable[[], Census]) -> None:
        if not execution.suspension.hot:
            return
        if not execution.blocked(census()):
            # Code that goes on for a year is looked at a dozen times, one that has begun to wait soon.
            watch.delay = self._patience if execution.stirred_at > watch.looked_at else watch.delay * 2
            watch.looked_at = now
            self._schedule(execution, now + watch.delay)
            return
        due = self._parkable_from(execution, now)
        if due <= now:
            self._park(execution)
        else:
            self._schedule(execution, due)

    def _parkable_from(self, execution: Execution, now: float) -> float:
        """From when on it is cheaper to park an execution that goes on waiting than to keep it hot."""
        instants = [node.record.timeout_at for node in execution.externals]
        seconds_left = (min(execution.presence.next_deadline, *instants) - execution.now()) / 1000
        if seconds_left <= self._settings.hot_for:
            return now + self._patience
        if all(node.due is not None for node in execution.externals):
            return now
        return execution.stirred_at + self._settings.hot_for + execution.local_records

    def _park(self, execution: Execution) -> None:
        fires = self._worker.timer_promises.fires
        silent = [node.record.timeout_at for node in execution.externals if not fires(node.record)]
        wake_at = min([execution.presence.next_deadline, *silent])
        if not sees_every_deadline():
            # Each time twice as long, replayed or not: a deadline that was missed is late by its own length at most.
            waited_ms = execution.now() - execution.changed_at
            wake_at = min(wake_at, execution.now() + max(waited_ms, _BLIND_WAIT_MS))
        execution.suspension.suspend(wake_at)

    def park_all(self) -> None:
        """Begin to park every execution that can be."""
        census = _lazy_census()
        for execution in self._worker.executions.values():
            if execution.suspension.hot and execution.blocked(census()):
                self._park(execution)

    # Pressure

    @property
    def hot(self) -> int:
        """How many executions have a lease, or are about to have one."""
        return len(self._worker.executions) - len(self._parked)

    def make_room(self) -> None:
        """Tasks wait for executions to be parked that only wait."""
        self._press_soon()

    def _excess(self) -> int:
        """How many executions too many are hot."""
        return max(self.hot - self._settings.hot_limit, self._worker.acquisition.crowd)

    def _press_soon(self) -> None:
        if self._pressed_at == math.inf:
            self._pressed_at = current_time() + _SETTLING
            self._wake_for(self._pressed_at)

    def _press(self, census: Callable[[], Census]) -> None:
        self._pressed_at = math.inf
        hot = [execution for execution in self._worker.executions.values() if execution.suspension.hot]
        moving = self.hot - len(hot)
        excess = max(len(hot) - self._settings.hot_limit, self._worker.acquisition.crowd - moving)
        for execution in sorted(hot, key=lambda each: each.stirred_at):
            if excess <= 0:
                break
            if execution.id in self._watches and execution.blocked(census()):
                self._park(execution)
                excess -= 1
        # If too few of them wait, the next one that begins to is worth another look.
        self._crowded = excess > 0

    # What the server says

    async def recheck(self) -> None:
        """Ask again for what is waited for, again and again, if messages may be lost on their way.

        So many a round at most: of more, each gets its turn.
        """
        worker = self._worker
        last = ""
        while not worker.draining:
            await worker.subscriptions.pause(worker.subscriptions.jittered(worker.connection.recheck))
            ids = sorted(self._untold())
            start = bisect_right(ids, last)
            turn = [*ids[start:], *ids[:start]][:_ASKED_A_ROUND]
            for id in turn:
                await worker.recheck(id)
                last = id

    async def recheck_all(self) -> None:
        """Ask for everything that is waited for, because messages may have been lost."""
        for id in self._untold():
            await self._worker.recheck(id)

    def _untold(self) -> set[str]:
        """What is waited for and may have settled without anybody saying so but in a message."""
        told = {id for execution in self._parked.values() for id in execution.awaited}
        # A parked execution is sent for when something has settled, again and again until somebody comes. Of a leased
        # one the server is asked once a minute, with the lease.
        told |= {id for id, execution in self._worker.executions.items() if execution.lease.looked_after}
        return {id for id in self._worker.subscriptions.ids if id not in told}

    def ask_at(self, id: str, instant: int) -> None:
        """Ask for a promise that is waited for when its deadline has come: not every server says so by itself."""
        due = current_time() + max(instant - self._worker.connection.now(), 0) / 1000
        self._expect(due, id)

    def _expect(self, due: float, id: str) -> None:
        if self._expected.setdefault(id, due) < due:
            return
        self._expected[id] = due
        heappush(self._deadlines, (due, id))
        if len(self._deadlines) > 2 * len(self._worker.subscriptions.ids) + _SPARE_ENTRIES:
            self._forget_deadlines()
        self._wake_for(due)

    def _forget_deadlines(self) -> None:
        """Most of them are not waited for any more."""
        waited = self._worker.subscriptions.ids
        self._expected = {id: due for id, due in self._expected.items() if id in waited}
        self._deadlines = [(due, id) for id, due in self._expected.items()]
        heapify(self._deadlines)

    def _ask_for_expired(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            due, id = heappop(self._deadlines)
            if self._expected.get(id) == due:
                del self._expected[id]
                if id in self._worker.subscriptions.ids:
                    self._worker.background(self._ask_for, id, name=f"resonate deadline {id}")

    async def _ask_for(self, id: str) -> None:
        await self._worker.recheck(id)
        if id in self._worker.subscriptions.ids:
            # Here it is later than there.
            self._expect(current_time() + _ASK_AGAIN, id)

    async def watch_clocks(self) -> None:
        """Deadlines are instants of the server's; when its clock and the loop's part, they are mapped anew."""
        offset = self._clock_offset()
        while not self._worker.draining:
            await self._worker.subscriptions.pause(self._worker.connection.clock_check)
            if abs(self._clock_offset() - offset) > _CLOCKS_PARTED:
                offset = self._clock_offset()
                for execution in self._worker.executions.values():
                    execution.presence.map_deadlines()

    def _clock_offset(self) -> float:
        return self._worker.connection.now() / 1000 - current_time()


def _lazy_census() -> Callable[[], Census]:
    """A census that is taken when it is first asked for, and then is the same."""
    return cache(partial(Census, execution_in))


def _alive(execution: Execution) -> bool:
    return execution.dropped is None and not execution.ended.is_set()


def _execution_of(frame: Frame) -> Execution:
    assert isinstance(frame.execution, Execution)
    return frame.execution
