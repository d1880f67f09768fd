"""Durable scopes: `ctx.fail_after` and `ctx.move_on_after`, deadlines that a restart does not extend.

A scope makes no request of its own (docs/semantics.md 5.3). Each call that is made inside carries the instants of the
scopes around it, and does not outlive the earliest. On a replay the first recorded call gives the scope its instant
back.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import inf
from typing import TYPE_CHECKING, ClassVar, Final

from anyio import CancelScope, current_effective_deadline, current_time
from attrs import define, field

from .._errors import UsageError
from .._protocol import Promise
from .._time import from_ms
from ._reasons import DEADLINE, SCOPE, Reason
from ._regions import PATIENCE, Region, regions_around

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from ._run import Run

SCOPES_TAG: Final = "resonate-anyio:scopes"
"""The instants of the durable scopes around a call, the outermost first, in milliseconds. `~` precedes an instant that
a shield keeps from the call."""


@define(eq=False, repr=False)
class Scope(Region):
    """One durable scope (see the module's docstring); users hold a `DurableScope`."""

    _duration_ms: int
    _shield: bool = field(kw_only=True, alias="shield")
    _instant: int | None = field(default=None, init=False)
    _fixed: bool = field(default=False, init=False)
    _block: ExitStack = field(factory=ExitStack, init=False)
    _by_hand: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.scope = CancelScope(shield=self._shield)

    @property
    def instant(self) -> int:
        """The instant at which the scope expires, in milliseconds of the server's time."""
        assert self._instant is not None
        return self._instant

    @property
    def entered_once(self) -> bool:
        """Whether its block has begun, and may have ended."""
        return self._instant is not None

    @property
    def ends_at(self) -> float:
        """The instant at which the scope ends its block, by the loop's clock; minus infinity if it was cancelled."""
        return -inf if self.scope.cancel_called else self.scope.deadline

    @property
    def expired(self) -> bool:
        """Whether the scope has ended its block at its instant, and not earlier by `cancel`."""
        return self.scope.cancel_called and not self._by_hand

    def may_have_expired(self, within: float) -> bool:
        """Return whether the scope may have expired within these seconds of the first run, without a record of that."""
        return not (self._fixed or self.scope.cancel_called) and self._duration_ms <= within * 1000

    def cancel(self) -> None:
        """End the block before the deadline."""
        self._by_hand = self._by_hand or not self.scope.cancel_called
        self.scope.cancel()

    def reason(self) -> Reason:
        return Reason(DEADLINE, self.depth, self.instant) if self.expired else Reason(SCOPE)

    def enter(self) -> None:
        """Begin the block.

        Raises:
            UsageError: the scope was entered before.
        """
        if self.entered_once:
            msg = "a durable scope is entered once; make another one for each block"
            raise UsageError(msg)
        self.frame.check_current("entering a durable scope")
        execution = self.frame.execution
        # A shield, its own or another, keeps the deadlines outside of it away.
        around = () if self._shield else clamping(durable_scopes(self.frame))
        outer = [self.frame.instant, *(scope.instant for scope in around)]
        self._instant = min(execution.now() + self._duration_ms, *outer)
        self._block.enter_context(self.scope)
        self._block.enter_context(self.entered())
        self._block.enter_context(execution.presence.deadline(self))

    def leave(self, exc: BaseException | None) -> bool:
        """End the block, whose body has ended with `exc`. Return whether `exc` was the cancellation of this scope."""
        traceback = None if exc is None else exc.__traceback__
        swallowed = self._block.__exit__(None if exc is None else type(exc), exc, traceback)
        if self.expired:
            self.frame.expired.add(self.instant)
        return bool(swallowed)

    def map_deadline(self, now: int) -> None:
        """Map the instant to the loop's clock. During a replay, a scope that is overdue gets time to catch up."""
        due = current_time() + (self.instant - now) / 1000
        overdue = self.instant <= now
        self.scope.deadline = due if not (overdue and self.frame.replaying) else current_time() + PATIENCE

    def fix(self, instant: int) -> None:
        """Take over the instant that a recorded call in the scope carries."""
        if self._fixed:
            return
        self._fixed = True
        self._instant = instant
        now = self.frame.execution.now()
        self.map_deadline(now)
        if instant <= now:
            self.condemn(instant)


@define(eq=False, repr=False)
class DurableScope:
    """A deadline around a block of a workflow: a fixed instant, which a restart does not move.

    Made by `ctx.move_on_after()` and `ctx.fail_after()`, and used in one `with` statement.
    """

    _scope: Scope
    _fails: ClassVar[bool] = True

    @property
    def deadline(self) -> datetime:
        """The instant at which the scope expires, in UTC.

        Raises:
            UsageError: the scope has not been entered yet.
        """
        if not self._scope.entered_once:
            msg = "a durable scope has a deadline once it has been entered"
            raise UsageError(msg)
        return from_ms(self._scope.instant)

    @property
    def cancel_called(self) -> bool:
        """Whether the scope has expired or was cancelled."""
        return self._scope.scope.cancel_called

    @property
    def cancelled_caught(self) -> bool:
        """Whether the cancellation of the scope has ended the block. Only valid after the block."""
        return self._scope.scope.cancelled_caught

    def cancel(self) -> None:
        """End the block, as `anyio.CancelScope.cancel` does. A replay has to call this again."""
        self._scope.cancel()

    def __enter__(self) -> Self:
        self._scope.enter()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        swallowed = self._scope.leave(exc)
        if self._fails and self.cancelled_caught and self._scope.expired:
            raise TimeoutError
        return swallowed

    def __repr__(self) -> str:
        state = self.deadline.isoformat() if self._scope.entered_once else "not entered"
        return f"<DurableScope of {self._scope.frame.id}: {state}>"


@define(eq=False, repr=False)
class MoveOnScope(DurableScope):
    """A durable scope that ends its block without an exception.

    To a type checker, its block may end before its last line.
    """

    _fails: ClassVar[bool] = False

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return bool(super().__exit__(exc_type, exc, traceback))


def durable_scopes(frame: Run) -> tuple[Scope, ...]:
    """Return the durable scopes of `frame` around the running code, the outermost first."""
    stack = regions_around.get()
    return tuple(one for one in stack if isinstance(one, Scope) and one.frame is frame) if stack else ()


def clamping(scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    """Return the scopes whose deadlines apply to a new call: a shield keeps the call from the scopes around that."""
    # In this order: on trio, `ends_at` cancels a scope whose deadline has passed, and the effective deadline follows.
    ends = [(scope, scope.ends_at) for scope in scopes]
    effective = current_effective_deadline() if ends else inf
    return tuple(scope for scope, ends_at in ends if effective <= ends_at)


def encode_instants(scopes: Sequence[Scope], clamping: Sequence[Scope]) -> str:
    """Return the scopes tag of a call in these scopes."""
    return ",".join(str(scope.instant) if scope in clamping else f"~{scope.instant}" for scope in scopes)


def _carried(record: Promise) -> list[str]:
    return record.tags.get(SCOPES_TAG, "").split(",")


def instants(record: Promise) -> list[int]:
    """Return the instants in the scopes tag of a record that the call may have ended at."""
    return [int(part) for part in _carried(record) if part.isdecimal()]


def fix_instants(scopes: Sequence[Scope], record: Promise) -> None:
    """Give the scopes the instants back that a recorded call carries."""
    for scope, part in zip(scopes, _carried(record), strict=False):
        if part.removeprefix("~").isdecimal():
            scope.fix(int(part.removeprefix("~")))
