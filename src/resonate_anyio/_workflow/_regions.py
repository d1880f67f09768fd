"""Regions: the durable scopes and durable task groups that the running code is inside of.

Each region has a cancel scope of the backend. On a replay, a region that was cancelled on the first run must not be
cancelled before its code has passed all that was recorded before that. Until then it is *condemned* (docs/semantics.md
4.7).
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, cast

from anyio import CancelScope, Event, current_effective_deadline, current_time, move_on_after
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, field

from .._concurrency._cancellation import raise_cancelled
from .._concurrency._tasks import current_task
from .._history import Position
from .._protocol import Promise, PromiseState
from ._lanes import current_frame, lane_of
from ._reasons import PARENT, SCOPE, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import NoReturn

    from ._lanes import Lane
    from ._run import Run

PATIENCE: Final = 30.0
"""The seconds that a replay may take to reach the end of the history: code may wait for something that is not durable.
"""

_warned_places: Final[set[tuple[str, int]]] = set()

logger = logging.getLogger("resonate_anyio")

_SHORTEST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0

regions_around: ContextVar[tuple[Region, ...]] = ContextVar("resonate_anyio.regions", default=())
"""The regions of the running code, the outermost first, also those of its callers in the same task."""


@define(eq=False, repr=False)
class Region:
    """A durable scope or group around a block of code.

    Attributes:
        frame: the frame of the code.
        scope: the cancel scope of the block.
        depth: the number of regions around it.
        stack: the regions around it, and itself.
        passes_on: whether it is cancelled only because something around it is.
        path: the names of the regions of its frame from the outermost to this one (see `Position.blocks`).
        condemned_at: the instant at which the first run was cancelled in it, in milliseconds of the server's time; None
            if it is not condemned.
    """

    frame: Run
    scope: CancelScope = field(init=False)
    depth: int = field(default=0, init=False)
    stack: tuple[Region, ...] = field(default=(), init=False)
    passes_on: bool = field(default=False, init=False)
    path: str = field(default="", init=False)
    condemned_at: int | None = field(default=None, init=False)
    _host: object = field(default=None, init=False)
    _lane: Lane | None = field(default=None, init=False)

    def reason(self) -> Reason:
        """Return the reason that is recorded with a call that ends because this region is cancelled."""
        raise NotImplementedError

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put this region around the code that the current task runs in the block."""
        around = regions_around.get()
        self.depth, self.stack, self._host = len(around), (*around, self), current_task()
        self._lane = lane_of(self.frame)
        name = str(self._lane.counter.numbered)
        path = next((outer.path for outer in reversed(around) if outer.frame is self.frame), "")
        self.path = f"{path}.{name}" if path else name
        self.frame.regions.add(self)
        token = regions_around.set(self.stack)
        try:
            yield
        finally:
            regions_around.reset(token)
            self.frame.regions.discard(self)

    @property
    def condemned(self) -> bool:
        """Whether the region is condemned and was not cancelled yet."""
        return self.condemned_at is not None and not self.scope.cancel_called

    @property
    def hosted_here(self) -> bool:
        """Whether the running task is the one that has entered the region."""
        return self._host is current_task()

    def condemn(self, at: int | None = None) -> None:
        """Cancel the region as soon as its task has passed all that is recorded inside of it.

        Args:
            at: the instant of the first cancellation, in milliseconds of the server's time; None for now.
        """
        if not self.frame.replaying:
            self.end()
            return
        at = self.frame.execution.now() if at is None else at
        if self.condemned_at is None:
            self.condemned_at = at
            self.scope.deadline = min(self.scope.deadline, current_time() + PATIENCE)
            self.frame.execution.presence.stir()
        else:
            self.condemned_at = min(self.condemned_at, at)

    def catch_up(self) -> None:
        """Cancel a condemned region: the frame has asked for everything that is recorded below the frame."""
        if self.condemned_at is not None:
            self.end()

    async def before_wait(self) -> None:
        """Cancel a condemned region: the code inside is about to wait for a call without an outcome."""
        if self.condemned:
            await self.end_here()

    async def end_here(self) -> None:
        """Cancel the region where its code is now, once all other code inside has come as far.

        The history, and the state of the task that has entered the region, show how far code has come. Code that waits
        for something that is not durable gets half a minute. Code under a shield goes on after the cancellation, as on
        the first run.
        """
        execution, pause = self.frame.execution, _SHORTEST_PAUSE
        while not self.scope.cancel_called and current_time() < self.scope.deadline:
            stirred = Event()
            with execution.presence.watching(stirred):
                if self.caught_up and (self.hosted_here or execution.presence.waits_here(self._host)):
                    self.end()
                    break
                with move_on_after(min(pause, self.scope.deadline - current_time())):
                    await execution.wait(stirred)
            if not stirred.is_set():
                pause = min(2 * pause, _LONGEST_PAUSE)
        await checkpoint_if_cancelled()

    @property
    def caught_up(self) -> bool:
        """Whether all other lanes have asked for all that they recorded in the region before it was cancelled."""
        frame, history = self.frame, self.frame.execution.history
        if not history.is_placed(frame.id):
            return True
        names = self.path.split(".")
        label = (self._lane and self._lane.label) or "0"
        for record, position in history.unasked(frame.id):
            if position.label != label and is_before(record, position, names):
                return False
        return all(self._is_caught_up(below) for below in cast("Iterable[Run]", frame.execution.presence.frames))

    def _is_caught_up(self, below: Run) -> bool:
        child: Run | None = below
        while child is not None and child.parent is not self.frame:
            child = child.parent
        position = None if child is None else Position.of(child.record)
        if position is None or not is_inside(position, self.path.split(".")):
            return True
        history = self.frame.execution.history
        return not history.is_placed(below.id) or not any(
            is_before(record, position, []) for record, position in history.unasked(below.id)
        )

    async def end_again(self) -> NoReturn:
        """Cancel the region at the place where it was cancelled the first time, which its code has reached."""
        self.condemn()
        await self.end_here()
        await raise_cancelled()

    def end(self) -> None:
        """Cancel the region, and let doubtful calls in shielded code look again."""
        self.scope.cancel()
        self.frame.execution.presence.stir()


