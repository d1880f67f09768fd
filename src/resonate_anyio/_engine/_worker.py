"""`Worker`: everything that one `Resonate` object runs between the start and the end of its `async with` block.

It receives messages, takes the tasks that it is told of, runs their executions and tells those who wait what came of
the promises they wait for. Each execution runs in a task of its own under a shield of its own: a cancelled host scope
ends the block, whose exit then puts everything away in order (`stop`), and nothing outlives it.
"""

from __future__ import annotations

import logging
import random as random_module
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope, ClosedResourceError, EndOfStream, Event, create_task_group, current_time, move_on_after
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
    TaskHalt,
    TaskRecord,
    TaskState,
    Unblock,
    Value,
)
from ..abc import Connection, Identity, Network
from ._cancellation import Teardown
from ._crew import Crew
from ._dependencies import Dependencies
from ._execution import Drop, Execution, lineage
from ._frame import Frame
from ._functions import Function, Registry, bind
from ._leaf import Threads
from ._leases import Leases
from ._openings import make_info
from ._requests import descendants, get_promise, promise_of, refusal, scan
from ._waiting import Waiting

if TYPE_CHECKING:
    from ._context import Context

logger = logging.getLogger("resonate_anyio")

_RELEASE_LIMIT: Final = 5.0
_CLOCKS_PARTED: Final = 1.0


