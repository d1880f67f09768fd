"""The engine of one process: the state machine, a store, timers, and the messages' way to the connections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from anyio import CancelScope, Lock, lowlevel, to_thread
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
    tick,
)
from ..abc import Clock, Store
from ._router import Router
from ._timer import Timer
from ._writers import DirectWriter, GroupWriter, Writer

_logger: Final = logging.getLogger("resonate_anyio")

# How soon a sweep is tried again that the store refused, in milliseconds.
_TRY_AGAIN: Final = 1_000


@define
class Engine:
    """A running engine, made by `open_engine`."""

    _store: Store
    _rules: Rules
    now: Clock
    router: Router = field(init=False, factory=Router)
    #: Who takes leases through this process: as long as they are here, their leases are renewed by the sweep.
    holders: list[str] = field(init=False, factory=list)
    _timer: Timer = field(init=False)
    _writer: Writer = field(init=False)
    _sweeping: Lock = field(init=False, factory=Lock)

    def __attrs_post_init__(self) -> None:
        writer = GroupWriter if self._store.blocking else DirectWriter
        self._timer = Timer(self.now)
        self._writer = writer(self._store, self._committed)

    async def request(self, request: Request) -> Response:
        """Decide one request; effect and answer are one."""
        step = partial(apply, now=self.now(), request=request, rules=self._rules)
        [outcome] = await self._writer.write([step])
        return outcome.response

    async def recover(self) -> None:
        """Free every lease and send for everything that can run: those who held the leases are dead."""
        await self._write_and_look(partial(recover, now=self.now(), rules=self._rules))

    async def sweep(self) -> None:
        """Do everything that is due."""
        holders = frozenset(self.holders)
        await self._write_and_look(partial(tick, now=self.now(), rules=self._rules, renew=holders))

    async def keep_time(self, safety_sweep: float) -> None:
        """Sweep whenever something is due, and every `safety_sweep` seconds because clocks may jump."""
        # One of several connections is enough; if it goes, the next takes over.
        async with self._sweeping:
            while True:
                await self._timer.wait(safety_sweep)
                await self._try_sweep()
                await lowlevel.checkpoint()

    async def _try_sweep(self) -> None:
        try:
            await self.sweep()
        except StoreError:
            _logger.exception("the sweep for timers failed and is tried again")
            self._timer.earlier(self.now() + _TRY_AGAIN)

    async def _write_and_look(self, step: Step) -> None:
        look = _Look(self._rules)
        # Cleared before and not after: what is committed meanwhile may be due earlier than what the look finds.
        self._timer.clear()
        await self._writer.write([step, look])
        self._timer.earlier(look.due)

    def _committed(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._timer.earlier(min(_instants(outcome.changes), default=None))
            self.router.deliver(outcome.messages)


@define
class _Look:
    """A step that changes nothing and remembers what is due next."""

    _rules: Rules
    due: int | None = field(init=False, default=None)

    def __call__(self, view: View) -> Outcome:
        self.due = next_due(view, self._rules)
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