def is_before(record: Promise, position: Position, names: list[str]) -> bool:
    """Return whether a record was made in the region with these names before that was cancelled; [] is the frame."""
    if position.cancelled or not is_inside(position, names) or (names and position.path[len(names) - 1][1]):
        return False
    # A refused call was reached after the region had been cancelled.
    expired = record.state is PromiseState.TIMEDOUT and record.timeout_at <= record.created_at
    return not expired and record.state is not PromiseState.CANCELED


def is_inside(position: Position, names: list[str]) -> bool:
    """Return whether a position is in the region with these names."""
    return [name for name, _ in position.path[: len(names)]] == names


def own_deadline() -> float:
    """Return the earliest deadline that this package has set for the running code, by the loop's clock.

    If the effective deadline is earlier, a plain scope has set it.
    """
    deadlines = [region.scope.deadline for region in regions_around.get()]
    frame = current_frame()
    while frame is not None:
        deadlines.append(frame.scope.deadline)
        frame = frame.parent
    return min(deadlines, default=math.inf)


def reason_for(frame: Run) -> Reason:
    """Return the reason of a cancellation that has arrived in the code of `frame`."""
    above: Run | None = frame
    while above is not None:
        if above.cancel_called:
            return Reason(PARENT)
        above = above.parent
    for region in regions_around.get():
        if region.scope.cancel_called and not region.passes_on:
            return region.reason()
    return Reason(SCOPE)


def marked_path(frame: Run, stack: tuple[Region, ...], *, above: bool) -> str:
    """Return the path of the regions of `frame` in `stack`, with a mark at each that has been cancelled.

    The running code is under a shield, which keeps the cancellation from it.

    Args:
        frame: the frame of the regions.
        stack: all regions around the running code.
        above: whether the frame, or a frame above, has been cancelled.
    """
    own = [one for one in stack if one.frame is frame]
    above = above or any(one.scope.cancel_called for one in stack if one.frame is not frame)
    names = own[-1].path.split(".") if own else []
    marked = (f"{name}!" if one.scope.cancel_called else name for name, one in zip(names, own, strict=True))
    return ("!" if above else "") + ".".join(marked)


def is_cancelled_here() -> bool:
    """Return whether a cancellation has reached the running code, and no shield keeps it away."""
    return current_effective_deadline() == -math.inf


def warn_of_plain_deadline(place: tuple[str, int]) -> None:
    if place not in _warned_places:
        _warned_places.add(place)
        logger.warning(
            "scope.plain_deadline at=%s:%d: a plain deadline begins anew whenever the function is replayed; "
            "ctx.fail_after() and ctx.move_on_after() keep theirs",
            *place,
        )
