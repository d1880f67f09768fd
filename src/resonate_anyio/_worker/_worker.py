"""`Worker`: everything that one `Resonate` object runs between the start and the end of its `async with` block.

This module puts the parts of a worker together. Each part receives the objects that it needs and the port `Services`,
which the worker implements. The parts do not import this module.

Every execution and every background task runs in a task under a shield of its own. If the scope around the `async
with` block is cancelled, the block ends, and its exit stops the worker in order (see `_shutdown`).
"""

from __future__ import annotations

import math
import random as random_module
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from anyio import CancelScope, CapacityLimiter, create_task_group
from attrs import define, field

from .._concurrency._protection import protect_package
from .._concurrency._supervisor import Supervisor
from .._concurrency._tasks import RoundSnapshot
from .._concurrency._threads import Threads
from .._execution._services import Event as Report
from .._observe import Observers
from .._requests._addresses import any_of, nowhere
from .._requests._requester import Requester
from .._requests._subscriptions import Subscriptions
from .._requests._timer_promises import TimerPromises
from .._workflow._host import Facilities
from .._workflow._lanes import execution_in
from ._acquisition import Acquisition
from ._cascade import CancelCascade
from ._client_requests import ClientRequests
from ._leases import Leases
from ._log import ExecutionLog, logger as execution_logger
from ._membership import Membership
from ._messages import Messages
from ._rechecks import Rechecks, watch_clocks
from ._residency import Residency
from ._results import Results
from ._runner import Runner
from ._sentinel import Sentinel
from ._short_steps import ShortSteps
from ._shutdown import Shutdown

if TYPE_CHECKING:
    from anyio import Event

    from .._api._context import Context
    from .._codec import Codec
    from .._concurrency._tasks import TaskSnapshot
    from .._execution._execution import Execution
    from .._functions._dependencies import Dependencies
    from .._functions._registry import Registry
    from .._protocol import Promise, TaskRecord
    from .._workflow._frame import Frame
    from .._workflow._presence import Young
    from ..abc import Connection, Identity, Network
    from ._settings import Settings


