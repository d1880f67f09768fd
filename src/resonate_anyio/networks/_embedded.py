"""The engine of one process: the state machine, a store, timers, and the messages' way to the connections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from anyio import CancelScope, Event, Lock, lowlevel, to_thread
from attrs import define, field

from .._errors import StoreError
from .._protocol import (
    Change,
    Outcome,
    PutPromise,
    PutSchedule,
    PutTask,
    Request,
    Response,
    Rules,
    Step,
    View,
    apply,
    next_due,
    recover,
    reset,
    tick,
)
from ..abc import Clock, Store
from ._router import Router
from ._timer import Timer
from ._writers import DirectWriter, GroupWriter, Writer

T = TypeVar("T")

_logger: Final = logging.getLogger("resonate_anyio")

# How soon a sweep is tried again that the store refused, in milliseconds.
_TRY_AGAIN: Final = 1_000


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
    _sweeping: Lock = field(init=False, factory=Lock)
    _paused: Event | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        writer = GroupWriter if self._store.blocking else DirectWriter
        self._timer = Timer(self.now)
        self._writer = writer(self._store)

    async def request(
        self, request: Request, *, now: int | None = None, then: Callable[[int, Response], None] | None = None
    ) -> Response:
        """Decide one request; effect and answer are one.

        Args:
            request: what is asked for.
            now: the instant to decide it at, instead of the clock's.
            then: called with the instant and the answer, in the order in which requests took effect.
        """
        at = self.now() if now is None else now

        def committed(outcomes: Sequence[Outcome]) -> None:
            self._committed(outcomes)
            if then is not None:
                then(at, outcomes[0].response)

        [outcome] = await self._writer.write([partial(apply, now=at, request=request, rules=self.rules)], committed)
        return outcome.response

    async def look(self, query: Callable[[View], T]) -> T:
        """Give the answer of `query` to the present state, which it must not keep."""
        look = _Look(query)
        await self._writer.write([look], self._committed)
        return look.found

    async def reset(self) -> None:
        """Delete everything, messages too."""
        await self._writer.write([reset], self._committed)
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
        await self._write_and_look(partial(recover, now=self.now(), rules=self.rules))

    async def sweep(self, now: int | None = None) -> None:
        """Do everything that is due, now or at the given instant."""
        at = self.now() if now is None else now
        await self._write_and_look(partial(tick, now=at, rules=self.rules, renew=frozenset(self.holders)))

    async def keep_time(self, safety_sweep: float) -> None:
        """Sweep whenever something is due, and every `safety_sweep` seconds because clocks may jump."""
        # One of several connections is enough; if it goes, the next takes over.
        async with self._sweeping:
            while True:
                await self._timer.wait(safety_sweep)
                if self._paused is None:
                    await self._try_sweep()
                else:
                    await self._paused.wait()

                await lowlevel.checkpoint()

    async def _try_sweep(self) -> None:
        try:
            await self.sweep()
        except StoreError:
            _logger.exception("the sweep for timers failed and is tried again")
            self._timer.earlier(self.now() + _TRY_AGAIN)

    async def _write_and_look(self, step: Step) -> None:
        look = _Look(partial(next_due, rules=self.rules))
        # Cleared before and not after: what is committed meanwhile may be due earlier than what the look finds.
        self._timer.clear()
        await self._writer.write([step, look], self._committed)
        self._timer.earlier(look.found)

    def _committed(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._timer.earlier(min(_instants(outcome.changes), default=None))
            self.router.deliver(outcome.messages)
            for watch in self.watchers:
                watch(outcome)


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
    await _run(store, store.open)
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


async def _run(store: Store, function: Callable[[], None]) -> None:
    if store.blocking:
        await to_thread.run_sync(function)
    else:
        function()
