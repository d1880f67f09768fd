"""Durable scopes: `ctx.fail_after` and `ctx.move_on_after`, deadlines that a restart does not extend (semantics 5).

A scope makes no request of its own. Each call that is made inside carries the instants of the scopes around it, and
lives no longer than the earliest, but for those that a shield of the user's keeps out. On a replay the first recorded
call gives the scope its instant back.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, current_effective_deadline, current_time
from attrs import define, field

from .._errors import UsageError
from .._protocol import Promise
from .._time import from_ms
from ._enclosures import PATIENCE, Enclosure, enclosing
from ._reasons import DEADLINE, SCOPE, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from ._frame import Frame

SCOPES_TAG: Final = "resonate-anyio:scopes"
"""The instants of the durable scopes around a call, the outermost first, in milliseconds; `~` before those that a
shield keeps out."""


@define(eq=False, repr=False)
class DurableScope(Enclosure):
    """A deadline around a block of a workflow: a fixed instant, which a restart does not move.

    Made by `ctx.move_on_after()` and `ctx.fail_after()`, and used in a `with` statement, once.
    """

    _duration_ms: int
    _fails: bool = field(kw_only=True)
    _shield: bool = field(kw_only=True)
    _instant: int | None = field(default=None, init=False)
    _fixed: bool = field(default=False, init=False)
    _block: ExitStack = field(factory=ExitStack, init=False)
    _used: bool = field(default=False, init=False)
    _by_hand: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.scope = CancelScope(shield=self._shield)

    @property
    def instant(self) -> int:
        """When it expires, in milliseconds of the server's time."""
        assert self._instant is not None
        return self._instant

    @property
    def deadline(self) -> datetime:
        """When it expires, in UTC.

        Raises:
            UsageError: it has not been entered yet.
        """
        if self._instant is None:
            msg = "a durable scope has a deadline once it has been entered"
            raise UsageError(msg)
        return from_ms(self._instant)

    @property
    def cancel_called(self) -> bool:
        """Whether it has expired or was cancelled."""
        return self.scope.cancel_called

    @property
    def cancelled_caught(self) -> bool:
        """Whether that has ended the block. To be asked after the block."""
        return self.scope.cancelled_caught

    def cancel(self) -> None:
        """End the block, as `anyio.CancelScope.cancel` does. A replay has to do it again."""
        self._by_hand = self._by_hand or not self.scope.cancel_called
        self.scope.cancel()

    def reason(self) -> Reason:
        return Reason(SCOPE) if self._by_hand else Reason(DEADLINE, self.depth, self.instant)

    def __enter__(self) -> Self:
        if self._used:
            msg = "a durable scope is entered once; make another one for each block"
            raise UsageError(msg)
        self._used = True
        self.frame.check_current("entering a durable scope")
        execution = self.frame.execution
        around = () if self._shield else durable_scopes(self.frame)
        self._instant = min(execution.now() + self._duration_ms, limit(self.frame, around))
        self._block.enter_context(self.scope)
        self._block.enter_context(self.entered())
        self._block.enter_context(execution.deadline(self))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        swallowed = bool(self._block.__exit__(exc_type, exc, traceback))
        if self.scope.cancel_called and not self._by_hand:
            self.frame.expired.add(self.instant)
        if self._fails and self.scope.cancelled_caught and not self._by_hand:
            raise TimeoutError
        return swallowed

    @property
    def shielded_off(self) -> bool:
        """Whether a shield keeps it from cancelling the code that is running."""
        return current_effective_deadline() > (-math.inf if self.scope.cancel_called else self.scope.deadline)

    def map_deadline(self) -> None:
        """Map the instant to the loop's clock; not before a replay has come to where it was the first time."""
        now = self.frame.execution.now()
        due = current_time() + (self.instant - now) / 1000
        overdue = self.instant <= now
        self.scope.deadline = due if not (overdue and self.frame.replaying) else current_time() + PATIENCE

    def fix(self, instant: int) -> None:
        """A recorded call was made under this instant."""
        if self._fixed:
            return
        self._fixed = True
        self._instant = instant
        self.map_deadline()
        if instant <= self.frame.execution.now():
            self.condemn()

    def __repr__(self) -> str:
        return f"<DurableScope of {self.frame.id}>"


def durable_scopes(frame: Frame) -> tuple[DurableScope, ...]:
    """The durable scopes of `frame` around the running code, the outermost first."""
    stack = enclosing.get()
    return tuple(one for one in stack if isinstance(one, DurableScope) and one.frame is frame) if stack else ()


def limit(frame: Frame, scopes: Iterable[DurableScope]) -> int:
    """The instant after which nothing lives that the running code of `frame` starts, inside of these scopes."""
    return min([frame.instant, *(scope.instant for scope in scopes if not scope.shielded_off)])


def encode_instants(scopes: Iterable[DurableScope]) -> str:
    """What a call carries of the scopes around it."""
    return ",".join(f"~{scope.instant}" if scope.shielded_off else str(scope.instant) for scope in scopes)


def _carried(record: Promise) -> list[str]:
    return record.tags.get(SCOPES_TAG, "").split(",")


def instants(record: Promise) -> list[int]:
    """The instants that a recorded call carries and may have ended at."""
    return [int(part) for part in _carried(record) if part.isdecimal()]


def fix_instants(scopes: Iterable[DurableScope], record: Promise) -> None:
    """Give the scopes back the instants that a recorded call was made under."""
    for scope, part in zip(scopes, _carried(record), strict=False):
        if part.removeprefix("~").isdecimal():
            scope.fix(int(part.removeprefix("~")))
