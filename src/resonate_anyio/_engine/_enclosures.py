"""Enclosures: the durable scopes and durable task groups that the running code is inside of.

Each has a cancel scope of the backend's. What makes it durable is what happens on a replay: the first time, it was
cancelled at some point of the code that lies behind what is recorded, so on a replay it must not be cancelled before
that point either. It is *condemned* then, and cancelled when its task comes to where nothing is recorded any more.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, Event, current_time, move_on_after
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, field

from ._cancellation import raise_cancelled
from ._lanes import current_frame
from ._reasons import PARENT, SCOPE, Reason
from ._tasks import current_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from ._frame import Frame

PATIENCE: Final = 30.0
"""Seconds for which a replay may be late: code that waits for something that is not durable must not wait for ever."""

enclosing: ContextVar[tuple[Enclosure, ...]] = ContextVar("resonate_anyio.enclosing", default=())
"""The enclosures of the running code, the outermost first, also those of its callers in the same task."""


@define(eq=False)
class Enclosure:
    """A durable construct around some code.

    Attributes:
        frame: whose code it is.
        scope: what cancels the code.
        depth: how many others are around it.
        stack: those, and it.
        passes_on: whether it is cancelled only because something around it is.
    """

    frame: Frame
    scope: CancelScope = field(init=False)
    depth: int = field(default=0, init=False)
    stack: tuple[Enclosure, ...] = field(default=(), init=False)
    passes_on: bool = field(default=False, init=False)
    _host: object = field(default=None, init=False)
    _condemned: bool = field(default=False, init=False)
    _caught_up: Event = field(factory=Event, init=False)

    def reason(self) -> Reason:
        """What is recorded with a call that ends because this is cancelled."""
        raise NotImplementedError

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Surround what the current task does in the block."""
        around = enclosing.get()
        self.depth, self.stack, self._host = len(around), (*around, self), current_task()
        self.frame.enclosures.add(self)
        token = enclosing.set(self.stack)
        try:
            yield
        finally:
            enclosing.reset(token)
            self.frame.enclosures.discard(self)

    def condemn(self) -> None:
        """Cancel it as soon as its task has done again what is recorded."""
        if not self.frame.replaying:
            self.end()
        elif not self._condemned:
            self._condemned = True
            self.scope.deadline = min(self.scope.deadline, current_time() + PATIENCE)

    def catch_up(self) -> None:
        """Everything that is recorded below the frame has been asked for."""
        if self._condemned:
            self.end()

    async def before_wait(self) -> None:
        """The code inside is about to wait for something that has no outcome yet."""
        if not self._condemned or self.scope.cancel_called:
            return
        if self._host is current_task():
            self.end()
        else:
            await self._until_ended()

    async def end_again(self) -> NoReturn:
        """The code inside has come to where this was cancelled the first time."""
        if self._host is current_task():
            self.end()
        else:
            self.condemn()
            await self._until_ended()
        await raise_cancelled()

    def end(self) -> None:
        """Cancel what is inside, and let go on what a shield keeps from being cancelled."""
        self.scope.cancel()
        self._caught_up.set()

    async def _until_ended(self) -> None:
        """Wait for the task that the enclosure belongs to: what is inside ends with that, not before it.

        Code that a shield keeps from being cancelled goes on then, as it did the first time.
        """
        with move_on_after(self.scope.deadline - current_time()):
            await self.frame.execution.wait(self._caught_up)
        await checkpoint_if_cancelled()


def own_deadline() -> float:
    """The earliest deadline that the engine itself has set for the code that is running, by the loop's clock.

    If the effective deadline is earlier, a scope of the user's is the reason.
    """
    deadlines = [enclosure.scope.deadline for enclosure in enclosing.get()]
    frame = current_frame()
    while frame is not None:
        deadlines.append(frame.ends_at)
        frame = frame.parent
    return min(deadlines, default=math.inf)


def reason_for(frame: Frame) -> Reason:
    """Why a cancellation that has arrived in the code of `frame` came."""
    above: Frame | None = frame
    while above is not None:
        if above.cancel_called:
            return Reason(PARENT)
        above = above.parent
    for enclosure in enclosing.get():
        if enclosure.scope.cancel_called and not enclosure.passes_on:
            return enclosure.reason()
    return Reason(SCOPE)
