"""`Acquisition`: how a worker takes tasks: because of a message, or because a caller in this process starts a root.

Both ways end with a lease, or without one. The answer that grants a lease may be lost, and the records of the task come
only with that answer. So a task that this worker holds without running it is released and acquired once more.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, Event, move_on_after
from anyio.lowlevel import checkpoint
from attrs import define, field

from .._errors import DecodeError, InvalidArgument, NetworkError, NotRegistered, RequestError, ResonateError
from .._execution._events import lease_taken
from .._execution._execution import Execution
from .._execution._factory import make_execution
from .._execution._lease import Lease
from .._execution._lives import Marks, crash_mark, mark_stopped, split_marks, was_parked
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
from .._requests._queries import MAY_NOT_SEARCH, frontier, get_promise, promise_of, refusal
from .._requests._requester import unavailable
from .._workflow._host import Drop
from ._admission import Admission

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._concurrency._supervisor import Supervisor
    from .._execution._services import Services
    from .._functions._registry import Registry
    from ._leases import Leases
    from ._residency import Residency

logger = logging.getLogger("resonate_anyio")

_CLAIM_WAIT: Final = 1.0
"""Seconds that a caller waits while a message about the same root is being handled."""
_TAKEN: Final = frozenset({409, 422})
_MOST_DECLINED: Final = 1000
"""Maximum number of released tasks that are remembered until their function is registered."""


@define(eq=False, repr=False)
class _Declined:
    """A task that is released because its function is not registered.

    Attributes:
        name: the name of the function.
        version: the version of the task.
        registered: set when the function is registered.
        released: whether the task has been released.
    """

    name: str
    version: int
    registered: Event = field(factory=Event, init=False)
    released: bool = field(default=False, init=False)


@define(eq=False, kw_only=True, repr=False)
class Acquisition:
    """See the module's docstring.

    Attributes:
        services: the port of executions.
        supervisor: owns the tasks of the worker.
        leases: keeps and releases leases.
        registry: the registered functions.
        executions: the executions in this process.
        residency: counts the executions that are hot.
        limit: the maximum number of executions in progress.
        run: runs an execution.
        admission: decides whether another execution may begin.
    """

    services: Services
    supervisor: Supervisor
    leases: Leases
    registry: Registry
    executions: Mapping[str, Execution]
    residency: Residency
    limit: float
    run: Callable[[Execution], None]
    admission: Admission = field(init=False)
    _declined: dict[str, _Declined] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.admission = Admission(self.limit, self.executions, self.residency, self._begin_to_take)

    def handle_execute(self, id: str, version: int) -> None:
        """Handle an `execute` message for task `id` at `version`."""
        self.admission.handle_execute(id, version)

    # Because of a message

    def _begin_to_take(self, id: str, version: int) -> None:
        self.supervisor.start_background(self._take, id, version, name=f"resonate acquire {id}")

    async def _take(self, id: str, version: int) -> None:
        """Acquire a task that was named in a message, and run it."""
        try:
            if await self._earlier_run_ended(id):
                await self._acquire(id, self.admission.latest_version(id, version))
        except Exception:
            logger.exception("task.take_failed id=%s", id)
            self._release_if_held_later(id)
        finally:
            self.admission.unclaim(id)

    def _release_if_held_later(self, id: str) -> None:
        self.supervisor.start_background(self._release_if_held, id, name=f"resonate check lease {id}")

    async def _release_if_held(self, id: str) -> None:
        await self.leases.release_if_held(id, self.executions.__contains__)

    async def _earlier_run_ended(self, id: str) -> bool:
        """Wait until code of an earlier run of `id` has ended here. Return False if the worker stops meanwhile."""
        if (execution := self.executions.get(id)) is None:
            return True
        await execution.ended.wait()
        return not self.services.draining

    async def _acquire(self, id: str, version: int) -> Execution | None:
        """Acquire a task and run it. Return None if another worker holds it, or if it cannot run here."""
        services = self.services
        backoff = services.subscriptions.backoff()
        while not services.draining:
            request = TaskAcquire(id=id, version=version, pid=services.identity.holder, ttl=services.ttl_ms)
            sent = services.connection.elapsed()
            try:
                response = await services.connection.request(request)
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
        """Return the task if it can be acquired. A lease that this worker holds without running the task is released.

        Args:
            id: the task.
            doubtful: whether the effect of a request of this worker is unknown. If not, it can still be unknown on a
                network that may send a request twice, because the answer to the second one is then returned.
        """
        services = self.services
        if not doubtful and services.connection.keeps_leases:
            return None
        response = await services.requester.request_until_answered(TaskGet(id=id))
        task = None if response is None else response.task
        if task is None or id in self.executions:
            return None
        if self.leases.is_mine(task, task.version):
            await self.leases.release(id, task.version)
            return task
        return task if doubtful and task.state is TaskState.PENDING else None

    # Because of a caller

    async def start(self, create: PromiseCreate) -> tuple[Promise, Execution | None]:
        """Start a root here, or join the one with the same id.

        If no further execution may begin here, the server sends the task to the group as usual.

        Returns:
            The record of the root, and its execution if that is in this process.
        """
        await checkpoint()
        services, claims = self.services, self.admission.claims
        services.subscriptions.check()
        if create.id in claims:
            # A message about it is being handled. That may take long, for example while the server is unreachable.
            with move_on_after(_CLAIM_WAIT):
                await claims[create.id].wait()
            services.subscriptions.check()
        if create.id in claims or self.admission.full:
            return promise_of(create, await services.requester.request_with_retries(create), create.id), None
        self.admission.claim(create.id)
        try:
            # Not cancelled between the grant of the lease and its use; a worker that stops waits for this.
            with self.supervisor.counted(), CancelScope(shield=True):
                started = await self._start(create)
            return started  # noqa: RET504 - to a type checker, a scope may swallow the return
        finally:
            self.admission.unclaim(create.id)

    async def _start(self, create: PromiseCreate) -> tuple[Promise, Execution | None]:
        services = self.services
        request = TaskCreate(pid=services.identity.holder, ttl=services.ttl_ms, action=create)
        try:
            answer = await services.requester.answer_with_retries(request)
            if answer.response.status not in _TAKEN:
                # The arguments are decoded from the record, so that the first run gets the same ones as a replay.
                promise = promise_of(request, answer.response, create.id)
                return promise, await self._accept(answer.response, answer.sent)
            promise = await get_promise(services.requester.request_with_retries, create.id)
            if promise.pending and create.id not in self.executions:
                await self._acquire_again(create.id, unanswered=answer.again)
            return promise, self.executions.get(create.id)
        except BaseException:
            # This includes a cancellation of asyncio's own, which a shield does not stop.
            self._release_if_held_later(create.id)
            raise

    async def _acquire_again(self, id: str, *, unanswered: bool) -> None:
        """Run a task that exists already, if an unanswered request of this worker has created it."""
        services = self.services
        if not unanswered and services.connection.keeps_leases:
            return
        task = (await services.requester.request_with_retries(TaskGet(id=id))).task
        if task is not None and self.leases.is_mine(task, task.version) and id not in self.executions:
            await self.leases.release(id, task.version)
            await self._acquire(id, task.version)

    # Acquired tasks

    async def _accept(self, response: Response, sent: float) -> Execution | None:
        """Run an acquired task. If this program cannot run it, release it later and return None.

        Args:
            response: the answer that granted the lease.
            sent: when the request was sent, by the clock of leases.
        """
        task, promise = response.task, response.promise
        assert task is not None
        assert promise is not None
        if task.state is not TaskState.ACQUIRED:
            return None
        observers = self.services.facilities.observers
        if observers.given:
            lease_taken(observers, task.id, task.version)
        if promise.timer:
            await self._end_timer(task, promise)
            return None
        if (execution := self.executions.get(task.id)) is not None:
            return await self._rejoin(execution, task, response.preload, sent)
        codec = self.services.facilities.codec
        try:
            call = codec.decode_call(promise.param)
            function = self.registry.get(call.func, 1 if call.version is None else call.version)
            args, kwargs = bind(function, codec, call)
        except (NotRegistered, DecodeError, InvalidArgument) as exc:
            self.leases.idle[task.id] = task.version
            # Not at once: the server would send the task here again immediately.
            self.supervisor.start_background(self._decline, task, promise, exc, name=f"resonate decline {task.id}")
            return None
        found = await self._lease_and_history(task, promise, response, sent)
        if found is None:
            return None
        lease, history, marks = found
        bound = function, tuple(args), kwargs
        execution = make_execution(self.services, lease, promise, bound, history, marks.wakes)
        self.admission.begun(task.id)
        self._declined.pop(task.id, None)
        self.leases.idle.pop(task.id, None)
        self.run(execution)
        return execution

    async def _lease_and_history(
        self, task: TaskRecord, root: Promise, response: Response, sent: float
    ) -> tuple[Lease, History, Marks] | None:
        """Keep the lease, and return it with the history and the marks of earlier lives; None if the worker stops."""
        lease = Lease(self.leases, task.id)
        # Renewed from now on: the history may take long to read.
        lease.grant(task.version, sent)
        self.leases.idle[task.id] = task.version
        try:
            history, marks = await self._history(task, root, response.preload)
        except BaseException:
            lease.end()
            raise
        if self.services.draining:
            lease.end()
            await mark_stopped(self.services, root, task.version)
            await self.leases.release(task.id, task.version)
            self.leases.idle.pop(task.id, None)
            return None
        return lease, history, marks

    async def _history(self, task: TaskRecord, root: Promise, preload: tuple[Promise, ...]) -> tuple[History, Marks]:
        """Return the records below the root, and the marks of earlier lives. Record it if this life follows a crash."""
        services, codec = self.services, self.services.facilities.codec
        start, send = below(task.id, services.separator), services.requester.request_with_retries
        remote = await self._remote_history(task, len(preload))
        records = {record.id: record for record in preload}
        # The scan came later, and what is below a call that it found settled is not among its records.
        records |= {record.id: record for record in remote or () if not record.pending or record.id not in records}
        marks, calls = split_marks(start, records.values(), codec)
        crashed = marks.crashed_before(task.version)
        if crashed and remote is None:
            crashed = not await was_parked(send, start, task.version - 1)
        if crashed:
            await send(crash_mark(root, start, task.version, codec, services.connection.now()))
        history = History.of(calls, len(preload), partial=remote is None, crashes=marks.crashes, follows_crash=crashed)
        return history, marks

    async def _remote_history(self, task: TaskRecord, local: int) -> list[Promise] | None:
        """Return the records below the root, read in one range scan.

        Args:
            task: the task of the root.
            local: the number of the root's own local records. They came with the lease, and the scan finds them too.

        Returns:
            The records; None if this worker may not search (its token is restricted to a prefix), so that the record of
            each call has to be read by itself.
        """
        if task.version <= 1:
            return []
        try:
            ask = self.services.requester.request_with_retries
            return [record async for record in frontier(ask, below(task.id, self.services.separator), local)]
        except RequestError as exc:
            if exc.status not in MAY_NOT_SEARCH:
                raise
            return None

    async def _rejoin(
        self, execution: Execution, task: TaskRecord, preload: tuple[Promise, ...], sent: float
    ) -> Execution | None:
        """Handle a grant for a task whose execution is still here: it continues if this is its next version."""
        if task.version < execution.version:
            # The answer was delayed.
            return execution
        if execution.suspension.adopt(task, preload, sent):
            return execution
        execution.drop(Drop.LOST)
        # The server sends it again, and it is acquired when this execution has ended.
        await self.leases.release(task.id, task.version)
        return None

    async def _end_timer(self, task: TaskRecord, promise: Promise) -> None:
        """Fulfill the task of a timer that another SDK made with a task, if the timer is settled.

        Such a task names no function, and its deadline ends it. If it were released, the server would send it here
        again at once; so its lease lapses instead.
        """
        if not promise.pending:
            settle = PromiseSettle(id=promise.id, state=promise.state, value=promise.value)
            await self.services.requester.request_until_answered(
                TaskFulfill(id=task.id, version=task.version, action=settle)
            )

    # Tasks that cannot run yet

    async def _decline(self, task: TaskRecord, root: Promise, error: ResonateError) -> None:
        """Release a task that cannot run here. Acquire it again if its function is registered later."""
        await mark_stopped(self.services, root, task.version)
        if not isinstance(error, NotRegistered):
            await self.leases.hand_back(task.id, task.version, error)
            return
        declined = _Declined(error.name, task.version)
        self._declined.pop(task.id, None)
        if len(self._declined) >= _MOST_DECLINED:
            del self._declined[next(iter(self._declined))]
        self._declined[task.id] = declined
        await self.leases.hand_back(task.id, task.version, error, unless=declined.registered)
        declined.released = True
        if declined.registered.is_set():
            self.admission.handle_execute(task.id, task.version)

    def function_registered(self, name: str) -> None:
        """Acquire the tasks that were released because the function `name` was not registered."""
        for id, declined in list(self._declined.items()):
            if declined.name == name:
                del self._declined[id]
                self.leases.ended(id)
                declined.registered.set()
                if declined.released:
                    self.admission.handle_execute(id, declined.version)
