"""`Acquisition`: how tasks come to a worker: sent for by a message, or started by a caller in this process.

Both end in a lease, or in nothing. An answer that grants one may be lost; what is recorded comes with it only, so a
task that is found to be held without being run is released and acquired once more. Where there is a limit on the
executions of a worker, what it is sent for beyond that waits in line: whoever of the group has room may take it.

Whatever is done about one task is done by one at a time, from the first request on: who holds a lease and has not begun
yet would look to another like an answer that was lost.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from anyio import CancelScope, Event, move_on_after
from anyio.lowlevel import checkpoint
from attrs import define, field

from .._errors import DecodeError, InvalidArgument, NetworkError, NotRegistered, RequestError, ResonateError
from .._execution._execution import Execution
from .._execution._lease import Lease
from .._execution._task_requests import without_wakes
from .._functions._arguments import bind
from .._history import History
from .._ids import below
from .._protocol import (
    Promise,
    PromiseCreate,
    PromiseSettle,
    Response,
    TaskAcquire,
    TaskCreate,
    TaskFulfill,
    TaskGet,
    TaskRecord,
    TaskState,
)
from .._requests._queries import MAY_NOT_SEARCH, get_promise, promise_of, refusal, scan
from .._requests._requester import unavailable
from .._workflow._host import Drop

if TYPE_CHECKING:
    from ._worker import Worker

logger = logging.getLogger("resonate_anyio")

_MOMENT = 1.0
_TAKEN = frozenset({409, 422})
_MOST_DECLINED = 1000
"""So many tasks are remembered that were given back for want of their function; the others come with a message."""


@define(eq=False)
class _Declined:
    """A task that was given back because its function is not registered.

    Attributes:
        name: the function.
        version: of the task.
        known: set when the function is registered.
        released: whether the task is not held any more.
    """

    name: str
    version: int
    known: Event = field(factory=Event, init=False)
    released: bool = field(default=False, init=False)


@define(eq=False)
class Acquisition:
    """See the module's docstring."""

    _worker: Worker
    _limit: float
    _claims: dict[str, Event] = field(factory=dict, init=False)
    _beginning: set[str] = field(factory=set, init=False)
    _line: dict[str, int] = field(factory=dict, init=False)
    _later: dict[str, int] = field(factory=dict, init=False)
    _declined: dict[str, _Declined] = field(factory=dict, init=False)

    @property
    def crowd(self) -> int:
        """How many tasks wait because there is no room for them."""
        return len(self._line)

    @property
    def _load(self) -> int:
        """How many executions are under way, or about to be."""
        return self._worker.residency.hot + len(self._beginning)

    def _claim(self, id: str) -> None:
        """From now on nobody else does anything about the task."""
        self._claims[id] = Event()
        if id not in self._worker.executions:
            self._beginning.add(id)

    def _unclaim(self, id: str) -> None:
        self._claims.pop(id).set()
        self._beginning.discard(id)
        if id in self._later:
            self.sent_for(id, self._later.pop(id))
        self.stir()

    # By a message

    def sent_for(self, id: str, version: int) -> None:
        """Somebody is to acquire the task `id` at `version`."""
        if id in self._claims:
            self._later[id] = max(version, self._later.get(id, 0))
        elif not self._told(id, version):
            self._line[id] = max(version, self._line.get(id, 0))
            self.stir()

    def _told(self, id: str, version: int) -> bool:
        """Whether an execution that is here sees to it. That takes no room, and does not wait in line."""
        execution = self._worker.executions.get(id)
        return execution is not None and execution.suspension.handle_execute(version)

    def stir(self) -> None:
        """Take what waits in line, if there is room."""
        while self._line and self._load < self._limit:
            id = next(iter(self._line))
            version = self._line.pop(id)
            # It may have begun since, because a caller has started it.
            if not self._told(id, version):
                self._claim(id)
                self._worker.background(self._take, id, version, name=f"resonate take {id}")
        if self._line:
            self._worker.residency.make_room()

    async def _take(self, id: str, version: int) -> None:
        """Acquire a task that a message told of, and run it."""
        try:
            if await self._vacated(id):
                # Meanwhile it may have been sent for again.
                await self._acquire(id, max(version, self._later.pop(id, version)))
        except Exception:
            logger.exception("task.take_failed id=%s", id)
            self._worker.background(self._look_for, id, name=f"resonate look for {id}")
        finally:
            self._unclaim(id)

    async def _look_for(self, id: str) -> None:
        await self._worker.leases.look_for(id, self._worker.executions.__contains__)

    async def _vacated(self, id: str) -> bool:
        """Wait until no code of an earlier run of `id` is here. False if that is because the worker stops."""
        if (execution := self._worker.executions.get(id)) is None:
            return True
        await execution.ended.wait()
        return not self._worker.draining

    async def _acquire(self, id: str, version: int) -> Execution | None:
        """Acquire a task and run it. None if somebody else has it, or it cannot be run here."""
        worker = self._worker
        backoff = worker.subscriptions.backoff()
        while not worker.draining:
            request = TaskAcquire(id=id, version=version, pid=worker.identity.holder, ttl=worker.ttl_ms)
            sent = worker.connection.elapsed()
            try:
                response = await worker.connection.request(request)
            except NetworkError as exc:
                failure: object = exc
            else:
                if response.status == 200:
                    return await self._accept(response, sent)
                failure = refusal(request, response) if unavailable(response) else None
            task = await self._available(id, doubtful=failure is not None)
            if task is None or (failure is None and task.version == version):
                return None
            version = task.version
            if failure is not None:
                logger.warning("task.acquire_unanswered id=%s retry_in=%.1f reason=%s", id, backoff.delay, failure)
                await backoff.pause()
        return None

    async def _available(self, id: str, *, doubtful: bool) -> TaskRecord | None:
        """The task, if nobody runs it: what this worker holds without knowing is released.

        Args:
            id: the task.
            doubtful: whether it is unknown what came of a request of this worker's. Else the network has to be one that
                may send a request twice, for the second answer to tell less than the first.
        """
        worker = self._worker
        if not doubtful and worker.connection.keeps_leases:
            return None
        response = await worker.requester.insist(TaskGet(id=id))
        task = None if response is None else response.task
        if task is None or id in worker.executions:
            return None
        if worker.leases.is_mine(task, task.version):
            await worker.leases.release(id, task.version)
            return task
        return task if doubtful and task.state is TaskState.PENDING else None

    # By a caller

    async def start(self, create: PromiseCreate) -> tuple[Promise, Execution | None]:
        """Start a root here, or join what has its id. Returns its record, and its execution if it runs here.

        Where there is no room it is sent for, like any other.
        """
        await checkpoint()
        worker = self._worker
        worker.subscriptions.check()
        if create.id in self._claims:
            # It is about to begin here, or that takes longer: because the server is away, say.
            with move_on_after(_MOMENT):
                await self._claims[create.id].wait()
            worker.subscriptions.check()
        if create.id in self._claims or self._load >= self._limit:
            return promise_of(create, await worker.ask(create), create.id), None
        self._claim(create.id)
        try:
            # Not to be cancelled between taking the lease and using it; and a worker that stops waits for that.
            with worker.joined(), CancelScope(shield=True):
                started = await self._start(create)
            return started  # noqa: RET504 - to a type checker, a scope may swallow the return
        finally:
            self._unclaim(create.id)

    async def _start(self, create: PromiseCreate) -> tuple[Promise, Execution | None]:
        worker = self._worker
        request = TaskCreate(pid=worker.identity.holder, ttl=worker.ttl_ms, action=create)
        try:
            answer = await worker.requester.persist(request)
            if answer.response.status not in _TAKEN:
                # The arguments are read back from the record, so that the first run sees what a replay would.
                promise = promise_of(request, answer.response, create.id)
                return promise, await self._accept(answer.response, answer.sent)
            promise = await get_promise(worker.ask, create.id)
            if promise.pending and create.id not in worker.executions:
                await self._take_back(create.id, lost=answer.again)
            return promise, worker.executions.get(create.id)
        except BaseException:
            # A cancellation of asyncio's own as well, which no shield holds up.
            worker.background(self._look_for, create.id, name=f"resonate look for {create.id}")
            raise

    async def _take_back(self, id: str, *, lost: bool) -> None:
        """Run a task that was made already, if it was this worker that did it and the answer was lost."""
        worker = self._worker
        if not lost and worker.connection.keeps_leases:
            return
        task = (await worker.ask(TaskGet(id=id))).task
        if task is not None and worker.leases.is_mine(task, task.version) and id not in worker.executions:
            await worker.leases.release(id, task.version)
            await self._acquire(id, task.version)

    # What was acquired

    async def _accept(self, response: Response, sent: float) -> Execution | None:
        """Run the task that was acquired. One that this program cannot run is handed back, and None returned.

        Args:
            response: the answer that granted the lease.
            sent: when the request was sent, by the clock of leases.
        """
        worker, task, promise = self._worker, response.task, response.promise
        assert task is not None
        assert promise is not None
        if task.state is not TaskState.ACQUIRED:
            return None
        if promise.timer:
            await self._drop_timer(task, promise)
            return None
        if (execution := worker.executions.get(task.id)) is not None:
            return await self._rejoin(execution, task, response.preload, sent)
        try:
            call = worker.codec.decode_call(promise.param)
            function = worker.registry.get(call.func, 1 if call.version is None else call.version)
            args, kwargs = bind(function, worker.codec, call)
        except (NotRegistered, DecodeError, InvalidArgument) as exc:
            worker.leases.idle[task.id] = task.version
            # Not at once: it would be sent here again immediately.
            worker.background(self._decline, task, exc, name=f"resonate decline {task.id}")
            return None
        lease = Lease(worker.leases, task.id)
        # Kept from now on: to read the history may take long.
        lease.grant(task.version, sent)
        worker.leases.idle[task.id] = task.version
        try:
            remote = await self._remote_history(task, len(response.preload))
        except BaseException:
            lease.end()
            raise
        if worker.draining:
            lease.end()
            await worker.leases.release(task.id, task.version)
            worker.leases.idle.pop(task.id, None)
            return None
        wakes, calls = without_wakes(below(task.id, worker.separator), remote or [])
        history = History.of(response.preload, None if remote is None else calls)
        execution = Execution.of(worker, lease, promise, (function, tuple(args), kwargs), history, wakes)
        self._beginning.discard(task.id)
        self._declined.pop(task.id, None)
        worker.leases.idle.pop(task.id, None)
        worker.start(execution)
        return execution

    # What was sent for and cannot be run yet

    async def _decline(self, task: TaskRecord, error: ResonateError) -> None:
        """Hand back a task that cannot be run here; take it if that is for want of a function that is registered."""
        if not isinstance(error, NotRegistered):
            await self._worker.leases.hand_back(task.id, task.version, error)
            return
        declined = _Declined(error.name, task.version)
        self._declined.pop(task.id, None)
        if len(self._declined) >= _MOST_DECLINED:
            del self._declined[next(iter(self._declined))]
        self._declined[task.id] = declined
        await self._worker.leases.hand_back(task.id, task.version, error, unless=declined.known)
        declined.released = True
        if declined.known.is_set():
            self.sent_for(task.id, task.version)

    def registered(self, name: str) -> None:
        """A function of that name is known from now on: what was given back for want of it is taken."""
        for id, declined in list(self._declined.items()):
            if declined.name == name:
                del self._declined[id]
                self._worker.leases.ended(id)
                declined.known.set()
                if declined.released:
                    self.sent_for(id, declined.version)

    async def _drop_timer(self, task: TaskRecord, promise: Promise) -> None:
        """Other SDKs make timers whose task anybody may be sent. It names no function, and its deadline ends it.

        Released, it would be sent here again at once; so its lease is left to lapse.
        """
        if not promise.pending:
            settle = PromiseSettle(id=promise.id, state=promise.state, value=promise.value)
            await self._worker.requester.insist(TaskFulfill(id=task.id, version=task.version, action=settle))

    async def _rejoin(
        self, execution: Execution, task: TaskRecord, preload: tuple[Promise, ...], sent: float
    ) -> Execution | None:
        """The task was acquired although its last run is still here. It goes on if that is its next version."""
        if task.version < execution.version:
            # The answer was long on its way.
            return execution
        if execution.suspension.adopt(task, preload, sent):
            return execution
        execution.drop(Drop.LOST)
        # It is sent for again, and taken when that run has ended.
        await self._worker.leases.release(task.id, task.version)
        return None

    async def _remote_history(self, task: TaskRecord, local: int) -> list[Promise] | None:
        """What is recorded below the root: the local part came with the lease, the rest is one range scan.

        The scan comes across the `local` records too.

        None if this worker may not search (its token is restricted to a prefix): then each call is looked up.
        """
        if task.version <= 1:
            return []
        try:
            records = scan(self._worker.ask, below(task.id, self._worker.separator), local)
            return [record async for record in records]
        except RequestError as exc:
            if exc.status not in MAY_NOT_SEARCH:
                raise
            return None
