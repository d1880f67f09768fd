"""`Frame`: one run of a durable function, with its cancel scope, its children and its deadline.

A frame joins structured concurrency and durability:
* it runs under a cancel scope whose deadline is the deadline of its promise;
* its spawned calls run in a task group of its own, and it ends after all of its children have ended;
* if it fails or is cancelled, its unfinished children are cancelled first, durably, and waited for;
* then its own outcome is recorded, and the record is the outcome from then on.

A call that is awaited at once runs in the caller's task (`run`); only a spawned call gets a task (`start`). A child
never raises into the task group: outcomes travel by record, cancellations by scope.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from anyio import (
    CancelScope,
    create_task_group,
    current_effective_deadline,
    current_time,
    get_cancelled_exc_class,
)
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, evolve, field

from .._concurrency._cancellation import is_requested, raise_cancelled
from .._concurrency._interrupts import interrupt_behind
from .._concurrency._protection import exposed
from .._concurrency._tasks import caller, cancelling, current_task, loop_time
from .._errors import DuplicateId
from .._functions._info import Info
from .._functions._signatures import Kind
from .._protocol import EMPTY, Promise, PromiseState, Value
from . import _events
from ._host import Drop, crash
from ._lanes import Lane, Lanes, current_lane, insist
from ._leaf import info_of, run_leaf
from ._node import Children, Node
from ._order import Order
from ._outcomes import Ending, Raised, Returned, Stopped, TimedOut, raised, without_cancellations
from ._reasons import DEADLINE, OUTSIDE, PARENT, Reason
from ._recording import is_lost, pass_on, record_refusal, settle_late, stray, warn_not_recorded
from ._refusals import refuse_caller
from ._regions import (
    PATIENCE,
    Region,
    is_before,
    is_cancelled_here,
    marked_path,
    own_deadline,
    reason_for,
    regions_around,
    warn_of_plain_deadline,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from types import TracebackType
    from typing import NoReturn

    from anyio.abc import TaskGroup

    from .._functions._function import Function
    from .._functions._retry import RetryPolicy
    from ._leaf import ShortStep


@define(eq=False, kw_only=True, repr=False)
class Frame(Node):
    """One run of a durable function (see the module's docstring).

    Attributes:
        scope: the cancel scope of its code.
        replaying: whether calls are on record that this run has not reached yet.
        expired: the instants of its durable scopes that have ended their blocks. Calls that ended at one of them are
            not failures.
        failed_with: the exception that its function has raised in this run, or None.
        short: how it gets on record, if it was not recorded before it began; or None.
        first_attempt: the number of the first attempt.
    """

    parent: Frame | None
    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    retry: RetryPolicy | None = None
    short: ShortStep | None = None
    first_attempt: int = 1

    replaying: bool = field(init=False)
    depth: int = field(default=0, init=False)
    children: Children = field(init=False)
    ended: bool = field(default=False, init=False)
    order: Order = field(init=False)
    lanes: Lanes = field(init=False)
    regions: set[Region] = field(factory=set, init=False)
    expired: set[int] = field(factory=set, init=False)
    scope: CancelScope = field(factory=CancelScope, init=False)
    _spawned: bool = field(default=False, init=False)
    _stopped_by: Reason | None = field(default=None, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _calls: int = field(default=0, init=False)
    _segments: set[str] = field(factory=set, init=False)
    _pins: int = field(default=0, init=False)
    _info: Info | None = field(default=None, init=False)
    failed_with: Exception | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.id: str = self.record.id
        self.pending: bool = self.record.state is PromiseState.PENDING
        history = self.execution.history
        self.replaying = bool(history.records) and history.has_unasked(self.id)
        if self.function.kind is Kind.WORKFLOW or self.replaying:  # a leaf may have been a workflow
            self.children, self.order = Children(self), Order(self.execution, self.id)
            self.lanes = Lanes(history, self.id)

    # Running

    async def run(self, depth: int = 0) -> None:
        """Run the function in the current task and record its outcome, unless it has an outcome already.

        Return once the record is settled. Raise the backend's cancellation only, never an exception of the user's code.

        Args:
            depth: the number of calls that it is nested in, in tasks of callers.
        """
        self.depth = depth
        if self.pending and self._stopped_by is None and self.record.timeout_at <= self.execution.now():
            await self._settle(TimedOut())
        if not self.pending:
            return
        ending = await self._run_code()
        if cancelling() or current_effective_deadline() == -math.inf:
            # An interrupt may be the reason for the cancellation that has ended the code: then the outcome is not
            # recorded.
            self.execution.interrupted()
        if self.function.kind is Kind.WORKFLOW or not isinstance(ending, (Returned, Raised)):
            await self._settle(ending)
            return
        # A worker that stops gives its grace to the recording of a leaf's outcome, as to the leaf itself.
        with self.execution.presence.leaf_running:
            await self._settle(ending)
        if self.parent is not None and self.execution.draining:
            # The worker is stopping: no durable call starts, so the caller's code does not go on.
            with CancelScope(shield=True):
                await self.execution.gate()

    def start(self, child: Frame, depth: int = 0) -> None:
        """Run `child` in a task of its own. For `depth` see `run`."""
        assert self._tasks is not None
        self._tasks.start_soon(child._run_spawned, depth, name=child.id)

    async def _run_spawned(self, depth: int) -> None:
        self._spawned = True
        # The regions around the call do not contain this task, and do not cancel it.
        regions_around.set(())
        # The outcome is on record, so a cancellation that has ended the call is not raised into the task group.
        try:
            await self.run(depth)
        except get_cancelled_exc_class():
            if self.pending and self.execution.dropped is None:  # pragma: no cover - would be a bug of this package
                raise
        except BaseException as exc:
            # It was raised in code of this package. The waiters of this call must not wait any longer.
            self.execution.interrupt(exc)
            raise

    async def _run_code(self) -> Ending:
        """Call the function under its scope, in a lane of its own, and return how it ended."""
        if self._stopped_by is not None and not self.replaying:
            return Stopped(self._stopped_by)
        presence = self.execution.presence
        # A call that began before a crash is replayed even if it is to be cancelled: its `finally` blocks have not run
        # yet.
        try:
            if not self.replaying:
                await checkpoint_if_cancelled()
            presence.enter(self)
            try:
                with self.scope:
                    lane = Lane(self, current_task(), label="")
                    token = current_lane.set(lane)
                    if self.parent is not None and self.execution.facilities.observers.calls:
                        _events.call_started(self)
                    try:
                        if self.function.kind is not Kind.WORKFLOW:
                            return await self.outcome_of(run_leaf(self))
                        self.order.begin(lane)
                        return await self._run_workflow()
                    finally:
                        current_lane.reset(token)
            finally:
                presence.leave(self)
        except get_cancelled_exc_class() as exc:
            self.execution.interrupted()
            return self._ended_from_above(exc)
        finally:
            self.ended = True
            if self._pins:
                self._unpin()
        return TimedOut() if self._stopped_by is None else Stopped(self._stopped_by)

    def _ended_from_above(self, cancellation: BaseException) -> Ending:
        """Return the ending of a call that was cancelled from around it: a spawned call, by its caller's frame only."""
        if self._spawned:
            return Stopped(Reason(PARENT), cancellation)
        reason = Reason(PARENT) if self.parent is None else reason_for(self.parent)
        if reason.by == DEADLINE and reason.instant is not None and self.instant <= reason.instant:
            return TimedOut(cancellation)
        return Stopped(reason, cancellation)

    def settles_before(self, now: int) -> bool:
        """Return whether its promise is settled at `now` although its code still runs: timed out, or from outside."""
        outside = self._stopped_by is not None and self._stopped_by.by == OUTSIDE
        return outside or self.record.timeout_at <= now

    @property
    def cancel_called(self) -> bool:
        """Whether its function was cancelled, by its deadline or by its caller."""
        return self.scope.cancel_called

    @property
    def unwinding(self) -> bool:
        """Whether some of its code is being cancelled."""
        return self.cancel_called or any(region.scope.cancel_called for region in self.regions)

    def end_code(self) -> None:
        """Cancel the code, in whichever task it runs: the promise is settled, or the execution was dropped."""
        self.scope.cancel()

    @property
    def info(self) -> Info:
        """The info of the function about itself."""
        if self._info is None:
            self._info = info_of(self)
        return self._info

    @property
    def instant(self) -> int:
        """The deadline of the promise, in milliseconds of the server's time."""
        return self.record.timeout_at

    def map_deadline(self, now: int) -> None:
        """Map the deadline of the promise to the loop's clock. `now` is the server's time."""
        self.scope.deadline = loop_time() + (self.record.timeout_at - now) / 1000

    async def outcome_of(self, call: Awaitable[object]) -> Returned | Raised:
        """Await code of the user and return its outcome. Cancellations by a scope and interrupts are raised instead."""
        try:
            return Returned(await call)
        except Exception as exc:  # noqa: BLE001 - whatever a function raises is its outcome
            if (interrupt := interrupt_behind(exc)) is not None:
                # The program is ending, and a `finally` block, for example, has failed meanwhile.
                self.execution.interrupt(interrupt)
                raise interrupt from None
            return raised(exc)
        except get_cancelled_exc_class() as exc:
            # A cancellation that a scope has asked for belongs to that scope.
            if self.execution.interrupted() or is_requested():
                raise
            return Raised(stray(exc))
        except BaseException as exc:
            rest = without_cancellations(exc) if isinstance(exc, BaseExceptionGroup) else exc
            if isinstance(rest, Exception):
                return raised(rest)
            if isinstance(rest, get_cancelled_exc_class()):
                raise rest from None
            # KeyboardInterrupt, SystemExit and the like: the program is ending, as in a crash.
            self.execution.interrupt(exc)
            self.execution.drop(Drop.CRASHED, exc)
            raise

    async def _run_workflow(self) -> Ending:
        """Call a workflow in the task group of its calls, wait for these calls, and return how it ended."""
        context = self.execution.facilities.make_context(self)
        ending: Ending | None = None
        interrupted: BaseException | None = None
        async with create_task_group() as self._tasks:
            try:
                ending = await self.outcome_of(exposed(partial(self.function.func, context, *self.args, **self.kwargs)))
                if isinstance(ending, Returned):
                    await self.children.join()
                # A later call could not be waited for.
                self.ended = True
            except get_cancelled_exc_class() as exc:
                interrupted = exc
            if not isinstance(ending, Returned) or interrupted is not None:
                self.ended = True
                await self.children.cancel()
        # Outside of the task group, which would wrap the exception in a group.
        if interrupted is not None:
            raise interrupted
        assert ending is not None
        return self.children.with_unseen_failures(ending)

    async def end_expired(self, instant: int) -> NoReturn:
        """Cancel this frame and those above whose deadline is not after `instant`, through any shield."""
        frame: Frame | None = self
        while frame is not None and frame.instant <= instant:
            frame.scope.cancel()
            frame = frame.parent
        await raise_cancelled()

    # Calls

    def blocks_here(self) -> str:
        """Return the regions of this frame around the running code, as a position encodes them."""
        stack, above = regions_around.get(), cast("Frame | None", self)
        while above is not None and not above.scope.cancel_called:
            above = above.parent
        if above is None and not stack:
            return ""
        if (above is not None or any(one.scope.cancel_called for one in stack)) and not is_cancelled_here():
            return marked_path(self, stack, above=above is not None)
        return next((one.path for one in reversed(stack) if one.frame is self), "")

    async def before_wait(self, lane: Lane, place: tuple[str, int] | None = None) -> None:
        """Raise a cancellation that is due to the running code before the code waits for a call without an outcome.

        Args:
            lane: the lane of the running code.
            place: the file and line of the call, if it was made elsewhere than it is awaited.
        """
        if lane.owed is not None:
            lane.collect()
        for region in regions_around.get():
            await region.before_wait()
        # A deadline that has passed already is a cancellation in progress, not a deadline of this wait.
        if -math.inf < (deadline := current_effective_deadline()) < self.scope.deadline and deadline < own_deadline():
            warn_of_plain_deadline(place or caller())

    def check_current(self, call: str) -> None:
        """Refuse a durable call that is not made by this frame's own running code: a replay would skip it.

        Raises:
            WrongWorld: it is made from elsewhere, or too late.
        """
        lane = current_lane.get()
        if self.ended or lane is None or lane.frame is not self:
            refuse_caller(self, call, None if lane is None else lane.frame)

    async def cancel(self, reason: Reason) -> None:
        self.request_cancel(reason)
        await insist(self.wait)

    async def forgo(self, reason: Reason) -> None:
        if self.replaying:
            self.request_cancel(reason)
            await self.run()
        else:
            await self._settle(Stopped(evolve(reason, started=False)))

    async def time_out(self) -> None:
        await insist(self.wait)

    def request_cancel(self, reason: Reason) -> None:
        """Cancel the running function; the task that runs it records the outcome."""
        if self.pending and self._stopped_by is None:
            self._stopped_by = reason
            if self._behind:
                # The first run was cancelled after these calls.
                self.scope.deadline = min(self.scope.deadline, current_time() + PATIENCE)
            else:
                self.scope.cancel()

    @property
    def _behind(self) -> bool:
        """Whether calls are on record that the first run made before it was cancelled, and this run has not reached."""
        history = self.execution.history
        unasked = history.unasked(self.id) if self.replaying and history.is_placed(self.id) else ()
        return any(is_before(record, position, []) for record, position in unasked)

    def claim(self, segment: str) -> int:
        """Take a segment for a call that begins now, and return the number of the call.

        Raises:
            DuplicateId: another call of this frame has the segment.
        """
        key = segment.casefold()
        if key in self._segments:
            msg = f"{self.id!r} already has a child {segment!r}; give one of the two calls another name with .named()"
            raise DuplicateId(msg)
        self._segments.add(key)
        self._calls += 1
        return self._calls

    def release(self, segment: str) -> None:
        """Give back the segment of a call that was not made."""
        self._segments.discard(segment.casefold())

    # Replaying

    def recount(self) -> None:
        """Update `replaying` after the history has changed."""
        self.replaying = self.execution.history.has_unasked(self.id)

    def asked(self) -> None:
        """Note that a call of this run was found in the history."""
        self.replaying = self.execution.history.has_unasked(self.id)
        if self.execution.presence.stirred:
            self.execution.presence.stir()
        if self._stopped_by is not None and not self._behind:
            self.scope.cancel()
        if not self.replaying:
            for region in tuple(self.regions):
                region.catch_up()

    def pin(self) -> None:
        """Note that a plain scope has ended a call: a replay has to wait until the scope ends it again."""
        self._pins += 1
        self.execution.presence.pin()

    def _unpin(self) -> None:
        self.execution.presence.pin(-self._pins)
        self._pins = 0

    # Settling

    async def _settle(self, ending: Ending) -> None:
        """Record how the function ended. The record is the outcome from then on."""
        execution = self.execution
        if execution.dropped is None:
            state, value = self._outcome(ending)
            try:
                record = await insist(partial(self._record, ending, state, value))
            except Exception as exc:  # noqa: BLE001 - a failure of the platform is not an outcome
                await crash(execution, exc)
            except get_cancelled_exc_class():
                if is_lost(self, ending):
                    await settle_late(self, state, value)
                warn_not_recorded(self, ending)
                raise
            self.settle(record)
        if execution.dropped is not None:
            if is_lost(self, ending):
                await settle_late(self, *self._outcome(ending))
            warn_not_recorded(self, ending)
            await raise_cancelled()
        if self.failed_with is not None and self.record.state is PromiseState.REJECTED:
            # Shown where the recorded failure is raised, and in the log.
            self.live: TracebackType | None = self.failed_with.__traceback__
        if isinstance(ending, (Stopped, TimedOut)) and ending.cancellation is not None:
            pass_on(self, ending, ending.cancellation)

    def is_done(self, ending: Ending) -> bool:
        """Return whether it is a leaf that has returned or raised."""
        return self.function.kind is not Kind.WORKFLOW and isinstance(ending, (Returned, Raised))

    def _outcome(self, ending: Ending) -> tuple[PromiseState, Value]:
        """Return the outcome to record for an ending. A value or error that cannot be encoded is a failure itself."""
        codec = self.execution.codec
        match ending:
            case Returned(value):
                try:
                    encoded = codec.encode_result(value, self.function.returns, function=self.function.name)
                except Exception as exc:  # noqa: BLE001 - the function has ended, and does not run again for this
                    return self.fail_with(exc)
                except BaseException as exc:
                    # A hook of the user's code has ended the program.
                    self.execution.drop(Drop.CRASHED, exc)
                    raise
                return PromiseState.RESOLVED, encoded
            case Raised(error):
                return self.fail_with(error)
            case Stopped(reason):
                return PromiseState.CANCELED, reason.encode(codec)
            case TimedOut():
                return PromiseState.TIMEDOUT, EMPTY

    def fail_with(self, error: Exception) -> tuple[PromiseState, Value]:
        """Return the outcome to record for a failure, and keep the failure for the traceback."""
        self.failed_with = error
        return PromiseState.REJECTED, self.execution.codec.encode_error(error)

    async def _record(self, ending: Ending, state: PromiseState, value: Value) -> Promise:
        """Record the outcome and return the settled promise."""
        journal = self.execution.journal
        if self.replaying:
            await self.children.end_forgotten()
        if self.short is not None and (record := await self.short.record_ended(self, state, value)) is not None:
            return record
        if isinstance(ending, TimedOut):
            return await journal.confirm_timeout(self.record)
        finished = self.function.kind is not Kind.WORKFLOW and isinstance(ending, (Returned, Raised))
        try:
            if self.parent is None:
                return await journal.fulfill(state, value, finished=finished)
            return await journal.settle(self.id, state, value, finished=finished)
        except Exception as exc:
            if isinstance(ending, Stopped):
                raise
            return await record_refusal(self, exc, finished=finished)

    def attempt(self, number: int) -> Info:
        """Return the info for the `number`-th attempt of a leaf."""
        return self.info if number == 1 else evolve(self.info, attempt=number)
