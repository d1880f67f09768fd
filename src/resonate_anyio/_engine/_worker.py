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
    NonDeterminismError,
    NotFound,
    NotRegistered,
)
from .._graph import PARENT_TAG, History
from .._protocol import (
    EMPTY,
    Execute,
    Message,
    Promise,
    PromiseCreate,
    PromiseSettle,
    PromiseState,
    RegisterListener,
    Response,
    TaskAcquire,
    TaskContinue,
    TaskCreate,
    TaskFulfill,
    TaskHalt,
    TaskRecord,
    TaskState,
    Unblock,
    Value,
)
from ..abc import Connection, Gap, Identity, Network
from ._cancellation import Teardown
from ._crew import Crew
from ._dependencies import Dependencies
from ._execution import Drop, Execution, lineage
from ._frame import Frame
from ._functions import Function, Registry, bind
from ._leaf import Threads
from ._leases import Leases
from ._openings import make_info
from ._parking import Parking, without_wakes
from ._requests import get_promise, promise_of, refusal, scan
from ._results import Results
from ._shutdown import Shutdown
from ._sweeps import Sweeps
from ._upkeep import Limits, Upkeep
from ._waiting import Waiting

if TYPE_CHECKING:
    from ._context import Context

logger = logging.getLogger("resonate_anyio")


