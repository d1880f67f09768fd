"""The engine of one process: the state machine, a store, timers, and the messages' way to the connections."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from anyio import CancelScope, Event, Lock, current_time, lowlevel, sleep, to_thread
from attrs import define, field

from .._errors import StoreError, StoreLost, StoreUnavailable
from .._protocol import (
    Change,
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
    TaskSearch,
    TaskState,
    View,
    apply,
    next_due,
    recover,
    reset,
    tick,
    validate,
)
from ..abc import Clock, Store
from ..networks._exchange import subject_of
from ._brake import Brake
from ._outage import Outage, Patience
from ._router import Router
from ._timer import Timer
from ._writers import DirectWriter, GroupWriter, Writer

T = TypeVar("T")

_logger: Final = logging.getLogger("resonate_anyio")

# How soon a sweep is tried again that the store refused, in milliseconds.
_TRY_AGAIN: Final = 1_000

# How long a store is tried that cannot be opened now, in seconds, and how often.
_OPENING: Final = 5.0
_OPENING_PAUSE: Final = 0.1

# How many records of each sort one sweep sees to. The next follows at once; between them the loop turns.
_A_SWEEP: Final = 100

# Pause between two sweeps of which the first has left something, in seconds: what it has set off is to get on.
_BETWEEN_SWEEPS: Final = 0.005

# How many records a search looks at before the loop turns.
_A_LOOK: Final = 250

_ANSWER_WITHIN: Final = 5.0
"""Seconds after which a request is refused that the store cannot keep: its sender may not wait for it any longer."""


def _not_at_all() -> float:
    return 0


def _a_while() -> float:
    return _ANSWER_WITHIN


def _for_ever() -> float:
    return math.inf


@define
class Engine:
    """A running engine, made by `open_engine`."""

    _store: Store
    rules: Rules
    now: Clock
    router: Router = field(init=False, factory=Router)
    #: Who takes leases through this process: as long as they are here, their leases are renewed by the sweep.
    holders: list[str] = field(init=False, factory=list)
    #: Called with everything that was committed, in that order.
    watchers: list[Callable[[Outcome], None]] = field(init=False, factory=list)
    _timer: Timer = field(init=False)
    _writer: Writer = field(init=False)
    _brake: Brake = field(init=False, factory=Brake)
    _sweeping: Lock = field(init=False, factory=Lock)
    _paused: Event | None = field(init=False, default=None)
    _outage: Outage = field(init=False, factory=Outage)
    #: Why the engine stops, if it does by itself: what it stands on is gone.
    lost: StoreLost | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        writer = GroupWriter if self._store.blocking else DirectWriter
        self._timer = Timer(self.now)
        self._writer = writer(self._store)
        # A worker that closes its mailbox is stopping: its requests wait for the store for a few seconds only.
        self.router.on_leave = self._outage.stir

    async def request(
        self,
        request: Request,
        *,
        now: int | None = None,
        then: Callable[[int, Response], None] | None = None,
        patience: Patience = _a_while,
    ) -> Response:
        """Decide one request; effect and answer are one.

        Args:
            request: what is asked for.
            now: the instant to decide it at, instead of the clock's.
            then: called with the instant and the answer, in the order in which requests took effect.
            patience: how long it waits while the store cannot be written. It can be cancelled meanwhile.

        Raises:
            StoreUnavailable: the store could not be written in that time; the request had no effect.
            StoreLost: the store is gone, and the engine stops.
            StoreError: the store can never keep what the request asks for.
        """
        if isinstance(request, PromiseSearch | TaskSearch | ScheduleSearch):
            return await self._search(request, now, then)

        at = 0

        def steps() -> Sequence[Step]:
            # Decided at the instant at which it takes effect, however long it has waited.
            nonlocal at
            at = self.now() if now is None else now
            return [partial(apply, now=at, request=request, rules=self.rules)]

        def committed(outcomes: Sequence[Outcome]) -> None:
            self._committed(outcomes)
            if then is not None:
                then(at, outcomes[0].response)

        try:
            [outcome] = await self._write(steps, committed, patience)
        except StoreUnavailable as error:
            raise StoreUnavailable(error.path, error.reason, request.kind, subject_of(request)) from error

        return outcome.response

    async def _write(
        self, steps: Callable[[], Sequence[Step]], then: Callable[[Sequence[Outcome]], None], patience: Patience
    ) -> Sequence[Outcome]:
        """Take the steps in one transaction, which are made anew for each attempt while the store is unavailable."""

        async def attempt() -> Sequence[Outcome]:
            if self.lost is not None:
                raise StoreLost(*self.lost.args)

            return await self._writer.write(steps(), then)

        try:
            return await self._outage.outlast(attempt, patience)
        except StoreLost as error:
            if self.lost is None:
                self.lost = error
                # This wakes `keep_time`, which raises the error and so ends all connections.
                self._timer.earlier(0)
            raise

    async def _search(self, request: Search, now: int | None, then: Callable[[int, Response], None] | None) -> Response:
        """Answer a search from several looks at the state, so that a long one does not hold up the loop."""
        at = self.now() if now is None else now
        wrong = validate(request, self.rules)
        response = Response(status=400, error=wrong) if wrong else await self._searched(Searching(request, _A_LOOK))
        if then is not None:
            then(at, response)

        return response

    async def _searched(self, searching: Searching) -> Response:
        while not await self._writer.read(searching.look):
            await lowlevel.checkpoint()

        return searching.response()

    def end(self) -> None:
        """Refuse what still waits for the store, which is about to be closed."""
        self._outage.give_up()

    async def look(self, query: Callable[[View], T]) -> T:
        """Give the answer of `query` to the present state, which it must not keep."""
        look = _Look(query)
        await self._write(lambda: [look], self._committed, _not_at_all)
        return look.found

    async def reset(self) -> None:
        """Delete everything, messages too."""
        await self._write(lambda: [reset], self._committed, _a_while)
        self.router.forget()

    def pause(self) -> None:
        """Do nothing by itself from now on: nothing that falls due happens, and messages wait."""
        self._paused = self._paused or Event()
        self.router.hold()

    def resume(self) -> None:
        """Go on after `pause`. What fell due meanwhile happens now."""
        if self._paused is not None:
            self._paused.set()
            self._paused = None
            self.router.release()

    async def recover(self) -> None:
        """Free every lease and send for everything that can run: those who held the leases are dead."""
        cursor: str | None = None
        while True:
            step = partial(self._recovery, cursor)
            cursor = await self._write_and_look(step, _a_while)
            if cursor is None:
                return

            await lowlevel.checkpoint()

    def _recovery(self, cursor: str | None) -> Step:
        return partial(recover, now=self.now(), rules=self.rules, cursor=cursor, limit=_A_SWEEP)

    async def sweep(self, now: int | None = None, *, patience: Patience = _a_while) -> None:
        """Do everything that is due at the given instant; or a part of what is due now, and arm the timer again."""

        def step() -> Step:
            at, limit = (self.now(), _A_SWEEP) if now is None else (now, None)
            return partial(tick, now=at, rules=self.rules, renew=frozenset(self.holders), limit=limit)

        await self._write_and_look(step, patience)

    async def keep_time(self, safety_sweep: float) -> None:
        """Sweep whenever something is due, and every `safety_sweep` seconds because clocks may jump.

        Raises:
            StoreLost: the store is gone.
        """
        # One of several connections is enough; if it goes, the next takes over.
        async with self._sweeping:
            while True:
                await self._timer.wait(safety_sweep)
                if self.lost is not None:
                    raise StoreLost(*self.lost.args)

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
            await self.sweep(patience=_for_ever)
        except StoreLost:
            raise
        except StoreError:
            _logger.exception("the sweep for timers failed and is tried again")
            self._timer.earlier(self.now() + _TRY_AGAIN)

    async def _write_and_look(self, step: Callable[[], Step], patience: Patience) -> str | None:
        """Take a step and look when the next sweep is due. Returns the cursor that the step was answered with."""
        look = _Look(partial(next_due, rules=self.rules))
        # Cleared before and not after: what is committed meanwhile may be due earlier than what the look finds.
        self._timer.clear()
        [outcome, _] = await self._write(lambda: [step(), look], self._committed, patience)
        self._timer.earlier(look.found)
        self.router.deliver_due(self.now())
        self._timer.earlier(self.router.next_due())
        return outcome.response.cursor

    def _committed(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._timer.earlier(min(_instants(outcome.changes), default=None))
            if len(self._brake):
                self._note_progress(outcome.changes)
            self.router.deliver(self._to_send_now(outcome.messages))
            for watch in self.watchers:
                watch(outcome)

    def _note_progress(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, PutTask) and change.task.state is not TaskState.PENDING:
                self.router.withdraw(change.task.id)
                if change.task.state is not TaskState.ACQUIRED:
                    self._brake.forget(change.task.id)

    def _to_send_now(self, messages: Sequence[Outgoing]) -> Sequence[Outgoing]:
        """Give what is to be sent at once; what is not is sent later."""
        if not any(outgoing.given_back for outgoing in messages):
            return messages

        now = self.now()
        return [outgoing for outgoing in messages if not (outgoing.given_back and self._is_paused(outgoing, now))]

    def _is_paused(self, outgoing: Outgoing, now: int) -> bool:
        assert isinstance(outgoing.message, Execute)
        due = self._brake.due(outgoing.message.task_id, now)
        if due <= now:
            return False

        self.router.pause(outgoing, due)
        self._timer.earlier(due)
        return True


@define
class _Look(Generic[T]):
    """A step that changes nothing and remembers what it saw."""

    _query: Callable[[View], T]
    found: T = field(init=False)

    def __call__(self, view: View) -> Outcome:
        self.found = self._query(view)
        return Outcome(response=Response(status=200))


def _instants(changes: Sequence[Change]) -> Iterator[int]:
    """Give the instants at which something may be due that was not before. Too many do no harm."""
    for change in changes:
        match change:
            case PutPromise(promise) if promise.pending:
                yield promise.timeout_at
            case PutTask(task) if task.due_at is not None:
                yield task.due_at
            case PutSchedule(schedule):
                yield schedule.next_run_at
            case _:
                pass


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
    """Close the store, whatever happens meanwhile."""
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
