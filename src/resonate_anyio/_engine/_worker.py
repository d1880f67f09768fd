"""`Worker`: everything that one `Resonate` object runs between the start and the end of its `async with` block.

It receives messages, takes the tasks that it is told of, runs their executions and tells those who wait what came of
the promises they wait for. Each execution runs in a task of its own under a shield of its own: a cancelled host scope
ends the block, whose exit then puts everything away in order (`stop`), and nothing outlives it.
"""

from __future__ import annotations

import logging
import math
import random as random_module
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from anyio import CancelScope, ClosedResourceError, EndOfStream, Event, create_task_group
from anyio.lowlevel import checkpoint
from attrs import define, field

from .._codec import Codec
from .._errors import (
    DecodeError,
    InvalidArgument,
    NetworkError,
    NonDeterminismError,
    NotFound,
    NotRegistered,
)
from .._graph import PARENT_TAG, History, below
from .._protocol import (
    EMPTY,
    Execute,
    Message,
    Promise,
    PromiseCreate,
    PromiseGet,
    PromiseSettle,
    PromiseState,
    RegisterListener,
    Request,
    Response,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFulfill,
    TaskGet,
    TaskHalt,
    TaskRecord,
    TaskState,
    Unblock,
    Value,
)
from ..abc import Connection, Gap, Identity, Network
from ._asking import Asker, unavailable
from ._cancellation import Teardown
from ._crew import Crew
from ._dependencies import Dependencies
from ._execution import Drop, Execution, lineage
from ._frame import Frame
from ._functions import Function, Registry, bind
from ._heartbeats import LoopHeart, Schedule, ThreadHeart
from ._leaf import Threads
from ._leases import Lease, Leases
from ._openings import make_info
from ._parking import Parking, without_wakes
from ._requests import get_promise, promise_of, refusal, scan
from ._results import Results
from ._shutdown import Shutdown
from ._sweeps import Sweeps
from ._timers import Timers
from ._upkeep import Limits, Upkeep
from ._waiting import Waiting

if TYPE_CHECKING:
    from ._context import Context

_UNLISTENABLE = frozenset({422})
"""The answer of servers that have no listeners for promises which only an execution itself settles."""

logger = logging.getLogger("resonate_anyio")


