"""`Worker`: everything that one `Resonate` object runs between the start and the end of its `async with` block.

It receives messages, takes the tasks that it is told of, runs their executions and tells those who wait what came of
the promises they wait for. Each execution runs in a task of its own under a shield of its own: a cancelled host scope
ends the block, whose exit then puts everything away in order (`stop`), and nothing outlives it.
"""

from __future__ import annotations

import math
import random as random_module
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from anyio import CancelScope, CapacityLimiter, ClosedResourceError, EndOfStream, Event, create_task_group
from anyio.lowlevel import EventLoopToken, checkpoint, current_token
from attrs import define, evolve, field

from .._codec import Codec
from .._concurrency._cancellation import Teardown
from .._concurrency._interrupts import interrupt_in
from .._concurrency._protection import protect_package
from .._concurrency._supervisor import Supervisor, all_begun
from .._concurrency._tasks import Census, after_this_round, call_in_loop
from .._concurrency._threads import Threads
from .._errors import NetworkError, NonDeterminismError, NotFound, NotRunning, ResonateError, UsageError
from .._execution import _log
from .._execution._execution import Execution
from .._execution._services import Event as Report
from .._functions._dependencies import Dependencies
from .._functions._function import Registry
from .._ids import SEPARATORS
from .._protocol import (
    EMPTY,
    Execute,
    Message,
    Promise,
    PromiseGet,
    PromiseSettle,
    PromiseState,
    RegisterListener,
    Request,
    Response,
    TaskContinue,
    TaskHalt,
    TaskRecord,
    Unblock,
    Value,
)
from .._requests._addresses import any_of, nowhere
from .._requests._queries import get_promise, promise_of, refusal
from .._requests._requester import Requester
from .._requests._subscriptions import Subscriptions
from .._requests._timer_promises import TimerPromises
from .._workflow._frame import Frame
from .._workflow._host import Drop, Facilities
from .._workflow._lanes import execution_in
from .._workflow._presence import Young
from ..abc import Connection, Gap, Identity, Network
from ._acquisition import Acquisition
from ._cascade import CancelCascade
from ._heartbeats import LoopHeart, Schedule, ThreadHeart
from ._leases import Leases
from ._residency import Residency
from ._results import Results
from ._settings import Settings
from ._shutdown import Shutdown

if TYPE_CHECKING:
    from .._api._context import Context

_UNLISTENABLE = frozenset({422})
"""The answer of servers that have no listeners for promises which only an execution itself settles."""

_ENDS: Final = {
    PromiseState.RESOLVED: "it has completed",
    PromiseState.REJECTED: "it has failed",
    PromiseState.CANCELED: "it was cancelled",
    PromiseState.TIMEDOUT: "its deadline has passed",
}

_SETTLED_BY: Final = "resonate-anyio:settled-by"
"""Header of a value: which request from outside has settled the promise with it."""


