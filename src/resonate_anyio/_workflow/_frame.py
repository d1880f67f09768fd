"""`Frame`: one run of a durable function, with its cancel scope, its children and its deadline.

A frame is where structured concurrency and durability meet:

* it runs under a cancel scope whose deadline is the deadline of its promise;
* what it spawns runs in a task group of its own, and it ends after all of its children have ended, remote ones, sleeps
  and external promises included;
* when it fails or is cancelled, its unfinished children are cancelled first, durably, and waited for;
* then its own outcome is recorded, and what is recorded is the outcome, whatever is in memory.

A call that is awaited at once runs in the caller's task (`run`); only a spawned one gets a task (`start`). Nothing that
a child does raises into the task group: outcomes travel by record, cancellation by scope.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope, Event, create_task_group, current_time, get_cancelled_exc_class, move_on_after
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define, evolve, field

from .._concurrency._cancellation import Owed, is_requested, raise_cancelled
from .._concurrency._interrupts import interrupt_behind
from .._concurrency._protection import exposed
from .._concurrency._tasks import current_task
from .._errors import ApplicationError, RequestError, TooLarge, UsageError, WrongWorld
from .._functions._function import Kind
from .._ids import Names
from .._protocol import EMPTY, Promise, PromiseState, Value
from . import _log
from ._children import Children
from ._host import Drop, crash
from ._lanes import Lane, current_frame, current_lane, insist, lane_of
from ._leaf import run_leaf
from ._node import Node
from ._order import Order
from ._outcomes import Ending, Raised, Returned, Stopped, TimedOut, raised, without_cancellations
from ._reasons import DEADLINE, OUTSIDE, PARENT, SCOPE, Reason
from ._regions import PATIENCE, Region, is_before, reason_for, regions_around

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from types import TracebackType
    from typing import NoReturn

    from anyio.abc import TaskGroup

    from .._functions._function import Function
    from .._functions._info import Info
    from .._functions._retry import RetryPolicy
    from .._history import RecordedLane

logger = logging.getLogger("resonate_anyio")

_DEEPEST: Final = 200
"""How many calls may be nested at all. More is taken for a recursion without end."""


@define(eq=False, kw_only=True, repr=False)
class Frame(Node):
    """One run of a durable function (see the module's docstring).

    Attributes:
        expired: the instants of its durable scopes that have ended their blocks: what ended with them is no failure.
        failed_with: what its function has raised in this run.
    """

    parent: Frame | None
    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    info: Info
    retry: RetryPolicy | None = None

    depth: int = field(default=0, init=False)
    children: Children = field(init=False)
    ended: bool = field(default=False, init=False)
    names: Names = field(init=False)
    order: Order = field(init=False)
    regions: set[Region] = field(factory=set, init=False)
    expired: set[int] = field(factory=set, init=False)
    _scope: CancelScope = field(factory=CancelScope, init=False)
    _spawned: bool = field(default=False, init=False)
    _stopped_by: Reason | None = field(default=None, init=False)
    _tasks: TaskGroup | None = field(default=None, init=False)
    _calls: int = field(default=0, init=False)
    _last_lane: int | None = field(default=None, init=False)
    _unmatched_lanes: int = field(default=0, init=False)
    _pins: int = field(default=0, init=False)
    failed_with: Exception | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.names = Names(self.id)
        self.children = Children(self)
        self.order = Order(self.execution, self.id)

    # Running

    def check_depth(self, call: str) -> None:
        """Refuse a recursion that does not seem to end.

        Raises:
            UsageError: too many calls are nested already.
        """
        if self.depth >= _DEEPEST:
            msg = (
                f"{call} is nested {_DEEPEST} calls deep, which looks like a recursion without end; if it is meant, "
                f"spawn it: await (await {call}.spawn()), or give it an execution of its own: await ctx.rpc(...)"
            )
            raise UsageError(msg)

    async def run(self) -> None:
        """Run the function in the current task and record what came of it, unless there is an outcome already.

        Returns once the record is settled. Raises the backend's cancellation, and nothing of the user's.
        """
        if self.pending and self._stopped_by is None and self.record.timeout_at <= self.execution.now():
            await self._settle(TimedOut())
        if self.pending:
            ending = await self._end()
            if is_requested():
                # What has ended in a cancelled scope may have ended because of an interrupt: that is not recorded.
                self.execution.interrupted()
            done = self._is_done(ending)
            # A worker that stops gives grace to what a leaf has done as it gives it to leaves.
            with self.execution.presence.leaf_running() if done else nullcontext():
                await self._settle(ending)
            if done and self.parent is not None and self.execution.draining:
                # Nothing begins any more, and so the code that has called it does not go on.
                with CancelScope(shield=True):
                    await self.execution.gate()

    def start(self, child: Frame) -> None:
        """Run `child` in a task of its own."""
        assert self._tasks is not None
        self._tasks.start_soon(child._run_spawned, name=child.id)

    async def _run_spawned(self) -> None:
        self._spawned = True
        # It was started inside of what is around the call, and does not end with that.
        regions_around.set(())
        # Its outcome is on record: a cancellation that ended it has nothing to say to the task group.
        try:
            await self.run()
        except get_cancelled_exc_class():
            if self.pending and self.execution.dropped is None:  # pragma: no cover - would be a bug of the engine's
                raise
        except BaseException as exc:
            # It came in code of the engine's. Those who wait for this call must not wait on.
            self.execution.interrupt(exc)
            raise

    async def _end(self) -> Ending:
        """Call the function under its scope and tell how it ended."""
        if self._stopped_by is not None and not self.replaying:
            return Stopped(self._stopped_by)
        # What had begun before a crash is replayed even if it is to end: its `finally` blocks have not run yet.
        try:
            if not self.replaying:
                await checkpoint_if_cancelled()
            with self.execution.presence.running(self), self._scope:
                return await self._call()
        except get_cancelled_exc_class() as exc:
            self.execution.interrupted()
            return self._ended_from_above(exc)
        finally:
            self.ended = True
            self._unpin()
        return TimedOut() if self._stopped_by is None else Stopped(self._stopped_by)

    def _ended_from_above(self, cancellation: BaseException) -> Ending:
        """Something around the call was cancelled. What was spawned has only its caller's frame around it."""
        if self._spawned:
            return Stopped(Reason(PARENT), cancellation)
        reason = Reason(PARENT) if self.parent is None else reason_for(self.parent)
        if reason.by == DEADLINE and reason.instant is not None and self.instant <= reason.instant:
            return TimedOut(cancellation)
        return Stopped(reason, cancellation)

    @property
    def settled_early(self) -> bool:
        """Whether its promise is settled although its code still runs: by its deadline, or from outside."""
        outside = self._stopped_by is not None and self._stopped_by.by == OUTSIDE
        return outside or self.instant <= self.execution.now()

    @property
    def cancel_called(self) -> bool:
        """Whether its function was cancelled, by its deadline or by its caller."""
        return self._scope.cancel_called

    @property
    def ends_at(self) -> float:
        """The deadline of its function, by the loop's clock."""
        return self._scope.deadline

    @property
    def unwinding(self) -> bool:
        """Whether some of its code is being cancelled."""
        return self.cancel_called or any(region.scope.cancel_called for region in self.regions)

    def expire(self) -> None:
        """Its deadline has passed at the server, whatever the loop's clock says."""
        self._scope.cancel()

    def put_away(self) -> None:
        """Nothing that its code does is recorded any more: end it, in whatever task it runs."""
        self._scope.cancel()

    @property
    def instant(self) -> int:
        """The deadline of the promise, an instant of the server's in milliseconds."""
        return self.record.timeout_at

    def map_deadline(self) -> None:
        """Map the deadline of the promise to the loop's clock."""
        self._scope.deadline = current_time() + (self.instant - self.execution.now()) / 1000

    async def _call(self) -> Ending:
        lane = Lane(self, current_task(), label="")
        token = current_lane.set(lane)
        _log.call_started(self)
        try:
            if self.function.kind is Kind.WORKFLOW:
                self.order.begin(lane)
                return await self._call_workflow()
            return await self._call_leaf()
        finally:
            current_lane.reset(token)

    async def _call_leaf(self) -> Ending:
        return await self.outcome_of(run_leaf(self))

    async def outcome_of(self, call: Awaitable[object]) -> Returned | Raised:
        """Await code of the user's. Whatever it returns or raises is its outcome, but for two things."""
        try:
            return Returned(await call)
        except Exception as exc:  # noqa: BLE001 - whatever a function raises is its outcome
            if (interrupt := interrupt_behind(exc)) is not None:
                # A `finally` block, say, has failed while the program was ending.
                self.execution.interrupt(interrupt)
                raise interrupt from None
            return raised(exc)
        except get_cancelled_exc_class() as exc:
            # The first: a cancellation belongs to the scope that asked for it, if there is one.
            if self.execution.interrupted() or is_requested():
                raise
            return Raised(_stray(exc))
        except BaseException as exc:
            rest = without_cancellations(exc) if isinstance(exc, BaseExceptionGroup) else exc
            if isinstance(rest, Exception):
                return raised(rest)
            if isinstance(rest, get_cancelled_exc_class()):
                raise rest from None
            # The second: KeyboardInterrupt, SystemExit and the like. The program is ending, as in a crash.
            self.execution.interrupt(exc)
            self.execution.drop(Drop.CRASHED, exc)
            raise

    async def _call_workflow(self) -> Ending:
        context = self.execution.facilities.make_context(self)
        ending: Ending | None = None
        interrupted: BaseException | None = None
        async with create_task_group() as self._tasks:
            try:
                ending = await self._call_and_join(context)
            except get_cancelled_exc_class() as exc:
                interrupted = exc
            if not isinstance(ending, Returned):
                self.ended = True
                await self.children.cancel()
        # Raised outside of the task group, which would wrap it.
        if interrupted is not None:
            raise interrupted
        assert ending is not None
        return self.children.with_unseen_failures(ending)

    async def _call_and_join(self, context: object) -> Ending:
        ending = await self.outcome_of(exposed(partial(self.function.func, context, *self.args, **self.kwargs)))
        if isinstance(ending, Returned):
            await self.children.join()
        # From here on such a call would come too late to be waited for.
        self.ended = True
        return ending

    async def end_expired(self, instant: int) -> NoReturn:
        """A deadline of this frame or of some above has passed at the server: end them, through any shield."""
        frame: Frame | None = self
        while frame is not None and frame.instant <= instant:
            frame._scope.cancel()
            frame = frame.parent
        await raise_cancelled()

    # Calls

    def check_current(self, call: str) -> None:
        """Refuse a durable call that is not made by this frame's own running code: a replay would skip it.

        Raises:
            WrongWorld: it is made from elsewhere, or too late.
        """
        if self.ended:
            msg = f"{call} was called after {self.function.name!r} ({self.id!r}) had ended; await it inside of it"
            raise WrongWorld(msg)
        running = current_frame()
        if running is not self:
            where = "code outside of it" if running is None else f"{running.function.name!r} ({running.id!r})"
            msg = (
                f"{call}: this ctx belongs to {self.function.name!r} ({self.id!r}) and was used by {where}; a durable "
                f"function uses its own first parameter, annotated with Context"
            )
            raise WrongWorld(msg)

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
        """Cancel the running function; its outcome is recorded by the task that runs it."""
        if self.pending and self._stopped_by is None:
            self._stopped_by = reason
            if self._behind:
                # The first time, it was cancelled after what is on record.
                self._scope.deadline = min(self._scope.deadline, current_time() + PATIENCE)
            else:
                self._scope.cancel()

    @property
    def _behind(self) -> bool:
        """Whether calls are on record that it made before it was cancelled, and has not come to again."""
        history = self.execution.history
        unasked = history.unasked(self.id) if self.replaying and history.is_placed(self.id) else ()
        return any(is_before(record, position, []) for record, position in unasked)

    def number_call(self) -> int:
        """The number of a call that begins now."""
        self._calls += 1
        return self._calls

    # Replaying

    @property
    def replaying(self) -> bool:
        """Whether calls are on record that this run has not come to yet."""
        return self.execution.history.has_unasked(self.id)

    def asked(self) -> None:
        """A call of this run was found in the history."""
        self.execution.presence.stir()
        if self._stopped_by is not None and not self._behind:
            self._scope.cancel()
        if not self.replaying:
            for region in tuple(self.regions):
                region.catch_up()

    def recorded_lanes(self) -> dict[int, RecordedLane]:
        """The lanes of earlier runs that no task has taken yet."""
        lanes = self.execution.history.lanes(self.id)
        if self._last_lane is None:
            self._last_lane = max(lanes, default=0)
        return lanes

    def next_lane(self) -> int:
        """The number of a lane that is not on record."""
        self._last_lane = (self._last_lane or 0) + 1
        return self._last_lane

    def next_unmatched_lane(self) -> str:
        """The label of a lane whose first call is not known yet."""
        self._unmatched_lanes += 1
        return f"q{self._unmatched_lanes}"

    def pin(self) -> None:
        """A plain scope has ended a call. A replay has to wait until the scope does it again."""
        self._pins += 1
        self.execution.presence.pin()

    def _unpin(self) -> None:
        self.execution.presence.pin(-self._pins)
        self._pins = 0

    # Settling

    async def _settle(self, ending: Ending) -> None:
        """Record how the function ended. From then on the record is the outcome."""
        execution = self.execution
        if execution.dropped is None:
            outcome = self._outcome(ending)
            try:
                record = await insist(partial(self._record, ending, outcome))
            except Exception as exc:  # noqa: BLE001 - an error of the engine's own is no outcome of anything
                await crash(execution, exc)
            except get_cancelled_exc_class():
                if self._is_lost(ending):
                    await self._settle_late(*outcome)
                self._tell_unrecorded(ending)
                raise
            self.settle(record)
        if execution.dropped is not None:
            if self._is_lost(ending):
                await self._settle_late(*self._outcome(ending))
            self._tell_unrecorded(ending)
            await raise_cancelled()
        self._keep_failure()
        cancellation = ending.cancellation if isinstance(ending, (Stopped, TimedOut)) else None
        if cancellation is not None:
            self._pass_on(ending, cancellation)

    def _keep_failure(self) -> None:
        """Show the traceback of this run where the recorded failure is raised, and in the log."""
        if self.failed_with is not None and self.record.state is PromiseState.REJECTED:
            self.live: TracebackType | None = self.failed_with.__traceback__

    def _pass_on(self, ending: Ending, cancellation: BaseException) -> None:
        """Let the cancellation that has ended the call go on, unless another outcome stands, which is handed over."""
        if self.record.state not in {PromiseState.CANCELED, PromiseState.TIMEDOUT} and self.parent is not None:
            lane_of(self.parent).owed = Owed.of(cancellation)
            return
        if self.parent is not None and isinstance(ending, TimedOut):
            # The deadline was that of a scope around the call, and that is what the code sees of it.
            self.parent.children.mark_seen(self)
        if self.parent is not None and isinstance(ending, Stopped) and ending.reason.by == SCOPE:
            self.parent.pin()
        raise cancellation

    def _is_done(self, ending: Ending) -> bool:
        """Whether it is a leaf, and this is what the leaf has done."""
        return self.function.kind is not Kind.WORKFLOW and isinstance(ending, (Returned, Raised))

    def _outcome(self, ending: Ending) -> tuple[PromiseState, Value]:
        """What is to be recorded of an ending. A value or an error that cannot be recorded is a failure itself."""
        codec = self.execution.codec
        match ending:
            case Returned(value):
                try:
                    encoded = codec.encode_result(value, self.function.returns, function=self.function.name)
                except Exception as exc:  # noqa: BLE001 - the function has ended, and does not run again for this
                    return self._failure_recorded(exc)
                except BaseException as exc:
                    # A hook of the user's has ended the program.
                    self.execution.drop(Drop.CRASHED, exc)
                    raise
                return PromiseState.RESOLVED, encoded
            case Raised(error):
                return self._failure_recorded(error)
            case Stopped(reason):
                return PromiseState.CANCELED, reason.encode(codec)
            case TimedOut():
                return PromiseState.TIMEDOUT, EMPTY

    def _failure_recorded(self, error: Exception) -> tuple[PromiseState, Value]:
        self.failed_with = error
        return PromiseState.REJECTED, self.execution.codec.encode_error(error)

    async def _record(self, ending: Ending, outcome: tuple[PromiseState, Value]) -> Promise:
        await self.children.end_forgotten()
        if isinstance(ending, TimedOut):
            return await self.execution.journal.confirm_timeout(self.record)
        if isinstance(ending, Stopped):
            return await self._put(*outcome)
        return await self._save(*outcome, finished=self._is_done(ending))

    async def _save(self, state: PromiseState, value: Value, *, finished: bool) -> Promise:
        """Record what the function returned or raised. If the server refuses that, the refusal is the outcome."""
        refused, backoff = False, self.execution.facilities.backoff()
        while True:
            try:
                return await self._put(state, value, finished=finished)
            except Exception as exc:
                if refused:
                    # Not even that is taken. The function has ended, and does not run again for this.
                    logger.exception("call.not_recorded id=%s retry_in=%.1f", self.id, backoff.delay)
                    with move_on_after(backoff.next()):
                        await self.execution.wait(Event())
                refused = True
                state, value = self._failure_recorded(exc)

    async def _put(self, state: PromiseState, value: Value, *, finished: bool = False) -> Promise:
        if self.parent is None:
            return await self.execution.journal.fulfill(state, value, finished=finished)
        return await self.execution.journal.settle(self.id, state, value, finished=finished)

    def _is_lost(self, ending: Ending) -> bool:
        """Whether a leaf has ended in an execution that has crashed for another reason, and will be taken up again."""
        crashed = self.execution.dropped is Drop.CRASHED and isinstance(self.execution.error, Exception)
        return crashed and self.pending and self.parent is not None and self._is_done(ending)

    def _tell_unrecorded(self, ending: Ending) -> None:
        """A worker that stops does not wait for ever to record what a leaf has done. The leaf runs again then."""
        if self.execution.dropped is Drop.UNLOADED and self.pending and self._is_done(ending):
            logger.warning(
                "call.not_recorded id=%s it ended too late to be recorded before the stop; it runs again", self.id
            )

    async def _settle_late(self, state: PromiseState, value: Value) -> None:
        """Record what a leaf has done, so that the next run of the crashed execution does not run the leaf again."""
        journal = self.execution.journal
        try:
            try:
                await journal.settle_late(self.id, state, value)
            except (TooLarge, RequestError) as exc:
                await journal.settle_late(self.id, *self._failure_recorded(exc))
        except Exception:
            logger.exception("call.not_recorded id=%s", self.id)

    def attempt(self, number: int) -> Info:
        """The info that a leaf is given for its `number`-th attempt."""
        return self.info if number == 1 else evolve(self.info, attempt=number)


def _stray(cancellation: BaseException) -> ApplicationError:
    message = (
        "a cancellation that nobody asked for escaped, probably from an await of a task or future that was cancelled"
    )
    error = ApplicationError(type(cancellation).__name__, message)
    error.__cause__ = cancellation
    return error.with_traceback(cancellation.__traceback__)