@define(eq=False, kw_only=True, repr=False)
class Worker:
    """See the module's docstring.

    Attributes:
        ttl_ms: how long a lease lasts that is not renewed.
        request_timeout: seconds after which a request that was not answered has no effect any more.
        grace: seconds that running leaves are given when the worker stops.
        limits: how long and how many executions stay in memory while they wait.
    """

    identity: Identity
    connection: Connection
    registry: Registry
    codec: Codec
    dependencies: Dependencies
    threads: Threads
    ttl_ms: int
    request_timeout: float = 0.0
    grace: float
    make_context: Callable[[Frame], Context]
    limits: Limits = field(factory=Limits)
    random: Callable[[], float] = random_module.random
    executions: dict[str, Execution] = field(factory=dict, init=False)
    waiting: Waiting = field(factory=Waiting, init=False)
    stopped: Event = field(factory=Event, init=False)
    asker: Asker = field(init=False)
    timers: Timers = field(init=False)
    leases: Leases = field(init=False)
    upkeep: Upkeep = field(init=False)
    sweeps: Sweeps = field(init=False)
    results: Results = field(init=False)
    _shutdown: Shutdown = field(init=False)
    _crew: Crew = field(init=False)
    _taking: dict[str, int] = field(factory=dict, init=False)
    _emptied: Event = field(factory=Event, init=False)
    _teardown: Teardown | None = field(default=None, init=False)
    _stop_heart: Callable[[], None] = field(default=lambda: None, init=False)

    def __attrs_post_init__(self) -> None:
        self.asker = Asker(self.connection, self.waiting)
        self.timers = Timers(self.connection.now)
        self.leases = Leases(
            self.connection, self.identity.holder, self.waiting, self.asker, self.ttl_ms / 1000, self.request_timeout
        )
        self.upkeep = Upkeep(self, self.limits)
        self.sweeps = Sweeps(self)
        self.results = Results(self)
        self._shutdown = Shutdown(self)

    # Life

    @classmethod
    @asynccontextmanager
    async def open(cls, network: Network, identity: Identity, **settings: Any) -> AsyncIterator[Worker]:
        """A worker that runs while the block does. Leaving the block stops it (see `stop`)."""
        async with network.connect(identity) as connection, create_task_group() as tasks:
            timeout = network.request_timeout
            worker = cls(identity=identity, connection=connection, request_timeout=timeout, **settings)
            worker._crew = Crew(tasks)
            worker._begin()
            try:
                yield worker
            finally:
                # If the stop was begun and its await interrupted, the task group waits for the rest of it.
                if not worker.draining:
                    with CancelScope(shield=True):
                        await worker.stop()

    def _begin(self) -> None:
        name = f"resonate {self.identity.pid}"
        self.helper(self._stand_by, name=f"{name} sentinel")
        self.helper(self._receive, name=f"{name} messages")
        self.helper(self.upkeep.run, name=f"{name} upkeep")
        self.helper(self.upkeep.watch_clocks, name=f"{name} clocks")
        if self.connection.recheck < math.inf:
            self.helper(self.upkeep.recheck, name=f"{name} recheck")
        if not self.connection.keeps_leases:
            self._begin_heartbeats(f"{name} heartbeats")

    def _begin_heartbeats(self, name: str) -> None:
        ttl = self.ttl_ms / 1000
        schedule = Schedule(self.leases, self.connection, self.identity.holder, ttl)
        send = self.connection.blocking_request
        if send is None:
            heart = LoopHeart(schedule, self.connection, self.waiting)
            self.helper(heart.run, name=name)
            self.leases.enrolled = heart.nudge
        else:
            thread = ThreadHeart(schedule, send, ttl, name)
            self.leases.enrolled = thread.nudge
            self._stop_heart = thread.stop

    def __repr__(self) -> str:
        return f"<Worker {self.identity.group}/{self.identity.pid} with {len(self.executions)} executions>"

    def helper(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        """Do a work of the engine's own in a task of its own."""
        self._crew.help(func, *args, name=name)

    @property
    def separator(self) -> str:
        """What joins the id of a root and what is below it, on this server."""
        return self.connection.dialect.separator

    @property
    def draining(self) -> bool:
        """Whether it is being stopped: no durable call starts any more."""
        return self.waiting.stopping

    async def stop(self) -> None:
        """Put everything away, in order (see `_shutdown`). A second call waits for the first.

        The work is done by a task of the worker's own: whoever waits here may be interrupted, and it goes on.
        """
        self.begin_to_stop()
        with CancelScope(shield=True):
            await self.stopped.wait()

    def begin_to_stop(self) -> None:
        """Begin to put everything away, if that has not begun."""
        if not self.draining:
            self.waiting.begin_to_stop()
            self._crew.finish(self._put_away, name=f"resonate {self.identity.pid} stop")

    def hurry(self) -> None:
        """Stop with no more grace, and no waiting for code that does not end before the other leases are released."""
        self._shutdown.hurry()

    async def _put_away(self) -> None:
        try:
            await self._shutdown.run()
            self.waiting.stop()
            self._emptied.set()
            await self._crew.dismissed()
        finally:
            self._stop_heart()
            self.stopped.set()

    def leaf_ended(self) -> None:
        self._shutdown.stir()

    async def _stand_by(self) -> None:
        self._teardown = Teardown()
        await self._emptied.wait()

    @property
    def torn_down(self) -> bool:
        """Whether the event loop is being taken down: what is cancelled now is cancelled by nobody that counts."""
        return self._teardown is not None and self._teardown.begun

    # Messages

    async def _receive(self) -> None:
        with suppress(EndOfStream, ClosedResourceError):
            while True:
                self._handle(await self.connection.messages.receive())

    def _handle(self, message: Message | Gap) -> None:
        match message:
            case Gap():
                self.helper(self.upkeep.recheck_all, name=f"resonate {self.identity.pid} gap")
            case Execute(task_id, version):
                self.sent_for(task_id, version)
            case Unblock(promise):
                # One that says "pending" is not what it claims to be; what it is about stays subscribed to.
                if not promise.pending:
                    self.waiting.notify(promise)

    def sent_for(self, id: str, version: int) -> None:
        """Somebody is to acquire the task `id` at `version`."""
        execution = self.executions.get(id)
        if execution is not None and execution.parking.told(version):
            return
        if id not in self._taking:
            self.helper(self._take, id, name=f"resonate take {id}")
        self._taking[id] = max(version, self._taking.get(id, 0))

    async def recheck(self, id: str) -> None:
        """Ask once more for what is waited for. Whoever waits is told if it has settled."""
        request = RegisterListener(awaited=id, address=self.identity.unicast)
        response = await self.asker.insist(request, taken=_UNLISTENABLE)
        if response is not None and response.status in _UNLISTENABLE:
            response = await self.asker.insist(PromiseGet(id=id))
        if response is not None and response.promise is not None and not response.promise.pending:
            self.waiting.notify(response.promise)

    async def register_listener(self, id: str, execution: Execution | None = None) -> Promise:
        """Ask to be told when `id` settles. Its record tells whether it has already.

        Raises:
            NotFound: there is no such promise.
        """
        request = RegisterListener(awaited=id, address=self.identity.unicast)
        if execution is not None:
            return promise_of(request, await execution.request(request), id)
        response = await self.ask(request)
        if response.status in _UNLISTENABLE:
            # There will be no message: what is waited for is asked for again from time to time.
            return await get_promise(self.ask, id)
        return promise_of(request, response, id)

    # Tasks

    async def _take(self, id: str) -> None:
        """Acquire a task that a message told of, and run it."""
        try:
            if await self._vacated(id):
                await self._acquire(id, self._taking[id])
        except Exception:
            logger.exception("task.take_failed id=%s", id)
            # What is given back is sent here again, and that message is not a double.
            self._taking.pop(id, None)
            await self.leases.look_for(id, self.executions.__contains__)
        finally:
            self._taking.pop(id, None)

    async def _acquire(self, id: str, version: int) -> Execution | None:
        """Acquire a task and run it. None if it was refused, or cannot be run here."""
        request = TaskAcquire(id=id, version=version, pid=self.identity.holder, ttl=self.ttl_ms)
        sent = self.connection.elapsed()
        response = await self.connection.request(request)
        return await self._accept(response, sent) if response.status == 200 else None

    async def _vacated(self, id: str) -> bool:
        """Wait until no code of an earlier run of `id` is here. False if that is because the worker stops."""
        if (execution := self.executions.get(id)) is None:
            return True
        await execution.ended.wait()
        return not self.draining

    async def _accept(self, response: Response, sent: float) -> Execution | None:
        """Run the task that was acquired. One that this program cannot run is handed back, and None returned.

        Args:
            response: the answer that granted the lease.
            sent: when the request was sent, by the clock of leases.
        """
        task, promise = response.task, response.promise
        assert task is not None
        assert promise is not None
        if task.state is not TaskState.ACQUIRED:
            return None
        if promise.timer:
            await self._drop_timer(task, promise)
            return None
        if (execution := self.executions.get(task.id)) is not None:
            return await self._rejoin(execution, task, response.preload, sent)
        try:
            call = self.codec.decode_call(promise.param)
            function = self.registry.get(call.func, 1 if call.version is None else call.version)
            args, kwargs = bind(function, self.codec, call)
        except (NotRegistered, DecodeError, InvalidArgument) as exc:
            # Not at once: it would be sent here again immediately.
            self.helper(self.leases.hand_back, task.id, task.version, exc, name=f"resonate decline {task.id}")
            return None
        wakes, calls = without_wakes(below(task.id, self.separator), await self._remote_history(task))
        if self.draining:
            await self.leases.release(task.id, task.version)
            return None
        lease = Lease(self.leases, task.id)
        lease.grant(task.version, sent)
        history = History.of(response.preload, calls)
        execution = self._start(lease, promise, function, tuple(args), kwargs, history)
        execution.parking.wakes = wakes
        return execution

    async def _drop_timer(self, task: TaskRecord, promise: Promise) -> None:
        """Other SDKs make timers whose task anybody may be sent. It names no function, and its deadline ends it.

        Released, it would be sent here again at once; so its lease is left to lapse.
        """
        if not promise.pending:
            settle = PromiseSettle(id=promise.id, state=promise.state, value=promise.value)
            await self.asker.insist(TaskFulfill(id=task.id, version=task.version, action=settle))

    async def _rejoin(
        self, execution: Execution, task: TaskRecord, preload: tuple[Promise, ...], sent: float
    ) -> Execution | None:
        """The task was acquired although its last run is still here. It goes on if that is its next version."""
        if execution.parking.adopt(task, preload, sent):
            return execution
        execution.drop(Drop.LOST)
        # It is sent for again, and taken when that run has ended.
        await self.leases.release(task.id, task.version)
        return None

    async def _remote_history(self, task: TaskRecord) -> list[Promise]:
        """What is recorded below the root: the local part came with the lease, the rest is one range scan."""
        if task.version <= 1:
            return []
        return [record async for record in scan(self.ask, below(task.id, self.separator))]

    def _start(
        self,
        lease: Lease,
        promise: Promise,
        function: Function,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        history: History,
    ) -> Execution:
        execution = Execution(
            worker=self,
            id=lease.id,
            lease=lease,
            version=lease.version,
            origin=lineage(promise, self.separator),
            history=history,
            local_records=history.local,
            changed_at=max(promise.created_at, history.last_change),
        )
        execution.parking = Parking(execution)
        parent = promise.tags.get(PARENT_TAG) or promise.tags.get("resonate:parent")
        execution.root = Frame(
            execution=execution,
            record=promise,
            type=function.returns,
            parent=None,
            function=function,
            args=args,
            kwargs=kwargs,
            retry=function.retry,
            info=make_info(execution, promise, parent=None if parent == promise.id else parent, function=function),
        )
        self.executions[execution.id] = execution
        self.upkeep.enrol(execution)
        self._crew.spawn(self._run, execution, name=f"resonate {execution.id}")
        return execution

    async def _run(self, execution: Execution) -> None:
        try:
            await self._run_code(execution)
            if execution.dropped is Drop.HALTED:
                await self._halt(execution)
        finally:
            del self.executions[execution.id]
            execution.lease.end()
            self.upkeep.forget(execution)
            execution.ended.set()
            self._shutdown.stir()
        if execution.dropped is Drop.CRASHED:
            await self._recover(execution)
        else:
            self.leases.ended(execution.id)

    @staticmethod
    async def _run_code(execution: Execution) -> None:
        try:
            await execution.run()
        except Exception as exc:  # noqa: BLE001 - an error of the engine's own is a crash of this execution, not of all
            execution.drop(Drop.CRASHED, exc)

    async def _halt(self, execution: Execution) -> None:
        assert isinstance(execution.error, NonDeterminismError)
        logger.error("execution.halted id=%s %s", execution.id, execution.error)
        await self.asker.insist(TaskHalt(id=execution.id))
        self.results.halted[execution.id] = execution.error
        self.waiting.wake()

    async def _recover(self, execution: Execution) -> None:
        """The engine itself failed under this execution: hand it back after a while, to be tried again."""
        logger.error("execution.crashed id=%s", execution.id, exc_info=execution.error)
        await self.leases.hand_back(execution.id, execution.version, repr(execution.error))

    # For the client

    async def ask(self, request: Request) -> Response:
        """Send a request that may be sent twice, again if need be. See `Asker.ask`."""
        return await self.asker.ask(request)

    async def invoke(self, create: PromiseCreate) -> tuple[Promise, Execution | None]:
        """Start a root here, or join what has its id. Returns its record, and its execution if it runs here."""
        await checkpoint()
        # Not to be cancelled between taking the lease and using it; and a worker that stops waits for that.
        self.waiting.check()
        with self._crew.joined(), CancelScope(shield=True):
            started = await self._invoke(create)
        return started  # noqa: RET504 - to a type checker, a scope may swallow the return

    async def _invoke(self, create: PromiseCreate) -> tuple[Promise, Execution | None]:
        request = TaskCreate(pid=self.identity.holder, ttl=self.ttl_ms, action=create)
        try:
            sent, response, lost = await self._create(request)
            if response.status in {409, 422}:
                execution = await self._take_back(create.id) if lost else None
                return await get_promise(self.ask, create.id), execution or self.executions.get(create.id)
            # The arguments are read back from the record, so that the first run sees what a replay would.
            return promise_of(request, response, create.id), await self._accept(response, sent)
        except BaseException:
            # A cancellation of asyncio's own as well, which no shield holds up.
            self.helper(self.leases.look_for, create.id, self.executions.__contains__, name="resonate look for")
            raise

    async def _create(self, request: TaskCreate) -> tuple[float, Response, bool]:
        """Send a `task.create` until it is answered: when, the answer, and whether an earlier answer was lost.

        Raises:
            NetworkError: it was not answered for a while.
        """
        lost = False
        tries = self.asker.tries()
        while True:
            sent = self.connection.elapsed()
            try:
                response = await self.connection.request(request)
            except NetworkError as exc:
                lost = True
                await tries.failed(exc)
            else:
                if not unavailable(response):
                    return sent, response, lost
                await tries.failed(refusal(request, response))

    async def _take_back(self, id: str) -> Execution | None:
        """Run a task that this worker was granted by an answer that it has not got.

        What is recorded comes with the answer to an acquire only, so it is released and acquired once more.
        """
        task = (await self.ask(TaskGet(id=id))).task
        if task is None or id in self.executions or not self.leases.is_mine(task, task.version):
            return None
        await self.leases.release(id, task.version)
        return await self._acquire(id, task.version)

    async def resume(self, id: str) -> None:
        """Let a halted task run again.

        Raises:
            NotFound: there is no such task.
            RequestError: it is not halted.
        """
        request = TaskContinue(id=id)
        response = await self.connection.request(request)
        if response.status == 404:
            raise NotFound("task", id)  # noqa: EM101 - the kind of thing, not a message
        if response.status != 200:
            raise refusal(request, response)
        self.results.halted.pop(id, None)

    async def cancel(self, id: str) -> Promise:
        """Settle `id` as cancelled; see `settle`."""
        return await self.settle(id, PromiseState.CANCELED, EMPTY)

    async def settle(self, id: str, state: PromiseState, value: Value) -> Promise:
        """Settle `id` from outside, end its local code, cancel what is pending below it; give the record.

        Raises:
            NotFound: there is no such promise.
        """
        await checkpoint()
        # Once the promise is settled the rest has to follow, whoever loses interest.
        return await self._crew.complete(partial(self._settle, id, state, value), name=f"resonate settle {id}")

    async def _settle(self, id: str, state: PromiseState, value: Value) -> Promise:
        request = PromiseSettle(id=id, state=state, value=value)
        record = promise_of(request, await self.ask(request), id)
        if state is PromiseState.CANCELED or id in self.executions:
            await self.sweeps.end(id)
        return record