@define(eq=False, kw_only=True, repr=False)
class Worker:
    """See the module's docstring.

    Attributes:
        ttl_ms: how long a lease lasts that is not renewed.
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
    grace: float
    make_context: Callable[[Frame], Context]
    limits: Limits = field(factory=Limits)
    random: Callable[[], float] = random_module.random
    executions: dict[str, Execution] = field(factory=dict, init=False)
    waiting: Waiting = field(factory=Waiting, init=False)
    stopped: Event = field(factory=Event, init=False)
    leases: Leases = field(init=False)
    upkeep: Upkeep = field(init=False)
    sweeps: Sweeps = field(init=False)
    results: Results = field(init=False)
    _shutdown: Shutdown = field(init=False)
    _crew: Crew = field(init=False)
    _taking: dict[str, int] = field(factory=dict, init=False)
    _emptied: Event = field(factory=Event, init=False)
    _teardown: Teardown | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.leases = Leases(self.connection, self.identity.holder, self.waiting)
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
            worker = cls(identity=identity, connection=connection, **settings)
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

    def __repr__(self) -> str:
        return f"<Worker {self.identity.group}/{self.identity.pid} with {len(self.executions)} executions>"

    def helper(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        """Do a work of the engine's own in a task of its own."""
        self._crew.help(func, *args, name=name)

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
        response = await self.leases.insist(RegisterListener(awaited=id, address=self.identity.unicast))
        if response is not None and response.promise is not None and not response.promise.pending:
            self.waiting.notify(response.promise)

    async def register_listener(self, id: str, execution: Execution | None = None) -> Promise:
        """Ask to be told when `id` settles. Its record tells whether it has already.

        Raises:
            NotFound: there is no such promise.
        """
        request = RegisterListener(awaited=id, address=self.identity.unicast)
        response = await (self.connection.request(request) if execution is None else execution.request(request))
        return promise_of(request, response, id)

    # Tasks

    async def _take(self, id: str) -> None:
        """Acquire a task that a message told of, and run it."""
        try:
            if not await self._vacated(id):
                return
            request = TaskAcquire(id=id, version=self._taking[id], pid=self.identity.holder, ttl=self.ttl_ms)
            response = await self.connection.request(request)
            if response.status == 200:
                await self._accept(response)
        except Exception:
            logger.exception("task.take_failed id=%s", id)
            # What is given back is sent here again, and that message is not a double.
            self._taking.pop(id, None)
            await self.leases.look_for(id, self.executions.__contains__)
        finally:
            self._taking.pop(id, None)

    async def _vacated(self, id: str) -> bool:
        """Wait until no code of an earlier run of `id` is here. False if that is because the worker stops."""
        if (execution := self.executions.get(id)) is None:
            return True
        await execution.ended.wait()
        return not self.draining

    async def _accept(self, response: Response) -> Execution | None:
        """Run the task that was acquired. One that this program cannot run is handed back, and None returned."""
        task, promise = response.task, response.promise
        assert task is not None
        assert promise is not None
        if task.state is not TaskState.ACQUIRED:
            return None
        if promise.timer:
            await self._drop_timer(task, promise)
            return None
        if (execution := self.executions.get(task.id)) is not None:
            return await self._rejoin(execution, task, response.preload)
        try:
            call = self.codec.decode_call(promise.param)
            function = self.registry.get(call.func, 1 if call.version is None else call.version)
            args, kwargs = bind(function, self.codec, call)
        except (NotRegistered, DecodeError, InvalidArgument) as exc:
            # Not at once: it would be sent here again immediately.
            self.helper(self.leases.hand_back, task.id, task.version, exc, name=f"resonate decline {task.id}")
            return None
        wakes, calls = without_wakes(task.id, await self._remote_history(task))
        if self.draining:
            await self.leases.release(task.id, task.version)
            return None
        execution = self._start(task, promise, function, tuple(args), kwargs, History.of(response.preload, calls))
        execution.parking.wakes = wakes
        return execution

    async def _drop_timer(self, task: TaskRecord, promise: Promise) -> None:
        """Other SDKs make timers whose task anybody may be sent. It names no function, and its deadline ends it.

        Released, it would be sent here again at once; so its lease is left to lapse.
        """
        if not promise.pending:
            settle = PromiseSettle(id=promise.id, state=promise.state, value=promise.value)
            await self.leases.insist(TaskFulfill(id=task.id, version=task.version, action=settle))

    async def _rejoin(self, execution: Execution, task: TaskRecord, preload: tuple[Promise, ...]) -> Execution | None:
        """The task was acquired although its last run is still here. It goes on if that is its next version."""
        if execution.parking.adopt(task, preload):
            return execution
        execution.drop(Drop.LOST)
        # It is sent for again, and taken when that run has ended.
        await self.leases.release(task.id, task.version)
        return None

    async def _remote_history(self, task: TaskRecord) -> list[Promise]:
        """What is recorded below the root: the local part came with the lease, the rest is one range scan."""
        return [] if task.version <= 1 else [record async for record in scan(self.connection, f"{task.id}.")]

    def _start(
        self,
        task: TaskRecord,
        promise: Promise,
        function: Function,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        history: History,
    ) -> Execution:
        execution = Execution(
            worker=self,
            id=task.id,
            version=task.version,
            origin=lineage(promise),
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
        self.executions[task.id] = execution
        self.upkeep.enrol(execution)
        self._crew.spawn(self._run, execution, name=f"resonate {task.id}")
        return execution

    async def _run(self, execution: Execution) -> None:
        try:
            await self._run_code(execution)
            if execution.dropped is Drop.HALTED:
                await self._halt(execution)
        finally:
            del self.executions[execution.id]
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
        await self.leases.insist(TaskHalt(id=execution.id))
        self.results.halted[execution.id] = execution.error
        self.waiting.wake()

    async def _recover(self, execution: Execution) -> None:
        """The engine itself failed under this execution: hand it back after a while, to be tried again."""
        logger.error("execution.crashed id=%s", execution.id, exc_info=execution.error)
        await self.leases.hand_back(execution.id, execution.version, repr(execution.error))

    # For the client

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
            response = await self.connection.request(request)
            if response.status in {409, 422}:
                return await get_promise(self.connection, create.id), self.executions.get(create.id)
            # The arguments are read back from the record, so that the first run sees what a replay would.
            return promise_of(request, response, create.id), await self._accept(response)
        except BaseException:
            # A cancellation of asyncio's own as well, which no shield holds up.
            self.helper(self.leases.look_for, create.id, self.executions.__contains__, name="resonate look for")
            raise

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
        record = promise_of(request, await self.connection.request(request), id)
        if state is PromiseState.CANCELED or id in self.executions:
            await self.sweeps.end(id)
        return record