@define(eq=False, kw_only=True, repr=False)
class Worker:
    """See the module's docstring.

    Attributes:
        identity: who it is. Without functions it is a client, in a group of its own (see `registered`).
        settings: what the `Resonate` object was configured with.
        request_timeout: seconds after which a request that was not answered has no effect any more.
        interrupted: executions that were dropped because the program ends. Their leases are released by the stop.
    """

    identity: Identity
    settings: Settings
    network: Network
    connection: Connection
    registry: Registry
    codec: Codec
    dependencies: Dependencies
    request_timeout: float = 0.0
    make_context: Callable[[Frame], Context]
    random: Callable[[], float] = random_module.random
    threads: Threads = field(init=False)
    executions: dict[str, Execution] = field(factory=dict, init=False)
    interrupted: list[Execution] = field(factory=list, init=False)
    subscriptions: Subscriptions = field(factory=Subscriptions, init=False)
    stopped: Event = field(factory=Event, init=False)
    requester: Requester = field(init=False)
    timer_promises: TimerPromises = field(init=False)
    leases: Leases = field(init=False)
    residency: Residency = field(init=False)
    young: Young = field(init=False)
    cascade: CancelCascade = field(init=False)
    facilities: Facilities = field(init=False)
    results: Results = field(init=False)
    acquisition: Acquisition = field(init=False)
    _shutdown: Shutdown = field(init=False)
    _supervisor: Supervisor = field(init=False)
    _emptied: Event = field(factory=Event, init=False)
    _teardown: Teardown | None = field(default=None, init=False)
    _census: Census | None = field(default=None, init=False)
    _watched: Event = field(factory=Event, init=False)
    _lost: bool = field(default=False, init=False)
    _putting_away: bool = field(default=False, init=False)
    _stop_heart: Callable[[], None] = field(default=lambda: None, init=False)
    _membership: Connection | None = field(default=None, init=False)
    _joining: bool = field(default=False, init=False)
    _joined: Event = field(factory=Event, init=False)
    _token: EventLoopToken = field(factory=current_token, init=False)
    _new_functions: deque[str] = field(factory=deque, init=False)
    _news: Event = field(factory=Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.threads = Threads(CapacityLimiter(self.settings.threads))
        self.requester = Requester(self.connection, self.subscriptions)
        self.timer_promises = TimerPromises(self.connection.now)
        self.leases = Leases(
            self.connection,
            self.identity.holder,
            self.subscriptions,
            self.requester,
            self.ttl_ms / 1000,
            self.request_timeout,
        )
        self.facilities = Facilities(
            codec=self.codec,
            threads=self.threads,
            dependencies=self.dependencies,
            random=self.random,
            backoff=self.subscriptions.backoff,
            make_context=self.make_context,
            find_function=self.registry.find,
            own_group=any_of(self.settings.group),
            nowhere=nowhere(self.settings.group),
        )
        self.residency = Residency(self, self.settings)
        self.young = self.residency.young
        self.cascade = CancelCascade(self)
        self.results = Results(self)
        self.acquisition = Acquisition(self, self.settings.execution_limit)
        self._shutdown = Shutdown(self)

    # Life

    @classmethod
    @asynccontextmanager
    async def open(cls, network: Network, identity: Identity, **settings: Any) -> AsyncIterator[Worker]:
        """A worker that runs while the block does. Leaving the block stops it (see `stop`)."""
        protect_package()
        async with network.connect(identity) as connection, create_task_group() as tasks:
            timeout = network.request_timeout
            worker = cls(identity=identity, network=network, connection=connection, request_timeout=timeout, **settings)
            worker._supervisor = Supervisor(tasks)
            worker._begin()
            try:
                with CancelScope(shield=True):
                    await worker._watched.wait()
                yield worker
            finally:
                worker._lost = not worker._watched.is_set()
                with CancelScope(shield=True):
                    await worker.stop()

    def _begin(self) -> None:
        name = f"resonate {self.identity.pid}"
        self.background(self._stand_by, name=f"{name} sentinel")
        self.background(self._receive, self.connection, name=f"{name} messages")
        self.background(self._hear_of_functions, name=f"{name} functions")
        self.background(self.residency.run, name=f"{name} residency")
        self.background(self.residency.watch_clocks, name=f"{name} clocks")
        if self.connection.recheck < math.inf:
            self.background(self.residency.recheck, name=f"{name} recheck")
        if not self.connection.keeps_leases:
            self._begin_heartbeats(f"{name} heartbeats")

    def _begin_heartbeats(self, name: str) -> None:
        ttl = self.ttl_ms / 1000
        schedule = Schedule(leases=self.leases, connection=self.connection, holder=self.identity.holder, ttl=ttl)
        self.leases.doubted = self._look_at_leases
        send = self.connection.blocking_request
        if send is None:
            heart = LoopHeart(schedule, self.connection, self.subscriptions)
            self.background(heart.run, name=name)
            self.leases.enrolled = heart.nudge
        else:
            thread = ThreadHeart(schedule, send, ttl, name)
            self.leases.enrolled = thread.nudge
            self._stop_heart = thread.stop

    def _look_at_leases(self) -> None:
        for execution in list(self.executions.values()):
            if not execution.lease.certain:
                execution.suspension.doubt()

    def __repr__(self) -> str:
        return f"<Worker {self.identity.group}/{self.identity.pid} with {len(self.executions)} executions>"

    def background(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        """Do a work of the engine's own in a task of its own."""
        self._supervisor.start_background(func, *args, name=name)

    def joined(self) -> AbstractContextManager[None]:
        """Count what another task does in the block as work of this worker's."""
        return self._supervisor.joined()

    @property
    def ttl_ms(self) -> int:
        """The length of a lease in milliseconds."""
        return self.settings.ttl_ms

    @property
    def grace(self) -> float:
        """Seconds that running leaves are given when the worker stops."""
        return self.settings.grace

    @property
    def separator(self) -> str:
        """What joins the id of a root and what is below it, on this server."""
        return self.connection.dialect.separator

    @property
    def separators(self) -> Sequence[str]:
        """The same, and what other SDKs may use: a server that does not care lets each have its own."""
        others = self.connection.dialect.origins_mix and not self.connection.keeps_leases
        return (self.separator, *(SEPARATORS - {self.separator} if others else ()))

    @property
    def draining(self) -> bool:
        """Whether it is being stopped: no durable call starts any more."""
        return self.subscriptions.stopping

    async def stop(self) -> None:
        """Put everything away, in order (see `_shutdown`). A second call waits for the first.

        The work is done by a task of the worker's own: whoever waits here may be interrupted, and it goes on.
        """
        self.begin_to_stop()
        with CancelScope(shield=True):
            await all_begun()
            # If the program was interrupted, the task that is to do it may never begin.
            await self._put_away()
            await self.stopped.wait()

    def begin_to_stop(self) -> None:
        """Begin to put everything away, if that has not begun."""
        if not self.draining:
            self.subscriptions.begin_to_stop()
            self._supervisor.start_last(self._put_away, name=f"resonate {self.identity.pid} stop")

    def hurry(self) -> None:
        """Stop with no more grace, and no waiting for code that does not end before the other leases are released."""
        self._shutdown.hurry()

    async def _put_away(self) -> None:
        if self._putting_away:
            return
        self._putting_away = True
        try:
            await self._shutdown.run()
        except BaseException:
            # The program was interrupted once more: what is left to do is done in a hurry.
            self.hurry()
            await self._shutdown.run()
            raise
        finally:
            # Whatever has gone wrong, those who wait for the end are not to wait for ever.
            for execution in list(self.executions.values()):
                execution.drop(Drop.UNLOADED)
            self._stop_heart()
            self.subscriptions.stop()
            self._emptied.set()
            try:
                await self._supervisor.wait_idle()
                await self._shutdown.release_idle()
            finally:
                self.stopped.set()

    # What executions need (see `Services`)

    def report(self, event: Report, execution: Execution) -> None:
        match event:
            case Report.STIRRED:
                self.residency.stirred()
            case Report.PARKED:
                self.residency.parked(execution)
            case Report.NOT_PARKED:
                self.residency.not_parked(execution)
            case Report.RESUMING:
                self.residency.resuming(execution)
            case Report.RESUMED:
                self.residency.resumed(execution)

    def falls_asleep(self, execution: Execution, due_ms: int) -> None:
        self.residency.falls_asleep(execution, due_ms)

    def acquire(self, id: str, version: int) -> None:
        self.acquisition.sent_for(id, version)

    async def release(self, id: str, version: int) -> None:
        await self.leases.release(id, version)

    def is_mine(self, task: TaskRecord | None, version: int) -> bool:
        return self.leases.is_mine(task, version)

    def cancel_below_later(self, id: str) -> None:
        self.cascade.begin(id)

    async def cancel_below(self, id: str) -> None:
        await self.cascade.end(id)

    def settled_here(self, record: Promise) -> None:
        self.cascade.settled(record)

    async def _stand_by(self) -> None:
        self._teardown = Teardown()
        self._watched.set()
        await self._emptied.wait()

    def census(self) -> Census:
        """All tasks, as of this round of the event loop. To count them takes milliseconds if there are thousands."""
        if self._census is None:
            self._census = Census(execution_in)
            after_this_round(self._forget_census)
        return self._census

    def _forget_census(self) -> None:
        self._census = None

    @property
    def torn_down(self) -> bool:
        """Whether the event loop is being taken down: what is cancelled now is cancelled by nobody that counts."""
        # It may have begun before the task that would tell.
        return self._lost or (self._teardown is not None and self._teardown.begun)

    # Messages

    async def _receive(self, connection: Connection) -> None:
        with suppress(EndOfStream, ClosedResourceError):
            while True:
                message = await connection.messages.receive()
                self._handle(message)

    async def close_messages(self) -> None:
        """Receive nothing more: others are sent what is meant for any worker of the group."""
        await self.connection.messages.aclose()
        if self._membership is not None:
            await self._membership.messages.aclose()

    def _handle(self, message: Message | Gap) -> None:
        match message:
            case Gap():
                self.background(self.residency.recheck_all, name=f"resonate {self.identity.pid} gap")
            case Execute(task_id, version):
                self.acquisition.sent_for(task_id, version)
            case Unblock(promise):
                # One that says "pending" is not what it claims to be; what it is about stays subscribed to.
                if not promise.pending:
                    self.subscriptions.notify(promise)

    # The group

    def registered(self, name: str) -> None:
        """A function of that name was registered, be it by another thread, or by code that is no task.

        The first function makes a worker of a client.
        """
        self._new_functions.append(name)
        # A loop that is closed has nothing to do with it any more.
        with suppress(RuntimeError):
            call_in_loop(self._token.native_token, self._stir_news)

    def _stir_news(self) -> None:
        self._news.set()

    async def _hear_of_functions(self) -> None:
        with suppress(NotRunning):
            while True:
                self._news = Event()
                while self._new_functions:
                    name = self._new_functions.popleft()
                    if not self.draining:
                        self._begin_work()
                        self.acquisition.registered(name)
                await self.subscriptions.wait(self._news)

    async def working(self) -> None:
        """Wait until it receives what is meant for its group, if there was any function when it was last asked."""
        self._begin_work()
        while self._joining and not self._joined.is_set():
            await self.subscriptions.wait(self._joined)

    def _begin_work(self) -> None:
        if self.identity.group != self.settings.group and not self._joining:
            self._joining = True
            self.background(self._join_group, name=f"resonate {self.identity.pid} group")

    async def _join_group(self) -> None:
        """Take part in the group as well, with a connection of its own: what was told to the client still comes."""
        identity = evolve(self.identity, group=self.settings.group)
        try:
            async with self.network.connect(identity) as connection:
                self._membership, self.identity = connection, identity
                self._joined.set()
                if not self.draining:
                    await self._receive(connection)
        finally:
            self._joined.set()

    async def recheck(self, id: str) -> None:
        """Ask once more for what is waited for. Whoever waits is told if it has settled."""
        request = RegisterListener(awaited=id, address=self.identity.unicast)
        response = await self.requester.insist(request)
        if response is not None and response.status in _UNLISTENABLE:
            response = await self.requester.insist(PromiseGet(id=id))
        if response is not None and response.promise is not None and not response.promise.pending:
            self.subscriptions.notify(response.promise)

    def ask_at_deadline(self, record: Promise) -> None:
        """Ask for a promise that is waited for when its deadline has come, unless the server says so by itself."""
        if not self.timer_promises.fires(record):
            self.residency.ask_at(record.id, record.timeout_at)

    async def register_listener(self, id: str, execution: Execution | None = None) -> Promise:
        """Ask to be told when `id` settles. Its record tells whether it has already.

        Raises:
            NotFound: there is no such promise.
        """
        request = RegisterListener(awaited=id, address=self.identity.unicast)
        ask = self.ask if execution is None else partial(execution.request, taken=_UNLISTENABLE)
        response = await ask(request)
        if response.status in _UNLISTENABLE:
            # There will be no message: what is waited for is asked for again from time to time.
            return await get_promise(ask, id)
        return promise_of(request, response, id)

    # Executions

    def start(self, execution: Execution) -> None:
        """Run an execution whose task was acquired."""
        self.executions[execution.id] = execution
        self.young.add(execution)
        _log.started(execution)
        self._supervisor.spawn(self._run, execution, name=f"resonate {execution.id}")

    async def _run(self, execution: Execution) -> None:
        """Run an execution to its end, and do what that asks for."""
        cut_short = True
        try:
            try:
                try:
                    await execution.run()
                except Exception as exc:  # noqa: BLE001 - it is a crash of this execution, not of all
                    execution.drop(Drop.CRASHED, exc)
                except BaseException as exc:
                    execution.interrupt(exc)
                    raise
                if execution.dropped is Drop.HALTED:
                    await self._halt(execution)
            finally:
                awaited = self.results.ended(execution.id)
                self._forget(execution)
                self._shutdown.stir()
                self.acquisition.stir()
            await self._ended(execution, awaited=awaited)
            cut_short = execution.dropped is Drop.INTERRUPTED or self.torn_down
        except BaseException as exc:
            # A loop that is about to end has been left by an interrupt; another would keep it from ending in order.
            if interrupt_in(exc) is None or not self.torn_down:
                raise
        finally:
            if cut_short:
                self.interrupted.append(execution)

    async def _ended(self, execution: Execution, *, awaited: bool) -> None:
        self._tell_end(execution, awaited=awaited)
        if execution.ended_by is not None:
            # The program ends by it, whatever the code that it went through has made of it.
            raise execution.ended_by
        if execution.dropped is Drop.CRASHED:
            await self._recover(execution)
        else:
            self.leases.ended(execution.id)

    def _forget(self, execution: Execution) -> None:
        self.executions.pop(execution.id, None)
        execution.lease.end()
        self.residency.forget(execution)
        execution.ended.set()

    async def forget_unstarted(self) -> None:
        """Those whose tasks never begin, because of an interrupt, have ended as well."""
        await all_begun()
        for execution in list(self.executions.values()):
            if execution.task is None:
                execution.drop(Drop.UNLOADED)
                self._forget(execution)

    @staticmethod
    def _tell_end(execution: Execution, *, awaited: bool) -> None:
        if execution.dropped is not Drop.SETTLED and not execution.root.pending:
            # Also if it was dropped after its end was on record.
            _log.ended(execution, awaited=awaited)
            return
        match execution.dropped:
            case None | Drop.HALTED | Drop.CRASHED | Drop.INTERRUPTED:
                # The latter are told where they are seen to, with what went wrong.
                pass
            case Drop.SETTLED:
                _log.settled_outside(execution, awaited=awaited)
            case Drop.UNLOADED:
                _log.unloaded(execution)
            case Drop.LOST:
                _log.lost(execution)

    async def _halt(self, execution: Execution) -> None:
        assert isinstance(execution.error, NonDeterminismError)
        _log.halted(execution)
        await self.requester.insist(TaskHalt(id=execution.id))
        self.results.halted[execution.id] = execution.error
        self.subscriptions.wake()

    async def _recover(self, execution: Execution) -> None:
        """The engine itself failed under this execution: hand it back after a while, to be tried again."""
        _log.crashed(execution)
        await self.leases.hand_back(execution.id, execution.version, repr(execution.error))

    # For the client

    async def ask(self, request: Request) -> Response:
        """Send a request that may be sent twice, again if need be. See `Requester.ask`."""
        return await self.requester.ask(request)

    async def resume(self, id: str) -> None:
        """Let a halted task run again.

        Raises:
            NotFound: there is no such execution.
            UsageError: it is not halted.
            RequestError: the server refuses this client.
        """
        request = TaskContinue(id=id)
        response = await self.connection.request(request)
        if response.status in {404, 409}:
            raise await self._not_halted(id)
        if response.status != 200:
            raise refusal(request, response)
        self.results.halted.pop(id, None)

    async def _not_halted(self, id: str) -> ResonateError:
        """Why an execution cannot be resumed."""
        try:
            record = await get_promise(self.ask, id)
        except NotFound:
            return NotFound("execution", id)
        if record.target is None:
            return UsageError(f"{id!r} cannot be resumed: it is a promise that no function runs for")
        if record.pending:
            return UsageError(f"{id!r} cannot be resumed: it is not halted. It runs, waits, or is about to be run")
        return UsageError(
            f"{id!r} cannot be resumed: it is not halted, {_ENDS[record.state]}, which is final. To see how it ended: "
            f"await (await resonate.get({id!r})); to do its work again, run it under another id"
        )

    async def cancel(self, id: str) -> bool:
        """Settle `id` as cancelled, and tell whether that has ended it; see `settle`."""
        _, here = await self.settle(id, PromiseState.CANCELED, EMPTY)
        return here

    async def settle(self, id: str, state: PromiseState, value: Value) -> tuple[Promise, bool]:
        """Settle `id` from outside, end its local code, cancel what is pending below it.

        Returns:
            The record, and whether it was settled by this: the first settlement stands.

        Raises:
            NotFound: there is no such promise.
        """
        await checkpoint()
        # Once the promise is settled the rest has to follow, whoever loses interest.
        return await self._supervisor.run_to_completion(
            partial(self._settle, id, state, value), name=f"resonate settle {id}"
        )

    async def _settle(self, id: str, state: PromiseState, value: Value) -> tuple[Promise, bool]:
        # An answer does not say who has settled it, and the same value may be given by several, or sent twice.
        own = {_SETTLED_BY: token_hex(8)}
        request = PromiseSettle(id=id, state=state, value=evolve(value, headers={**(value.headers or {}), **own}))
        record = promise_of(request, await self.ask(request), id)
        self.cascade.settled(record)
        if state is PromiseState.CANCELED or id in self.executions:
            try:
                await self.cascade.end(id)
            except NetworkError:
                # It is settled, and the rest has to follow.
                self.cascade.begin(id)
        return record, (record.value.headers or {}).get(_SETTLED_BY) == own[_SETTLED_BY]