@define(eq=False, kw_only=True)
class Worker:
    """See the module's docstring.

    Attributes:
        ttl_ms: how long a lease lasts that is not renewed.
        grace: seconds that running leaves are given when the worker stops.
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
    random: Callable[[], float] = random_module.random
    executions: dict[str, Execution] = field(factory=dict, init=False)
    waiting: Waiting = field(factory=Waiting, init=False)
    stopped: Event = field(factory=Event, init=False)
    _crew: Crew = field(init=False)
    _leases: Leases = field(init=False)
    _halted: dict[str, NonDeterminismError] = field(factory=dict, init=False)
    _taking: set[str] = field(factory=set, init=False)
    _leaf_ended: Event = field(factory=Event, init=False)
    _emptied: Event = field(factory=Event, init=False)
    _teardown: Teardown | None = field(default=None, init=False)

    # Life

    @classmethod
    @asynccontextmanager
    async def open(cls, network: Network, identity: Identity, **settings: Any) -> AsyncIterator[Worker]:
        """A worker that runs while the block does. Leaving the block stops it (see `stop`)."""
        async with network.connect(identity) as connection, create_task_group() as tasks:
            worker = cls(identity=identity, connection=connection, **settings)
            worker._crew = Crew(tasks)
            worker._leases = Leases(connection, identity.holder, worker.waiting)
            worker._crew.spawn(worker._stand_by, name=f"resonate {identity.pid} sentinel")
            worker._crew.spawn(worker._receive, name=f"resonate {identity.pid} messages")
            worker._crew.spawn(worker._watch_clocks, name=f"resonate {identity.pid} clocks")
            try:
                yield worker
            finally:
                # If the stop was begun and its await interrupted, the task group waits for the rest of it.
                if not worker.draining:
                    with CancelScope(shield=True):
                        await worker.stop()

    @property
    def draining(self) -> bool:
        """Whether it is being stopped: no durable call starts any more."""
        return self.waiting.stopping

    async def stop(self) -> None:
        """Put everything away, in order (semantics 9). A second call waits for the first.

        The work is done by a task of the worker's own: whoever waits here may be interrupted, and it goes on.
        """
        if not self.draining:
            self.waiting.begin_to_stop()
            self._crew.finish(self._put_away, name=f"resonate {self.identity.pid} stop")
        with CancelScope(shield=True):
            await self.stopped.wait()

    async def _put_away(self) -> None:
        try:
            await self.connection.messages.aclose()
            await self._grace()
            unloaded = list(self.executions.values())
            for execution in unloaded:
                execution.drop(Drop.UNLOADED)
            for execution in unloaded:
                await execution.ended.wait()
            await self._release_all(unloaded)
            self.waiting.stop()
            self._emptied.set()
            await self._crew.dismissed()
        finally:
            self.stopped.set()

    def _runs(self, id: str) -> bool:
        return id in self.executions

    async def _grace(self) -> None:
        """Give running leaves time to end: what they have done is recorded then, and not done again."""
        with move_on_after(self.grace):
            while any(execution.busy for execution in self.executions.values()):
                self._leaf_ended = Event()
                await self._leaf_ended.wait()

    def leaf_ended(self) -> None:
        self._leaf_ended.set()

    async def _release_all(self, executions: list[Execution]) -> None:
        with move_on_after(_RELEASE_LIMIT) as scope:
            for execution in executions:
                if execution.dropped is Drop.UNLOADED:
                    await self._leases.release(execution.id, execution.version)
        if scope.cancelled_caught:  # pragma: no cover - in process, releases are immediate
            logger.warning("worker.release_timeout pid=%s", self.identity.pid)

    async def _stand_by(self) -> None:
        self._teardown = Teardown()
        await self._emptied.wait()

    @property
    def torn_down(self) -> bool:
        """Whether the event loop is being taken down: what is cancelled now is cancelled by nobody that counts."""
        return self._teardown is not None and self._teardown.begun

    async def _watch_clocks(self) -> None:
        """Deadlines are instants of the server's; when its clock and the loop's part, they are mapped anew."""
        offset = self._clock_offset()
        while not self.waiting.stopping:
            await self.waiting.pause(self.connection.clock_check)
            if abs(self._clock_offset() - offset) > _CLOCKS_PARTED:
                offset = self._clock_offset()
                for execution in self.executions.values():
                    execution.map_deadlines()

    def _clock_offset(self) -> float:
        return self.connection.now() / 1000 - current_time()

    # Messages

    async def _receive(self) -> None:
        with suppress(EndOfStream, ClosedResourceError):
            while True:
                self._handle(await self.connection.messages.receive())

    def _handle(self, message: Message) -> None:
        match message:
            case Execute(task_id, version):
                if task_id not in self.executions and task_id not in self._taking:
                    self._taking.add(task_id)
                    self._crew.spawn(self._take, task_id, version, name=f"resonate take {task_id}")
            case Unblock(promise):
                # One that says "pending" is not what it claims to be; what it is about stays subscribed to.
                if not promise.pending:
                    self.waiting.notify(promise)

    async def register_listener(self, id: str, execution: Execution | None = None) -> Promise:
        """Ask to be told when `id` settles. Its record tells whether it has already.

        Raises:
            NotFound: there is no such promise.
        """
        request = RegisterListener(awaited=id, address=self.identity.unicast)
        response = await (self.connection.request(request) if execution is None else execution.request(request))
        return promise_of(request, response, id)

    # Tasks

    async def _take(self, id: str, version: int) -> None:
        """Acquire a task that a message told of, and run it."""
        try:
            request = TaskAcquire(id=id, version=version, pid=self.identity.holder, ttl=self.ttl_ms)
            response = await self.connection.request(request)
            if response.status == 200:
                await self._accept(response)
        except Exception:
            logger.exception("task.take_failed id=%s", id)
            # What is given back is sent here again, and that message is not a double.
            self._taking.discard(id)
            await self._leases.look_for(id, self._runs)
        finally:
            self._taking.discard(id)

    async def _accept(self, response: Response) -> Execution | None:
        """Run the task that was acquired. One that this program cannot run is handed back, and None returned."""
        task, promise = response.task, response.promise
        assert task is not None
        assert promise is not None
        if task.state is not TaskState.ACQUIRED or promise.timer:
            return None
        try:
            call = self.codec.decode_call(promise.param)
            function = self.registry.get(call.func, 1 if call.version is None else call.version)
            args, kwargs = bind(function, self.codec, call)
        except (NotRegistered, DecodeError, InvalidArgument) as exc:
            # Not at once: it would be sent here again immediately.
            self._crew.spawn(self._leases.hand_back, task.id, task.version, exc, name=f"resonate decline {task.id}")
            return None
        history = await self._history(task, response.preload)
        if self.draining:
            await self._leases.release(task.id, task.version)
            return None
        return self._start(task, promise, function, tuple(args), kwargs, history)

    async def _history(self, task: TaskRecord, preload: tuple[Promise, ...]) -> History:
        """What is recorded below the root: the local part came with the lease, the rest is one range scan."""
        if task.version <= 1:
            return History.of(preload)
        remote = [record async for record in scan(self.connection, f"{task.id}.")]
        return History.of(preload, remote)

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
        )
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
        self._crew.spawn(self._run, execution, name=f"resonate {task.id}")
        return execution

    async def _run(self, execution: Execution) -> None:
        try:
            await self._run_code(execution)
            if execution.dropped is Drop.HALTED:
                await self._halt(execution)
        finally:
            del self.executions[execution.id]
            execution.ended.set()
        if execution.dropped is Drop.CRASHED:
            await self._recover(execution)
        else:
            self._leases.ended(execution.id)

    @staticmethod
    async def _run_code(execution: Execution) -> None:
        try:
            await execution.run()
        except Exception as exc:  # noqa: BLE001 - an error of the engine's own is a crash of this execution, not of all
            execution.drop(Drop.CRASHED, exc)

    async def _halt(self, execution: Execution) -> None:
        assert isinstance(execution.error, NonDeterminismError)
        logger.error("execution.halted id=%s %s", execution.id, execution.error)
        await self._leases.insist(TaskHalt(id=execution.id))
        self._halted[execution.id] = execution.error
        self.waiting.wake()

    async def _recover(self, execution: Execution) -> None:
        """The engine itself failed under this execution: hand it back after a while, to be tried again."""
        logger.error("execution.crashed id=%s", execution.id, exc_info=execution.error)
        await self._leases.hand_back(execution.id, execution.version, repr(execution.error))

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
            self._crew.spawn(self._leases.look_for, create.id, self._runs, name=f"resonate look for {create.id}")
            raise

    async def settled(self, id: str, execution: Execution | None) -> Promise:
        """Wait until `id` has settled, and return its record.

        Raises:
            NonDeterminismError: its replay here has been halted.
            NotRunning: the worker stops before that.
        """
        if execution is not None:
            crash = await self._end_of(execution)
            if not execution.root.pending:
                return execution.root.record
            if crash is not None:
                raise crash
        return await self._settled_elsewhere(id)

    async def _end_of(self, execution: Execution) -> Exception | None:
        """Wait until an execution runs here no more. Gives what it crashed with, if that is news: it is tried again."""
        crash: BaseException | None = None
        while not execution.ended.is_set():
            self._check_halted(execution.id)
            await self.waiting.wait(execution.ended)
            crash = execution.error if execution.dropped is Drop.CRASHED else None
        self._check_halted(execution.id)
        return crash if isinstance(crash, Exception) else None

    async def _settled_elsewhere(self, id: str) -> Promise:
        with self.waiting.inbox(id) as inbox:
            record = await self.register_listener(id)
            while record.pending:
                self._check_halted(id)
                await self.waiting.wait(inbox.changed)
                record = inbox.take() or record
            return record

    def _check_halted(self, id: str) -> None:
        error = self._halted.get(id)
        if error is not None:
            raise NonDeterminismError(*error.args)

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
        self._halted.pop(id, None)

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
            await self.end(id)
        return record

    async def end(self, id: str) -> None:
        """End the local code of a promise that was settled from outside, and cancel every pending descendant.

        In id order; detached subtrees are left alone.
        """
        await self._end_local(id)
        for execution in self.executions.values():
            execution.end_call(id)
        value = self.codec.encode({"by": "parent"})
        for record in await descendants(self.connection, id):
            if record.pending:
                await self.connection.request(PromiseSettle(id=record.id, state=PromiseState.CANCELED, value=value))
                await self._end_local(record.id)

    async def _end_local(self, id: str) -> None:
        execution = self.executions.get(id)
        if execution is not None:
            execution.drop(Drop.SETTLED)
            await execution.ended.wait()
