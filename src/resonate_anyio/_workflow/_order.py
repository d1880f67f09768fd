"""The order in which the tasks of one function run: it is recorded, and a replay keeps to it (docs/semantics.md 2.9).

Tasks of one function share memory: a queue, a lock, a counter. The order in which they run decides which task takes an
item from a queue, and this order depends on the durations of their calls. A replay answers every call at once: without
this module it would hand the items out differently, and a call would get the outcome for another item.

Two kinds of event give the order: a task *makes* a call, and a call *returns* to a task. The start of a task by
`start_soon` counts as a return. Each call that is made while the function has several tasks gets a number, and lists
the returns since the call with the number before: `12 1 0.4 2.7` is the twelfth call, made by lane 1 after lane 0 had
its fourth return and lane 2 its seventh. A list is omitted if it contains only the last return of the lane itself,
since a task makes its calls one after the other. As long as it is not certain that a call is on record, later calls
list its returns too, and say so: `13-12 2 0.4 2.7 1.3`.

On a replay a call returns to its task when everything before that has happened again. An event may never come because a
process died before a record; a replay waits for an event as long as it took the first time, and half a minute more.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, Event, current_effective_deadline, current_time, get_cancelled_exc_class, move_on_after
from anyio.lowlevel import checkpoint
from attrs import define, field

from .._concurrency._cancellation import Owed
from .._history import ORDER_TAG, Numbered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._protocol import Promise
    from ._host import Host
    from ._lanes import Lane

_MAIN: Final = "0"
_PATIENCE: Final = 30.0
"""The seconds for which a replay waits for an event beyond the time that it took on the first run."""
_PATIENCE_AFTER_GAP: Final = 1.0
"""The same, if an event before it may have been lost with the process."""

_LONGEST_LIST: Final = 100
"""The largest number of returns that a call lists. Beyond it, calls that were made long ago are taken for recorded."""

_CHECKPOINTS: Final = 8
"""The number of checkpoints that a task may pass after the return of a call before it takes something from memory."""

logger = logging.getLogger("resonate_anyio")


@define(eq=False, repr=False)
class _Past:
    """One event on record.

    Attributes:
        lane: the label of the task's lane.
        number: the number of the call that the task made; None, if a call returned to the task.
        count: for a return, the number of returns of the lane up to this one.
        patience: the time for which a replay waits for it, in seconds.
        after_gap: whether a call before it was not recorded, so that the returns that it listed are not known.
        happened: whether it has happened again.
    """

    lane: str
    number: int | None
    count: int
    patience: float
    after_gap: bool
    happened: bool = False


@define(eq=False, repr=False)
class Order:
    """The order of the tasks of one frame (see the module's docstring).

    Attributes:
        shared: whether the function has more than one task.
        past: the events on record that have not happened again. Without these, and with one task, there is no order to
            keep.
        floor: the lane that a call has returned to, and that runs before the others do.
    """

    _execution: Host
    _id: str
    _main: Lane | None = field(default=None, init=False)
    _last: int = field(default=0, init=False)
    _returned: list[tuple[str, int]] = field(factory=list, init=False)
    _unsure: dict[int, list[tuple[str, int]]] = field(factory=dict, init=False)
    shared: bool = field(default=False, init=False)
    past: deque[_Past] | None = field(default=None, init=False)
    _calls: dict[int, _Past] = field(factory=dict, init=False)
    _returns: dict[str, deque[_Past]] = field(factory=dict, init=False)
    _left: dict[str, int] = field(factory=dict, init=False)
    _complete: bool = field(default=True, init=False)
    _moved_at: float = field(default=-math.inf, init=False)
    _held: dict[str, Event] = field(factory=dict, init=False)
    _released: str | None = field(default=None, init=False)
    floor: Lane | None = field(default=None, init=False)
    _queue: list[Event] = field(factory=list, init=False)

    def begin(self, main: Lane) -> None:
        """Begin with the function's own code, and with the events on record."""
        self._main = main
        past: deque[_Past] = deque()
        before: Numbered | None = None
        returned: dict[str, int] = {}
        for call in self._execution.history.numbered(self._id):
            took = 0.0 if before is None else max(0, call.made_at - before.made_at) / 1000
            gap = call.since > self._last + 1
            patience = took + (_PATIENCE_AFTER_GAP if gap else _PATIENCE)
            for lane, count in call.returns:
                if count <= returned.get(lane, -1):
                    continue
                returned[lane] = count
                past.append(_Past(lane, None, count, patience, gap))
                self._returns.setdefault(lane, deque()).append(past[-1])
            self._calls[call.number] = _Past(call.lane, call.number, 0, patience, gap)
            past.append(self._calls[call.number])
            self._complete = self._complete and not gap
            self._last, before = call.number, call
        for event in past:
            self._left[event.lane] = self._left.get(event.lane, 0) + 1
        self.past = past or None
        self._moved_at = current_time()

    def share(self) -> None:
        """Note that the function has more than one task from now on."""
        if not self.shared:
            self.shared = True
            if self._main is not None and self._main.returns:
                self._returned.append((_MAIN, self._main.returns))

    def asked(self, record: Promise) -> None:
        """Note that the code makes the call of this record."""
        if (number := Numbered.number_of(record)) is not None:
            self._returned.clear()
            self._happens(self._calls.pop(number, None))

    def number(self, lane: Lane, returns: int) -> Mapping[str, str]:
        """Return the order tag for a call that `lane` has made after so many returns, and that is recorded now."""
        if not self.shared:
            return {}
        self._last += 1
        label = _label(lane)
        self._unsure[self._last], self._returned = self._returned, []
        returned = list(chain(*self._unsure.values()))
        while len(returned) > _LONGEST_LIST and len(self._unsure) > 1:
            del returned[: len(self._unsure.pop(next(iter(self._unsure))))]
        if returned == [(label, returns)]:
            returned = []
        return {ORDER_TAG: Numbered.encode(self._last, label, returned, next(iter(self._unsure)))}

    def recorded(self, record: Promise) -> None:
        """Note that a call is on record for certain: later calls do not list its returns again."""
        if self._unsure and (number := Numbered.number_of(record)) is not None:
            while self._unsure and (first := next(iter(self._unsure))) <= number:
                del self._unsure[first]

    async def turn(self, lane: Lane) -> None:
        """Return from a call to the code of `lane`. On a replay, wait until that is its turn."""
        lane.count_return()
        if lane.label is None or not (self.shared or self.past):
            return
        label, count = _label(lane), lane.returns
        try:
            if self.past and (self.shared or self._complete):
                await self._wait_for_turn(label, count)
            self._has_returned(label, count)
            if self.shared:
                await self._wait_for_floor(lane)
        except get_cancelled_exc_class() as exc:
            if self._execution.interrupted():
                raise
            # The outcome that returns is history, which cannot be cancelled (docs/semantics.md 3.1).
            self._has_returned(label, count)
            lane.owe(Owed.of(exc))

    async def turn_of_cancelled(self, lane: Lane) -> None:
        """Return from a call that ends with a cancellation, which goes on into the code of `lane`.

        The tasks of a group are cancelled at once, and run in any order: their handlers may touch shared memory.
        """
        lane.count_return()
        if lane.label is None or self._execution.interrupted():
            return
        label, count = _label(lane), lane.returns
        with CancelScope(shield=True):
            if self.past and (self.shared or self._complete):
                await self._wait_for_turn(label, count)
            self._has_returned(label, count)
            if self.shared:
                await self._wait_for_floor(lane)

    def rest(self, lane: Lane) -> None:
        """Let other lanes go on: the code of `lane` has made a call, or ends."""
        if self.floor is lane:
            self.floor = None
            if self._queue:
                self._queue[0].set()

    def _has_returned(self, label: str, count: int) -> None:
        returns = self._returns.get(label)
        while returns and returns[0].count <= count:
            self._happens(returns.popleft())
        if self.shared and (label, count) not in self._returned[-1:]:
            self._returned.append((label, count))

    async def _wait_for_floor(self, lane: Lane) -> None:
        """Wait until the task before makes a call or waits: it takes from memory first."""
        if self._queue or self.floor not in {None, lane}:
            called = Event()
            self._queue.append(called)
            try:
                if self._queue[0] is not called:
                    await self._execution.hold(called)
                before, patience = self.floor, _CHECKPOINTS
                while self.floor is before is not None and patience:
                    await checkpoint()
                    patience -= 1
            finally:
                self._queue.remove(called)
                if self._queue:
                    self._queue[0].set()
            await self._execution.check()
        self.floor = lane

    async def _wait_for_turn(self, label: str, count: int) -> None:
        while not self._may_go_on(label, count) and current_effective_deadline() > -math.inf:
            assert self.past is not None
            missing, moved = self.past[0], Event()
            self._held[label] = moved
            try:
                with move_on_after(self._moved_at + missing.patience - current_time()):
                    await self._execution.hold(moved)
            finally:
                self._held.pop(label, None)
            if self.past and self.past[0] is missing and current_time() >= self._moved_at + missing.patience:
                self._skip(missing, label)

    def _may_go_on(self, label: str, count: int) -> bool:
        if not self.past or self._released == label:
            self._released = None
            return True
        first = self.past[0]
        if first.lane == label:
            return first.number is not None or count >= first.count
        # The next event of the lane may be one that is not on record.
        return not self._complete and not self._left.get(label)

    def _happens(self, event: _Past | None) -> None:
        if event is None or event.happened:
            return
        event.happened = True
        self._left[event.lane] = self._left.get(event.lane, 0) - 1
        moved = False
        while self.past and self.past[0].happened:
            self.past.popleft()
            moved = True
        if moved:
            self._moved_at = current_time()
            self._let_go()

    def _let_go(self) -> None:
        held = [self.past[0].lane] if self.past and self._complete else list(self._held)
        for label in held:
            if label in self._held:
                self._held[label].set()

    def _skip(self, missing: _Past, label: str) -> None:
        """Give up on `missing`, which has not happened in time. The lane `label` was the last to wait for it."""
        if missing.after_gap:
            # It may wait for a return that is not on record: let the held lane with the next recorded event go on, as a
            # guess.
            held = {label, *self._held}
            self._released = next((event.lane for event in self.past or () if event.lane in held), label)
            self._moved_at = current_time()
            if self._released in self._held:
                self._held[self._released].set()
            return
        logger.warning(
            "replay.order_lost id=%s lane=%s: a task of this function has not reached the call where it was before the "
            "restart; its tasks go on in any order",
            self._id,
            missing.lane,
        )
        self.past = None
        self._calls.clear()
        self._returns.clear()
        self._left.clear()
        self._let_go()


def _label(lane: Lane) -> str:
    return lane.label or _MAIN
