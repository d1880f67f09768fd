"""The embedded engine: the protocol's rules, a store, timers, and the delivery of messages to connections."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from anyio import CancelScope, Event, Lock, current_time, lowlevel, sleep, to_thread
from attrs import define, field

from .._errors import StoreError, StoreLost, StoreUnavailable
from .._protocol import (
    Execute,
    Outcome,
    Outgoing,
    PromiseSearch,
    PutPromise,
    PutSchedule,
    PutTask,
    Request,
    Response,
    Rules,
    ScheduleSearch,
    Search,
    Searching,
    Step,
    Task,
    TaskSearch,
    TaskState,
    View,
    apply,
    next_due,
    recover,
    subject_of,
    tick,
    validate,
)
from ..abc import Clock, Store
from ._group_commit import Committed, GroupCommit, MakeSteps
from ._outage import Outage, TimeLimit
from ._redelivery import Redelivery
from ._router import Router
from ._timer import Timer

T = TypeVar("T")

logger: Final = logging.getLogger("resonate_anyio")

# Milliseconds after which a sweep that the store refused is tried again.
_RETRY_SWEEP_AFTER: Final = 1_000

# Seconds for which a store that cannot be opened now is tried again, and seconds between two attempts.
_OPENING: Final = 5.0
_OPENING_PAUSE: Final = 0.1

# Number of records that one sweep handles at most. The next sweep follows at once; between them the loop turns.
_RECORDS_PER_SWEEP: Final = 100

# Seconds between two sweeps of which the first has left something, so that what the first has started can run.
_BETWEEN_SWEEPS: Final = 0.005

# Number of records that a search looks at before the loop turns.
_RECORDS_PER_LOOK: Final = 250

_ANSWER_WITHIN: Final = 5.0
"""Seconds after which a request that the store cannot keep is refused: its sender may not wait longer."""


def _not_at_all() -> float:
    return 0


def _for_a_while() -> float:
    return _ANSWER_WITHIN


def _forever() -> float:
    return math.inf


@define(eq=False, repr=False)
class Engine:
    """A running embedded engine, made by `open_engine`.

    Attributes:
        rules: the server's rules that it follows.
        now: its clock.
        router: the mailboxes of its connections.
        holders: the names that take leases through this process. As long as a name is listed, sweeps renew its leases.
        watchers: functions that are called with every committed outcome, in the order of the commits.
        lost: the error that made the engine stop; None while it runs.
    """

    _store: Store
    rules: Rules
    now: Clock
    router: Router = field(init=False)
    holders: list[str] = field(init=False, factory=list)
    watchers: list[Callable[[Outcome], None]] = field(init=False, factory=list)
    lost: StoreLost | None = field(init=False, default=None)
    _timer: Timer = field(init=False)
    #: None for a store in which a transaction costs no more than its steps.
    _group_commit: GroupCommit | None = field(init=False)
    _redelivery: Redelivery = field(init=False, factory=Redelivery)
    _outage: Outage = field(init=False, factory=Outage)
    _sweeping: Lock = field(init=False, factory=Lock)
    _paused: Event | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._timer = Timer(self.now)
        shared = self._store.blocking or self._store.costly_transactions
        self._group_commit = GroupCommit(self._store) if shared else None
        # A worker that closes its mailbox is stopping: its requests wait for the store for a few seconds only.
        self.router = Router(self._outage.recheck_limits)

    async def request(
        self,
        request: Request,
        *,
        now: int | None = None,
        then: Callable[[int, Response], None] | None = None,
        limit: TimeLimit = _for_a_while,
        check: Callable[[], None] | None = None,
    ) -> Response:
        """Decide one request, write its changes, send its messages, and return its answer. This is a checkpoint.

        A cancellation is raised before the request has had any effect, or not by this method.

        Args:
            request: the request.
            now: the instant to decide it at, instead of the clock's.
            then: called with the instant and the answer, in the order in which requests took effect.
            limit: how long the request is retried while the store cannot be written. It can be cancelled meanwhile.
            check: called when the request is about to be decided. If it raises an error, the request has no effect.

        Raises:
            StoreUnavailable: the store could not be written in that time; the request had no effect.
            StoreLost: the store is gone, and the engine stops.
            StoreError: the store can never keep these changes.
        """
        if isinstance(request, PromiseSearch | TaskSearch | ScheduleSearch):
            return await self._search(request, now, then, check)

        at = 0

        def steps() -> Sequence[Step]:
            # Decided at the instant of the attempt that succeeds, however long the request has waited.
            nonlocal at
            if check is not None:
                check()

            at = self.now() if now is None else now
            return [partial(apply, now=at, request=request, rules=self.rules)]

        def committed(outcomes: Sequence[Outcome]) -> None:
            self._committed(outcomes)
            if then is not None:
                then(at, outcomes[0].response)

        try:
            [outcome] = await self._write(steps, committed, limit, in_turn=True)
        except StoreUnavailable as error:
            raise StoreUnavailable(error.path, error.reason, request.kind, subject_of(request)) from error

        return outcome.response

    async def read(self, query: Callable[[View], T]) -> T:
        """Return the answer of `query` to the present state. It must not keep the view that it is called with.

        Raises:
            StoreLost: the store is gone, and the engine stops.
            StoreError: the state could not be read.
        """
        self._check_not_lost()
        try:
            return self._store.read(query) if self._group_commit is None else await self._group_commit.read(query)
        except StoreLost as error:
            self._lose(error)
            raise

    async def check_writable(self) -> None:
        """Check that the store can be written.

        Raises:
            StoreError: it cannot be written now.
        """
        await self._write(lambda: [_change_nothing], self._committed, _not_at_all)

    async def reset(self) -> None:
        """Delete all records and messages."""
        from .._protocol import reset  # noqa: PLC0415 - it comes with the JSON of requests

        await self._write(lambda: [reset], self._committed, _for_a_while)
        self.router.forget()

    def end(self) -> None:
        """Refuse the requests that still wait for the store, which is about to be closed."""
        self._outage.stop()

    def pause(self) -> None:
        """Stop the timers, and make messages wait, until `resume` is called."""
        self._paused = self._paused or Event()
        self.router.hold()

    def resume(self) -> None:
        """Continue after `pause`. What fell due meanwhile happens now."""
        if self._paused is not None:
            self._paused.set()
            self._paused = None
            self.router.release()

    async def recover(self) -> None:
        """Release every lease and send every task that can run: the processes that held the leases are dead."""
        cursor: str | None = None
        while True:
            step = partial(self._recovery, cursor)
            cursor = await self._write_and_arm(step, _for_a_while)
            if cursor is None:
                return

            await lowlevel.checkpoint()

    async def sweep(self, now: int | None = None, *, limit: TimeLimit = _for_a_while) -> None:
        """Do everything that is due at the instant `now`; by default, a part of what is due at the present instant."""

        def step() -> Step:
            at, most = (self.now(), _RECORDS_PER_SWEEP) if now is None else (now, None)
            return partial(tick, now=at, rules=self.rules, renew=frozenset(self.holders), limit=most)

        await self._write_and_arm(step, limit)

    async def keep_time(self, safety_sweep: float) -> None:
        """Sweep whenever something is due, and every `safety_sweep` seconds because clocks may jump.

        Raises:
            StoreLost: the store is gone.
        """
        # Every connection calls this, and one at a time runs. When it goes, the next takes over.
        async with self._sweeping:
            while True:
                await self._timer.wait(safety_sweep)
                self._check_not_lost()
                if self._paused is not None:
                    await self._paused.wait()
                    continue

                await self._try_sweep()
                if self._timer.due:
                    await sleep(_BETWEEN_SWEEPS)
                else:
                    await lowlevel.checkpoint()

    async def _try_sweep(self) -> None:
        try:
            await self.sweep(limit=_forever)
        except StoreLost:
            raise
        except StoreError:
            logger.exception("the sweep for timers failed and is tried again")
            self._timer.earlier(self.now() + _RETRY_SWEEP_AFTER)

    def _recovery(self, cursor: str | None) -> Step:
        return partial(recover, now=self.now(), rules=self.rules, cursor=cursor, limit=_RECORDS_PER_SWEEP)

    async def _search(
        self,
        request: Search,
        now: int | None,
        then: Callable[[int, Response], None] | None,
        check: Callable[[], None] | None,
    ) -> Response:
        """Answer a search by several reads, so that a long search does not occupy the loop."""
        await lowlevel.checkpoint()
        if check is not None:
            check()

        at = self.now() if now is None else now
        wrong = validate(request, self.rules)
        if wrong is None:
            searching = Searching(request, _RECORDS_PER_LOOK)
            while not await self.read(searching.look):
                await lowlevel.checkpoint()

            response = searching.response()
        else:
            response = Response(status=400, error=wrong)

        if then is not None:
            then(at, response)

        return response

    async def _write(
        self, make: MakeSteps, committed: Committed, limit: TimeLimit, *, in_turn: bool = False
    ) -> Sequence[Outcome]:
        """Run steps in one transaction. `make` makes them anew for each attempt while the store is unavailable.

        Args:
            make: makes the steps.
            committed: is called with their outcomes.
            limit: how long it is tried.
            in_turn: whether the transaction begins after a checkpoint, so that concurrent requests can share it.
        """
        attempt = partial(self._transact, make, committed, in_turn=in_turn)
        try:
            outcomes = await attempt()
        except StoreUnavailable as error:
            outcomes = await self._outage.retry(attempt, error, limit)

        if self._outage.began is not None:
            self._outage.note_success(outcomes)

        return outcomes

    async def _transact(self, make: MakeSteps, committed: Committed, *, in_turn: bool) -> Sequence[Outcome]:
        self._check_not_lost()
        group = self._group_commit
        try:
            if group is not None:
                return await (group.commit if in_turn else group.commit_now)(make, committed)

            if in_turn:
                await lowlevel.checkpoint()

            outcomes = self._store.transact(make())
        except StoreLost as error:
            self._lose(error)
            raise

        committed(outcomes)
        return outcomes

    async def _write_and_arm(self, step: Callable[[], Step], limit: TimeLimit) -> str | None:
        """Run a step, set the timer to the next instant at which something is due, and return the answer's cursor."""
        upcoming = _Query(partial(next_due, rules=self.rules))
        # Cleared before the commit and not after it: requests that are committed meanwhile may be due earlier.
        self._timer.clear()
        [outcome, _] = await self._write(lambda: [step(), upcoming], self._committed, limit)
        self._timer.earlier(upcoming.answer)
        self.router.deliver_due(self.now())
        self._timer.earlier(self.router.next_due())
        return outcome.response.cursor

    def _committed(self, outcomes: Sequence[Outcome]) -> None:
        """Set the timer and send the messages of committed outcomes."""
        for outcome in outcomes:
            # The earliest instant at which something may be due. Too early does no harm.
            earliest = self._timer.instant
            for change in outcome.changes:
                match change:
                    case PutPromise(promise) if promise.pending:
                        due: int | None = promise.timeout_at
                    case PutTask(task):
                        self._note_progress(task)
                        due = task.due_at
                    case PutSchedule(schedule):
                        due = schedule.next_run_at
                    case _:
                        continue

                if due is not None and due < earliest:
                    self._timer.earlier(due)
                    earliest = due

            if outcome.messages:
                self._send(outcome.messages)

            for watch in self.watchers:
                watch(outcome)

    def _note_progress(self, task: Task) -> None:
        if task.state is not TaskState.PENDING:
            self.router.withdraw(task.id)
            if task.state is not TaskState.ACQUIRED:
                self._redelivery.reset(task.id)

    def _send(self, messages: Sequence[Outgoing]) -> None:
        """Deliver messages now; deliver `execute` messages of tasks that are returned again and again later."""
        at_once: list[Outgoing] = []
        for outgoing in messages:
            if outgoing.given_back and isinstance(outgoing.message, Execute):
                now = self.now()
                due = self._redelivery.next_delivery(outgoing.message.task_id, now)
                if due > now:
                    self.router.delay(outgoing, due)
                    self._timer.earlier(due)
                    continue

            at_once.append(outgoing)

        self.router.deliver(at_once)

    def _check_not_lost(self) -> None:
        if self.lost is not None:
            raise StoreLost(*self.lost.args)

    def _lose(self, error: StoreLost) -> None:
        if self.lost is None:
            self.lost = error
            # This wakes `keep_time`, which raises the error and so ends all connections.
            self._timer.earlier(0)