@define(eq=False, kw_only=True, repr=False)
class Worker:
    """See the module's docstring.

    Attributes:
        settings: the configuration of the `Resonate` object.
        network: the network that the worker is connected to.
        started_as: the identity that this process had at the start.
        connection: the connection that was opened at the start. There may be a second one (see `Membership`).
        supervisor: owns the tasks of this worker.
        registry: the registered functions.
        codec: encodes arguments and outcomes.
        dependencies: the objects that durable functions ask for by type.
        make_context: makes the `Context` of a run of a workflow.
        executions: the executions in this process, by the ids of their roots.
        subscriptions: the waits of this worker.
        requester: sends requests again until they are answered.
        timer_promises: creates promises whose deadline fires by itself.
        facilities: what runs of functions use.
        acquisition: takes tasks.
        results: waits for outcomes outside of durable functions.
        rechecks: asks again for promises that are waited for.
        messages: handles the messages of the server.
        membership: the identity of this process, and its place in a group.
        client_requests: what clients ask for.
    """

    settings: Settings
    network: Network
    started_as: Identity
    connection: Connection
    supervisor: Supervisor
    registry: Registry
    codec: Codec
    dependencies: Dependencies
    make_context: Callable[[Frame], Context]
    executions: dict[str, Execution] = field(factory=dict, init=False)
    subscriptions: Subscriptions = field(factory=Subscriptions, init=False)
    requester: Requester = field(init=False)
    timer_promises: TimerPromises = field(init=False)
    facilities: Facilities = field(init=False)
    acquisition: Acquisition = field(init=False)
    results: Results = field(init=False)
    rechecks: Rechecks = field(init=False)
    messages: Messages = field(init=False)
    membership: Membership = field(init=False)
    client_requests: ClientRequests = field(init=False)
    _sentinel: Sentinel = field(init=False)
    _snapshot: RoundSnapshot = field(factory=lambda: RoundSnapshot(execution_in), init=False)
    _leases: Leases = field(init=False)
    _residency: Residency = field(init=False)
    _short_steps: ShortSteps = field(init=False)
    _cascade: CancelCascade = field(init=False)
    _runner: Runner = field(init=False)
    _shutdown: Shutdown = field(init=False)
    _stop_heartbeats: Callable[[], None] = field(default=lambda: None, init=False)

    def __attrs_post_init__(self) -> None:
        self._make_lower_parts()
        self._make_parts()

    def _make_lower_parts(self) -> None:
        """Make the objects of lower packages, and the leases."""
        observers = Observers(self.settings.observers, ExecutionLog(), execution_logger)
        if self.settings.observers:
            # Without observers, neither this class nor those of the events are imported.
            from .._requests._observed import ObservedConnection  # noqa: PLC0415

            self.connection = ObservedConnection(self.connection, observers)
        self._sentinel = Sentinel(self.subscriptions.loop_ends)
        self.requester = Requester(self.connection, self.subscriptions)
        self.timer_promises = TimerPromises(self.connection.now)
        self._short_steps = ShortSteps(self)
        self._leases = Leases(
            self.connection,
            self.started_as.holder,
            self.subscriptions,
            self.requester,
            self.ttl_ms / 1000,
            self.network.request_timeout,
        )
        self.facilities = Facilities(
            codec=self.codec,
            threads=Threads(CapacityLimiter(self.settings.threads)),
            dependencies=self.dependencies,
            random=random_module.random,
            backoff=self.subscriptions.backoff,
            make_context=self.make_context,
            find_function=self.registry.find,
            own_group=any_of(self.settings.group),
            nowhere=nowhere(self.settings.group),
            observers=observers,
            short_steps=self._short_steps.begun,
            one_request=self._one_request,
            pid=self.settings.pid,
        )

    @property
    def _one_request(self) -> bool:
        # The engine of this process has no worker of an earlier version beside, which could not read the records.
        chosen = self.settings.one_request
        return self.connection.keeps_leases if chosen is None else chosen

    def _make_parts(self) -> None:
        """Make the parts of this package, each with the parts that it uses."""
        self._residency = Residency(self, self.settings, self.executions)
        self.rechecks = Rechecks(self, self.executions, self._residency.parked)
        self.results = Results(self.subscriptions, self.rechecks, self.executions)
        self._cascade = CancelCascade(self, self.executions)
        self._runner = Runner(
            services=self,
            supervisor=self.supervisor,
            executions=self.executions,
            leases=self._leases,
            residency=self._residency,
            results=self.results,
            when_ended=self._on_execution_ended,
        )
        self.acquisition = Acquisition(
            services=self,
            supervisor=self.supervisor,
            leases=self._leases,
            registry=self.registry,
            executions=self.executions,
            residency=self._residency,
            limit=self.settings.execution_limit,
            run=self._runner.start,
        )
        self.messages = Messages(self, self.rechecks)
        self.membership = Membership(
            identity=self.started_as,
            group=self.settings.group,
            network=self.network,
            connection=self.connection,
            supervisor=self.supervisor,
            subscriptions=self.subscriptions,
            messages=self.messages,
            when_registered=self.acquisition.function_registered,
        )
        self._shutdown = Shutdown(
            services=self,
            supervisor=self.supervisor,
            runner=self._runner,
            residency=self._residency,
            leases=self._leases,
            close_messages=self.membership.close_messages,
            stop_background=self._stop_background,
            grace=self.settings.grace,
        )
        self.client_requests = ClientRequests(self, self.supervisor, self.executions, self._cascade, self.results)

    # Life

    @classmethod
    @asynccontextmanager
    async def open(cls, network: Network, identity: Identity, **parts: Any) -> AsyncIterator[Worker]:
        """Run a worker while the block runs. Leaving the block stops it (see `stop`).

        Args:
            network: the network to connect to.
            identity: who connects. A process without functions is a client, in a group of its own.
            parts: the other arguments of `Worker`.
        """
        protect_package()
        async with network.connect(identity) as connection, create_task_group() as tasks:
            worker = cls(
                network=network, started_as=identity, connection=connection, supervisor=Supervisor(tasks), **parts
            )
            worker._start_background()
            try:
                await worker._sentinel.started()
                yield worker
            finally:
                worker._sentinel.on_exit()
                with CancelScope(shield=True):
                    await worker.stop()

    def _start_background(self) -> None:
        name = f"resonate {self.identity.pid}"
        self.background(self._sentinel.run, name=f"{name} sentinel")
        self.background(self.messages.receive, self.connection, name=f"{name} messages")
        self.background(self.membership.run, name=f"{name} functions")
        self.background(self._residency.run, name=f"{name} residency")
        self.background(self._short_steps.run, name=f"{name} short steps")
        self.background(self.rechecks.run_deadlines, name=f"{name} deadlines")
        self.background(watch_clocks, self, self.executions, name=f"{name} clocks")
        if self.connection.recheck < math.inf:
            self.background(self.rechecks.run_periodically, name=f"{name} recheck")
        if not self.connection.keeps_leases:
            # An engine in this process keeps the leases itself.
            from ._heartbeats import HeartbeatPlan, start_heartbeats  # noqa: PLC0415

            plan = HeartbeatPlan(
                leases=self._leases,
                connection=self.connection,
                holder=self.identity.holder,
                ttl=self.ttl_ms / 1000,
                observers=self.facilities.observers,
            )
            self._stop_heartbeats = start_heartbeats(
                plan, self.supervisor, self.subscriptions, self._check_leases, name=f"{name} heartbeats"
            )

    def _check_leases(self) -> None:
        for execution in list(self.executions.values()):
            if not execution.lease.certain:
                execution.suspension.verify_lease()

    def _on_execution_ended(self) -> None:
        self._shutdown.look_again()
        self.acquisition.admission.admit()

    def _stop_background(self) -> None:
        self._stop_heartbeats()
        self._sentinel.dismiss()

    @property
    def stopped(self) -> Event:
        """Set when nothing of the worker runs any more."""
        return self._shutdown.stopped

    async def stop(self) -> None:
        """Stop in order, and return when that is done. See `Shutdown.stop`."""
        await self._shutdown.stop()

    def begin_to_stop(self) -> None:
        """Begin to stop, if that has not begun."""
        self._shutdown.begin()

    def hurry(self) -> None:
        """Stop without further grace. See `Shutdown.hurry`."""
        self._shutdown.hurry()

    def __repr__(self) -> str:
        return f"<Worker {self.identity.group}/{self.identity.pid} with {len(self.executions)} executions>"

    # The port of executions: see `Services`

    @property
    def identity(self) -> Identity:
        return self.membership.identity

    @property
    def young(self) -> Young:
        return self._residency.young

    @property
    def separator(self) -> str:
        return self.connection.dialect.separator

    @property
    def ttl_ms(self) -> int:
        return self.settings.ttl_ms

    @property
    def draining(self) -> bool:
        return self.subscriptions.stopping

    @property
    def torn_down(self) -> bool:
        return self._sentinel.torn_down

    def report(self, event: Report, execution: Execution) -> None:
        match event:
            case Report.STIRRED:
                self._residency.on_wait()
            case Report.PARKED:
                self._residency.on_parked(execution)
                self.acquisition.admission.admit()
            case Report.NOT_PARKED:
                self._residency.on_not_parked(execution)
            case Report.RESUMING:
                self._residency.on_resuming(execution)
            case Report.RESUMED:
                self._residency.on_resumed(execution)

    def falls_asleep(self, execution: Execution, due_ms: int) -> None:
        self._residency.on_sleep(execution, due_ms)

    def task_snapshot(self) -> TaskSnapshot:
        return self._snapshot.take()

    def background(self, func: Callable[..., Awaitable[None]], *args: object, name: str) -> None:
        self.supervisor.start_background(func, *args, name=name)

    def acquire(self, id: str, version: int) -> None:
        self.acquisition.handle_execute(id, version)

    async def release(self, id: str, version: int) -> None:
        await self._leases.release(id, version)

    def is_mine(self, task: TaskRecord | None, version: int) -> bool:
        return self._leases.is_mine(task, version)

    async def register_listener(self, id: str, execution: Execution) -> Promise:
        return await self.rechecks.register_listener(id, execution)

    def ask_at_deadline(self, record: Promise) -> None:
        self.rechecks.ask_at_deadline(record)

    async def recheck(self, id: str) -> None:
        await self.rechecks.recheck(id)

    def cancel_below_later(self, id: str) -> None:
        self._cascade.start(id)

    async def cancel_below(self, id: str) -> None:
        await self._cascade.run(id)

    def settled_here(self, record: Promise) -> None:
        self._cascade.note_settlement(record)
