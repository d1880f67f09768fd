"""Enclosures: the durable scopes and durable task groups that the running code is inside of.

Each has a cancel scope of the backend's. What makes it durable is what happens on a replay: the first time, it was
cancelled at some point of the code that lies behind what is recorded, so on a replay it must not be cancelled before
that point either. It is *condemned* then, and cancelled when its task comes to where nothing is recorded any more.
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
"""Seconds for which a replay may be late: code that waits for something that is not durable must not wait for ever."""

_warned_places: Final[set[tuple[str, int]]] = set()

logger = logging.getLogger("resonate_anyio")

_SHORTEST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0

regions_around: ContextVar[tuple[Region, ...]] = ContextVar("resonate_anyio.regions", default=())
"""The regions of the running code, the outermost first, also those of its callers in the same task."""


@define(eq=False)
class Region:
    """A durable construct around some code.

    Attributes:
        frame: whose code it is.
        scope: what cancels the code.
        depth: how many others are around it.
        stack: those, and it.
        passes_on: whether it is cancelled only because something around it is.
        path: the name of each durable block of its frame from the outermost to this one (see `Position.blocks`).
        condemned_at: when that happened the first time which is to cancel it again, in the server's milliseconds; None
            if nothing is.
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
        """What is recorded with a call that ends because this is cancelled."""
        raise NotImplementedError

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Surround what the current task does in the block."""
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
        """Whether it is still to be cancelled by what is on record."""
        return self.condemned_at is not None and not self.scope.cancel_called

    @property
    def hosted_here(self) -> bool:
        """Whether the running task is the one that has entered it."""
        return self._host is current_task()

    def condemn(self, at: int | None = None) -> None:
        """Cancel it as soon as its task has done again what is recorded.

        Args:
            at: when that happened the first time, in the server's milliseconds; None: now.
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
        """Everything that is recorded below the frame has been asked for."""
        if self.condemned_at is not None:
            self.end()

    async def before_wait(self) -> None:
        """The code inside is about to wait for something that has no outcome yet."""
        if self.condemned:
            await self.end_here()

    async def end_here(self) -> None:
        """The code inside has come to where it is not to go on: end this, when all other code inside has come as far.

        That is told by what is on record, and by where the task is that has entered this. Code that waits for something
        else than that is given half a minute. Code under a shield goes on afterwards, as it did the first time.
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
        """Whether all other lanes have asked for what they had put on record inside of this before it was cancelled."""
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
        """The code inside has come to where this was cancelled the first time."""
        self.condemn()
        await self.end_here()
        await raise_cancelled()

    def end(self) -> None:
        """Cancel what is inside, and let go on what a shield keeps from being cancelled."""
        self.scope.cancel()
        self.frame.execution.presence.stir()


def is_before(record: Promise, position: Position, names: list[str]) -> bool:
    """Whether a record was made in the block of these names, and before that was cancelled; [] is the whole frame."""
    if position.cancelled or not is_inside(position, names) or (names and position.path[len(names) - 1][1]):
        return False
    # What was refused was reached when the block had been cancelled.
    expired = record.state is PromiseState.TIMEDOUT and record.timeout_at <= record.created_at
    return not expired and record.state is not PromiseState.CANCELED


def is_inside(position: Position, names: list[str]) -> bool:
    """Whether a position is in the block of these names."""
    return [name for name, _ in position.path[: len(names)]] == names


def own_deadline() -> float:
    """The earliest deadline that the engine itself has set for the code that is running, by the loop's clock.

    If the effective deadline is earlier, a scope of the user's is the reason.
    """
    deadlines = [region.scope.deadline for region in regions_around.get()]
    frame = current_frame()
    while frame is not None:
        deadlines.append(frame.scope.deadline)
        frame = frame.parent
    return min(deadlines, default=math.inf)


def reason_for(frame: Run) -> Reason:
    """Why a cancellation that has arrived in the code of `frame` came."""
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
    """Return the durable blocks of `frame` in `stack`, with a mark at each that has been cancelled.

    A shield keeps the running code from the cancellation.

    Args:
        frame: whose blocks.
        stack: all blocks around the running code.
        above: whether the frame, or one that it runs below, has been cancelled.
    """
    own = [one for one in stack if one.frame is frame]
    above = above or any(one.scope.cancel_called for one in stack if one.frame is not frame)
    names = own[-1].path.split(".") if own else []
    marked = (f"{name}!" if one.scope.cancel_called else name for name, one in zip(names, own, strict=True))
    return ("!" if above else "") + ".".join(marked)


def is_cancelled_here() -> bool:
    """Return whether a cancellation has reached the running code, which no shield keeps from it."""
    return current_effective_deadline() == -math.inf


def warn_of_plain_deadline(place: tuple[str, int]) -> None:
    if place not in _warned_places:
        _warned_places.add(place)
        logger.warning(
            "scope.plain_deadline at=%s:%d: a plain deadline begins anew whenever the function is replayed; "
            "ctx.fail_after() and ctx.move_on_after() keep theirs",
            *place,
        )
