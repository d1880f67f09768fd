"""`Suspension`: how one execution gives its task back to the server and keeps its coroutines in memory.

An execution that waits is *hot* at first: its task is leased. When all of its code has waited for a while, the task is
suspended on the awaited promises, and the execution is *parked*: it has no lease, and its memory is a cache. A parked
execution is resumed by acquiring the task at the version at which it was suspended, and in no other way: then no other
worker has run it meanwhile, and its code goes on where it was, without a replay. If the task cannot be acquired at that
version, the execution is dropped, and nothing is written.

From the decision to suspend until the execution is hot again, no outcome is delivered to its code, and no durable call
starts. Code that continues by itself (because of a deadline or a message) waits for the lease, and so asks for it.

Each suspend also awaits one *wake* promise, which only this worker settles, to wake its own task. If the process has
died, the deadline of the wake promise wakes the task. Wake promises are settled before the root is.

`Suspension.TABLE` decides what each event does in each phase (docs/suspension.md shows it). Requests are sent by
*attempts*: straight functions, each in a task of its own, that report their results to the table. Nothing but the table
changes the phase.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final

from anyio import CancelScope, Event, move_on_after
from attrs import define, field

from .._ids import below
from .._protocol import EMPTY, Promise, PromiseSettle, PromiseState, TaskGet, TaskRecord, TaskState, TaskSuspend
from .._workflow._host import Drop
from . import _events
from ._lives import wake_id
from ._nested import end_settled_below
from ._phases import IGNORED, IMPOSSIBLE, Phase, Row, Transition, Trigger, row, stay, to
from ._services import Event as Report
from ._task_requests import Grant, acquire, ask, look_who_holds, make_wake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from ._execution import Execution

logger = logging.getLogger("resonate_anyio")

_FIRST_LOOK: Final = 0.5
_UNBLOCK_PATIENCE: Final = 0.3
"""Seconds that a message may take to tell what had settled when a suspend was refused."""

_TRANSFERRING: Final = frozenset({Phase.SUSPENDING, Phase.RESUMING})
_UNDECIDED: Final = _TRANSFERRING | {Phase.VERIFYING}
_UNLEASED: Final = _TRANSFERRING | {Phase.PARKED}


@define(eq=False, repr=False)
class _Attempt:
    """One attempt to suspend the task, to resume the execution, or to verify the lease.

    Attributes:
        scope: cancels the requests of the attempt.
        begun: whether its task has taken its first step.
        acquired: whether the task was acquired since the attempt was started.
        resume: set once code has asked for the lease since the attempt was started.
    """

    scope: CancelScope = field(factory=CancelScope, init=False)
    begun: bool = field(default=False, init=False)
    acquired: bool = field(default=False, init=False)
    resume: Event = field(factory=Event, init=False)


@define(eq=False, repr=False)
class Suspension:
    """The phase of one execution, and the table that changes it (see the module's docstring).

    Attributes:
        phase: the present phase.
        wakes: ids of the wake promises that have to be settled before the root is.
    """

    _execution: Execution
    phase: Phase = field(default=Phase.HOT, init=False)
    wakes: list[str] = field(factory=list, init=False)
    _attempt: _Attempt = field(factory=_Attempt, init=False)
    _awaited: frozenset[str] = field(default=frozenset(), init=False)
    _changes: list[Event] = field(factory=list, init=False)
    _wakes_made: int = field(default=0, init=False)
    _asking: bool = field(default=False, init=False)

    @property
    def hot(self) -> bool:
        """Whether the task is leased, and the lease is not in doubt."""
        return self.phase is Phase.HOT

    @property
    def undecided(self) -> bool:
        """Whether an attempt is under way."""
        return self.phase in _UNDECIDED

    @property
    def unleased(self) -> bool:
        """Whether the task is not leased, or may not be, because it was given back."""
        return self.phase in _UNLEASED

    def next_change(self) -> Event:
        """Return an event that is set when the phase changes. Each call returns an event of its own."""
        self._changes.append(Event())
        return self._changes[-1]

    async def wait_transferred(self) -> None:
        """Wait while the task is being suspended or acquired."""
        while self.phase in _TRANSFERRING:
            await self.next_change().wait()

    # Events from outside

    def suspend(self, wake_at: int) -> None:
        """Suspend the task on the awaited promises. No durable call starts from now on.

        Args:
            wake_at: the instant, in the server's milliseconds, at which the task is to wake in any case.
        """
        self._apply(Trigger.SUSPEND, wake_at)

    def request_resume(self) -> None:
        """Ask for the lease, for code that waits for it."""
        execution = self._execution
        too_late = execution.services.draining or execution.dropped is not None
        self._apply(Trigger.RESUME_TOO_LATE if too_late else Trigger.RESUME)

    def handle_execute(self, version: int) -> bool:
        """Handle an `execute` message, which says that the task can be acquired at `version`.

        Returns:
            False if the execution was dropped: the task has to be acquired for a new execution, after this one's end.
        """
        execution = self._execution
        if execution.dropped is not None:
            return False
        if version < execution.version:
            self._apply(Trigger.EXECUTE_EARLIER)
        else:
            self._apply(Trigger.EXECUTE_PRESENT if version == execution.version else Trigger.EXECUTE_LATER)
        return True

    def verify_lease(self) -> None:
        """Ask the server who holds the task, and let no durable call start until it has answered."""
        if self._execution.dropped is None:
            self._apply(Trigger.LEASE_IN_DOUBT)

    def adopt(self, task: TaskRecord, preload: Iterable[Promise], sent: float) -> bool:
        """Take the lease that another request of this worker has acquired.

        Returns:
            Whether the execution goes on with that lease.
        """
        execution = self._execution
        if execution.dropped is not None:
            return False
        if not self.unleased:
            # The execution can only have that very lease.
            return task.version == execution.version
        if task.version != execution.version + 1:
            return False
        self._apply(Trigger.ADOPT, Grant(task.version, tuple(preload), sent))
        execution.services.background(end_settled_below, execution, name=f"resonate nested {execution.id}")
        return True

    def abandon_unbegun(self) -> None:
        """End an attempt whose task has not begun by now: because of an interrupt, it never does."""
        if not self._attempt.begun:
            self._apply(Trigger.NEVER_BEGAN)

    def give_up(self) -> None:
        """Cancel the requests that suspend or resume: the worker has waited for them long enough."""
        self._apply(Trigger.GIVEN_UP)

    def execution_dropped(self) -> None:
        """Note that the execution was dropped: who holds its task does not matter any more."""
        self._apply(Trigger.DROP)

    # The table

    def _apply(self, trigger: Trigger, *facts: object) -> None:
        """Do what the table says for an event in the present phase. Nothing else changes the phase."""
        decision = self.TABLE[trigger][self.phase]
        if decision is IMPOSSIBLE:
            msg = f"{trigger.name} happened in phase {self.phase.name}"
            raise AssertionError(msg)
        if not isinstance(decision, Transition):
            return

        if decision.phase is not None:
            self.phase = decision.phase
            changes, self._changes = self._changes, []
            for changed in changes:
                changed.set()
        for action in decision.actions:
            action(self, *facts)

    # Actions

    def _start_suspending(self, wake_at: int) -> None:
        """Start an attempt to suspend."""
        self._start(self._suspend, wake_at)

    def _start_resuming(self) -> None:
        """Tell the worker, and start an attempt to resume."""
        self._execution.services.report(Report.RESUMING, self._execution)
        self._start(self._resume)

    def _start_verifying(self) -> None:
        """Start an attempt to verify the lease."""
        self._start(self._verify)

    def _cancel_attempt(self) -> None:
        """Cancel the requests of the attempt, which then ends without a result."""
        self._attempt.scope.cancel()

    def _note_resume(self) -> None:
        """Note that code waits for the lease."""
        self._attempt.resume.set()

    def _resume_if_noted(self) -> None:
        """Resume if that was asked for since the attempt was started."""
        if self._attempt.resume.is_set():
            self.request_resume()

    def _note_awaited(self) -> None:
        """Note the promises that the execution awaits."""
        self._awaited = frozenset(self._execution.awaited)

    def _take_for_lapsed(self) -> None:
        """Take the lease for lapsed: it is not known which promises the server woke the task for."""
        execution = self._execution
        logger.info("execution.lease_lapsed id=%s version=%d: it is taken again", execution.id, execution.version)
        self._awaited = frozenset()

    def _ask_holder(self) -> None:
        """Ask the server who holds the task, unless it is being asked."""
        if not self._asking:
            self._asking = True
            name = f"resonate holder {self._execution.id}"
            self._execution.services.background(self._handle_strange_execute, name=name)

    def _end_lease(self) -> None:
        """End the lease."""
        self._execution.lease.end()

    def _report_parked(self) -> None:
        """Log it, and tell the worker, which may evict executions now."""
        if self._execution.facilities.observers.lives:
            _events.execution_parked(self._execution)
        self._execution.services.report(Report.PARKED, self._execution)

    def _report_not_parked(self) -> None:
        """Tell the worker, which tries again later."""
        self._execution.services.report(Report.NOT_PARKED, self._execution)

    def _look_what_settled(self) -> None:
        """Ask for the awaited promises if no message tells soon which of them has settled."""
        name = f"resonate look {self._execution.id}"
        self._execution.services.background(self._recheck_unless_told, self._attempt, name=name)

    def _hold(self, grant: Grant) -> None:
        """Take the lease, with its version."""
        self._attempt.acquired = True
        self._execution.version = grant.version
        self._execution.lease.grant(grant.version, grant.sent)

    def _assume_acquired(self) -> None:
        """Unless the task is known to be acquired, take it for acquired at the next version, so that it is released."""
        if not self._attempt.acquired:
            self._execution.version += 1

    def _go_on(self, grant: Grant) -> None:
        """Log it, end the local calls that were settled from outside, and tell the worker."""
        execution = self._execution
        self._wakes_made = 0
        execution.end_calls(grant.records)
        if execution.facilities.observers.lives:
            _events.execution_resumed(execution)
        execution.services.report(Report.RESUMED, execution)

    def _drop_as_lost(self) -> None:
        """Drop the execution: another process may run it."""
        self._execution.drop(Drop.LOST)

    TABLE: ClassVar[Mapping[Trigger, Row]] = {
        # Events from outside
        Trigger.SUSPEND: row(IMPOSSIBLE, hot=to(Phase.SUSPENDING, _start_suspending)),
        Trigger.RESUME: row(
            IGNORED,
            hot=stay(_note_resume),
            suspending=stay(_note_resume),
            parked=to(Phase.RESUMING, _start_resuming),
        ),
        Trigger.RESUME_TOO_LATE: row(IGNORED, hot=stay(_note_resume), suspending=stay(_note_resume)),
        Trigger.EXECUTE_EARLIER: row(IGNORED),
        Trigger.EXECUTE_PRESENT: row(
            IGNORED,
            hot=stay(_ask_holder),
            suspending=stay(request_resume),
            parked=stay(request_resume),
        ),
        Trigger.EXECUTE_LATER: row(stay(_ask_holder)),
        Trigger.LEASE_IN_DOUBT: row(IGNORED, hot=to(Phase.VERIFYING, _start_verifying)),
        Trigger.ADOPT: row(to(Phase.HOT, _hold, _go_on), hot=IMPOSSIBLE, verifying=IMPOSSIBLE),
        Trigger.NEVER_BEGAN: row(
            IGNORED,
            suspending=to(Phase.HOT, _report_not_parked),
            resuming=to(Phase.HOT, _assume_acquired, _report_not_parked),
        ),
        Trigger.GIVEN_UP: row(IGNORED, suspending=stay(_cancel_attempt), resuming=stay(_cancel_attempt)),
        Trigger.DROP: row(IGNORED, verifying=stay(_cancel_attempt)),
        # Results of attempts to suspend
        Trigger.NOT_CERTAIN: row(IMPOSSIBLE, suspending=to(Phase.HOT, _report_not_parked, verify_lease)),
        Trigger.WAKE_MADE: row(IMPOSSIBLE, suspending=stay(_note_awaited)),
        Trigger.SUSPENDED: row(IMPOSSIBLE, suspending=to(Phase.PARKED, _end_lease, _report_parked, _resume_if_noted)),
        Trigger.SUSPENDED_AND_WOKEN: row(
            IMPOSSIBLE, suspending=to(Phase.PARKED, _end_lease, _report_parked, request_resume)
        ),
        Trigger.SETTLED_BEFORE: row(IMPOSSIBLE, suspending=to(Phase.HOT, _report_not_parked, _look_what_settled)),
        Trigger.UNANSWERED: row(IMPOSSIBLE, suspending=stay()),
        # Results of attempts to resume
        Trigger.ACQUIRED: row(IMPOSSIBLE, resuming=stay(_hold)),
        Trigger.CAUGHT_UP: row(IMPOSSIBLE, resuming=to(Phase.HOT, _go_on)),
        Trigger.REFUSED: row(IMPOSSIBLE, resuming=to(Phase.HOT, _assume_acquired, _drop_as_lost, _report_not_parked)),
        Trigger.REFUSED_TOO_LATE: row(IMPOSSIBLE, resuming=to(Phase.HOT, _assume_acquired, _report_not_parked)),
        # Results of attempts to verify
        Trigger.FOUND_MINE: row(IMPOSSIBLE, verifying=to(Phase.HOT, _hold)),
        Trigger.FOUND_FREE: row(IMPOSSIBLE, verifying=to(Phase.RESUMING, _take_for_lapsed)),
        # Results of several
        Trigger.LOST: row(
            IMPOSSIBLE,
            suspending=to(Phase.HOT, _drop_as_lost, _report_not_parked),
            verifying=to(Phase.HOT, _drop_as_lost, _report_not_parked),
        ),
        Trigger.ENDED: row(
            IGNORED,
            suspending=to(Phase.HOT, _report_not_parked),
            resuming=to(Phase.HOT, _assume_acquired, _report_not_parked),
            verifying=to(Phase.HOT, _report_not_parked),
        ),
    }

    def _start(self, func: Callable[..., Awaitable[None]], *args: object) -> None:
        attempt = self._attempt = _Attempt()
        name = f"resonate {self.phase.value} {self._execution.id}"
        self._execution.services.background(self._run, attempt, func, *args, name=name)

    async def _run(self, attempt: _Attempt, func: Callable[..., Awaitable[None]], *args: object) -> None:
        attempt.begun = True
        if self._is_void(attempt):
            return
        try:
            with attempt.scope:
                await func(attempt, *args)
        finally:
            if attempt is self._attempt:
                self._apply(Trigger.ENDED)

    def _is_void(self, attempt: _Attempt) -> bool:
        """Return whether the phase was decided without `attempt`, so that its results mean nothing any more."""
        return attempt is not self._attempt or not self.undecided

    def _is_over(self, attempt: _Attempt) -> bool:
        """Return whether `attempt` is void, or its execution was dropped."""
        return self._is_void(attempt) or self._execution.dropped is not None

    async def _suspend(self, attempt: _Attempt, wake_at: int) -> None:
        execution = self._execution
        if not execution.lease.certain:
            # Another worker may have settled the root. Then a wake promise that is made now would never be settled.
            self._apply(Trigger.NOT_CERTAIN)
            return
        wake = await self._make_wake(wake_at)
        if wake is None or attempt.resume.is_set() or self._is_over(attempt):
            return

        self._apply(Trigger.WAKE_MADE)
        awaited = (*execution.awaited, wake)
        request = TaskSuspend(
            id=execution.id,
            version=execution.version,
            awaited=awaited,
            awaiters=(execution.id,) * len(awaited),
        )
        response = await ask(execution.services, execution.id, request)
        if self._is_over(attempt):
            return
        if response is None:
            self._apply(Trigger.UNANSWERED)
            await self._find_out(attempt)
        elif response.status == 200:
            self._apply(Trigger.SUSPENDED)
        elif response.status == 300:
            self._apply(Trigger.SETTLED_BEFORE)
        elif response.status in {404, 409}:
            self._apply(Trigger.LOST)

    async def _make_wake(self, wake_at: int) -> str | None:
        """Return the id of a new wake promise; None if it was not made, or its deadline has passed."""
        execution = self._execution
        self._wakes_made += 1
        id = wake_id(below(execution.id, execution.services.separator), execution.version, self._wakes_made)
        lineage = {"resonate:origin": execution.origin, "resonate:branch": id, "resonate:parent": execution.id}
        # Noted before the request: if its answer is lost, the promise may exist and has to be settled.
        self.wakes.append(id)
        return await make_wake(execution.services, execution.id, id, wake_at, execution.facilities.nowhere, lineage)

    async def _find_out(self, attempt: _Attempt) -> None:
        """Read the task, because the answer to the suspend was lost."""
        execution = self._execution
        response = await execution.services.requester.request_until_answered(TaskGet(id=execution.id))
        if self._is_over(attempt) or response is None:
            return
        task = response.task
        if task is None or task.version != execution.version:
            self._apply(Trigger.LOST)
        elif task.state is TaskState.SUSPENDED:
            self._apply(Trigger.SUSPENDED)
        elif task.state is TaskState.PENDING:
            self._apply(Trigger.SUSPENDED_AND_WOKEN)
        elif task.state is not TaskState.ACQUIRED or task.pid != execution.services.identity.holder:
            self._apply(Trigger.LOST)

    async def _recheck_unless_told(self, attempt: _Attempt) -> None:
        """Ask for the awaited promises: one has settled, and its message is on the way, or lost."""
        execution = self._execution
        with move_on_after(_UNBLOCK_PATIENCE):
            await attempt.resume.wait()
        if execution.dropped is None and self._awaited <= execution.awaited:
            await execution.recheck()

    async def _resume(self, attempt: _Attempt) -> None:
        execution = self._execution
        for id in list(self.wakes):
            settle = PromiseSettle(id=id, state=PromiseState.RESOLVED, value=EMPTY)
            if await execution.services.requester.request_until_answered(settle) is None:
                return
            self.wakes.remove(id)
        grant = await acquire(execution.services, execution.id, execution.version)
        if self._is_void(attempt):
            return
        if grant is None:
            self._apply(Trigger.REFUSED_TOO_LATE if execution.services.draining else Trigger.REFUSED)
            return

        # At once, so that the lease is renewed: the rest may take long.
        self._apply(Trigger.ACQUIRED, grant)
        if execution.facilities.observers.given:
            _events.lease_taken(execution.facilities.observers, execution.id, grant.version)
        if self._awaited <= execution.awaited:
            # It is not known that anything has settled, but something may have, and its message may be lost.
            await execution.recheck()
        await end_settled_below(execution)
        if not self._is_over(attempt):
            self._apply(Trigger.CAUGHT_UP, grant)
        elif execution.dropped is not None:
            # The execution was dropped while the task was acquired for it.
            await execution.ended.wait()
            await execution.services.release(execution.id, grant.version)

    async def _verify(self, attempt: _Attempt) -> None:
        """Ask who holds the task, until there is an answer. If no worker does, acquire it again."""
        execution = self._execution
        backoff = execution.services.subscriptions.backoff(_FIRST_LOOK)
        found = await look_who_holds(execution.services, execution.id, execution.version)
        while found is None and not self._is_over(attempt):
            # Also while the worker stops: what still runs may have something to record.
            with move_on_after(backoff.next()):
                await self.next_change().wait()
            found = await look_who_holds(execution.services, execution.id, execution.version)
        asked, task = found or (0.0, None)
        if self._is_over(attempt):
            return
        if execution.services.is_mine(task, execution.version):
            self._apply(Trigger.FOUND_MINE, Grant(execution.version, (), asked))
        elif task is not None and task.state is TaskState.PENDING and task.version == execution.version:
            self._apply(Trigger.FOUND_FREE)
            await self._resume(attempt)
        else:
            self._apply(Trigger.LOST)

    async def _handle_strange_execute(self) -> None:
        """Ask who holds the task: if it can be acquired, this execution does not hold it any more."""
        execution = self._execution
        try:
            response = await execution.services.requester.request_until_answered(TaskGet(id=execution.id))
            await self.wait_transferred()
            task = None if response is None else response.task
            if task is None or execution.services.is_mine(task, execution.version):
                return
            if task.state is TaskState.PENDING and task.version > execution.version:
                execution.drop(Drop.LOST)
                execution.services.acquire(execution.id, task.version)
            else:
                self.verify_lease()
        finally:
            self._asking = False
