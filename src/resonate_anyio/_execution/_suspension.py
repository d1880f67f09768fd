"""`Suspension`: how one execution gives its task back to the server and keeps its coroutines in memory.

An execution that waits is *hot* at first: its task is leased. When it is blocked as a whole for a while, its task is
suspended on what it waits for, and the execution is *parked*: it has no lease, and what is in memory is a cache. It is
continued by acquiring the task at the version that it was suspended at, and by nothing else: then nobody else has run
it meanwhile, and the function goes on where it was, without a replay. Anything else drops it, with nothing written.

From the decision to suspend until it is hot again nothing is delivered to the code and no durable call starts. Code
that goes on by itself (a deadline, a message) waits at this gate and thereby asks for the task to be taken back.

Every suspend also waits for one *wake* promise, which nobody else settles: the process settles it to wake its own task,
and its deadline wakes the task when a deadline of the code has come and the process is gone. No wake outlives its root.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, Event, move_on_after
from attrs import define, field

from .._errors import ResonateError
from .._ids import below
from .._protocol import (
    EMPTY,
    Promise,
    PromiseCreate,
    PromiseSettle,
    PromiseState,
    Request,
    Response,
    TaskAcquire,
    TaskGet,
    TaskHeartbeat,
    TaskRecord,
    TaskRef,
    TaskState,
    TaskSuspend,
)
from .._workflow._host import Drop
from . import _log
from ._services import Event as Report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ._execution import Execution

logger = logging.getLogger("resonate_anyio")

_FIRST_LOOK: Final = 0.5
_UNBLOCK_PATIENCE: Final = 0.3
"""Seconds that the message may take which says what had settled when a suspend was refused."""


class Phase(Enum):
    """Where an execution stands between memory and server."""

    HOT = "hot"
    """Its task is leased."""
    SUSPENDING = "suspending"
    """Its task is being suspended, or the answer to that is awaited."""
    PARKED = "parked"
    """Its task is suspended."""
    RESUMING = "resuming"
    """Its task is being taken back."""
    DOUBTED = "doubted"
    """Its lease may have lapsed, and the server is being asked. What runs goes on, and nothing begins."""


def without_wakes(start: str, records: Iterable[Promise]) -> tuple[list[str], list[Promise]]:
    """The pending wake promises that earlier holders of a root have left, and the records that are of calls.

    Args:
        start: what ids below the root begin with.
        records: all of them.
    """
    start += "~wake-"
    wakes: list[str] = []
    calls: list[Promise] = []
    for record in records:
        if not record.id.startswith(start):
            calls.append(record)
        elif record.pending:
            wakes.append(record.id)
    return wakes, calls


@define(eq=False)
class Suspension:
    """See the module's docstring.

    Attributes:
        phase: where the execution stands.
        wakes: the wake promises that are to be settled before the root is.
    """

    _execution: Execution
    phase: Phase = field(default=Phase.HOT, init=False)
    wakes: list[str] = field(factory=list, init=False)
    _awaited: list[str] = field(factory=list, init=False)
    _wanted: bool = field(default=False, init=False)
    _called: Event = field(factory=Event, init=False)
    _movers: list[Event] = field(factory=list, init=False)
    _operation: CancelScope = field(factory=CancelScope, init=False)
    _turn: int = field(default=0, init=False)
    _made: int = field(default=0, init=False)
    _asking: bool = field(default=False, init=False)
    _operating: bool = field(default=False, init=False)
    _taken: bool = field(default=False, init=False)

    @property
    def hot(self) -> bool:
        return self.phase is Phase.HOT

    @property
    def moving(self) -> bool:
        """Whether a request is under way that decides about the lease."""
        return self.phase in {Phase.SUSPENDING, Phase.RESUMING, Phase.DOUBTED}

    @property
    def in_memory_only(self) -> bool:
        """Whether the task is given back, or may be."""
        return self.phase not in {Phase.HOT, Phase.DOUBTED}

    def next_move(self) -> Event:
        """Is set at the next change of the phase. Each who waits has one of its own, which others may set as well."""
        self._movers.append(Event())
        return self._movers[-1]

    @property
    def _changes_hands(self) -> bool:
        """Whether the task is being given back or taken."""
        return self.phase in {Phase.SUSPENDING, Phase.RESUMING}

    async def at_rest(self) -> None:
        """Wait while the task is being given back or taken."""
        while self._changes_hands:
            await self.next_move().wait()

    def forget_unbegun(self) -> None:
        """If the task that is to do that has not begun by now, because of an interrupt, it never does."""
        if self._changes_hands and not self._operating:
            self._stay_hot()

    def give_up(self) -> None:
        """Stop asking for that: the worker has waited long enough."""
        if self._changes_hands:
            self._operation.cancel()

    def dropped(self) -> None:
        """The execution is put away: whose its task is does not matter any more."""
        if self.phase is Phase.DOUBTED:
            self._operation.cancel()

    def _move(self, phase: Phase) -> None:
        self.phase = phase
        movers, self._movers = self._movers, []
        for moved in movers:
            moved.set()

    def _begin(self, phase: Phase, func: Callable[..., Awaitable[None]], *args: object) -> None:
        self._wanted = False
        self._taken = False
        self._operating = False
        self._called = Event()
        self._turn += 1
        self._operation = CancelScope()
        self._move(phase)
        name = f"resonate {phase.value} {self._execution.id}"
        self._execution.services.background(self._operate, func, self._turn, *args, name=name)

    async def _operate(self, func: Callable[..., Awaitable[None]], turn: int, *args: object) -> None:
        try:
            self._operating = self._operating or turn == self._turn
            with self._operation:
                await func(turn, *args)
        finally:
            # It was given up, or has failed: the lease may be ours, and giving back one that is not does no harm.
            if turn == self._turn and self.moving:
                self._stay_hot()

    def _is_over(self, turn: int) -> bool:
        """Whether an operation has become void: another request has got the lease, or nobody wants it any more."""
        return turn != self._turn or not self.moving or self._execution.dropped is not None

    def _stay_hot(self) -> None:
        if self.phase is Phase.RESUMING and not self._taken:
            # If it was taken back after all, then at this version.
            self._execution.version += 1
        self._move(Phase.HOT)
        self._execution.services.report(Report.NOT_PARKED, self._execution)

    # What others say

    def want(self) -> None:
        """Code is at the gate: take the task back."""
        self._wanted = True
        self._called.set()
        if self.phase is Phase.PARKED and not self._execution.services.draining and self._execution.dropped is None:
            self._execution.services.report(Report.RESUMING, self._execution)
            self._begin(Phase.RESUMING, self._resume)

    def told(self, version: int) -> bool:
        """A message says that the task can be acquired at `version`. Returns whether this execution sees to it.

        Otherwise somebody has to acquire it who begins anew, after this execution has ended.
        """
        execution = self._execution
        if execution.dropped is not None:
            return False
        if version == execution.version and not self.hot:
            self.want()
        elif version >= execution.version and not self._asking:
            self._asking = True
            execution.services.background(self._heard_otherwise, name=f"resonate doubt {execution.id}")
        return True

    async def _heard_otherwise(self) -> None:
        """If it is true that the task can be acquired, this execution does not hold it any more."""
        try:
            await self._ask_whose_it_is()
        finally:
            self._asking = False

    async def _ask_whose_it_is(self) -> None:
        execution = self._execution
        response = await execution.services.requester.request_until_answered(TaskGet(id=execution.id))
        await self.at_rest()
        task = None if response is None else response.task
        if task is None or execution.services.is_mine(task, execution.version):
            return
        if task.state is TaskState.PENDING and task.version > execution.version:
            execution.drop(Drop.LOST)
            execution.services.acquire(execution.id, task.version)
        else:
            self.doubt()

    # The lease

    def doubt(self) -> None:
        """Let nothing begin until the server has said who holds the task."""
        if self.hot and self._execution.dropped is None:
            self._begin(Phase.DOUBTED, self._regain)

    async def _regain(self, turn: int) -> None:
        """Find out who holds the task. If that is nobody, take it back."""
        execution = self._execution
        backoff = execution.services.subscriptions.backoff(_FIRST_LOOK)
        found = await self._look_who_holds()
        while found is None and not self._is_over(turn):
            # Also while the worker stops: what still runs may have something to record.
            with move_on_after(backoff.next()):
                await self.next_move().wait()
            found = await self._look_who_holds()
        asked, task = found or (0.0, None)
        if self._is_over(turn):
            return
        if execution.services.is_mine(task, execution.version):
            execution.lease.grant(execution.version, asked)
            self._move(Phase.HOT)
        elif task is not None and task.state is TaskState.PENDING and task.version == execution.version:
            logger.info("execution.lease_lapsed id=%s version=%d: it is taken again", execution.id, execution.version)
            self._awaited = []
            self._move(Phase.RESUMING)
            await self._resume(turn)
        else:
            execution.drop(Drop.LOST)

    async def _look_who_holds(self) -> tuple[float, TaskRecord | None] | None:
        """Since when the answer holds, and the task. None if there is no answer."""
        execution = self._execution
        asked, ref = execution.services.connection.elapsed(), TaskRef(execution.id, execution.version)
        beat = await self._ask(TaskHeartbeat(pid=execution.services.identity.holder, tasks=(ref,)))
        if beat is None or beat.status != 200:
            return None
        response = await self._ask(TaskGet(id=execution.id))
        return (asked, response.task) if response is not None and response.status in {200, 404} else None

    def adopt(self, task: TaskRecord, preload: Iterable[Promise], sent: float) -> bool:
        """Another request of this worker has acquired the task. Returns whether this execution goes on with it."""
        execution = self._execution
        if execution.dropped is not None:
            return False
        if not self.in_memory_only:
            return task.version == execution.version
        if task.version != execution.version + 1:
            return False
        self._turn += 1
        self._hold(task.version, sent)
        self._heat(preload)
        return True

    # Suspending

    def suspend(self, wake_at: int) -> None:
        """Close the gate now, and suspend the task on what the execution waits for.

        Args:
            wake_at: the instant, in the server's milliseconds, at which the task is to wake in any case.
        """
        self._begin(Phase.SUSPENDING, self._suspend, wake_at)

    async def _suspend(self, turn: int, wake_at: int) -> None:
        execution = self._execution
        if not execution.lease.certain:
            # Whoever has it now may have settled the root, and a wake that is made then is settled by nobody.
            self._stay_hot()
            self.doubt()
            return
        wake = await self._make_wake(wake_at)
        if wake is None or self._wanted or self._is_over(turn):
            return
        self._awaited = [*execution.awaited, wake]
        request = TaskSuspend(
            id=execution.id,
            version=execution.version,
            awaited=tuple(self._awaited),
            awaiters=(execution.id,) * len(self._awaited),
        )
        response = await self._ask(request)
        if self._is_over(turn):
            return
        if response is None:
            await self._find_out(turn)
        elif response.status == 200:
            self._park()
        elif response.status == 300:
            self._stay_hot()
            execution.services.background(self._look_what_settled, name=f"resonate look {execution.id}")
        elif response.status in {404, 409}:
            execution.drop(Drop.LOST)

    async def _make_wake(self, wake_at: int) -> str | None:
        execution = self._execution
        self._made += 1
        # A second one for the same version has a name of its own: its deadline may be another.
        part = f"~wake-{execution.version}" + (f"-{self._made}" if self._made > 1 else "")
        id = f"{below(execution.id, execution.services.separator)}{part}"
        lineage = {"resonate:origin": execution.origin, "resonate:branch": id, "resonate:parent": execution.id}
        tags = {
            "resonate:timer": "true",
            "resonate:target": execution.facilities.nowhere,
            "resonate:scope": "global",
            **lineage,
        }
        create = PromiseCreate(id=id, timeout_at=wake_at, tags=tags)
        # Before the request: if its answer is lost, there is one to be settled all the same.
        self.wakes.append(id)
        response = await execution.services.timer_promises.create(self._ask, create)
        promise = None if response is None else response.promise
        return id if promise is not None and promise.pending else None

    def _park(self) -> None:
        execution = self._execution
        execution.lease.end()
        self._move(Phase.PARKED)
        _log.parked(execution)
        execution.services.report(Report.PARKED, execution)
        if self._wanted:
            self.want()

    async def _look_what_settled(self) -> None:
        """Something that is waited for has settled, and its message is on the way, or lost."""
        execution = self._execution
        with move_on_after(_UNBLOCK_PATIENCE):
            await self._called.wait()
        if execution.dropped is None and set(self._awaited[:-1]) <= execution.awaited:
            await execution.recheck()

    async def _find_out(self, turn: int) -> None:
        """The answer to the suspend was lost: the task itself tells what came of it."""
        execution = self._execution
        response = await execution.services.requester.request_until_answered(TaskGet(id=execution.id))
        if self._is_over(turn) or response is None:
            return
        task = response.task
        if task is None or task.version != execution.version:
            execution.drop(Drop.LOST)
        elif task.state in {TaskState.SUSPENDED, TaskState.PENDING}:
            self._wanted = self._wanted or task.state is TaskState.PENDING
            self._park()
        elif task.state is not TaskState.ACQUIRED or task.pid != execution.services.identity.holder:
            execution.drop(Drop.LOST)

    # Resuming

    async def _resume(self, turn: int) -> None:
        execution = self._execution
        for id in list(self.wakes):
            response = await execution.services.requester.request_until_answered(
                PromiseSettle(id=id, state=PromiseState.RESOLVED, value=EMPTY)
            )
            if response is None:
                return
            self.wakes.remove(id)
        acquired = await self._acquire()
        if turn != self._turn:
            return
        if acquired is None:
            if not execution.services.draining:
                execution.drop(Drop.LOST)
            return
        version, local, sent = acquired
        # At once, so that it is kept: what follows may take long.
        self._hold(version, sent)
        if set(self._awaited[:-1]) <= execution.awaited:
            # Nothing is known to have settled, but something may have, and its message may be lost.
            await execution.recheck()
        if not self._is_over(turn):
            self._heat(local)
        elif execution.dropped is not None:
            await self._let_go(version)

    async def _let_go(self, version: int) -> None:
        """The execution was dropped while its task was taken back for it."""
        await self._execution.ended.wait()
        await self._execution.services.release(self._execution.id, version)

    async def _acquire(self) -> tuple[int, tuple[Promise, ...], float] | None:
        """Take the task at the version that it was suspended at. None if that is refused."""
        worker, id, version = self._execution.services, self._execution.id, self._execution.version
        request = TaskAcquire(id=id, version=version, pid=worker.identity.holder, ttl=worker.ttl_ms)
        sent = worker.connection.elapsed()
        response = await worker.requester.request_until_answered(request)
        if response is not None and response.status == 200 and response.task is not None:
            return response.task.version, response.preload, sent
        # An earlier attempt may have taken it, and only its answer may be lost. It was not sent before `sent`.
        response = None if response is None else await worker.requester.request_until_answered(TaskGet(id=id))
        task = None if response is None else response.task
        return (version + 1, (), sent) if worker.is_mine(task, version + 1) else None

    def _hold(self, version: int, sent: float) -> None:
        self._taken = True
        self._execution.version = version
        self._execution.lease.grant(version, sent)

    def _heat(self, local: Iterable[Promise]) -> None:
        execution = self._execution
        self._made = 0
        self._move(Phase.HOT)
        _log.resumed(execution)
        for record in local:
            if not record.pending:
                execution.end_call(record.id)
        execution.services.report(Report.RESUMED, execution)

    async def _ask(self, request: Request) -> Response | None:
        """Send one request. None if it was not answered."""
        try:
            return await self._execution.services.connection.request(request)
        except ResonateError as exc:
            logger.warning("execution.not_parked id=%s kind=%s reason=%r", self._execution.id, request.kind, exc)
            return None
