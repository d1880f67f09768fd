"""Positions: whether a replay is still where the first run was (docs/semantics.md 4.9).

Code is also cancelled in plain awaits, which leave no record. A replay may pass such an await and reach a call that the
first run never made. The position of that call tells: another call is on record there, or the same call in other
regions. Then

1. a condemned region around the code was cancelled before this call;
2. or the code was cancelled by something that this package cannot see, and which gets the time to do so again.

In both cases the call is not recorded, and the next call gets its number.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from anyio import Event, current_effective_deadline, current_time, get_cancelled_exc_class, move_on_after
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, field

from .._history import Position, is_choice, lane_id
from .._protocol import PromiseState
from ._lanes import lane_place
from ._reasons import DEADLINE, GROUP, reason_of
from ._regions import Region, is_inside, regions_around
from ._scopes import Scope

if TYPE_CHECKING:
    from .._history import Placed
    from .._protocol import Promise
    from ._frame import Frame
    from ._host import Host
    from ._lanes import Lane, Place

logger = logging.getLogger("resonate_anyio")

_LONGEST_WAIT: Final = 30.0
"""The largest number of seconds to wait for a cancellation that this package cannot see."""

_MARGIN: Final = 1.0


def _ended_before(frame: Frame, position: Position, recorded: Position) -> list[Region]:
    """Return the regions around the running code that may have been cancelled before the record at `recorded` was made.

    These are the regions that the record was made outside of, and those that had been cancelled by then.
    """
    stack = regions_around.get()
    own = [one for one in stack if one.frame is frame]
    found: list[Region] = []
    left = False
    for one, here, there in zip_longest(own, position.path, recorded.path):
        if one is None:
            break
        left = left or there is None or there[0] != here[0]
        if left or there is None or (there[1] and not here[1]):
            found.append(one)
    if recorded.cancelled and not position.cancelled:
        found += [one for one in stack if one.frame is not frame]
    return found


def _first_condemned(regions: list[Region]) -> Region | None:
    """Return the condemned region of these that was cancelled first on record; of several, the outermost."""
    condemned = [one for one in regions if one.condemned]
    return min(condemned, key=lambda one: (one.condemned_at or 0, one.depth), default=None)


def _seconds_before(frame: Frame, placed: Placed) -> float:
    """Return the seconds between a record and the record before; infinity if the instant of `placed` is not real."""
    if is_choice(placed.id):
        # A choice is born settled, at an instant in the past.
        return math.inf
    began = frame.execution.history.last_before(frame.id, placed)
    return max((placed.created_at - (frame.record.created_at if began is None else began)) / 1000, 0.0)


def _patience(frame: Frame, placed: Placed) -> float:
    """Return the seconds to wait for a cancellation: the time before the record was made, and one second more."""
    return min(_seconds_before(frame, placed) + _MARGIN, _LONGEST_WAIT)


def is_refused(record: Promise, execution: Host) -> bool:
    """Return whether a call was cancelled before it had begun, because the code that makes it was cancelled."""
    reason = reason_of(record, execution.codec) if record.state is PromiseState.CANCELED else None
    return reason is not None and not reason.started


@define(kw_only=True, eq=False, repr=False)
class PositionCheck(ABC):
    """A call, a choice or the start of a lane that is about to happen, compared with the record at its position.

    Such an item is *doubtful* if something else is on record there. Then either the code is cancelled and the item is
    *void*, which leaves no record; or the item happens nevertheless, because the code has changed.

    Attributes:
        frame: the frame of the code.
        place: the place of the item in that code.
        made_at: the file and line of that place.
        execution: the execution that the frame belongs to.
        position: the position of the item.
        void: whether the item does not happen.
        doubt: the other record at the position, or None.
    """

    frame: Frame
    place: Place
    made_at: tuple[str, int] | None = None
    execution: Host = field(init=False)
    position: Position = field(init=False)
    void: bool = field(default=False, init=False)
    doubt: Placed | None = field(default=None, init=False)
    _resolved: Event | None = field(default=None, init=False)

    def compare(self) -> None:
        """Compare the item with the history."""
        frame, place = self.frame, self.place
        lane = place.lane
        self.position = place.position(frame.blocks_here())
        self.doubt = self._difference() if frame.replaying and self._compared else None
        if self.doubt is not None:
            self._resolved = self._resolved or Event()
            lane.doubt = lane.doubt or self
            return
        if self._resolved is not None:
            self._resolve()
        if frame.execution.history.records:
            self._take()

    @property
    def doubtful(self) -> bool:
        """Whether something else is on record at the position."""
        return self.doubt is not None

    @property
    def resolved(self) -> bool:
        """Whether it is decided whether the item happens: it is not in doubt, or no call waits for the decision."""
        return self._resolved is None

    @property
    def new(self) -> bool:
        """Whether the item is not on record."""
        return True

    def cancel_here(self) -> None:
        """Cancel the regions of the running task that the first run was cancelled in before it came here.

        This awaits nothing: code that starts calls without waiting for them is cancelled at its next await.
        """
        while self.doubt is not None and not self.place.taken_back:
            region = _first_condemned(self._ended_before(self.doubt))
            if region is None or not (region.hosted_here and region.caught_up):
                return
            region.end()
            if current_effective_deadline() == -math.inf:
                self.withdraw()
                return
            self.compare()

    async def meet(self) -> None:
        """Let the code be cancelled where the first run was cancelled: that may be before this call."""
        try:
            if self.doubt is not None:
                await self._await_cancellation()
            elif self.new and not self.void:
                await self._wait_for_earlier()
            if self.void or (self.new and self.place.taken_back):
                await checkpoint_if_cancelled()
        except get_cancelled_exc_class():
            if not self.execution.interrupted():
                self.withdraw()
            raise

    def is_condemned(self) -> bool:
        """Return whether a region around the code is condemned, while the item is not on record."""
        return self.new and self._compared and any(region.condemned for region in regions_around.get())

    def withdraw(self) -> None:
        """Make the item void: give back its number and its name."""
        if self.void or not self.new:
            return
        self.void = True
        self.doubt = None
        self._release()
        if not self._was_built():
            self.place.give_back()
        self._resolve()
        if (earlier := self.place.lane.doubt) is not None:
            # The first run did not reach the earlier call of the lane either.
            earlier.withdraw()

    def follow(self) -> None:
        """Make the item void if the place that it was made from was taken back."""
        if self.place.taken_back:
            self.withdraw()

    @property
    def _compared(self) -> bool:
        return self.frame.replaying and self.execution.history.is_placed(self.frame.id)

    async def _await_cancellation(self) -> None:
        assert self.doubt is not None
        ends_at = current_time() + _patience(self.frame, self.doubt)
        while self.doubt is not None and not self.void:
            region = _first_condemned(self._ended_before(self.doubt))
            if region is not None:
                await region.end_here()
            await checkpoint_if_cancelled()
            if region is None and not await self._stirred(ends_at) and not self._end_expired_scope(self.doubt):
                self._accept_difference()
                return
            if not self.void:
                self.compare()

    async def _wait_for_earlier(self) -> None:
        """Wait until it is certain that the first run would have reached this call.

        An earlier call of the lane may be in doubt. And a task that makes a new call has to wait until the task that
        started it has made all of its recorded calls again: that task may have passed a wait that was cancelled for
        both.
        """
        lane = self.place.lane
        if lane.doubt is None and not self._compared:
            # Live code takes this path for every call.
            return
        ends_at = current_time() + _LONGEST_WAIT
        while (doubt := lane.doubt) is not None and not doubt.resolved and not self.void:
            if not await self._stirred(ends_at):
                return
        ahead = self._ahead()
        ends_at = current_time() + (0 if ahead is None else _patience(self.frame, ahead))
        while ahead is not None and not (self.void or self.is_condemned()):
            if not await self._stirred(ends_at):
                self._end_expired_scope(ahead)
                return
            ahead = self._ahead()

    def _ahead(self) -> Placed | None:
        """Return the next record that the task that started this one has not reached yet, or None."""
        opener, history = self.place.lane.opener, self.execution.history
        while opener is not None and self._compared:
            if (found := history.next_unasked(self.frame.id, opener.label or "0", opener.counter.numbered)) is not None:
                return found
            opener = opener.opener
        return None

    async def _stirred(self, ends_at: float) -> bool:
        """Wait for a change that may decide a doubt. Return False if `ends_at` has come."""
        execution, stirred = self.execution, Event()
        # What may cancel the code is in memory only, so the execution must not be evicted.
        execution.presence.pin()
        try:
            with execution.presence.watching(stirred), move_on_after(max(ends_at - current_time(), 0)):
                await execution.wait(stirred)
        finally:
            execution.presence.pin(-1)
        return stirred.is_set() or current_time() < ends_at

    def _accept_difference(self) -> None:
        """Replay the frame by ids alone from here on: nothing has cancelled the code, so the code has changed."""
        assert self.doubt is not None
        logger.warning(
            "replay.differs id=%s at=%s:%d recorded=%s: another call is on record for this place in the code",
            self.frame.id,
            *(self.made_at or ("?", 0)),
            self.doubt.id,
        )
        self.execution.history.unplace(self.frame.id)
        self.compare()
        self.execution.presence.stir()

    def _resolve(self) -> None:
        if self.place.lane.doubt is self:
            self.place.lane.doubt = None
        if self._resolved is not None:
            self._resolved.set()
            self.execution.presence.stir()

    def _was_built(self) -> bool:
        """Return whether the first run made the builder too, but not the call: then its number stays taken."""
        history, lane = self.execution.history, self.position.label
        if history.is_asked_above(self.frame.id, lane, self.place.number):
            # A later call of the lane has its recorded number, so the first run counted this builder.
            return True
        numbers = history.numbers(self.frame.id, lane)
        numbered = self.place.lane.counter.numbered
        later = any(number > numbered for number in numbers)
        return later and not any(self.place.number <= number <= numbered for number in numbers)

    def _ended_before(self, doubt: Placed) -> list[Region]:
        """Return the regions around the code that may have been cancelled before the code came here."""
        regions = _ended_before(self.frame, self.position, doubt.position)
        record = self.execution.history.look(doubt.id)
        if record is not None and is_refused(record, self.execution):
            reason, stack = reason_of(record, self.execution.codec), regions_around.get()
            if reason is not None and reason.by in {GROUP, DEADLINE} and reason.depth is not None:
                regions += stack[reason.depth : reason.depth + 1]
        return regions

    def _end_expired_scope(self, recorded: Placed) -> bool:
        """Condemn the durable scope that expired before the code came to `recorded`, although no record says so.

        No call was made in that scope: its instant is not on record, and this replay has begun it anew. The first run
        had left the scope, and at least its duration had passed. Of several scopes, condemn the one that expires first.

        Returns:
            Whether there is such a scope.
        """
        within = _seconds_before(self.frame, recorded)
        left = _ended_before(self.frame, self.position, recorded.position)
        scopes = [one for one in left if isinstance(one, Scope) and one.may_have_expired(within)]
        if scopes:
            min(scopes, key=lambda scope: (scope.instant, scope.depth)).condemn(recorded.created_at)
        return bool(scopes)

    @abstractmethod
    def _difference(self) -> Placed | None:
        """Return the record at the position, if that is not the item's own record."""

    def _take(self) -> None:  # noqa: B027 - there may be nothing to do
        """Take the record of the item from the history."""

    def _release(self) -> None:  # noqa: B027 - there may be nothing to do
        """Give back what the item has taken besides its number."""


@define(kw_only=True, eq=False, repr=False)
class LaneStart(PositionCheck):
    """The start of plain code in a lane of its own (`start_soon`), which has a number and no record.

    Attributes:
        lane: the lane.
    """

    lane: Lane = field(init=False)

    @classmethod
    def plan(cls, frame: Frame) -> LaneStart:
        """Return the planned start of a task in a lane of its own."""
        place = lane_place(frame)
        start = cls(frame=frame, place=place)
        start.execution = frame.execution
        start.lane = place.lane.open(place.number)
        start.compare()
        return start

    def _difference(self) -> Placed | None:
        placed = self.execution.history.placed(self.frame.id).get((self.position.label, self.position.number))
        if placed is None:
            return None
        assert self.lane.label is not None
        same = placed.id == lane_id(self.lane.label) and is_inside(
            placed.position, [name for name, _ in self.position.path]
        )
        return None if same else placed