@define(eq=False, repr=False)
class _Query(Generic[T]):
    """A step that changes nothing and keeps the answer of a query."""

    _query: Callable[[View], T]
    answer: T = field(init=False)

    def __call__(self, view: View) -> Outcome:
        self.answer = self._query(view)
        return Outcome(response=Response(status=200))


def _change_nothing(_: View) -> Outcome:
    return Outcome(response=Response(status=200))


async def open_engine(store: Store, rules: Rules, clock: Clock, *, keep_leases: bool) -> Engine:
    """Open the store and start an engine on it.

    Raises:
        StoreError: the store cannot be opened, or not be written.
    """
    await _open(store)
    engine = Engine(store, rules, clock)
    try:
        await (engine.sweep() if keep_leases else engine.recover())
    except BaseException:
        await close_store(store)
        raise

    return engine


async def close_store(store: Store) -> None:
    """Close the store, also if the caller is cancelled."""
    with CancelScope(shield=True):
        await _run(store, store.close)


async def _open(store: Store) -> None:
    deadline = current_time() + _OPENING
    while True:
        try:
            return await _run(store, store.open)
        except StoreUnavailable:
            if current_time() >= deadline:
                raise

        await sleep(_OPENING_PAUSE)


async def _run(store: Store, function: Callable[[], None]) -> None:
    if store.slow_to_open:
        await to_thread.run_sync(function)
    else:
        function()
